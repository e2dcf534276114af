"""Names of segments: read from the header of a ``.seg.nrrd`` of 3D Slicer or of a DICOM SEG, and compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from aide_monai.errors import InputError
from aide_monai.io.dicom.elements import is_dicom
from aide_monai.io.headers import read_header
from aide_monai.io.location import SUFFIXES

SCHEME = "99AIDE"
"""Coding scheme of label values in the DICOM segmentations that are written here."""

# what a program calls a segment that nobody has named, and codes that say what kind of thing it is, not which
_NO_NAME = re.compile(r"(segment|label|class|region|channel)? ?\d*|tissue|organ|anatomical structure|body structure")
_FIELD = re.compile(r"Segment(\d{1,5})_(Name|LabelValue|Layer|Tags)")


@dataclass(frozen=True)
class Segment:
    """A segment of a file.

    Attributes:
        value: its label value.
        name: what the file calls it; "" without a name.
        meaning: the meaning of its code, with that of a modifier such as "Left"; "" without one.
        layer: number of the label map in which it lies, in ``.seg.nrrd``.

    >>> Segment(1, "Segment_1", "Liver").known_as, Segment(1, "left-kidney").known_as
    (('liver',), ('left kidney',))
    """

    value: int
    name: str
    meaning: str = ""
    layer: int = 0

    @property
    def known_as(self) -> tuple[str, ...]:
        """The names by which it can be recognised, the file's own first, in ``plain_name``'s spelling."""
        return tuple(dict.fromkeys(text for text in map(plain_name, (self.name, self.meaning)) if text))

    def __str__(self) -> str:
        """Its name for people."""
        own = plain_name(self.name)
        return self.name if own or not self.meaning else self.meaning


Segments = tuple[Segment, ...]


def plain_name(text: str) -> str:
    """A name without differences of spelling; "" for one that names nothing, such as "Segment_1" or "Tissue".

    >>> plain_name("Left_Kidney"), plain_name("label 2")
    ('left kidney', '')
    """
    words = " ".join(re.split(r"[\W_]+", text.casefold())).strip()
    return "" if _NO_NAME.fullmatch(words) else words


def named_segments(path: str | Path) -> Segments:
    """The segments that the header of a label file names; none for other files, and for those that cannot be read."""
    path = Path(path)
    try:
        if path.name.lower().endswith((".nrrd", ".nhdr")):
            return merged_values(nrrd_segments(read_header(path).notes))
        if not path.name.lower().endswith(SUFFIXES) and is_dicom(path):
            return dicom_segments(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SegmentSequence"]))
    except Exception:  # who reads the file tells what is wrong with it
        return ()
    return ()


def nrrd_segments(notes: Mapping[str, str]) -> Segments:
    """The segments of a ``.seg.nrrd``, in order, from the entries of its header.

    Segments of one label value, each in a layer of its own, are numbered from 1; else the label values stay.

    Raises:
        InputError: a label value or layer that is no whole number.
    """
    fields: dict[int, dict[str, str]] = {}
    for key, text in notes.items():
        if match := _FIELD.fullmatch(key):
            fields.setdefault(int(match[1]), {})[match[2]] = text
    found = [
        Segment(
            _whole(entry.get("LabelValue", "1"), f"Segment{number}_LabelValue"),
            entry.get("Name", ""),
            _meaning(entry.get("Tags", "")),
            _whole(entry.get("Layer", "0"), f"Segment{number}_Layer"),
        )
        for number, entry in sorted(fields.items())
    ]
    return _one_meaning_each(found)


def dicom_segments(dataset: pydicom.Dataset) -> Segments:
    """The segments of a DICOM SEG by segment number or, in files that were written here, by the label value."""
    found, own = [], []
    for item in dataset.get("SegmentSequence", []):
        codes = list(item.get("SegmentedPropertyTypeCodeSequence", []))[:1]
        modifiers = [
            str(modifier.get("CodeMeaning", ""))
            for code in codes
            for modifier in code.get("SegmentedPropertyTypeModifierCodeSequence", [])
        ]
        meaning = " ".join([*modifiers, *(str(code.get("CodeMeaning", "")) for code in codes)])
        found.append(Segment(int(item.SegmentNumber), str(item.get("SegmentLabel", "")), meaning))
        own += [
            int(code.CodeValue)
            for code in codes
            if code.get("CodingSchemeDesignator") == SCHEME and str(code.get("CodeValue", "")).isdecimal()
        ]
    if found and len(set(own)) == len(found):
        found = [Segment(value, one.name, one.meaning) for value, one in zip(own, found, strict=True)]
    return _one_meaning_each(found)


def one_label_map(voxels: npt.NDArray[Any], segments: Segments) -> tuple[npt.NDArray[Any], Segments]:
    """The layers of a ``.seg.nrrd`` as one label map.

    Args:
        voxels: (X, Y, Z, layers) integers.
        segments: as ``nrrd_segments`` gives them.

    Returns:
        (X, Y, Z, 1), and the segments with the values that they have there.

    Raises:
        InputError: segments that overlap, by name, or a segment in a layer that the file does not have.
    """
    layers = voxels.shape[-1]
    places = Counter((one.layer, one.value) for one in segments)
    if doubled := [str(one) for one in segments if places[one.layer, one.value] > 1]:
        raise InputError(f'segments "{doubled[0]}" and "{doubled[1]}" of one label value in one layer')
    if wrong := [one for one in segments if one.layer >= layers]:
        raise InputError(f'segment "{wrong[0]}" in layer {wrong[0].layer}, of {layers} layers (the first is 0)')
    if layers == 1:
        return voxels, segments
    numbered = merged_values(segments)
    merged = np.zeros((*voxels.shape[:-1], 1), dtype=np.uint16)
    for one, result in zip(segments, numbered, strict=True):
        marked = voxels[..., one.layer] == one.value
        taken = merged[..., 0][marked]
        if taken.any():
            other = next(each for each in numbered if each.value == taken[taken > 0][0])
            raise InputError(
                f'segments "{other}" and "{one}" that overlap in {np.count_nonzero(taken)} voxels',
                advice="export them into a file each",
            )
        merged[..., 0][marked] = result.value
    for layer in range(layers):
        named = [0, *(one.value for one in segments if one.layer == layer)]
        if (others := np.setdiff1d(voxels[..., layer], named)).size:
            raise InputError(f"voxels of {others[0]} in layer {layer}, which no segment has")
    return merged, numbered


def merged_values(segments: Segments) -> Segments:
    """The segments with values of their own: numbers from 1 where layers use a value twice."""
    if len({one.value for one in segments}) == len(segments):
        return segments
    return tuple(Segment(k, one.name, one.meaning, one.layer) for k, one in enumerate(segments, 1))


def _one_meaning_each(segments: Sequence[Segment]) -> Segments:
    """A meaning that several segments share, such as that of two kidneys, tells nobody which one it is."""
    counts = Counter(plain_name(one.meaning) for one in segments)
    return tuple(
        one if counts[plain_name(one.meaning)] == 1 else Segment(one.value, one.name, "", one.layer) for one in segments
    )


def _meaning(tags: str) -> str:
    """The meaning of the type and its modifier in the terminology entry of Slicer's tags."""
    entry = next((tag for tag in tags.split("|") if tag.startswith("TerminologyEntry:")), "")
    codes = [code.split("^") for code in entry.split("~")[2:4]]
    return " ".join(code[2] for code in reversed(codes) if len(code) == 3 and code[2])


def _whole(text: str, key: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text.strip()):
        raise InputError(f'a header with {key} "{text}"', expected="a whole number")
    return int(text)
