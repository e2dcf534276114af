"""The metrics of a segmentation in one pass: DSC, RAVD, ASSD, MSSD, HD95 and NSD."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aide_monai.errors import InputError
from aide_monai.ignored import IGNORED, PARTIAL, annotated, as_far_as_known
from aide_monai.metrics.masks import (
    ArrayLike,
    Mask,
    Spacing,
    Steps,
    as_array,
    as_mask_pair,
    check_same_shape,
    check_spacing,
    joint_box,
    joint_crop,
)
from aide_monai.metrics.relative_volume_difference import volume_difference_percent
from aide_monai.metrics.surface_distance import Average, Edge, check_average, check_edge, cropped_distances
from aide_monai.metrics.tolerance import TOLERANCE_MM, check_tolerance


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of one binary mask against its reference.

    Both masks empty: DSC and NSD 1, the others 0. Only one empty: DSC and NSD 0, the distances inf, RAVD 100 when the
    prediction is empty and inf when the reference is.

    Attributes:
        dsc: 2 TP / (2 TP + FP + FN), 0..1.
        ravd: absolute volume difference in percent of the reference, >= 0.
        ravd_signed: (FP - FN) / (TP + FN) in percent (eq. 4), >= -100.
        assd: average symmetric surface distance in mm (eq. 5).
        mssd: maximum symmetric surface distance in mm (eq. 6).
        tp: voxels in both masks.
        fp: voxels in the prediction only.
        fn: voxels in the reference only.
        hd95: 95th percentile of the surface distances in mm, see `SurfaceDistances.percentile`.
        nsd: normalised surface distance, 0..1: share of both borders within `tolerance_mm` of the other.
        tolerance_mm: what `nsd` calls right.
    """

    dsc: float
    ravd: float
    ravd_signed: float
    assd: float
    mssd: float
    tp: int
    fp: int
    fn: int
    hd95: float
    nsd: float
    tolerance_mm: float


@dataclass(frozen=True)
class Summary:
    """Mean and spread over cases, with the number of cases it leaves out.

    Attributes:
        mean: over the finite values; NaN when there is none.
        std: sample standard deviation (n - 1) over the finite values; NaN for fewer than two.
        n: number of all values.
        n_infinite: number of infinite values, which `mean` and `std` leave out.
    """

    mean: float
    std: float
    n: int
    n_infinite: int


def segmentation_scores(
    prediction: ArrayLike,
    reference: ArrayLike,
    *,
    spacing_mm: Spacing,
    edge: Edge = "chaos",
    average: Average = "pooled",
    tolerance_mm: float = TOLERANCE_MM,
) -> SegmentationScores:
    """All scores of one binary mask, as defined by the official CHAOS evaluation.

    Args:
        prediction: (H, W) or (D, H, W), any axis order; numpy array or tensor; bool, or 0 and 1 (uint8 without a copy).
        reference: as `prediction`.
        spacing_mm: distance of voxel centres along each axis in mm, or the steps along axes that may be sheared; see
            `surface_distances`.
        edge: "chaos": no border where the image cuts a mask off; "monai": a border there.
        average: "pooled": eq. 5; "directed_means": the mean of the two directed means.
        tolerance_mm: of the NSD, at least 0; what raters of the structure differ by is a good one.

    Raises:
        InputError: masks that are not binary or differ in shape, wrong spacing, unknown option.

    Examples:
        >>> from aide_monai import segmentation_scores
        >>> scores = segmentation_scores([[1, 0, 0, 0]], [[0, 0, 1, 0]], spacing_mm=(1.0, 2.0))  # 4 mm apart
        >>> scores.dsc, scores.ravd, scores.assd, scores.mssd, scores.hd95, scores.nsd
        (0.0, 0.0, 4.0, 4.0, 4.0, 0.0)
    """
    _check_options(edge, average, tolerance_mm)
    first, second = as_mask_pair(prediction, reference)
    return _scores(first, second, check_spacing(spacing_mm, first.ndim), edge, average, tolerance_mm)


def class_scores(
    prediction: ArrayLike,
    reference: ArrayLike,
    *,
    num_classes: int,
    spacing_mm: Spacing,
    edge: Edge = "chaos",
    average: Average = "pooled",
    tolerance_mm: float = TOLERANCE_MM,
) -> dict[int, SegmentationScores]:
    """Scores of every foreground class of a label map.

    Voxels that the reference has as ``IGNORED`` are left out: there, both maps are background. So a structure of either
    that reaches into them ends, and has a border, where they begin. MONAI's metrics do so with ``ignore_index``.
    Classes that the reference has not annotated, as its partial background tells (see ``aide_monai.ignored``), have
    no score.

    Args:
        prediction: (H, W) or (D, H, W), any axis order; integers 0..num_classes - 1, 0 is the background.
        reference: as `prediction`; or ``IGNORED`` (255) where it has no verdict.
        num_classes: number of classes, the background included.
        spacing_mm: as in `segmentation_scores`, and so are `edge`, `average` and `tolerance_mm`.

    Returns:
        Scores by class, of those in 1..num_classes - 1 that are annotated; classes absent from both maps score as two
            empty masks.

    Raises:
        InputError: maps that are not integers in range or differ in shape, wrong spacing, unknown option.
    """
    _check_options(edge, average, tolerance_mm)
    maps = as_array(prediction), as_array(reference)
    known: Sequence[int] = range(1, num_classes)
    if num_classes <= PARTIAL:
        known, maps = _as_far_as_known(*maps, num_classes)
    check_same_shape(maps[0].shape, maps[1].shape)
    if maps[0].ndim not in (2, 3) or maps[0].size == 0:
        raise InputError(f"label maps have the shape {maps[0].shape}; expected (H, W) or three axes with voxels")
    for name, labels in zip(("prediction", "reference"), maps, strict=True):
        if not np.issubdtype(labels.dtype, np.integer):
            raise InputError(
                f"{name} has the dtype {labels.dtype}; expected an integer label map: round and cast it first"
            )
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 or highest >= num_classes:
            raise InputError(
                f"{name} holds labels from {lowest} to {highest}; expected 0 to {num_classes - 1} (num_classes - 1)"
            )
    spacing = check_spacing(spacing_mm, maps[0].ndim)
    box = joint_box(*maps)
    cropped = maps[0][box], maps[1][box]
    return {
        label: _scores(cropped[0] == label, cropped[1] == label, spacing, edge, average, tolerance_mm)
        for label in known
    }


def _as_far_as_known(
    prediction: npt.NDArray[Any], reference: npt.NDArray[Any], num_classes: int
) -> tuple[Sequence[int], tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """The annotated classes, and both maps, background where the reference has no verdict on the prediction."""
    if not (reference >= PARTIAL).any() or prediction.shape != reference.shape or reference.dtype.kind not in "iu":
        return range(1, num_classes), (prediction, reference)
    known = annotated(np.unique(reference).tolist(), num_classes)
    prediction, reference = as_far_as_known(prediction.astype(np.int64), reference.astype(np.int64))
    judged = reference != IGNORED
    return known, (prediction * judged, reference * judged)


def aggregate(values: Iterable[float]) -> Summary:
    """Summary of one metric over cases; infinite values are counted, never dropped silently.

    Args:
        values: one number per case; may hold inf.

    Raises:
        InputError: a value is NaN, which no metric of this package returns.
    """
    array = np.fromiter(values, dtype=np.float64)
    if np.isnan(array).any():
        raise InputError(f"value {int(np.isnan(array).argmax())} is NaN; expected finite or infinite numbers")
    finite = array[np.isfinite(array)]
    return Summary(
        mean=float(finite.mean()) if len(finite) else math.nan,
        std=float(finite.std(ddof=1)) if len(finite) > 1 else math.nan,
        n=len(array),
        n_infinite=len(array) - len(finite),
    )


def _check_options(edge: Edge, average: Average, tolerance_mm: float) -> None:
    check_edge(edge)
    check_average(average)
    check_tolerance(tolerance_mm)


def _scores(
    prediction: Mask, reference: Mask, spacing: Steps, edge: Edge, average: Average, tolerance_mm: float
) -> SegmentationScores:
    prediction, reference, spacing = joint_crop(prediction, reference, spacing)
    predicted, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    tp = int(np.count_nonzero(prediction & reference))
    difference = volume_difference_percent(predicted, true)
    if predicted and true:
        distances = cropped_distances(prediction, reference, spacing, edge)
        assd, mssd, hd95 = distances.mean(average), distances.max(), distances.percentile(95)
        nsd = distances.share_within(tolerance_mm)
    else:
        assd = mssd = hd95 = math.inf if predicted or true else 0.0
        nsd = 0.0 if predicted or true else 1.0
    return SegmentationScores(
        dsc=2 * tp / (predicted + true) if predicted or true else 1.0,
        ravd=abs(difference),
        ravd_signed=difference,
        assd=assd,
        mssd=mssd,
        tp=tp,
        fp=predicted - tp,
        fn=true - tp,
        hd95=hd95,
        nsd=nsd,
        tolerance_mm=float(tolerance_mm),
    )
