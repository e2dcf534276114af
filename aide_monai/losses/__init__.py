"""Losses that return one value per sample."""

from aide_monai.ignored import IGNORED
from aide_monai.losses.consistency import ConsistencyLoss
from aide_monai.losses.dice_ce import PerSampleDiceCELoss
from aide_monai.losses.generalised_cross_entropy import GeneralisedCrossEntropyLoss
from aide_monai.losses.per_sample import PerSampleLoss

__all__ = ["IGNORED", "ConsistencyLoss", "GeneralisedCrossEntropyLoss", "PerSampleDiceCELoss", "PerSampleLoss"]
