"""Losses that return one value per sample."""

from aide_monai.losses.consistency import ConsistencyLoss
from aide_monai.losses.dice_ce import PerSampleDiceCELoss
from aide_monai.losses.per_sample import PerSampleLoss

__all__ = ["ConsistencyLoss", "PerSampleDiceCELoss", "PerSampleLoss"]
