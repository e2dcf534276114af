from .crossed import CrossedTest, crossed_test, holm
from .gap_closure import GapClosure, gap_closure
from .monai_metrics import (
    AverageSymmetricSurfaceDistanceMetric,
    HausdorffDistance95Metric,
    MaximumSymmetricSurfaceDistanceMetric,
    NormalizedSurfaceDistanceMetric,
    RelativeVolumeDifferenceMetric,
    SegmentationMetrics,
)
from .qubiq_score import QUBIQScoreMetric, qubiq_dice, qubiq_score
from .relative_volume_difference import relative_volume_difference
from .scores import SegmentationScores, Summary, aggregate, class_scores, segmentation_scores
from .statistics import PairedTTest, WilcoxonTest, paired_t_test, wilcoxon_signed_rank
from .surface_distance import SurfaceDistances, mask_border, surface_distances

__all__ = [
    "AverageSymmetricSurfaceDistanceMetric",
    "CrossedTest",
    "GapClosure",
    "HausdorffDistance95Metric",
    "MaximumSymmetricSurfaceDistanceMetric",
    "NormalizedSurfaceDistanceMetric",
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
