"""Is a method better for other patients and other trainings? A test over seeds and patients together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from aide_monai.errors import InputError
from aide_monai.metrics.statistics import paired_t_test

_Array = NDArray[np.float64]
_SMALLEST_P = 1e-12


@dataclass(frozen=True)
class CrossedTest:
    """Two-sided test of a mean difference over seeds and patients.

    Attributes:
        mean_difference: mean of first - second.
        low: lower end of the confidence interval of the mean difference.
        high: its upper end.
        confidence: its level, 0..1.
        p: the two-sided P value; not below 1e-12.
        seeds: number of seeds. With one, the test and interval are over patients alone and say nothing about another
            seed.
        patients: number of patients.
        by_seed: mean difference of each seed.
    """

    mean_difference: float
    low: float
    high: float
    confidence: float
    p: float
    seeds: int
    patients: int
    by_seed: tuple[float, ...]


def crossed_test(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95) -> CrossedTest:
    """Test over seeds and patients together, of a mean difference that holds for other seeds and other patients.

    Each difference is a mean, what its seed adds (other weights, other labelled cases), what its patient adds, and a
    rest; seeds and patients are random draws (a crossed random-effects model). The variance of the mean is estimated
    from the means of the seeds plus that from the means of the patients, which is rather too much than too little.
    Student's t of each has its own degrees of freedom, seeds - 1 and patients - 1, and counts by its share of the
    variance, as Cochran and Cox (1950) do for two unequal samples. A paired t-test over the patients' means over seeds
    would take the seeds that were drawn for all there are, and finds differences where there are none; a bootstrap of
    three seeds has too short intervals.

    Args:
        first: (seeds, patients) values, finite.
        second: the same seeds and patients in the same order.
        confidence: level of the interval, between 0 and 1.

    Raises:
        InputError: fewer than two patients, no seed, unequal shapes, values that are not finite, wrong ``confidence``.

    Examples:
        >>> from aide_monai.metrics import crossed_test
        >>> found = crossed_test([[0.8, 0.9, 0.7], [0.8, 0.8, 0.7]], [[0.7, 0.8, 0.7], [0.7, 0.8, 0.6]])
        >>> round(found.mean_difference, 3), found.seeds, found.patients
        (0.067, 2, 3)
    """
    values = [np.asarray(column, dtype=np.float64) for column in (first, second)]
    if values[0].shape != values[1].shape or values[0].ndim != 2 or values[0].shape[0] < 1 or values[0].shape[1] < 2:
        raise InputError(
            f"found values of the shapes {values[0].shape} and {values[1].shape}; expected (seeds, patients) of the "
            "same seeds and patients, at least one seed and two patients"
        )
    if not all(np.isfinite(column).all() for column in values):
        raise InputError("found values that are not finite; expected finite ones: leave their patients out, and say so")
    seeds, patients = values[0].shape
    differences = values[0] - values[1]
    by_seed = tuple(float(mean) for mean in differences.mean(axis=1))
    if seeds == 1:
        one = paired_t_test(values[0][0].tolist(), values[1][0].tolist(), confidence=confidence)
        return CrossedTest(one.mean_difference, one.low, one.high, confidence, one.p, seeds, patients, by_seed)
    mean, reach = crossed_interval(differences, confidence=confidence)
    p = _p_value(differences, float(mean))
    low, high = float(mean - reach), float(mean + reach)
    return CrossedTest(float(mean), low, high, confidence, p, seeds, patients, by_seed)


def crossed_interval(differences: _Array, *, confidence: float = 0.95) -> tuple[Any, Any]:
    """Mean of differences and how far its interval reaches to both sides, see ``crossed_test``.

    Args:
        differences: (..., seeds, patients); at least two of each, or one seed.
        confidence: level of the interval, between 0 and 1.

    Returns:
        Two arrays (...).

    Raises:
        InputError: wrong ``confidence``.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; expected a number between 0 and 1, such as 0.95")
    return differences.mean(axis=(-2, -1)), _reach(differences, (1 - confidence) / 2)


def _reach(differences: _Array, tail: float) -> Any:
    """Half the width of the interval that leaves a share ``tail`` out at either end."""
    seeds, patients = differences.shape[-2:]
    of_patients = differences.mean(axis=-2).var(axis=-1, ddof=1) / patients
    if seeds == 1:
        return stats.t.isf(tail, patients - 1) * np.sqrt(of_patients)
    of_seeds = differences.mean(axis=-1).var(axis=-1, ddof=1) / seeds
    whole = of_seeds + of_patients
    weighted = of_seeds * stats.t.isf(tail, seeds - 1) + of_patients * stats.t.isf(tail, patients - 1)
    return np.divide(weighted, np.sqrt(whole), out=np.zeros_like(whole), where=whole > 0)


def _p_value(differences: _Array, mean: float) -> float:
    """The level at which the interval ends at 0."""

    def beyond(log_p: float) -> float:
        return float(_reach(differences, math.exp(log_p) / 2)) - abs(mean)

    least = math.log(_SMALLEST_P)
    if mean == 0:
        return 1.0
    if beyond(least) <= 0:
        return _SMALLEST_P
    return math.exp(optimize.brentq(beyond, least, 0.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values as those of a family of tests, so that *any* false alarm of the family is as rare as one P says.

    The step-down procedure of Holm (1979), which asks nothing of how the tests depend on each other.

    Args:
        p_values: one for each test, 0..1; NaN for a test that could not be made, which stays and does not count.

    Examples:
        >>> from aide_monai.metrics import holm
        >>> [round(p, 2) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    known = [index for index, p in enumerate(p_values) if not math.isnan(p)]
    adjusted = list(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(known, key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(known) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
