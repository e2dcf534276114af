"""Paired tests: by hand, published samples, degenerate cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aide_monai.errors import InputError
from aide_monai.metrics import PairedTTest, WilcoxonTest, paired_t_test, wilcoxon_signed_rank

# Student's own example (Biometrika 1908, Cushny and Peebles): extra hours of sleep of ten patients on two drugs.
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_hand_computed_t() -> None:
    result = paired_t_test([1.0, 2.0, 6.0], [0.0, 0.0, 3.0])
    # Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3); with 2 degrees of freedom P = 1 - t / sqrt(t^2 + 2).
    t = 2 * math.sqrt(3)
    assert (result.mean_difference, result.n, result.confidence) == (2.0, 3, 0.95)
    assert result.t == pytest.approx(t)
    assert result.p == pytest.approx(1 - t / math.sqrt(t * t + 2))
    assert (result.low, result.high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))


def test_students_sleep_data() -> None:
    result = paired_t_test(DRUG_1, DRUG_2)
    assert result.t == pytest.approx(-4.0621, abs=1e-4)
    assert result.p == pytest.approx(0.002833, abs=1e-6)
    assert (result.low, result.high) == pytest.approx((-2.4598858, -0.7001142), abs=1e-7)


def test_wilcoxon_by_hand() -> None:
    # All five differences are positive: of the 2^5 signs only two are as extreme.
    result = wilcoxon_signed_rank([1.1, 2.2, 3.3, 4.4, 5.5], [1.0, 2.0, 3.0, 4.0, 5.0])
    assert result.p == pytest.approx(2 / 32)
    assert (result.statistic, result.n, result.n_zero) == (0.0, 5, 0)
    assert result.median_difference == pytest.approx(0.3)


def test_wilcoxon_counts_cases_without_difference() -> None:
    result = wilcoxon_signed_rank(DRUG_1, DRUG_2)
    assert (result.statistic, result.n, result.n_zero) == (0.0, 10, 1)
    assert result.p < 0.01


def test_no_spread() -> None:
    assert paired_t_test([1, 2], [1, 2]) == PairedTTest(0.0, 0.0, 0.0, 0.95, 0.0, 1.0, 2)
    assert paired_t_test([1, 2], [2, 3]) == PairedTTest(-1.0, -1.0, -1.0, 0.95, -math.inf, 0.0, 2)
    assert paired_t_test([0.1] * 3, [0.0] * 3).p == 0.0
    assert wilcoxon_signed_rank([1, 2], [1, 2]) == WilcoxonTest(0.0, 0.0, 1.0, 2, 2)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-100, 100)] * 2), min_size=2, max_size=20))
def test_swapping_the_methods_turns_the_sign_only(pairs: list[tuple[float, float]]) -> None:
    first, second = zip(*pairs, strict=True)
    forth, back = paired_t_test(first, second), paired_t_test(second, first)
    assert (back.mean_difference, back.t, back.p) == (-forth.mean_difference, -forth.t, forth.p)
    assert 0 <= forth.p <= 1
    assert forth.low <= forth.mean_difference <= forth.high
    assert wilcoxon_signed_rank(first, second).p == wilcoxon_signed_rank(second, first).p


def test_a_wider_confidence_has_a_wider_interval() -> None:
    narrow, wide = (paired_t_test(DRUG_1, DRUG_2, confidence=level) for level in (0.9, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_wrong_input() -> None:
    with pytest.raises(InputError, match=r"found values of the shapes \(3,\) and \(2,\); expected two lists"):
        paired_t_test([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match=r"at least two of them"):
        wilcoxon_signed_rank([1], [2])
    with pytest.raises(InputError, match=r"second\[1\] is inf; expected finite values"):
        paired_t_test([1, 2], [1, np.inf])
    with pytest.raises(InputError, match=r"confidence is 95; expected a number between 0 and 1"):
        paired_t_test([1, 2], [2, 4], confidence=95)
