"""Sentences that several wings say in the same way."""

from __future__ import annotations

import difflib
import functools
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

DESCRIPTIONS = (".json", ".txt", ".md", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".pdf", ".html")
"""Files that nobody takes for an image; they are not mentioned."""

logger = logging.getLogger(__name__)


def names_text(names: Sequence[str], limit: int = 3) -> str:
    """The first names of a list for messages, and how many are left."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def tell_unused(folder: str | Path, reasons: Mapping[str, str], *, they_are: str = "not used") -> None:
    """Name files of a folder that are not used in one line of the log, once in a process.

    Args:
        folder: where they lie.
        reasons: file, or folder, to why it is not used.
        they_are: said of them, where something else may use them.
    """
    files = {file: reason for file, reason in reasons.items() if not file.lower().endswith(DESCRIPTIONS)}
    groups: dict[str, list[str]] = {}
    for file, reason in files.items():
        name = os.path.relpath(file, folder) + ("/" if os.path.isdir(file) else "")
        groups.setdefault(reason, []).append(name if name.isprintable() else ascii(name))
    parts = [f"{names_text(names)} ({reason})" for reason, names in groups.items()]
    if parts:
        kinds = {"folder" if os.path.isdir(file) else "file" for file in files}
        count = f"{len(files)} {' and '.join(f'{kind}s' for kind in sorted(kinds))} are"
        _tell(f"{folder}: {f'1 {kinds.pop()} is' if len(files) == 1 else count} {they_are}: {'; '.join(parts)}")


@functools.lru_cache(maxsize=1024)
def _tell(line: str) -> None:
    logger.warning("%s", line)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The advice for a name that does not exist; "" when nothing known is like it.

    Examples:
        >>> from aide_monai.utils.texts import did_you_mean
        >>> did_you_mean("--labelled", ["--labeled", "--unlabeled", "--seed"])
        'did you mean --labeled?'
    """
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)
    return f"did you mean {close[0]}?" if close else ""


def as_json(value: Any) -> Any:
    """What ``json.dumps`` takes: paths as texts, and infinite numbers, which JSON has not, as "inf" and "nan".

    Examples:
        >>> as_json({"assd": float("inf"), "dsc": 0.5})
        {'assd': 'inf', 'dsc': 0.5}
    """
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if hasattr(value, "item"):  # a number of NumPy
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, os.PathLike) else value
