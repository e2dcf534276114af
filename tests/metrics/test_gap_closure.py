"""Gap closure by hand, and the ends of its interval in cases where they are known."""

from __future__ import annotations

import math

import pytest

from aide_monai.errors import InputError
from aide_monai.metrics import gap_closure


def test_the_value_is_that_of_the_means() -> None:
    closure = gap_closure([0.5, 0.7], [0.7, 0.8], [0.9, 0.9])  # means 0.6, 0.75, 0.9
    assert closure is not None
    assert closure.value == pytest.approx(0.5)
    assert closure.n == 2
    # resamples: the first case twice (0.2 / 0.4), the second twice (0.1 / 0.2), both (0.15 / 0.3)
    assert (closure.low, closure.high) == pytest.approx((0.5, 0.5))


def test_the_interval_spans_what_the_cases_say() -> None:
    closure = gap_closure([0.0, 0.0], [0.2, 0.6], [1.0, 1.0])
    assert closure is not None
    assert closure.value == pytest.approx(0.4)
    assert (closure.low, closure.high) == pytest.approx((0.2, 0.6))  # a quarter of the resamples each
    middle = gap_closure([0.0, 0.0], [0.2, 0.6], [1.0, 1.0], confidence=0.4)
    assert middle is not None
    assert (middle.low, middle.high) == pytest.approx((0.4, 0.4))


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


def test_resamples_without_a_gap_count_as_infinite() -> None:
    closure = gap_closure([0.0, 0.5], [0.5, 0.6], [1.0, 0.4])
    assert closure is not None
    assert closure.value == pytest.approx(0.3 / 0.45)
    assert closure.high == math.inf  # the second case twice: a gain without a gap


def test_without_a_gap_there_is_nothing_to_close() -> None:
    assert gap_closure([0.9], [0.8], [0.9]) is None


def test_the_seed_decides() -> None:
    columns = [
        [0.1 * k for k in range(5)],
        [0.1 * k + 0.02 * k * k for k in range(5)],
        [0.5 + 0.1 * k for k in range(5)],
    ]
    assert gap_closure(*columns, seed=3) == gap_closure(*columns, seed=3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0.1], [0.1, 0.2], [0.3]), "same cases in all three"),
        (([], [], []), "same cases"),
        (([0.1], [math.inf], [0.3]), "not finite"),
    ],
)
def test_wrong_values_are_refused(columns: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        gap_closure(*columns)
