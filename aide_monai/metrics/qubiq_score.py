"""The QUBIQ challenge's score of a probability map against several raters."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction
from monai.utils import MetricReduction

from aide_monai.errors import InputError
from aide_monai.metrics.masks import ArrayLike, as_array, check_same_shape

QUBIQ_THRESHOLDS = tuple(tenth / 10 for tenth in range(1, 10))


def qubiq_dice(probability: ArrayLike, raters: ArrayLike) -> npt.NDArray[np.float64]:
    """Dice at each threshold 0.1, 0.2, ..., 0.9, where both maps are binarised (>= t); 1 when both are empty.

    Args:
        probability: (spatial...) predicted probabilities, 0..1.
        raters: (R, spatial...) masks of R raters, 0 and 1, or their mean as one map in 0..1.

    Returns:
        (9,) Dice values, 0..1.

    Raises:
        InputError: shapes that do not fit, values outside 0..1, NaN.
    """
    predicted, masks = as_array(probability), as_array(raters)
    if masks.ndim < 2 or masks.size == 0:
        raise InputError(f"raters have the shape {masks.shape}; expected (raters, spatial...) with voxels")
    check_same_shape(predicted.shape, masks.shape[1:])
    for name, values in (("probability", predicted), ("raters", masks)):
        if not (values.min() >= 0 and values.max() <= 1):
            raise InputError(f"{name}: found values from {values.min()} to {values.max()}; expected 0 to 1")
    mean = masks.mean(axis=0)
    dice = []
    # Maps keep their own type: 0.7 of a float32 map is not below the threshold 0.7.
    for threshold in QUBIQ_THRESHOLDS:
        first, second = predicted >= threshold, mean >= threshold
        total = np.count_nonzero(first) + np.count_nonzero(second)
        dice.append(2 * np.count_nonzero(first & second) / total if total else 1.0)
    return np.array(dice)


def qubiq_score(probability: ArrayLike, raters: ArrayLike) -> float:
    """Mean of `qubiq_dice` over the nine thresholds, 0..1; arguments and errors as there."""
    return float(qubiq_dice(probability, raters).mean())


class QUBIQScoreMetric(CumulativeIterationMetric):
    """`qubiq_score` as a MONAI metric: `y_pred` (B, 1, spatial...) probabilities, `y` (B, R, spatial...) raters' masks.

    Lists of (1, spatial...) and (R, spatial...) tensors may differ in R. Values are float64, (B, 1), on the CPU.

    Args:
        reduction: as in MONAI's metrics.
        get_not_nans: whether `aggregate` also returns MONAI's count of values.
    """

    def __init__(self, *, reduction: MetricReduction | str = MetricReduction.MEAN, get_not_nans: bool = False) -> None:
        super().__init__()
        self.reduction = reduction
        self.get_not_nans = get_not_nans

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None or y_pred.ndim < 3 or y_pred.shape[1] != 1 or len(y_pred) != len(y):
            raise InputError(
                f"found y_pred {tuple(y_pred.shape)} and y {None if y is None else tuple(y.shape)}; expected "
                "(B, 1, spatial...) probabilities of one structure and (B, raters, spatial...) masks"
            )
        scores = [[qubiq_score(probability[0], raters)] for probability, raters in zip(y_pred, y, strict=True)]
        return torch.tensor(scores, dtype=torch.float64)

    def aggregate(
        self, reduction: MetricReduction | str | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """The reduced score of all batches and ranks."""
        buffer = self.get_buffer()
        if not isinstance(buffer, torch.Tensor):
            raise InputError(f"{self} has no values to aggregate: call it on at least one batch first")
        result, not_nans = do_metric_reduction(buffer, reduction or self.reduction)
        return (result, not_nans) if self.get_not_nans else result
