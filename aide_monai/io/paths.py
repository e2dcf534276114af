"""What a path of a datalist says: a file or folder, and the part of it that is meant, as ``#echo=`` or ``#z=``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from aide_monai.errors import InputError

_PART = re.compile(r"(?P<file>.+)#(?P<parts>(?:channel|[xyz])=\d{1,9}(?:&(?:channel|[xyz])=\d{1,9})*)", re.DOTALL)
PathText = str | os.PathLike[str]


def as_paths(value: str | list[str]) -> list[str]:
    """One path or a list of paths, as a list."""
    return [value] if isinstance(value, str) else value


def split_selection(path: str | Path) -> tuple[str, str]:
    """``FOLDER#echo=2.3`` to ("FOLDER", "echo=2.3"), likewise ``FILE#channel=1``; a path that exists as it is selects
    nothing."""
    text = str(path)
    if "#" not in text or os.path.lexists(text):
        return text, ""
    folder, _, select = text.rpartition("#")
    return folder, select


def on_disk(path: str) -> str:
    """The file or folder of a path, without what it selects there."""
    return split_selection(path)[0]


def absolute_path(text: str, folder: Path, *, roots: Iterable[str | Path] = ()) -> str:
    """Make a path absolute, starting at ``folder``.

    Raises:
        InputError: with symbolic links and ``..`` resolved, the path lies outside ``folder`` and all ``roots``.
    """
    allowed = [os.path.realpath(root) for root in (folder, *roots)]
    path = os.path.abspath(os.path.join(folder, text))
    target = Path(os.path.realpath(on_disk(path)))
    if not any(target.is_relative_to(root) for root in allowed):
        raise InputError(
            f'path "{text}", which leads to {target}, outside {" and ".join(allowed)}',
            advice="move the file there, or name its folder as a root (--root DIR; of a bundle --roots '[\"DIR\"]')",
        )
    return path


def channel_path(file: PathText, channel: int) -> str:
    """How a datalist names one channel (or time point) of a file: ``FILE#channel=K``, K from 0 on the last axis."""
    return f"{file}#channel={channel}"


def slice_path(path: PathText, axis: int, index: int) -> str:
    """How a datalist names one slice of a volume, across axis 0, 1 or 2: ``FILE#z=12``, ``FILE#channel=K&z=12``."""
    return f"{path}{'#' if split_channel(path)[0] == str(path) else '&'}{'xyz'[axis]}={index}"


def split_channel(path: PathText) -> tuple[str, int | None]:
    """The file of a path, and the channel that the path names, or None."""
    file, parts = split_parts(path)
    return file, parts.get("channel")


def split_parts(path: PathText) -> tuple[str, dict[str, int]]:
    match = _PART.fullmatch(str(path))
    if match is None or os.path.lexists(path):
        return str(path), {}
    pairs = [part.split("=") for part in match["parts"].split("&")]
    return match["file"], {key: int(number) for key, number in pairs}
