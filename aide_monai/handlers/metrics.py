"""The package's metrics as handlers of any ignite or MONAI engine, by name in a bundle's config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.handlers import IgniteMetricHandler

from aide_monai.metrics import (
    AverageSymmetricSurfaceDistanceMetric,
    MaximumSymmetricSurfaceDistanceMetric,
    QUBIQScoreMetric,
    RelativeVolumeDifferenceMetric,
    SegmentationMetrics,
)


class _MetricHandler(IgniteMetricHandler):
    """Base: builds the metric and hands it to MONAI's handler."""

    metric: Callable[..., Any]

    def __init__(
        self, *, output_transform: Callable[[Any], Any] = lambda x: x, save_details: bool = True, **options: Any
    ) -> None:
        super().__init__(
            metric_fn=type(self).metric(**options), output_transform=output_transform, save_details=save_details
        )


class RelativeVolumeDifference(_MetricHandler):
    """RAVD in percent (eq. 4) of an epoch, as ``engine.state.metrics[name]``.

    Args:
        output_transform: from the engine's output to ``(y_pred, y)``, usually
            ``monai.handlers.from_engine(["pred", "label"])``; both one-hot.
        save_details: keep the value of every case in ``engine.state.metric_details[name]``.
        options: those of ``RelativeVolumeDifferenceMetric``.
    """

    metric = RelativeVolumeDifferenceMetric


class AverageSymmetricSurfaceDistance(_MetricHandler):
    """ASSD in mm (eq. 5) of an epoch, as ``engine.state.metrics[name]``.

    Args:
        output_transform: as in ``RelativeVolumeDifference``.
        save_details: likewise.
        options: those of ``AverageSymmetricSurfaceDistanceMetric``.
    """

    metric = AverageSymmetricSurfaceDistanceMetric


class MaximumSymmetricSurfaceDistance(_MetricHandler):
    """MSSD in mm (eq. 6) of an epoch, as ``engine.state.metrics[name]``.

    Args:
        output_transform: as in ``RelativeVolumeDifference``.
        save_details: likewise.
        options: those of ``MaximumSymmetricSurfaceDistanceMetric``.
    """

    metric = MaximumSymmetricSurfaceDistanceMetric


class MeanSegmentationMetrics(_MetricHandler):
    """All metrics of an epoch in one pass.

    ``engine.state.metrics`` gets "dsc", "ravd", "ravd_signed", "assd", "mssd", "hd95" and "nsd", and a dictionary of
    all under the name that the handler is attached by. For a key metric, which is one number, attach one of the single
    handlers.

    Args:
        output_transform: as in ``RelativeVolumeDifference``.
        save_details: likewise.
        options: those of ``SegmentationMetrics``.
    """

    metric = SegmentationMetrics


class QUBIQScore(_MetricHandler):
    """The QUBIQ challenge's score of an epoch, as ``engine.state.metrics[name]``.

    Args:
        output_transform: from the engine's output to ``(probability, raters)``, see ``QUBIQScoreMetric``.
        save_details: as in ``RelativeVolumeDifference``.
        options: those of ``QUBIQScoreMetric``.
    """

    metric = QUBIQScoreMetric
