"""Significance of a difference between two methods on the same cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from aide_monai.errors import InputError


@dataclass(frozen=True)
class PairedTTest:
    """Two-sided paired t-test.

    Attributes:
        mean_difference: mean of first - second.
        low: lower end of the confidence interval of the mean difference.
        high: its upper end.
        confidence: its level, 0..1.
        t: the statistic.
        p: the two-sided P value.
        n: number of cases.
    """

    mean_difference: float
    low: float
    high: float
    confidence: float
    t: float
    p: float
    n: int


@dataclass(frozen=True)
class WilcoxonTest:
    """Two-sided Wilcoxon signed-rank test.

    Attributes:
        median_difference: median of first - second over all cases.
        statistic: the smaller of the two sums of ranks.
        p: the two-sided P value.
        n: number of cases.
        n_zero: number of cases without a difference, which the ranks leave out.
    """

    median_difference: float
    statistic: float
    p: float
    n: int
    n_zero: int


def paired_t_test(first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95) -> PairedTTest:
    """Two-sided paired t-test over cases, with the mean difference and its interval (the paper's "Statistics").

    When all differences are equal there is no spread to test against: P is 1 for no difference at all, else 0.

    Args:
        first: one value per case, finite.
        second: the same cases in the same order.
        confidence: level of the interval, between 0 and 1.

    Raises:
        InputError: fewer than two cases, unequal numbers of cases, values that are not finite, wrong `confidence`.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; expected a number between 0 and 1, such as 0.95")
    differences = _differences(first, second)
    n = len(differences)
    # The rounded mean of equal numbers can differ from them, which would make a spread of its own.
    if not np.ptp(differences):
        return _of_equal(float(differences[0]), confidence, n)
    found = stats.ttest_rel(first, second)
    interval = found.confidence_interval(confidence)
    mean = float(differences.mean())
    low, high, t, p = (float(value) for value in (interval.low, interval.high, found.statistic, found.pvalue))
    return PairedTTest(mean, low, high, confidence, t, p, n)


def _of_equal(mean: float, confidence: float, n: int) -> PairedTTest:
    """Of differences without a spread."""
    t = math.copysign(math.inf, mean) if mean else 0.0
    return PairedTTest(mean, mean, mean, confidence, t, 0.0 if mean else 1.0, n)


def wilcoxon_signed_rank(first: Sequence[float], second: Sequence[float]) -> WilcoxonTest:
    """Two-sided Wilcoxon signed-rank test over cases, for differences that are far from normal.

    P is exact for few cases. Cases without a difference are left out of the ranks and counted; when all are, P is 1.

    Args:
        first: one value per case, finite.
        second: the same cases in the same order.

    Raises:
        InputError: fewer than two cases, unequal numbers of cases, values that are not finite.
    """
    differences = _differences(first, second)
    n_zero = int(np.count_nonzero(differences == 0))
    if n_zero == len(differences):
        return WilcoxonTest(0.0, 0.0, 1.0, len(differences), n_zero)
    result = stats.wilcoxon(differences[differences != 0])
    median = float(np.median(differences))
    return WilcoxonTest(median, float(result.statistic), float(result.pvalue), len(differences), n_zero)


def _differences(first: Sequence[float], second: Sequence[float]) -> npt.NDArray[np.float64]:
    values = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if values[0].ndim != 1 or values[0].shape != values[1].shape or len(values[0]) < 2:
        raise InputError(
            f"found values of the shapes {values[0].shape} and {values[1].shape}; "
            "expected two lists of the same cases, at least two of them"
        )
    for name, column in zip(("first", "second"), values, strict=True):
        if not np.isfinite(column).all():
            case = int((~np.isfinite(column)).argmax())
            raise InputError(
                f"{name}[{case}] is {column[case]}; expected finite values: "
                "leave this case out of both lists, and say so"
            )
    return values[0] - values[1]
