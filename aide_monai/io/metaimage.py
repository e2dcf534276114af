"""Headers of MetaImage: lines ``Key = value``, of which ElementDataFile is the last."""

from __future__ import annotations

import re
from pathlib import Path

from aide_monai.io.header_lines import (
    LONGEST_NOTE,
    NUMBER,
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

_LINE = re.compile(r"[ \t]*([^\s=:](?:[^=:\t]*[^\s=:])?)[ \t]*=[ \t]*(.*?)[ \t]*")
_LAST = re.compile(rb"(?im)^[ \t]*ElementDataFile[ \t]*[=:][^\n]*(?:\n|\Z)")
_LONGEST_KEY = _LONGEST_VALUE = 400  # older MetaIO reads 499 characters
_LOCAL = ("LOCAL", "Local", "local")
_YES = "Tt1"

_FLAG = "True|False|true|false|TRUE|FALSE|T|F|1|0"
_TEXT = r"(?:[^=:\s].*)?"
_BYTES = {
    **dict.fromkeys(("CHAR", "UCHAR"), 1),
    **dict.fromkeys(("SHORT", "USHORT"), 2),
    **dict.fromkeys(("INT", "UINT", "LONG", "ULONG", "FLOAT"), 4),
    **dict.fromkeys(("LONG_LONG", "ULONG_LONG", "DOUBLE"), 8),
}
# What a value is, and how many of it: a number, or that of the axes ("n"), or its square ("nn"). MetaIO reads as many
# numbers as it expects, from the next lines too.
_FIELDS: dict[str, tuple[str, int | str]] = {
    **dict.fromkeys(("Comment", "Name", "AcquisitionDate", "ObjectSubType", "TransformType", "Modality"), (_TEXT, 1)),
    **dict.fromkeys(("DistanceUnits", "AnatomicalOrientation"), (_TEXT, 1)),
    "ObjectType": ("Image", 1),
    "NDims": ("[1-9]", 1),
    **dict.fromkeys(("ID", "ParentID", "HeaderSize", "ElementNBits"), (rf"-?{WHOLE}", 1)),
    **dict.fromkeys(("CompressedDataSize", "CompressionLevel"), (r"\d{1,15}", 1)),
    "ElementNumberOfChannels": (r"[1-9]\d{0,6}", 1),
    **dict.fromkeys(("BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData"), (_FLAG, 1)),
    **dict.fromkeys(("Position", "Offset", "Origin", "CenterOfRotation", "ImagePosition"), (NUMBER, "n")),
    **dict.fromkeys(("ElementSpacing", "ElementSize", "SequenceID"), (NUMBER, "n")),
    "DimSize": (WHOLE, "n"),
    **dict.fromkeys(("TransformMatrix", "Rotation", "Orientation"), (NUMBER, "nn")),
    "Color": (NUMBER, 4),
    **dict.fromkeys(("ElementMin", "ElementMax"), (NUMBER_OR_NAN, 1)),
    **dict.fromkeys(("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset"), (NUMBER, 1)),
    "ElementType": (f"MET_(?:{'|'.join(_BYTES)})(?:_ARRAY)?", 1),
    "ElementDataFile": (r"[^=:\s].*", 1),
}
_SPELLING = {key.lower(): key for key in _FIELDS}
_SAME = (
    ("Position", "Offset", "Origin"),
    ("TransformMatrix", "Rotation", "Orientation"),
    ("ElementByteOrderMSB", "BinaryDataByteOrderMSB"),
)


def parse(start: bytes, *, more: bool) -> Lines | None:
    """The lines of a header.

    Args:
        start: first bytes of the file.
        more: whether there are others.

    Returns:
        None when the header may end in the others.

    Raises:
        InputError: a line that is not understood, or no last one.
    """
    last = _LAST.search(start)
    if more and (last is None or last.end() == len(start)):
        return None
    if last is None:
        raise unreadable("no line ElementDataFile")
    fields: dict[str, str] = {}
    notes: dict[str, str] = {}
    for number, line in enumerate(lines_of(start[: last.end()]), start=1):
        if not line.strip(" \t"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise unreadable(f"{line_text(number, line)} instead of KEY = VALUE")
        key, value = match.groups()
        if (known := _SPELLING.get(key.lower())) is None:
            if len(key) > _LONGEST_KEY or len(value) > LONGEST_NOTE:
                raise unreadable(f"{line_text(number, line)} of {len(line)} characters")
            notes[key] = value
            continue
        if key != known or len(value) > _LONGEST_VALUE or not _is_value(known, value, int(fields.get("NDims", 0))):
            raise unreadable(line_text(number, line))
        if fields.setdefault(key, value) != value:
            raise unreadable(f"{line_text(number, line)}, a second {key}")
    name = fields["ElementDataFile"]
    return Lines(fields, notes, "" if name in _LOCAL else name, last.end())


def _is_value(key: str, value: str, axes: int) -> bool:
    kind, count = _FIELDS[key]
    times = {"n": axes, "nn": axes * axes}[count] if isinstance(count, str) else count
    return times > 0 and re.fullmatch(repeated(kind, times), value, re.ASCII) is not None


def header(file: Path, lines: Lines) -> Header:
    """What the lines say together.

    Raises:
        InputError: a line is missing, contradicts another one, or stands behind the last one.
    """
    fields = lines.fields
    require(fields, "NDims", "DimSize", "ElementType")
    for same in _SAME:
        if len({fields[key] for key in same if key in fields}) > 1:
            raise unreadable(f"{' and '.join(key for key in same if key in fields)} contradict each other")
    data = file.parent / lines.name if lines.name else file
    if lines.name:
        with file.open("rb") as stream:
            stream.seek(lines.end)
            if stream.read(65536).strip():
                raise unreadable("lines behind ElementDataFile, which must be the last one")
    skip = whole(fields, "HeaderSize", 0)
    if skip < -1:
        raise unreadable(f"HeaderSize = {skip}")
    room = data.stat().st_size - max(0 if lines.name else lines.end, skip)
    if whole(fields, "CompressedDataSize", 0) > room:
        raise unreadable(f"CompressedDataSize = {fields['CompressedDataSize']}, but {room} bytes are there")
    packed = fields.get("CompressedData", "False")[0] in _YES
    coding = "packed" if packed else "raw" if fields.get("BinaryData", "True")[0] in _YES else "text"
    shape = tuple(int(size) for size in fields["DimSize"].split())
    number_bytes = _BYTES[fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY")]
    channels = whole(fields, "ElementNumberOfChannels", 1)
    return Header(fields, lines.notes, shape, channels, number_bytes, coding, data, room)
