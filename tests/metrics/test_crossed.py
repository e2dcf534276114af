"""The test over seeds and patients: by hand, where it must agree with others, and how often it is wrong."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from aide_monai.errors import InputError
from aide_monai.metrics import crossed_test, gap_closure, holm
from aide_monai.metrics.crossed import crossed_interval

SIMULATIONS = 4000


def drawn(
    seeds: int, patients: int, spread: float, generator: np.random.Generator, times: int = SIMULATIONS
) -> np.ndarray:
    """Differences (times, seeds, patients) whose true mean is 0, in points of DSC; ``spread`` is that of the seeds."""
    of_seeds = spread * generator.standard_normal((times, seeds, 1))
    of_patients = 3 * generator.standard_normal((times, 1, patients))
    return of_seeds + of_patients + 2 * generator.standard_normal((times, seeds, patients))


@pytest.mark.parametrize(("seeds", "patients"), list(product((2, 3, 5), (8, 20, 40))))
def test_without_a_difference_few_are_found_and_the_interval_holds_its_level(seeds: int, patients: int) -> None:
    """An alarm at 5 % is an interval without the true mean, 0: fewer than 7 % of one are more than 93 % of the other.

    The spread of the seeds is 0 to 5 points.
    """
    generator = np.random.default_rng(100 * seeds + patients)
    for spread in (0, 0.25, 0.5, 1, 2, 5):
        mean, reach = crossed_interval(drawn(seeds, patients, spread, generator))
        assert np.mean(np.abs(mean) > reach) < 0.07
        assert np.mean(np.abs(mean) <= reach) >= 0.93


def test_a_paired_t_test_over_patients_alone_does_not_hold_its_level() -> None:
    """What the simulation must be able to find: three seeds taken for all there are."""
    differences = drawn(3, 20, 2, np.random.default_rng(0))
    assert np.mean(stats.ttest_1samp(differences.mean(axis=1), 0, axis=1).pvalue <= 0.05) > 0.2


def test_a_difference_of_a_usual_size_is_found() -> None:
    mean, reach = crossed_interval(2 + drawn(5, 20, 0.5, np.random.default_rng(1)))
    assert np.mean(mean - reach > 0) > 0.5


def test_by_hand() -> None:
    differences = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 8.0]])
    found = crossed_test(differences, np.zeros((2, 3)))
    # means of the seeds 2 and 5: variance 4.5 / 2; of the patients 2, 3, 5.5: variance 3.25 / 3
    of_seeds, of_patients = 4.5 / 2, 3.25 / 3
    reach = (of_seeds * 12.7062047 + of_patients * 4.3026527) / math.sqrt(of_seeds + of_patients)
    assert found.mean_difference == pytest.approx(3.5)
    assert (found.low, found.high) == pytest.approx((3.5 - reach, 3.5 + reach))
    assert (found.seeds, found.patients, found.by_seed) == (2, 3, (2.0, 5.0))
    assert crossed_test(differences, np.zeros((2, 3)), confidence=1 - found.p).low == pytest.approx(0, abs=1e-6)


def test_one_seed_is_a_paired_t_test() -> None:
    first, second = [0.9, 0.8, 0.7, 0.95], [0.8, 0.75, 0.71, 0.6]
    found, expected = crossed_test([first], [second]), stats.ttest_rel(first, second)
    interval = expected.confidence_interval()
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high))
    assert found.seeds == 1


def test_swapping_turns_the_sign_only() -> None:
    values = np.random.default_rng(0).random((2, 3, 5))
    forth, back = crossed_test(*values), crossed_test(*values[::-1])
    assert (back.mean_difference, back.p) == pytest.approx((-forth.mean_difference, forth.p))
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low))


def test_no_spread() -> None:
    same = np.ones((3, 4))
    equal, better = crossed_test(same, same), crossed_test(same, same - 0.5)
    assert (equal.p, equal.low, equal.high) == (1.0, 0.0, 0.0)
    assert (better.p, better.low, better.high) == (1e-12, 0.5, 0.5)


def test_wrong_values_are_refused() -> None:
    with pytest.raises(InputError, match=r"shapes \(2, 3\) and \(3, 2\); expected \(seeds, patients\)"):
        crossed_test(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(InputError, match="two patients"):
        crossed_test(np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(InputError, match="not finite"):
        crossed_test([[1, math.inf]], [[1, 2]])
    with pytest.raises(InputError, match="confidence is 95"):
        crossed_test(np.ones((2, 3)), np.ones((2, 3)), confidence=95)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([0.5, math.nan, 0.6])
    assert adjusted[::2] == pytest.approx([1.0, 1.0])
    assert math.isnan(adjusted[1])
    assert holm([]) == []


def test_the_interval_of_a_closure_holds_its_level() -> None:
    generator = np.random.default_rng(0)
    noisy, clean = 0.0, 10.0
    inside = []
    for _ in range(200):
        bounds = [mean + drawn(3, 20, 0.5, generator, 1)[0] for mean in (noisy, 6.0, clean)]
        closure = gap_closure(*bounds)
        inside.append(closure is not None and closure.low <= 0.6 <= closure.high)
    assert np.mean(inside) > 0.9
