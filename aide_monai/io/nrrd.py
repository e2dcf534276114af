"""Headers of NRRD: lines ``field: value``, ``key:=value`` and ``# comment``, up to an empty one."""

from __future__ import annotations

import re
from pathlib import Path

from aide_monai.io.header_lines import (
    NUMBER_OR_NAN,
    WHOLE,
    Header,
    Lines,
    line_text,
    lines_of,
    repeated,
    require,
    unreadable,
    whole,
)

_MAGIC = re.compile(r"NRRD(?:000[1-5]|00\.01)")
_ANY_SPACE = r"[ \t]*"
_QUOTED = r'"(?:[^"\\]|\\[^\\])*"'
_TYPES = {
    1: "signed char, int8, int8_t, uchar, unsigned char, uint8, uint8_t",
    2: "short, short int, signed short, signed short int, int16, int16_t, "
    "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    4: "int, signed int, int32, int32_t, uint, unsigned int, uint32, uint32_t, float",
    8: "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t, "
    "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t, double",
}
_BYTES = {name: number for number, names in _TYPES.items() for name in names.split(", ")}
_CODINGS = {
    "raw": "raw",
    **dict.fromkeys(("txt", "text", "ascii"), "text"),
    "hex": "hex",
    **dict.fromkeys(("gz", "gzip", "bz2", "bzip2"), "packed"),
}
_LONG_SPACES = "right-anterior-superior left-anterior-superior left-posterior-superior 3d-right-handed 3d-left-handed"
_SPACES = {
    **{name.replace("-", joint): 3 for name in _LONG_SPACES.split() for joint in ("-", " ", "")},
    **{f"{name}-time".replace("-", joint): 4 for name in _LONG_SPACES.split() for joint in ("-", " ", "")},
    **{"ras": 3, "las": 3, "lps": 3, "rast": 4, "last": 4, "lpst": 4},
    **{"scanner-xyz": 3, "scanner-xyz-time": 4, "scanner-xyzt": 4},
}
# What a value is, and how many of it: "1", or as many as there are axes ("n"), or directions of space ("s").
_FIELDS = {
    **dict.fromkeys(("content", "sample units", "data file"), (r".*", "1")),
    "number": (r"\d{1,20}", "1"),
    "type": ("|".join(_BYTES), "1"),
    "dimension": ("[1-9]|1[0-6]", "1"),
    "space": ("|".join(_SPACES), "1"),
    "space dimension": ("[1-8]", "1"),
    "sizes": (WHOLE, "n"),
    **dict.fromkeys(("spacings", "thicknesses", "axis mins", "axis maxs"), (NUMBER_OR_NAN, "n")),
    "space directions": ("VECTOR|none", "n"),
    **dict.fromkeys(("centerings", "kinds"), (r"[0-9a-z-]+|\?\?\?", "n")),
    **dict.fromkeys(("labels", "units"), (_QUOTED, "n")),
    **dict.fromkeys(("min", "max", "old min", "old max"), (NUMBER_OR_NAN, "1")),
    "endian": ("little|big", "1"),
    "encoding": ("|".join(_CODINGS), "1"),
    "line skip": (WHOLE, "1"),
    "byte skip": (rf"-1|{WHOLE}", "1"),
    "space units": (_QUOTED, "s"),
    "space origin": ("VECTOR", "1"),
    "measurement frame": ("VECTOR", "s"),
}
_SPELLING = {**{key.replace(" ", ""): key for key in _FIELDS}, **{key: key for key in _FIELDS}, "centers": "centerings"}


def parse(start: bytes, *, more: bool) -> Lines | None:
    """The lines of a header.

    Args:
        start: first bytes of the file.
        more: whether there are others.

    Returns:
        None when the header may end in the others.

    Raises:
        InputError: a line that is not understood, or no end.
    """
    end = start.find(b"\n\n"), start.find(b"\n\r\n")
    ends = [place + length for place, length in zip(end, (2, 3), strict=True) if place >= 0]
    stop = min(ends, default=None)
    if stop is None and more:
        return None
    magic, *lines = lines_of((start if stop is None else start[:stop]).rstrip(b"\r\n"))
    if not _MAGIC.fullmatch(magic):
        raise unreadable(f"{line_text(1, magic)} instead of NRRD0001 to NRRD0005")
    fields: dict[str, str] = {}
    notes: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        if line.startswith("#"):
            continue
        before, colon, value = line.partition(": ")
        key = _SPELLING.get(before.lower()) if colon else None
        if key is None:
            note, sign, text = line.partition(":=")
            if not sign or not note:
                raise unreadable(f"{line_text(number, line)} instead of FIELD: VALUE or KEY:=VALUE")
            notes[note] = text
            continue
        if key in fields:
            raise unreadable(f"{line_text(number, line)}, a second {key}")
        fields[key] = value.lstrip(" \t") if key == "data file" else value.strip(" \t")
        if key == "data file" and value.lstrip().upper().startswith("LIST"):
            break  # names follow; it is refused for having several
        if not _is_value(key, fields):
            raise unreadable(line_text(number, line))
    if stop is None and "data file" not in fields:
        raise unreadable("no empty line at its end")
    return Lines(fields, notes, fields.get("data file", ""), len(start) if stop is None else stop)


def _is_value(key: str, fields: dict[str, str]) -> bool:
    kind, count = _FIELDS[key]
    axes = _count(fields.get("dimension", ""))
    directions = _count(fields.get("space dimension", "")) or _SPACES.get(fields.get("space", "").lower(), 0)
    if "VECTOR" in kind:
        if not directions:
            return False
        numbers = repeated(_ANY_SPACE + NUMBER_OR_NAN + _ANY_SPACE, directions, ",")
        kind = kind.replace("VECTOR", rf"\({numbers}\)")
    times = {"1": 1, "n": axes, "s": directions}[count]
    between = _ANY_SPACE if kind[0] in '"\\' else r"[ \t]+"
    return times > 0 and re.fullmatch(repeated(kind, times, between), fields[key], re.IGNORECASE | re.ASCII) is not None


def _count(text: str) -> int:
    """A number of axes; 0 for what is none, such as the line that is being looked at."""
    return int(text) if re.fullmatch("[0-9]{1,3}", text) else 0


def header(file: Path, lines: Lines) -> Header:
    """What the lines say together.

    Raises:
        InputError: a line is missing or contradicts another one.
    """
    fields = lines.fields
    require(fields, "type", "dimension", "sizes", "encoding")
    if "space" in fields and "space dimension" in fields:
        raise unreadable("space and space dimension, of which one is enough")
    data = file.parent / lines.name if lines.name else file
    skipped = max(whole(fields, "byte skip", 0), 0) + whole(fields, "line skip", 0)
    room = data.stat().st_size - skipped - (0 if lines.name else lines.end)
    shape = tuple(int(size) for size in fields["sizes"].split())
    coding = _CODINGS[fields["encoding"].lower()]
    number_bytes = _BYTES[fields["type"].lower()]
    if number_bytes > 1 and coding in ("raw", "hex", "packed") and "endian" not in fields:
        raise unreadable("no line endian")
    return Header(fields, lines.notes, shape, 1, number_bytes, coding, data, room)
