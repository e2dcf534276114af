"""Volume difference by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aide_monai.errors import InputError
from aide_monai.metrics import relative_volume_difference


def test_signed_percent_of_the_reference() -> None:
    two, four = np.array([[1, 1, 0, 0]]), np.array([[1, 1, 1, 1]])
    assert relative_volume_difference(four, two) == 100
    assert relative_volume_difference(two, four) == -50
    assert relative_volume_difference(two, np.flip(two)) == 0


def test_empty_masks() -> None:
    empty, some = np.zeros((1, 4), dtype=bool), np.ones((1, 4), dtype=bool)
    assert relative_volume_difference(empty, empty) == 0
    assert relative_volume_difference(empty, some) == -100
    assert relative_volume_difference(some, empty) == math.inf


def test_label_maps_are_refused() -> None:
    with pytest.raises(InputError, match=r"reference holds the values 2; expected a binary mask"):
        relative_volume_difference(np.ones((2, 2)), np.full((2, 2), 2))
