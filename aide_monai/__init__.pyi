from .data.case import Case
from .data.datalist import Datalist
from .data.sources.layouts import find_datalist
from .data.sources.phantom import write_phantoms
from .engines import AIDESupervisedTrainer, AIDETrainer, CoTeachingTrainer, PseudoLabelTrainer
from .errors import InputError, Problem
from .handlers import BestCheckpoint, EpochLog, GlobalLabelCorrection
from .io.readers import LocationReader
from .labels import LabelStore
from .metrics import SegmentationMetrics, segmentation_scores
from .networks import MeanNetwork, MultiStreamUNet, seeded
from .options import AIDEOptions
from .stream import AIDECacheDataset, PatchDataset, SliceDataset, load_volumes, slice_loader, volume_transforms
from .workflows.bundle import run_bundle
from .workflows.check import check_data
from .workflows.demo import run_demo
from .workflows.new_bundle import new_bundle
from .workflows.run import run_folder

__version__: str

__all__ = [
    "AIDECacheDataset",
    "AIDEOptions",
    "AIDESupervisedTrainer",
    "AIDETrainer",
    "BestCheckpoint",
    "Case",
    "CoTeachingTrainer",
    "Datalist",
    "EpochLog",
    "GlobalLabelCorrection",
    "InputError",
    "LabelStore",
    "LocationReader",
    "MeanNetwork",
    "MultiStreamUNet",
    "PatchDataset",
    "Problem",
    "PseudoLabelTrainer",
    "SegmentationMetrics",
    "SliceDataset",
    "check_data",
    "find_datalist",
    "load_volumes",
    "new_bundle",
    "run_bundle",
    "run_demo",
    "run_folder",
    "seeded",
    "segmentation_scores",
    "slice_loader",
    "volume_transforms",
    "write_phantoms",
]
