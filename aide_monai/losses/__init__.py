"""Losses that return one value per sample."""

from aide_monai.losses.consistency import ConsistencyLoss
from aide_monai.losses.dice_ce import PerSampleDiceCELoss

__all__ = ["ConsistencyLoss", "PerSampleDiceCELoss"]
