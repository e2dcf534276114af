"""Handlers: everything optional about training, usable with any engine that offers what they read."""

from aide_monai.handlers.case_scores import CaseScores
from aide_monai.handlers.checkpoint import BestCheckpoint, RunCheckpoint, load_weights
from aide_monai.handlers.collapse import CollapseWarning
from aide_monai.handlers.consistency_ramp import ConsistencyRamp
from aide_monai.handlers.disagreement import Disagreement
from aide_monai.handlers.epoch_log import EpochLog
from aide_monai.handlers.finite import FiniteLosses
from aide_monai.handlers.label_correction import GlobalLabelCorrection
from aide_monai.handlers.label_quality import LabelQuality
from aide_monai.handlers.memorisation import Memorisation
from aide_monai.handlers.metrics import (
    AverageSymmetricSurfaceDistance,
    MaximumSymmetricSurfaceDistance,
    MeanSegmentationMetrics,
    QUBIQScore,
    RelativeVolumeDifference,
)
from aide_monai.handlers.progress import TrainingProgress
from aide_monai.handlers.settings import require_settings
from aide_monai.handlers.validation import Validation

__all__ = [
    "AverageSymmetricSurfaceDistance",
    "BestCheckpoint",
    "CaseScores",
    "CollapseWarning",
    "ConsistencyRamp",
    "Disagreement",
    "EpochLog",
    "FiniteLosses",
    "GlobalLabelCorrection",
    "LabelQuality",
    "MaximumSymmetricSurfaceDistance",
    "MeanSegmentationMetrics",
    "Memorisation",
    "QUBIQScore",
    "RelativeVolumeDifference",
    "RunCheckpoint",
    "TrainingProgress",
    "Validation",
    "load_weights",
    "require_settings",
]
