"""How much of the gap between two bounds, such as training on noisy and on clean labels, a method closes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aide_monai.errors import InputError
from aide_monai.metrics.crossed import crossed_interval

_FARTHEST = 1e6


@dataclass(frozen=True)
class GapClosure:
    """``(method - low) / (high - low)`` of the means over seeds and patients, with its interval.

    Attributes:
        value: 0 is no better than the lower bound, 1 as good as the higher one.
        low: lower end of the interval; NaN for one patient, which says nothing about others.
        high: its upper end, likewise; infinite ends where the gap itself may be none.
        confidence: its level, 0..1.
        n: number of patients.
    """

    value: float
    low: float
    high: float
    confidence: float
    n: int


def gap_closure(
    noisy: ArrayLike, method: ArrayLike, clean: ArrayLike, *, confidence: float = 0.95
) -> GapClosure | None:
    """Gap closure of a method, with an interval that holds for other seeds and other patients.

    The interval has the shares c for which ``method - low`` may be c times ``high - low``: those at which the mean of
    ``(method - low) - c (high - low)`` does not differ from 0 (Fieller's theorem, with ``crossed_test``).

    Args:
        noisy: (seeds, patients) or (patients,) values of the lower bound, larger is better; finite.
        method: the same seeds and patients in the same order.
        clean: likewise, of the higher bound.
        confidence: level of the interval.

    Returns:
        None when the higher bound is not better than the lower one, so that there is no gap to close.

    Raises:
        InputError: no patients, unequal shapes, or values that are not finite.
    """
    values = [np.atleast_2d(np.asarray(column, dtype=np.float64)) for column in (noisy, method, clean)]
    if len({column.shape for column in values}) > 1 or values[0].ndim != 2 or values[0].size == 0:
        shapes = ", ".join(str(np.shape(column)) for column in (noisy, method, clean))
        raise InputError(f"found values of the shapes {shapes}; expected the same seeds and patients in all three")
    if not np.isfinite(np.stack(values)).all():
        raise InputError("found values that are not finite; expected finite ones, such as DSC")
    gained, gap = values[1] - values[0], values[2] - values[0]
    if gap.mean() <= 0:
        return None
    value, count = float(gained.mean() / gap.mean()), gap.shape[1]
    if count == 1:
        return GapClosure(value, math.nan, math.nan, confidence, count)
    low, high = (_end(gained, gap, value, sign, confidence) for sign in (-1, 1))
    return GapClosure(value, low, high, confidence, count)


def _end(gained: NDArray[np.float64], gap: NDArray[np.float64], value: float, sign: int, confidence: float) -> float:
    """The first share, from the estimate on to one side, that the data speak against."""

    def possible(step: float) -> bool:
        mean, reach = crossed_interval(gained - (value + sign * step) * gap, confidence=confidence)
        return bool(abs(mean) <= reach)

    inside, outside = 0.0, 1e-3
    while possible(outside):
        inside, outside = outside, 2 * outside
        if outside > _FARTHEST:
            return sign * math.inf
    while outside - inside > 1e-6 * max(1.0, outside):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if possible(middle) else (inside, middle)
    return value + sign * inside
