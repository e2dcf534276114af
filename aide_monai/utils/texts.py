"""Sentences that several wings say in the same way."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

DESCRIPTIONS = (".json", ".txt", ".md", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".pdf", ".html")
"""Files that nobody takes for an image; they are not mentioned."""

logger = logging.getLogger(__name__)


def names_text(names: Sequence[str], limit: int = 3) -> str:
    """The first names of a list for messages, and how many are left."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def tell_unused(folder: str | Path, reasons: Mapping[str, str]) -> None:
    """Name files of a folder that are not used in one line of the log, once in a process.

    Args:
        folder: where they lie.
        reasons: file to why it is not used.
    """
    files = {file: reason for file, reason in reasons.items() if not file.lower().endswith(DESCRIPTIONS)}
    groups: dict[str, list[str]] = {}
    for file, reason in files.items():
        groups.setdefault(reason, []).append(os.path.relpath(file, folder))
    parts = [f"{names_text(names)} ({reason})" for reason, names in groups.items()]
    if parts:
        count = f"{len(files)} file is" if len(files) == 1 else f"{len(files)} files are"
        _tell(f"{folder}: {count} not used: {'; '.join(parts)}")


@functools.lru_cache(maxsize=1024)
def _tell(line: str) -> None:
    logger.warning("%s", line)
