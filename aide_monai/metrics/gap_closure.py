"""How much of the gap between training on noisy and on clean labels a method closes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aide_monai.errors import InputError


@dataclass(frozen=True)
class GapClosure:
    """``(method - noisy) / (clean - noisy)`` of the means over cases, with its percentile bootstrap interval.

    Attributes:
        value: 0 is no better than the noisy labels, 1 as good as the clean ones.
        low: lower end of the interval; NaN for one case, which says nothing about others.
        high: its upper end, likewise; infinite ends when resamples have no gap.
        confidence: its level, 0..1.
        n: number of cases.
    """

    value: float
    low: float
    high: float
    confidence: float
    n: int


def gap_closure(
    noisy: Sequence[float],
    method: Sequence[float],
    clean: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> GapClosure | None:
    """Gap closure of a method, by resampling cases.

    Args:
        noisy: one value per case of plain training on the noisy labels, larger is better; finite.
        method: the same cases in the same order.
        clean: likewise, of training on the clean labels.
        confidence: level of the interval.
        resamples: number of bootstrap samples.
        seed: their seed.

    Returns:
        None when clean labels are not better than noisy ones, so that there is no gap to close. Resamples without a gap
        count as infinitely good or bad.

    Raises:
        InputError: no cases, unequal numbers of cases, or values that are not finite.
    """
    values = [np.asarray(column, dtype=np.float64) for column in (noisy, method, clean)]
    if len({column.shape for column in values}) > 1 or values[0].ndim != 1 or len(values[0]) == 0:
        raise InputError(f"found {[len(column) for column in values]} values; expected the same cases in all three")
    stacked = np.stack(values)
    if not np.isfinite(stacked).all():
        raise InputError("found values that are not finite; expected finite ones, such as DSC")
    means = stacked.mean(axis=1)
    if means[2] <= means[0]:
        return None
    value, count = float((means[1] - means[0]) / (means[2] - means[0])), stacked.shape[1]
    if count == 1:
        return GapClosure(value, math.nan, math.nan, confidence, count)
    drawn = np.random.default_rng(seed).integers(0, count, (resamples, count))
    gained, gap = (stacked[1] - stacked[0])[drawn].mean(axis=1), (stacked[2] - stacked[0])[drawn].mean(axis=1)
    ratios = np.where(gap > 0, gained / np.where(gap > 0, gap, 1), np.copysign(np.inf, gained))
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, (tail, 1 - tail), method="inverted_cdf")
    return GapClosure(value, float(low), float(high), confidence, count)
