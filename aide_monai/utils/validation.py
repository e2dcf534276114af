"""Values that a user sets, checked before anything starts."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from aide_monai.errors import InputError

ABOVE_0 = (math.ulp(0.0), math.inf)
"""The range of numbers above 0."""

TEXT = "text without control characters, in UTF-8"
"""What ``is_text`` wants, in a message."""

DEVICE_KINDS = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "xla", "mtia", "meta", "privateuseone")
"""What a device may be called: PyTorch's names of what computes, and "auto"."""


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
            expected = "above 0" if (low, high) == ABOVE_0 else f"in {low:g}..{high:g}"
            raise InputError(f"{name} is {value!r}; expected a value {expected}")
        if isinstance(low, int) and not isinstance(value, Integral):
            raise InputError(f"{name} is {value}; expected a whole number, without a decimal point")


def require_choices(values: Mapping[str, Any], choices: Mapping[str, Sequence[Any]]) -> None:
    """Refuse what is none of its choices.

    Args:
        values: as in ``require_numbers``.
        choices: what there is to choose from, by name.

    Raises:
        InputError: naming the first value that is none.
    """
    for name, known in choices.items():
        if values[name] not in known:
            raise InputError(f"{name} is {values[name]!r}; expected one of {', '.join(known)}")


def require_slice_size(name: str, value: Any) -> None:
    """Refuse what is no size of slices in a config, two whole numbers above 0.

    Raises:
        InputError: naming it.
    """
    whole = isinstance(value, list) and all(type(number) is int and number > 0 for number in value)
    if not whole or len(value) != 2:
        raise InputError(f"{name} is {value!r}; expected two whole numbers, rows and columns in pixels")


def require_pair(name: str, value: Any) -> None:
    """Refuse what is not two finite numbers above 0, for the rows and columns of slices.

    Raises:
        InputError: naming it.
    """
    numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    good = all(isinstance(n, Real) and not isinstance(n, bool) and 0 < float(n) < math.inf for n in numbers)
    if len(numbers) != 2 or not good:
        raise InputError(f"{name} is {list(numbers) or value!r}; expected two positive numbers, for rows and columns")


def is_orientation(value: Any) -> bool:
    """Whether a value names the directions of three axes, such as "RAS"."""
    axes = [next((pair for pair in ("LR", "PA", "IS") if sign in pair), None) for sign in str(value)]
    return isinstance(value, str) and len(axes) == 3 and len({*axes} - {None}) == 3


def is_text(value: Any) -> bool:
    """Whether a value can be shown, written to a file and read back: text that is not blank, without control
    characters and halves of surrogate pairs, which stand for what is no UTF-8 in the name of a file."""
    signs = value if isinstance(value, str) else ""
    if not signs.strip():
        return False
    return signs.isprintable() or not any(unicodedata.category(sign) in ("Cc", "Cs") for sign in signs)


def require_texts(name: str, value: Any) -> None:
    """Refuse a value of a config in which a text, at whatever depth, is more than text, see ``is_text``.

    Raises:
        InputError: naming it.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            require_texts(name, str(key))
            require_texts(f"{name}: {key}", inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            require_texts(name, inner)
    elif isinstance(value, str) and value.strip() and not is_text(value):
        raise InputError(f"{name}: found {value!r}; expected {TEXT}")


def require_file_names(folder: Path, paths: Iterable[str | Path]) -> None:
    """Refuse files of a folder whose names are more than text, see ``is_text``; they become names of cases.

    Raises:
        InputError: naming the first.
    """
    for path in paths:
        name = str(path).removeprefix(f"{folder}/")
        if not is_text(name):
            raise InputError(f"{folder}: found {name!r}; expected {TEXT}: rename it")


def require_device_name(device: str) -> None:
    """Refuse a text that names no kind of device; whether this machine has it only PyTorch knows.

    Raises:
        InputError: naming it.
    """
    kind, colon, number = device.partition(":")
    if kind not in DEVICE_KINDS or (colon and not number.isdecimal()):
        raise InputError(f"device is {device!r}; expected auto, cpu, cuda, cuda:1, ...")
