"""Gap closure by hand, and the ends of its interval in cases where they are known."""

from __future__ import annotations

import math

import pytest

from aide_monai.errors import InputError
from aide_monai.metrics import gap_closure


def test_the_value_is_that_of_the_means() -> None:
    closure = gap_closure([0.5, 0.7] * 2, [0.7, 0.8] * 2, [0.9] * 4)  # means 0.6, 0.75, 0.9
    assert closure is not None
    assert closure.value == pytest.approx(0.5)
    assert closure.n == 4
    assert (closure.low, closure.high) == pytest.approx((0.5, 0.5), abs=1e-5)  # each patient has closed half of its gap


def test_the_ends_are_where_a_t_test_finds_a_difference() -> None:
    """With a gap of 1 for everybody it is the interval of the mean gain: 0.4, standard error 0.2, t with 1 degree."""
    closure = gap_closure([0.0, 0.0], [0.2, 0.6], [1.0, 1.0], confidence=0.5)
    assert closure is not None
    assert closure.value == pytest.approx(0.4)
    assert (closure.low, closure.high) == pytest.approx((0.2, 0.6), abs=1e-5)


def test_seeds_count_beside_patients() -> None:
    patients = [[0.4, 0.5, 0.6]] * 3
    gained = [[0.3, 0.4, 0.5], [0.5, 0.6, 0.7], [0.4, 0.5, 0.6]]
    low, high = [[0.0] * 3] * 3, [[1.0] * 3] * 3
    same, different = (gap_closure(low, values, high) for values in (patients, gained))
    assert same is not None
    assert different is not None
    assert same.value == pytest.approx(different.value)
    assert different.high - different.low > 1.3 * (same.high - same.low)


def test_one_case_has_no_interval() -> None:
    closure = gap_closure([0.5], [0.6], [0.7])
    assert closure is not None
    assert closure.value == pytest.approx(0.5)
    assert math.isnan(closure.low)
    assert math.isnan(closure.high)


def test_a_worse_method_closes_less_than_nothing() -> None:
    closure = gap_closure([0.5, 0.5], [0.4, 0.4], [0.7, 0.7])
    assert closure is not None
    assert closure.value == pytest.approx(-0.5)


def test_where_the_gap_may_be_none_an_end_is_infinite() -> None:
    closure = gap_closure([0.0, 0.5], [0.5, 0.6], [1.0, 0.4])
    assert closure is not None
    assert closure.value == pytest.approx(0.3 / 0.45)
    assert closure.high == math.inf


def test_without_a_gap_there_is_nothing_to_close() -> None:
    assert gap_closure([0.9], [0.8], [0.9]) is None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0.1], [0.1, 0.2], [0.3]), "same seeds and patients in all three"),
        (([], [], []), "same seeds and patients"),
        (([0.1], [math.inf], [0.3]), "not finite"),
    ],
)
def test_wrong_values_are_refused(columns: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        gap_closure(*columns)
