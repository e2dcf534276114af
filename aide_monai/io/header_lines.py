"""What the headers of MetaImage and NRRD have in common: text, line by line."""

from __future__ import annotations

import codecs
import os
import re
from dataclasses import dataclass
from pathlib import Path

from aide_monai.errors import InputError

NUMBER = r"[+-]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][+-]?\d{1,3})?"
NUMBER_OR_NAN = rf"(?:{NUMBER}|[+-]?[Nn][Aa][Nn])"
WHOLE = r"\d{1,10}"
LONGEST_NOTE = 30_000  # MetaIO reads no longer one

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")


@dataclass(frozen=True)
class Header:
    """What a header says, every line of it.

    Attributes:
        fields: name of a field, as the format's documentation spells it, to its text.
        notes: entries of a user or a program: ``key:=value`` in NRRD, unknown keys in MetaImage.
        shape: sizes of the axes, the fastest first, without MetaImage's channels.
        channels: numbers per voxel of a MetaImage; 1 in NRRD, where they are an axis.
        number_bytes: bytes of one number.
        coding: "raw", "packed", "hex" or "text".
        data: file of the voxels: one beside the header, or the header itself.
        room: bytes from the start of the voxels to the end of their file.
    """

    fields: dict[str, str]
    notes: dict[str, str]
    shape: tuple[int, ...]
    channels: int
    number_bytes: int
    coding: str
    data: Path
    room: int


@dataclass(frozen=True)
class Lines:
    """The lines of a header, before what they say together is looked at.

    Attributes:
        fields, notes: see ``Header``.
        name: of the file of the voxels; "" when they follow the header.
        end: place of the first byte behind the header.
    """

    fields: dict[str, str]
    notes: dict[str, str]
    name: str
    end: int


def unreadable(reason: str) -> InputError:
    """The error of a header that is not understood."""
    return InputError(f"a header that cannot be read ({reason})")


def lines_of(header: bytes) -> list[str]:
    """The lines of a header; bytes beyond ASCII come as in Python's names of files.

    Raises:
        InputError: a byte-order mark, or control characters, such as a carriage return alone, at which one reader ends
            a line and another does not.
    """
    if header.startswith(codecs.BOM_UTF8):
        raise unreadable("line 1: a byte-order mark")
    if match := _CONTROL.search(header):
        line = header[: match.start()].count(b"\n") + 1
        raise unreadable(f"line {line}: the control character {match[0][0]:#04x}")
    return [os.fsdecode(line.removesuffix(b"\r")) for line in header.split(b"\n")]


def line_text(number: int, line: str) -> str:
    """A line for messages."""
    return f"line {number}: {line if len(line) <= 60 else line[:57] + '...'!r}"


def repeated(pattern: str, times: int, between: str = r"[ \t]+") -> str:
    """A pattern that stands so many times in a line."""
    return rf"(?:{pattern})(?:{between}(?:{pattern})){{{times - 1}}}"


def whole(fields: dict[str, str], key: str, default: int) -> int:
    """A field that its pattern has shown to be a whole number."""
    return int(fields.get(key, default))


def require(fields: dict[str, str], *keys: str) -> None:
    """Refuse a header without these lines."""
    for key in keys:
        if key not in fields:
            raise unreadable(f"no line {key}")
