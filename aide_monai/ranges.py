"""Numbers that a user sets, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from aide_monai.errors import InputError


def require_numbers(values: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse what is no number in its range.

    Args:
        values: what was given, by name; may hold other things too.
        ranges: smallest and largest value by name, both allowed; where the smallest is an ``int``, whole numbers only.

    Raises:
        InputError: naming the first value that is none.
    """
    for name, (low, high) in ranges.items():
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) <= high:
            raise InputError(f"{name} is {value!r}; expected a value in {low:g}..{high:g}")
        if isinstance(low, int) and not float(value).is_integer():
            raise InputError(f"{name} is {value}; expected a whole number")
