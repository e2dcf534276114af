"""What trains: volumes become a stream of slices or patches with two current labels each."""

from aide_monai.stream.cache_dataset import AIDECacheDataset
from aide_monai.stream.patch_dataset import PatchDataset
from aide_monai.stream.preprocessing import load_volumes, slice_geometry, volume_transforms
from aide_monai.stream.share_sampler import ShareBatchSampler, collate_share
from aide_monai.stream.slice_dataset import SliceDataset, slice_loader
from aide_monai.stream.trained_on import TrainedOn, require_like_training
from aide_monai.stream.training_set import TrainingSet
from aide_monai.stream.volume_cache import VolumeCache

__all__ = [
    "AIDECacheDataset",
    "PatchDataset",
    "ShareBatchSampler",
    "SliceDataset",
    "TrainedOn",
    "TrainingSet",
    "VolumeCache",
    "collate_share",
    "load_volumes",
    "require_like_training",
    "slice_geometry",
    "slice_loader",
    "volume_transforms",
]
