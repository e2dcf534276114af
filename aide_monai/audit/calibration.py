"""From measures to the probability that something is wrong, learned from mistakes that were made on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

Numbers = npt.NDArray[np.float64]

_RIDGE = 1.0
_ROUNDS = 3

_LINEAR = 3.0
"""So many spreads from the middle a measure counts in full, beyond by its logarithm."""


@dataclass(frozen=True)
class Calibration:
    """A logistic model of robustly scaled measures.

    Attributes:
        middle, spread: by which each measure is scaled, (M,).
        weights: (M,) and at the end the intercept.
        error: expected calibration error, 0..1, of models of the other half of the cases; NaN for too few to tell.
    """

    middle: Numbers
    spread: Numbers
    weights: Numbers
    error: float = float("nan")

    def __call__(self, measures: Sequence[Sequence[float]] | Numbers) -> Numbers:
        """Probability that each is wrong, (N,) in 0..1."""
        if not len(measures):
            return np.zeros(0)
        return _sigmoid(_with_one(self._scaled(np.asarray(measures, dtype=np.float64))) @ self.weights)

    def _scaled(self, measures: Numbers) -> Numbers:
        scaled = (measures - self.middle) / self.spread
        pressed: Numbers = _LINEAR * np.arcsinh(scaled / _LINEAR)
        return pressed


def calibrate(
    given: Sequence[Sequence[float]],
    spoilt: Sequence[Sequence[float]],
    *,
    expected: float,
    doubtful: float = 0.0,
    groups: tuple[Sequence[int], Sequence[int]] | None = None,
) -> Calibration:
    """Learn to tell what was spoilt from what was given, of which a share may be wrong itself.

    What was given and looks spoilt is left out and the model learned again, so that the mistakes in a data set do not
    teach that mistakes are right.

    Args:
        given: measures of what the data set has, (N, M).
        spoilt: measures of the same after mistakes were made, (S, M).
        expected: share of wrong ones among all that will be asked about, above 0 and below 1.
        doubtful: share of the given that is wrong itself.
        groups: number of the case of each row, for the error, which is that of cases that were not learned from.
    """
    width = len((*given, *spoilt, ())[0])
    right, wrong = (np.asarray(rows, dtype=np.float64).reshape(len(rows), width) for rows in (given, spoilt))
    model = _fit(right, wrong, expected, doubtful)
    if groups is None or not len(right) or not len(wrong):
        return model
    halves = [(np.asarray(numbers) % 2).astype(bool) for numbers in groups]
    errors = []
    for side in (False, True):
        learned = _fit(right[halves[0] == side], wrong[halves[1] == side], expected, doubtful)
        others = [rows[half != side] for rows, half in zip((right, wrong), halves, strict=True)]
        if len(others[0]) and len(others[1]):
            errors.append(_error(learned(others[0]), learned(others[1]), expected))
    return Calibration(model.middle, model.spread, model.weights, float(np.mean(errors)) if errors else float("nan"))


def _fit(right: Numbers, wrong: Numbers, expected: float, doubtful: float) -> Calibration:
    prior = float(np.log(expected / (1 - expected)))
    if not len(right) or not len(wrong):
        width = right.shape[1]
        return Calibration(np.zeros(width), np.ones(width), np.append(np.zeros(width), prior))
    middle = np.median(right, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(right - middle), axis=0), 0.05 * np.ptp(wrong, axis=0))
    spread = np.where(spread > 0, spread, 1.0)
    model = Calibration(middle, spread, np.zeros(right.shape[1] + 1))
    strange = np.maximum(model._scaled(right), 0).sum(axis=1)  # before anything is learned
    for _ in range(_ROUNDS if doubtful else 1):
        kept = strange <= np.quantile(strange, 1 - doubtful)
        model = Calibration(middle, spread, _logistic(model._scaled(right[kept]), model._scaled(wrong), expected))
        strange = model(right)
    return model


def _logistic(right: Numbers, wrong: Numbers, expected: float) -> Numbers:
    """Ridge regression of the logit, of both sides weighing alike and then as expected.

    No weight is below 0: more of any measure never speaks for a label.
    """
    rows = _with_one(np.concatenate([right, wrong]))
    target = np.concatenate([np.zeros(len(right)), np.ones(len(wrong))])
    weight = len(rows) / 2 / np.where(target > 0, len(wrong), len(right))
    ridge = np.full(rows.shape[1], _RIDGE)
    ridge[-1] = 0

    def loss(found: Numbers) -> tuple[float, Numbers]:
        logits = rows @ found
        surprise = np.logaddexp(0, logits) - target * logits
        slope = rows.T @ (weight * (_sigmoid(logits) - target)) + ridge * found
        return float(weight @ surprise + 0.5 * ridge @ found**2), slope

    bounds = [(0, None)] * right.shape[1] + [(None, None)]
    found: Numbers = optimize.minimize(loss, np.zeros(rows.shape[1]), jac=True, bounds=bounds, method="L-BFGS-B").x
    found[-1] += np.log(expected / (1 - expected))
    return found


def _error(right: Numbers, wrong: Numbers, expected: float, bins: int = 5) -> float:
    """Mean distance of what is said from what is so, in bins of equal width, both sides weighed as expected."""
    right = np.sort(right)[: max(1, round((1 - expected) * len(right)))]  # the others are taken to be wrong
    said = np.concatenate([right, wrong])
    so = np.concatenate([np.zeros(len(right)), np.ones(len(wrong))])
    weight = np.where(so > 0, expected / len(wrong), (1 - expected) / len(right))
    place = np.minimum((said * bins).astype(int), bins - 1)
    return float(
        sum(abs(float((weight * (said - so))[place == index].sum())) for index in range(bins) if (place == index).any())
    )


def _with_one(rows: Numbers) -> Numbers:
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)


def _sigmoid(values: Numbers) -> Numbers:
    found: Numbers = 1 / (1 + np.exp(-np.clip(values, -40, 40)))
    return found
