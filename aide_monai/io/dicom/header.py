"""One DICOM file to the facts that place its slices in space and that find their pixels, which stay in the file."""

from __future__ import annotations

import functools
import math
import os
from dataclasses import dataclass
from typing import Any

from pydicom.config import IGNORE
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from aide_monai.errors import InputError
from aide_monai.io.dicom.elements import Header, doubles, has, is_dicom, items, number, read_header, text, vector, whole

MAX_SLICE_PIXELS = 2**26
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)

_STORAGE = "1.2.840.10008.5.1.4.1.1."
# Directories, presentation states, parametric maps, segmentations, reports, documents, radiotherapy
_NO_SCANS = ("1.2.840.10008.1.3.10", *(_STORAGE + part for part in ("11.", "30", "66", "88.", "104.", "481.")))
_CAPTURES = _STORAGE + "7"  # screenshots; some are scans and say where they lie
# All that is looked at here; an element that is missing in this list counts as absent
_ELEMENTS = (
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "AcquisitionDate",
    "ContentDate",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "ContentTime",
    "Modality",
    "SeriesDescription",
    "FrameType",
    "SliceThickness",
    "EchoTime",
    "TriggerTime",
    "FrameAcquisitionDateTime",
    "EffectiveEchoTime",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "SeriesNumber",
    "AcquisitionNumber",
    "InstanceNumber",
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "NominalCardiacTriggerDelayTime",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)


class NotAnImageError(Exception):
    """The file is no DICOM image; the message says what it is instead."""


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the pixels of one file are stored.

    Attributes:
        transfer_syntax: UID of the encoding.
        offset: position of the value of PixelData in the file, or in its inflated data set.
        representation: "OB" or "OW", "" when the encoding does not say.
        rows, columns, frames: size.
        bits_allocated, bits_stored, signed: size of a pixel.
        photometric: "MONOCHROME1" or "MONOCHROME2".
    """

    transfer_syntax: str
    offset: int
    representation: str
    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str


@dataclass(frozen=True, slots=True)
class DicomSlice:
    """One frame of one file; what the file does not give is "" or None.

    Attributes:
        file, frame: path, and number of the frame in it, from 0.
        pixels: how it is stored.
        position: centre of its first pixel, LPS, mm.
        orientation: direction of growing column number, then of growing row number (six cosines, LPS).
        spacing: distance of rows (y) and of columns (x), mm.
        thickness: SliceThickness in mm, which says nothing about the distance of slices.
        slope, intercept: stored value to modality value, such as HU.
        series_uid, series_number, description, modality, sop_uid: as in the file.
        image_type: ImageType, or FrameType of a frame.
        echo_ms: echo time.
        temporal_position, b_value, direction, acquisition, trigger_ms, instance: what may tell volumes of one series
            apart; the direction is that of a diffusion gradient.
        acquired: YYYYMMDDHHMMSS.ffffff, without the date when the file has none; sorts by time.
    """

    file: str
    frame: int
    pixels: PixelFormat
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float | None
    slope: float
    intercept: float
    series_uid: str
    series_number: float | None
    description: str
    modality: str
    sop_uid: str
    image_type: tuple[str, ...]
    echo_ms: float | None
    temporal_position: float | None
    b_value: float | None
    direction: tuple[float, ...] | None
    acquisition: float | None
    trigger_ms: float | None
    instance: float | None
    acquired: str


def read_slices(file: str) -> list[DicomSlice]:
    """The slices of one file; the pixels are not read.

    Raises:
        NotAnImageError: no DICOM, or an object without a scan in it, such as a report or a segmentation.
        InputError: a scan that is damaged, truncated, absurdly large, in colour, or without a place in space.
    """
    try:
        found = os.stat(file)
    except OSError:
        raise NotAnImageError("not DICOM") from None
    return list(_read_slices(file, found.st_ino, found.st_size, found.st_mtime_ns))


@functools.lru_cache(maxsize=4096)
def _read_slices(file: str, *_version: int) -> list[DicomSlice]:
    """``read_slices``, once for each version of a file: image, label and checks each ask for the same headers."""
    if not is_dicom(file):
        raise NotAnImageError("not DICOM")
    try:
        header = read_header(file, _ELEMENTS)
        _require_image(header)
        return _slices(file, header.dataset, _pixel_format(header))
    except InputError as error:
        raise error.at(file) from None
    except NotAnImageError:
        raise
    except Exception as error:  # whatever a parser makes of a damaged header is the same finding
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"a damaged DICOM header ({reason})", advice="replace the file", place=file) from error


def _require_image(header: Header) -> None:
    kind, dataset = header.sop_class, header.dataset
    name = UID(kind, IGNORE).name if kind else "an object without pixels"
    if kind.startswith(_NO_SCANS) or (header.pixels is None and "Image Storage" not in name):
        raise NotAnImageError(name)
    placed = has(dataset, "ImagePositionPatient") or has(dataset, "PerFrameFunctionalGroupsSequence")
    if kind.startswith(_CAPTURES) and not placed:
        raise NotAnImageError(f"{name} without a place in space")


def _pixel_format(header: Header) -> PixelFormat:
    if header.pixels is None:
        raise InputError("no pixels", expected="PixelData", advice="the file may be truncated: replace it")
    dataset, syntax = header.dataset, header.transfer_syntax
    samples = whole(dataset, "SamplesPerPixel")
    photometric = text(dataset, "PhotometricInterpretation") or "MONOCHROME2"
    if samples not in (1, None) or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(
            f"{samples} values per pixel ({photometric})",
            expected="one grey value",
            advice="leave pictures in colour out of the folder",
        )
    rows, columns = _required(dataset, "Rows"), _required(dataset, "Columns")
    frames = int(number(dataset, "NumberOfFrames") or 1)
    if not 0 < rows * columns <= MAX_SLICE_PIXELS or frames < 1:
        raise InputError(
            f"Rows {rows}, Columns {columns}, NumberOfFrames {frames}",
            expected=f"1 to {MAX_SLICE_PIXELS} pixels and at least one frame",
            advice="replace the file",
        )
    allocated, stored = _required(dataset, "BitsAllocated"), _required(dataset, "BitsStored")
    high = whole(dataset, "HighBit")
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or high not in (stored - 1, None):
        raise InputError(
            f"BitsAllocated {allocated}, BitsStored {stored}, HighBit {high}",
            expected="8, 16 or 32 bits of which the lowest are stored",
            advice="convert the series to NIfTI",
        )
    there = max(header.size - header.pixels.offset, 0)
    expected = 8 * frames  # every compressed frame lies in an item of at least eight bytes
    if syntax in NATIVE:
        there, expected = min(there, header.pixels.length), rows * columns * frames * allocated // 8
    if there < expected:
        raise InputError(f"{there} bytes of pixels", expected=str(expected), advice="the file is truncated: replace it")
    return PixelFormat(
        transfer_syntax=syntax,
        offset=header.pixels.offset,
        representation=header.pixels.representation,
        rows=rows,
        columns=columns,
        frames=frames,
        bits_allocated=allocated,
        bits_stored=stored,
        signed=whole(dataset, "PixelRepresentation") == 1,
        photometric=photometric,
    )


def _slices(file: str, dataset: Dataset, pixels: PixelFormat) -> list[DicomSlice]:
    if has(dataset, "ModalityLUTSequence"):
        raise InputError(
            "a ModalityLUTSequence", expected="RescaleSlope and RescaleIntercept", advice="convert the series"
        )
    shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    per_frame = items(dataset, "PerFrameFunctionalGroupsSequence")
    if pixels.frames > 1 and len(per_frame) != pixels.frames:
        raise InputError(
            (
                f"{pixels.frames} frames, {len(per_frame)} of them with a place in space "
                "(PerFrameFunctionalGroupsSequence)"
            ),
            advice="convert the file to NIfTI",
        )
    series: dict[str, Any] = {
        "series_uid": text(dataset, "SeriesInstanceUID"),
        "series_number": number(dataset, "SeriesNumber"),
        "description": text(dataset, "SeriesDescription")[:64],
        "modality": text(dataset, "Modality"),
        "sop_uid": text(dataset, "SOPInstanceUID"),
        "acquisition": number(dataset, "AcquisitionNumber"),
        "instance": number(dataset, "InstanceNumber"),
    }
    slices = []
    for frame in range(pixels.frames):
        groups = [*per_frame[frame : frame + 1], *shared]
        slices.append(DicomSlice(file=file, frame=frame, pixels=pixels, **series, **_frame(dataset, groups)))
    return slices


def _frame(dataset: Dataset, groups: list[Dataset]) -> dict[str, Any]:
    """What differs between frames: from its functional groups, or else from the header itself."""

    def holder(sequence: str, keyword: str) -> Dataset:
        if not groups or not sequence:
            return dataset
        found = (item for group in groups for item in items(group, sequence)[:1] if has(item, keyword))
        return next(found, dataset)

    def first_number(*places: tuple[str, str]) -> float | None:
        values = (number(holder(sequence, keyword), keyword) for sequence, keyword in places)
        return next((value for value in values if value is not None), None)

    slope = first_number(("PixelValueTransformationSequence", "RescaleSlope"))
    if slope == 0:
        raise InputError("RescaleSlope 0, which makes all values equal", advice="replace the file")
    kinds = (("MRImageFrameTypeSequence", "FrameType"), ("CTImageFrameTypeSequence", "FrameType"), ("", "ImageType"))
    kind = next(filter(None, (text(holder(sequence, keyword), keyword) for sequence, keyword in kinds)), "")
    return {
        "position": vector(holder("PlanePositionSequence", "ImagePositionPatient"), "ImagePositionPatient", 3),
        "orientation": _orientation(holder("PlaneOrientationSequence", "ImageOrientationPatient")),
        "spacing": _spacing(holder("PixelMeasuresSequence", "PixelSpacing")),
        "thickness": first_number(("PixelMeasuresSequence", "SliceThickness")),
        "slope": 1.0 if slope is None else slope,
        "intercept": first_number(("PixelValueTransformationSequence", "RescaleIntercept")) or 0.0,
        "image_type": tuple(kind.split("\\")),
        "echo_ms": first_number(("MREchoSequence", "EffectiveEchoTime"), ("", "EchoTime")),
        "temporal_position": first_number(
            ("FrameContentSequence", "TemporalPositionIndex"), ("", "TemporalPositionIdentifier")
        ),
        "b_value": first_number(("MRDiffusionSequence", "DiffusionBValue")),
        "direction": _direction(dataset, groups),
        "trigger_ms": first_number(
            ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"), ("", "TriggerTime")
        ),
        "acquired": _acquired(holder("FrameContentSequence", "FrameAcquisitionDateTime")),
    }


def _direction(dataset: Dataset, groups: list[Dataset]) -> tuple[float, ...] | None:
    """Of the diffusion gradient; in multi-frame files it lies one level deeper than anything else."""
    if not groups:
        return doubles(dataset, "DiffusionGradientOrientation")
    macros = [macro for group in groups for macro in items(group, "MRDiffusionSequence")[:1]]
    found = (
        doubles(item, "DiffusionGradientOrientation")
        for macro in macros
        for item in items(macro, "DiffusionGradientDirectionSequence")[:1]
    )
    return next((direction for direction in found if direction), None)


def _required(dataset: Dataset, keyword: str) -> int:
    value = whole(dataset, keyword)
    if value is None:
        raise InputError(f"no {keyword}", advice="the header is incomplete: replace the file")
    return value


def _orientation(dataset: Dataset) -> tuple[float, ...]:
    cosines = vector(dataset, "ImageOrientationPatient", 6)
    rows, columns = cosines[:3], cosines[3:]
    product = sum(row * column for row, column in zip(rows, columns, strict=True))
    if max(abs(math.hypot(*rows) - 1), abs(math.hypot(*columns) - 1)) > 0.01 or abs(product) > 0.1:
        raise InputError(f"ImageOrientationPatient {cosines}", expected="two directions at right angles")
    return cosines


def _spacing(dataset: Dataset) -> tuple[float, ...]:
    spacing = vector(dataset, "PixelSpacing", 2)
    if min(spacing) <= 0:
        raise InputError(f"PixelSpacing {spacing}", expected="two lengths in mm above 0", advice="replace the file")
    return spacing


def _acquired(dataset: Dataset) -> str:
    moment = text(dataset, "FrameAcquisitionDateTime") or text(dataset, "AcquisitionDateTime")
    if moment:
        return _padded(moment)
    time = text(dataset, "AcquisitionTime") or text(dataset, "ContentTime")
    date = text(dataset, "AcquisitionDate") or text(dataset, "ContentDate")
    return date[:8] + _padded(time) if time else ""


def _padded(moment: str) -> str:
    """Equal lengths, so that text sorts by time; the shift of the time zone is dropped."""
    whole, _, fraction = moment.split("+")[0].split("-")[0].partition(".")
    return f"{whole}.{fraction:0<6.6}"
