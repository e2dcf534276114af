"""The metrics as MONAI metrics: one-hot batches in, cumulated over iterations and ranks, reduced at the end."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction, ignore_background
from monai.utils import MetricReduction

from aide_monai.errors import InputError
from aide_monai.metrics.masks import as_array, check_same_shape
from aide_monai.metrics.relative_volume_difference import relative_volume_difference
from aide_monai.metrics.scores import Summary, aggregate, segmentation_scores
from aide_monai.metrics.surface_distance import Average, Edge, check_average, check_edge
from aide_monai.metrics.tolerance import TOLERANCE_MM, check_tolerance
from aide_monai.utils.axes import COSINE_TOLERANCE

Spacing: TypeAlias = float | Sequence[float] | Sequence[Sequence[float]] | npt.NDArray[np.floating]
Reduced: TypeAlias = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


def spacing_rows(spacing: Spacing, batch: int, axes: int) -> npt.NDArray[np.float64]:
    """One spacing per item, (batch, axes), from one number, one per axis, or one row per item; InputError otherwise."""
    try:
        return np.broadcast_to(np.asarray(spacing, dtype=np.float64), (batch, axes))
    except ValueError:
        raise InputError(
            f"spacing is {spacing}; expected one number, {axes} numbers (one per axis), or {batch} rows of these"
        ) from None


def affine_steps(batches: Sequence[torch.Tensor]) -> npt.NDArray[np.float64]:
    """Steps along the axes of each item, (B, S, axes), in mm, from the affines of MetaTensors.

    Args:
        batches: (B, C, spatial...) reference and prediction; plain tensors among them are passed over.

    Raises:
        InputError: no MetaTensor, spacings that differ by more than 0.1 percent, or other angles between the axes.
    """
    found = []
    for batch in batches:
        if isinstance(batch, MetaTensor):
            axes = batch.ndim - 2
            # A column is the step along one axis; all its rows count, also for a slice that lies obliquely in space.
            steps = np.asarray(batch.affine.cpu(), dtype=np.float64)[..., :-1, :axes]
            found.append(np.broadcast_to(steps, (len(batch), *steps.shape[-2:])))
    if not found:
        raise InputError("no spacing: found plain tensors; give MetaTensors with their affine, or spacing= in mm")
    lengths = [np.linalg.norm(steps, axis=-2) for steps in found]
    cosines = [
        np.swapaxes(steps, -1, -2) @ steps / (length[:, :, None] * length[:, None])
        for steps, length in zip(found, lengths, strict=True)
    ]
    if not all(np.allclose(lengths[0], other, rtol=1e-3, atol=0) for other in lengths):
        raise InputError(
            f"reference has the spacing {lengths[0].tolist()}, prediction {lengths[1].tolist()} mm; "
            "expected equal ones: bring both onto one grid, or give spacing= if one affine is known to be wrong"
        )
    if not all(np.allclose(cosines[0], other, rtol=0, atol=COSINE_TOLERANCE) for other in cosines):
        raise InputError(
            "reference and prediction have other angles between their axes (a gantry tilt?); expected equal ones: "
            "bring both onto one grid, or give spacing= if one affine is known to be wrong"
        )
    return found[0]


def _side_by_side(function: Callable[..., Any], *columns: Iterable[Any]) -> list[Any]:
    """The function of every row, rows in threads of their own; nearly all of the work leaves Python alone."""
    rows = list(zip(*columns, strict=True))
    if len(rows) == 1:
        return [function(*rows[0])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda row: function(*row), rows))


class MaskMetric(CumulativeIterationMetric):
    """Base of metrics that score each channel of each item by itself, items on all processors.

    Inputs are one-hot: (B, C, spatial...) tensors or lists of (C, spatial...) tensors with 0 and 1, 2D or 3D. Results
    and buffers are float64 on the CPU. No result is NaN; infinite ones (see `SegmentationScores`) make a mean infinite.

    Args:
        include_background: whether to score channel 0 when there are several.
        reduction: MONAI's "none", "mean", "sum", "mean_batch", "sum_batch", "mean_channel" or "sum_channel".
        get_not_nans: whether `aggregate` also returns MONAI's count of values.
        spacing: mm per axis for every item: one number, one per axis, or one row per item. A `spacing=` in the call
            goes before it; with neither, each item's MetaTensor affine decides, shear included.
    """

    def __init__(
        self,
        *,
        include_background: bool = False,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
        spacing: Spacing | None = None,
    ) -> None:
        super().__init__()
        self.include_background = include_background
        self.reduction = reduction
        self.get_not_nans = get_not_nans
        self.spacing = spacing

    @abstractmethod
    def _score(self, prediction: npt.NDArray[Any], reference: npt.NDArray[Any], spacing: Any) -> Any:
        """The value, or a tuple of values, of one mask pair."""

    def _spacing(self, y_pred: torch.Tensor, y: torch.Tensor, spacing: Spacing | None) -> Iterable[Any]:
        spacing = self.spacing if spacing is None else spacing
        if spacing is None:
            return affine_steps((y, y_pred))
        return spacing_rows(spacing, len(y), y.ndim - 2)

    def _compute_tensor(  # type: ignore[override]
        self, y_pred: torch.Tensor, y: torch.Tensor | None = None, *, spacing: Spacing | None = None
    ) -> torch.Tensor:
        if y is None:
            raise InputError("no reference: expected y of the same shape as y_pred")
        check_same_shape(y_pred.shape, y.shape)
        if y.ndim not in (4, 5):
            raise InputError(
                f"y has the shape {tuple(y.shape)}; expected (B, C, H, W) or (B, C, and three axes), one-hot"
            )
        rows = self._spacing(y_pred, y, spacing)
        if not self.include_background:
            y_pred, y = ignore_background(y_pred=y_pred, y=y)
        predictions, references = as_array(y_pred), as_array(y)

        def channels(prediction: npt.NDArray[Any], reference: npt.NDArray[Any], row: Any) -> list[Any]:
            return [self._score(*masks, row) for masks in zip(prediction, reference, strict=True)]

        return torch.tensor(_side_by_side(channels, predictions, references, rows), dtype=torch.float64)

    def _compute_list(  # type: ignore[override]
        self,
        y_pred: Sequence[torch.Tensor],
        y: Sequence[torch.Tensor] | None = None,
        *,
        spacing: Spacing | None = None,
    ) -> torch.Tensor:
        if y is None or len(y_pred) != len(y) or not len(y):
            raise InputError(f"found {len(y_pred)} predictions and {len(y or ())} references; expected one for each")
        spacing = self.spacing if spacing is None else spacing
        rows = [None] * len(y) if spacing is None else spacing_rows(spacing, len(y), y[0].ndim - 1)

        def item(prediction: torch.Tensor, reference: torch.Tensor, row: Any) -> torch.Tensor:
            return self._compute_tensor(prediction.detach()[None], reference.detach()[None], spacing=row)

        return torch.cat(_side_by_side(item, y_pred, y, rows))

    def _buffer(self) -> torch.Tensor:
        buffer = self.get_buffer()
        if not isinstance(buffer, torch.Tensor):
            raise InputError(f"{self} has no values to aggregate: call it on at least one batch first")
        return buffer

    def _reduce(self, values: torch.Tensor, reduction: MetricReduction | str | None) -> Reduced:
        result, not_nans = do_metric_reduction(values, reduction or self.reduction)
        return (result, not_nans) if self.get_not_nans else result

    def aggregate(self, reduction: MetricReduction | str | None = None) -> Reduced:
        """The reduced values of all batches and ranks (MONAI's order: over channels, then over items)."""
        return self._reduce(self._buffer(), reduction)


class RelativeVolumeDifferenceMetric(MaskMetric):
    """RAVD in percent (eq. 4): the absolute volume difference over the reference volume; needs no spacing.

    Args:
        signed: keep the sign: positive when the prediction is larger.
        options: `include_background`, `reduction` and `get_not_nans` of `MaskMetric`.
    """

    def __init__(self, *, signed: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.signed = signed

    def _spacing(self, y_pred: torch.Tensor, y: torch.Tensor, spacing: Spacing | None) -> Iterable[Any]:
        return [None] * len(y)

    def _score(self, prediction: npt.NDArray[Any], reference: npt.NDArray[Any], spacing: Any) -> float:
        difference = relative_volume_difference(prediction, reference)
        return difference if self.signed else abs(difference)


class SurfaceMetric(MaskMetric):
    """Base of the metrics with distances.

    Args:
        edge: as in `segmentation_scores`.
        average: as in `segmentation_scores`.
        options: those of `MaskMetric`.
    """

    def __init__(self, *, edge: Edge = "chaos", average: Average = "pooled", **options: Any) -> None:
        check_edge(edge)
        check_average(average)
        super().__init__(**options)
        self.edge = edge
        self.average = average


class AverageSymmetricSurfaceDistanceMetric(SurfaceMetric):
    """ASSD in mm (eq. 5).

    With `edge="monai"` it equals MONAI's `SurfaceDistanceMetric(symmetric=True)` wherever both masks are not empty.
    """

    def _score(self, prediction: npt.NDArray[Any], reference: npt.NDArray[Any], spacing: Any) -> float:
        scores = segmentation_scores(prediction, reference, spacing_mm=spacing, edge=self.edge, average=self.average)
        return scores.assd


class MaximumSymmetricSurfaceDistanceMetric(SurfaceMetric):
    """MSSD in mm (eq. 6).

    With `edge="monai"` it equals MONAI's `HausdorffDistanceMetric()` wherever both masks are not empty.
    """

    def _score(self, prediction: npt.NDArray[Any], reference: npt.NDArray[Any], spacing: Any) -> float:
        return segmentation_scores(prediction, reference, spacing_mm=spacing, edge=self.edge).mssd


class HausdorffDistance95Metric(SurfaceMetric):
    """HD95 in mm, see `SurfaceDistances.percentile`.

    With `edge="monai"` it equals MONAI's `HausdorffDistanceMetric(percentile=95)` wherever both masks are not empty.
    """

    def _score(self, prediction: npt.NDArray[Any], reference: npt.NDArray[Any], spacing: Any) -> float:
        return segmentation_scores(prediction, reference, spacing_mm=spacing, edge=self.edge).hd95


class NormalizedSurfaceDistanceMetric(SurfaceMetric):
    """NSD, 0..1, see `SurfaceDistances.share_within`.

    With `edge="monai"` it equals MONAI's `SurfaceDiceMetric` (without subvoxels) wherever both masks are not empty.

    Args:
        tolerance_mm: as in `segmentation_scores`.
        options: those of `SurfaceMetric`.
    """

    def __init__(self, *, tolerance_mm: float = TOLERANCE_MM, **options: Any) -> None:
        check_tolerance(tolerance_mm)
        super().__init__(**options)
        self.tolerance_mm = tolerance_mm

    def _score(self, prediction: npt.NDArray[Any], reference: npt.NDArray[Any], spacing: Any) -> float:
        options: dict[str, Any] = {"edge": self.edge, "tolerance_mm": self.tolerance_mm}
        return segmentation_scores(prediction, reference, spacing_mm=spacing, **options).nsd


class SegmentationMetrics(NormalizedSurfaceDistanceMetric):
    """DSC, RAVD, signed RAVD, ASSD, MSSD, HD95 and NSD of each channel in one pass.

    `aggregate` returns a dict by name, which ignite spreads into `engine.state.metrics`. The buffer is (items,
    channels, metrics) in the order of `names`.

    Examples:
        >>> import torch
        >>> from aide_monai import SegmentationMetrics
        >>> metrics = SegmentationMetrics()
        >>> mask = torch.zeros(1, 2, 4, 4)  # one item, background and one class
        >>> mask[:, 1, 1:3, 1:3] = 1
        >>> _ = metrics(mask, mask, spacing=1.0)
        >>> float(metrics.aggregate()["dsc"])
        1.0
    """

    names = ("dsc", "ravd", "ravd_signed", "assd", "mssd", "hd95", "nsd")

    def _score(  # type: ignore[override]
        self, prediction: npt.NDArray[Any], reference: npt.NDArray[Any], spacing: Any
    ) -> tuple[float, ...]:
        options: dict[str, Any] = {"edge": self.edge, "average": self.average, "tolerance_mm": self.tolerance_mm}
        scores = segmentation_scores(prediction, reference, spacing_mm=spacing, **options)
        return tuple(getattr(scores, name) for name in self.names)

    def aggregate(self, reduction: MetricReduction | str | None = None) -> dict[str, Reduced]:  # type: ignore[override]
        """The reduced values by name. An infinite value makes its mean infinite; `summaries` counts them."""
        values = self._buffer().unbind(dim=-1)
        return {name: self._reduce(value, reduction) for name, value in zip(self.names, values, strict=True)}

    def summaries(self) -> dict[str, list[Summary]]:
        """Mean over finite values, spread and counts by name, one `Summary` per scored channel."""
        buffer = self._buffer()
        return {
            name: [aggregate(column.tolist()) for column in buffer[..., index].unbind(dim=1)]
            for index, name in enumerate(self.names)
        }
