"""Segmentation metrics as the CHAOS challenge defines them: DSC, RAVD, ASSD and MSSD, in physical units."""

from aide_monai.metrics.crossed import CrossedTest, crossed_test, holm
from aide_monai.metrics.gap_closure import GapClosure, gap_closure
from aide_monai.metrics.monai_metrics import (
    AverageSymmetricSurfaceDistanceMetric,
    MaximumSymmetricSurfaceDistanceMetric,
    RelativeVolumeDifferenceMetric,
    SegmentationMetrics,
)
from aide_monai.metrics.qubiq_score import QUBIQScoreMetric, qubiq_dice, qubiq_score
from aide_monai.metrics.relative_volume_difference import relative_volume_difference
from aide_monai.metrics.scores import SegmentationScores, Summary, aggregate, class_scores, segmentation_scores
from aide_monai.metrics.statistics import PairedTTest, WilcoxonTest, paired_t_test, wilcoxon_signed_rank
from aide_monai.metrics.surface_distance import SurfaceDistances, mask_border, surface_distances

__all__ = [
    "AverageSymmetricSurfaceDistanceMetric",
    "CrossedTest",
    "GapClosure",
    "MaximumSymmetricSurfaceDistanceMetric",
    "PairedTTest",
    "QUBIQScoreMetric",
    "RelativeVolumeDifferenceMetric",
    "SegmentationMetrics",
    "SegmentationScores",
    "Summary",
    "SurfaceDistances",
    "WilcoxonTest",
    "aggregate",
    "class_scores",
    "crossed_test",
    "gap_closure",
    "holm",
    "mask_border",
    "paired_t_test",
    "qubiq_dice",
    "qubiq_score",
    "relative_volume_difference",
    "segmentation_scores",
    "surface_distances",
    "wilcoxon_signed_rank",
]
