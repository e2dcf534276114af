"""Voxels that lie in another file than their header: MetaImage and NRRD can name any file of the computer."""

from __future__ import annotations

import os
import re
from pathlib import Path

_HEADER_BYTES = 65536
_DATA_FILE = {
    ".mhd": re.compile(rb"(?im)^\s*ElementDataFile\s*=[ \t]*([^\r\n]*)"),
    ".mha": re.compile(rb"(?im)^\s*ElementDataFile\s*=[ \t]*([^\r\n]*)"),
    ".nrrd": re.compile(rb"(?im)^data ?file:[ \t]*([^\r\n]*)"),
}


def data_file(header: Path) -> Path:
    """The file of the voxels: the one that the header names, or the header's own."""
    name = _data_name(header)
    return header if not name or name.upper() == "LOCAL" else header.parent / name


def data_file_problems(header: Path, root: Path) -> list[str]:
    """What is wrong with the file in which a MetaImage or NRRD header says its voxels are.

    Args:
        header: .mhd, .mha or .nrrd file; other files, and headers with their voxels in the same file, pass.
        root: absolute path of the folder that nothing may lead out of.
    """
    name = _data_name(header)
    if name is None:
        reason = "no line ElementDataFile, or no end, in the first 64 KiB"
        return [f"{header}: found a header that cannot be read ({reason}); replace the file"]
    if not name or name.upper() == "LOCAL":
        return []
    if name.upper().startswith("LIST") or "%" in name:
        return [f'{header}: its voxels are in several files ("{name}"); expected one: convert the volume']
    path = header.parent / name
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        return [f'{header}: its voxels are in "{name}", outside {root}; expected a file beside it']
    if not path.is_file():
        return [f'{header}: its voxels are in "{name}", which does not exist; put that file beside it']
    return []


def _data_name(header: Path) -> str | None:
    """What the header names; "" when the voxels follow it, None for a header that does not end, or names nothing."""
    pattern = _DATA_FILE.get(header.suffix.lower())
    if pattern is None:
        return ""
    with header.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    if header.suffix.lower() == ".nrrd":
        fields, *rest = re.split(rb"\r?\n\r?\n", start, maxsplit=1)
        match = pattern.search(fields)
        if match is None:
            return "" if rest else None
    else:
        match = pattern.search(start)
        if match is None:
            return None
    return match[1].strip().decode("latin-1")
