"""Decoding the slices of DICOM volumes into one array, in the source's own integer type where that loses nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, BinaryIO

import numpy as np
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from aide_monai.errors import InputError
from aide_monai.io.dicom.elements import open_body
from aide_monai.io.dicom.header import NATIVE, DicomSlice, PixelFormat
from aide_monai.io.dicom.jpeg_lossless import decode_jpeg_lossless
from aide_monai.io.dicom.series import DicomSeries

MAX_VOXELS = 2**31

_INTEGERS = ("i1", "u1", "i2", "u2", "i4", "u4")
_JPEG = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes)
_JPEG_SIZES = (0xC0, 0xC1, 0xC2, 0xC3, 0xF7)  # start-of-frame marks, which hold the size of the picture


def decode(channels: Sequence[DicomSeries]) -> np.ndarray:
    """Voxels of volumes on one grid.

    - Modality value = RescaleSlope * stored value + RescaleIntercept, slice by slice.
    - MONOCHROME1 (high values are dark) is turned into MONOCHROME2 by mirroring the stored values in the range that
      BitsStored gives: v becomes 2^b - 1 - v, or -1 - v when signed. CT is left alone: Hounsfield units stay what they
      are however they are shown.
    - The dtype is the stored one if all slices have it and nothing is rescaled; the smallest integer type that holds
      all possible values if slopes and intercepts are whole numbers; else float32 (float64 for 32 stored bits). It
      follows from the headers alone.

    Args:
        channels: volumes of one shape, sound ones (without problems).

    Returns:
        (channel, x, y, z); a view of memory that is contiguous along x.

    Raises:
        InputError: a file that is truncated, damaged or in an encoding that cannot be decoded, naming it; or more
            than 2^31 voxels.
    """
    x, y, z = channels[0].shape
    if len(channels) * x * y * z > MAX_VOXELS:
        size = f"{len(channels)} x {x} x {y} x {z}"
        raise InputError(f"a volume of {size} voxels", expected=f"at most {MAX_VOXELS}", place=channels[0].files[0])
    voxels = np.empty((len(channels), z, y, x), dtype=_dtype([one for series in channels for one in series.slices]))
    for series, volume in zip(channels, voxels, strict=True):
        by_file = sorted(enumerate(series.slices), key=lambda pair: (pair[1].file, pair[1].frame))
        for file, pairs in groupby(by_file, key=lambda pair: pair[1].file):
            places = list(pairs)
            try:
                for (place, one), frame in zip(places, _frames([one for _, one in places]), strict=True):
                    _put(frame, one, volume[place])
            except InputError as error:
                raise error.at(file) from None
            except Exception as error:  # whatever a decoder makes of damaged pixels is the same finding
                reason = next(filter(None, map(str.strip, reversed(str(error).splitlines()))), type(error).__name__)
                raise InputError(
                    f"pixels that cannot be decoded ({reason})", advice="replace the file", place=file
                ) from error
    return voxels.transpose(0, 3, 2, 1)


def _put(stored: np.ndarray, one: DicomSlice, target: np.ndarray) -> None:
    low, high = _stored_range(one.pixels)
    mirror = _is_mirrored(one)
    if not mirror and one.slope == 1 and one.intercept == 0:
        target[...] = stored
    elif target.dtype.kind in "iu":
        whole = stored.astype(np.int64)
        target[...] = (low + high - whole if mirror else whole) * int(one.slope) + int(one.intercept)
    else:
        value = stored.astype(np.float64)
        target[...] = (low + high - value if mirror else value) * one.slope + one.intercept


def _dtype(slices: Sequence[DicomSlice]) -> np.dtype[Any]:
    formats = {(one.pixels, one.slope, one.intercept) for one in slices}
    stored = {_stored_dtype(pixels) for pixels, _, _ in formats}
    if len(stored) == 1 and all(slope == 1 and intercept == 0 for _, slope, intercept in formats):
        return stored.pop()
    if all(slope.is_integer() and intercept.is_integer() for _, slope, intercept in formats):
        ends = [slope * end + intercept for pixels, slope, intercept in formats for end in _stored_range(pixels)]
        for kind in sorted(map(np.dtype, _INTEGERS), key=lambda kind: (kind.itemsize, kind not in stored)):
            if np.iinfo(kind).min <= min(ends) and max(ends) <= np.iinfo(kind).max:
                return kind
    return np.dtype(np.float64 if any(pixels.bits_stored > 24 for pixels, _, _ in formats) else np.float32)


def _stored_dtype(pixels: PixelFormat) -> np.dtype[Any]:
    return np.dtype(f"{'i' if pixels.signed else 'u'}{pixels.bits_allocated // 8}")


def _stored_range(pixels: PixelFormat) -> tuple[int, int]:
    if pixels.signed:
        return -(2 ** (pixels.bits_stored - 1)), 2 ** (pixels.bits_stored - 1) - 1
    return 0, 2**pixels.bits_stored - 1


def _is_mirrored(one: DicomSlice) -> bool:
    return one.pixels.photometric == "MONOCHROME1" and one.modality != "CT"


def _frames(slices: Sequence[DicomSlice]) -> Iterator[np.ndarray]:
    """Stored values (rows, columns) of slices of one file, in the order of their frames."""
    pixels = slices[0].pixels
    syntax = UID(pixels.transfer_syntax)
    with open_body(slices[0].file, syntax) as stream:
        stream.seek(pixels.offset)
        if syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
            for one in slices:
                yield _as_stored(stream, pixels, one.frame)
            return
        if syntax in NATIVE:
            for one in slices:
                yield _by_pydicom(get_decoder(syntax), stream, pixels, index=one.frame)
            return
        decoder = _decoder(syntax)
        wanted = {one.frame for one in slices}
        for number, encoded in enumerate(generate_frames(stream, number_of_frames=pixels.frames)):
            if number in wanted:
                _require_size(encoded, pixels)
                if decoder is None:
                    yield _by_numpy(encoded, pixels)
                else:
                    yield _by_pydicom(decoder, encapsulate([encoded], has_bot=False), pixels, frames=1)
            if number == max(wanted):
                return


def _as_stored(stream: BinaryIO, pixels: PixelFormat, frame: int) -> np.ndarray:
    """One frame of plain numbers in little-endian order, which need no decoder."""
    kind = _stored_dtype(pixels)
    count = pixels.rows * pixels.columns
    stream.seek(pixels.offset + frame * count * kind.itemsize)
    values = np.frombuffer(stream.read(count * kind.itemsize), kind.newbyteorder("<"), count)
    return _stored_bits(values, pixels).reshape(pixels.rows, pixels.columns)


def _stored_bits(values: np.ndarray, pixels: PixelFormat) -> np.ndarray:
    """Numbers of the stored type without the bits that are not in use, whatever a decoder has left there.

    The highest bit in use is the sign of signed numbers: 0xC18 of 12 bits is -1000. pydicom 3.0.2 reads 3096 from a
    JPEG-LS picture that says 16 bits.
    """
    unused = pixels.bits_allocated - pixels.bits_stored
    return values << unused >> unused if unused else values


def _decoder(syntax: UID) -> Decoder | None:
    """pydicom's decoder, or None for ``decode_jpeg_lossless``, also where a plugin could do it: see there why."""
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        return None
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    if decoder is None or not decoder.is_available:
        raise InputError(f"pixels encoded as {syntax.name}, which cannot be decoded here", advice="convert the series")
    return decoder


def _by_pydicom(
    decoder: Decoder, source: BinaryIO | bytes, pixels: PixelFormat, *, index: int = 0, frames: int | None = None
) -> np.ndarray:
    options: dict[str, Any] = {
        "view_only": pixels.bits_stored == pixels.bits_allocated,  # unused bits are cleared in a copy
        "rows": pixels.rows,
        "columns": pixels.columns,
        "number_of_frames": frames or pixels.frames,
        "samples_per_pixel": 1,
        "bits_allocated": pixels.bits_allocated,
        "bits_stored": pixels.bits_stored,
        "pixel_representation": int(pixels.signed),
        "photometric_interpretation": pixels.photometric,
        "pixel_keyword": "PixelData",
        "pixel_vr": pixels.representation or "OW",
    }
    array, _ = decoder.as_array(source, index=index, raw=True, **options)
    return _stored_bits(array.astype(_stored_dtype(pixels), copy=False), pixels)


def _by_numpy(encoded: bytes, pixels: PixelFormat) -> np.ndarray:
    """One frame of lossless JPEG, whose numbers have no sign, as the stored type."""
    values = decode_jpeg_lossless(encoded, rows=pixels.rows, columns=pixels.columns)
    return _stored_bits(values.astype(_stored_dtype(pixels)), pixels)


def _require_size(encoded: bytes, pixels: PixelFormat) -> None:
    """A compressed picture says its size again: it must be that of the header before a decoder makes room for it."""
    size = _picture_size(encoded, pixels)
    if size not in ((pixels.rows, pixels.columns), None):
        raise InputError(
            f"a compressed picture of {size[0]} x {size[1]} pixels",
            expected=f"{pixels.rows} x {pixels.columns} as in the header",
            advice="replace the file",
        )


def _picture_size(encoded: bytes, pixels: PixelFormat) -> tuple[int, int] | None:
    """Rows and columns; None for run lengths, which do not say."""
    if pixels.transfer_syntax in JPEG2000TransferSyntaxes:
        if encoded[:4] != b"\xff\x4f\xff\x51":
            raise InputError("no start of a JPEG 2000 picture", advice="replace the file")
        right, bottom, left, top = (int.from_bytes(encoded[at : at + 4], "big") for at in (8, 12, 16, 20))
        return bottom - top, right - left
    if pixels.transfer_syntax not in _JPEG:
        return None
    at = 2
    while encoded[at : at + 1] == b"\xff":
        mark, length = encoded[at + 1 : at + 2], int.from_bytes(encoded[at + 2 : at + 4], "big")
        if mark and mark[0] in _JPEG_SIZES:
            return int.from_bytes(encoded[at + 5 : at + 7], "big"), int.from_bytes(encoded[at + 7 : at + 9], "big")
        at += 1 if mark == b"\xff" else 2 + length
    raise InputError("no size in a JPEG picture", advice="replace the file")
