"""Transforms: intensity and label preparation as MONAI dictionary transforms, and batched augmentations."""

from aide_monai.options import COMPONENTS
from aide_monai.transforms.by_votes import ByVotesd
from aide_monai.transforms.cut_mix import CutMix, Mix
from aide_monai.transforms.intensity import NormalizeSlicesd
from aide_monai.transforms.label_noise import RandLabelNoised, corrupt
from aide_monai.transforms.labels import AsClassIndicesd, AsStoredValuesd
from aide_monai.transforms.largest_components import keep_components, largest_components
from aide_monai.transforms.random_intensity import RandomIntensity
from aide_monai.transforms.rotate_flip import RandomRotateFlip, RotateFlip

__all__ = [
    "COMPONENTS",
    "AsClassIndicesd",
    "AsStoredValuesd",
    "ByVotesd",
    "CutMix",
    "Mix",
    "NormalizeSlicesd",
    "RandLabelNoised",
    "RandomIntensity",
    "RandomRotateFlip",
    "RotateFlip",
    "corrupt",
    "keep_components",
    "largest_components",
]
