"""Values that MONAI's config parser takes for what they are, whatever text they hold."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

_MEANT = re.compile("[$@%#]")  # begins an expression, a reference, a macro; separates the parts of an id
_PLAIN_KEY = re.compile(r"[A-Za-z0-9][\w .-]*")
_PLAIN = re.compile("[A-Za-z0-9 ._/-]")


def literal(value: Any) -> Any:
    """The same value, written so that a bundle's config reads it back unchanged.

    MONAI evaluates texts that begin with ``$``, looks up those that are ``@id``, replaces those that begin with ``%``
    by a part of a config or by a file, and in every text turns ``#`` into ``::``. A text with one of these signs
    becomes an expression that is a Python string in quotes, with all but letters, digits and a few signs as escapes.
    All other values stay as they are, so this may be used for each value that comes from data, a request or a path.

    Args:
        value: text, path, number, truth value, None, or lists and mappings of these.

    Returns:
        The value as JSON has it; texts, and mappings with keys that mean something to MONAI, may be expressions.

    Raises:
        TypeError: for anything else.

    Examples:
        >>> literal("liver"), literal(["$x"]), literal({"_target_": 1})
        ('liver', ["$'\\\\x24x'"], "${'_target_': 1}")
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return f"${_source(value)}" if _MEANT.search(value) else value
    if isinstance(value, Mapping):
        if all(_PLAIN_KEY.fullmatch(str(key)) for key in value):
            return {key: literal(one) for key, one in value.items()}
        return f"${_source(value)}"
    if isinstance(value, (list, tuple)):
        return [literal(one) for one in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise TypeError(f"found {type(value).__name__}; expected text, numbers, None, lists and mappings")


def _source(value: Any) -> str:
    """Python source of the value, without any sign that means something to MONAI."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return f"'{''.join(_escaped(sign) for sign in value)}'"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_source(key)}: {_source(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_source, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    raise TypeError(f"found {type(value).__name__}; expected text, numbers, None, lists and mappings")


def _escaped(sign: str) -> str:
    number = ord(sign)
    if _PLAIN.fullmatch(sign):
        return sign
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
