"""Transforms: intensity and label preparation as MONAI dictionary transforms, and batched rotation and flip."""

from aide_monai.transforms.by_votes import ByVotesd
from aide_monai.transforms.intensity import NormalizeSlicesd
from aide_monai.transforms.label_noise import RandLabelNoised
from aide_monai.transforms.labels import AsClassIndicesd
from aide_monai.transforms.rotate_flip import RandomRotateFlip, RotateFlip

__all__ = ["AsClassIndicesd", "ByVotesd", "NormalizeSlicesd", "RandLabelNoised", "RandomRotateFlip", "RotateFlip"]
