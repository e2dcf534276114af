"""Opens what a location names: a file, a part of it, a DICOM series, or a folder of PNG slices."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aide_monai.errors import InputError, Problem
from aide_monai.io.dicom.elements import is_dicom
from aide_monai.io.dicom.pixels import decode
from aide_monai.io.dicom.seg import SEG, is_dicom_seg, read_dicom_seg
from aide_monai.io.dicom.series import one_series
from aide_monai.io.grid import shape_text
from aide_monai.io.headers import data_file, matrix_file
from aide_monai.io.location import SUFFIXES, Location
from aide_monai.io.png import open_png_stack, png_files
from aide_monai.io.volumes import Volume, open_volume

NOTHING_THERE = Problem("no such file or folder", f"{', '.join(SUFFIXES)}, DICOM, or a folder of PNG slices")


def opened(place: Location) -> Volume:
    """`Location.open`."""
    if place.is_volume_file:
        return part_of(open_volume(place.path), place.numbers)
    if png_files(str(place)):
        voxels, affine = open_png_stack(str(place))
        return _volume(voxels.shape, affine, (), lambda: voxels)
    if not os.path.exists(place.path):
        raise InputError(problems=[NOTHING_THERE])
    if os.path.isfile(place.path) and not is_dicom(place.path):
        raise InputError("a file of an unknown kind", expected=f"{', '.join(SUFFIXES)} or DICOM")
    if is_dicom_seg(place.path):
        return _segmentation(place.path)
    series = one_series(place.path, select=place.part)
    volume = _volume(series.shape, series.affine, series.doubts, lambda: decode([series])[0])
    return replace(volume, modality=series.modality, echo_ms=series.echo_ms, acquired=series.acquired)


def files_of(place: Location) -> list[str]:
    """`Location.files`."""
    if place.is_volume_file:
        beside = data_file(Path(place.path)), matrix_file(Path(place.path))
        return list(dict.fromkeys([place.path, *(str(file) for file in beside if file is not None)]))
    if is_dicom_seg(place.path):
        return [place.path]
    return png_files(str(place)) or one_series(place.path, select=place.part).files


def content_hash(files: Iterable[str]) -> str:
    """SHA-256 over the content of files, one after the other, as hexadecimal digits."""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _volume(shape: tuple[int, ...], affine: np.ndarray, doubts: tuple[str, ...], voxels: Any) -> Volume:
    return Volume(shape, 1, shape, np.asarray(affine, dtype=np.float64), doubts, lambda: voxels()[..., None])


def _segmentation(file: str) -> Volume:
    """The label values of a DICOM SEG, from its first marked slice to its last."""
    seg = read_dicom_seg(file)
    if not seg.spacing_stated:
        raise InputError(
            "a DICOM segmentation that does not say how far its slices are apart",
            expected="SpacingBetweenSlices, or a label map with all slices",
            advice="export it as NIfTI or NRRD on the grid of its image, for instance by 3D Slicer",
        )
    return replace(_volume(seg.labels.shape, seg.affine, (), lambda: seg.labels), modality=SEG)


def part_of(volume: Volume, parts: dict[str, int]) -> Volume:
    """The channel and slice of a volume that `Location.numbers` names; a slice keeps its place in space.

    With a channel named, a file of three axes is a 2D image (x, y, channel), such as QUBIQ's brain tumours.

    Raises:
        InputError: there is no such channel or slice.
    """
    shape, affine, file_shape = volume.shape, volume.affine, volume.file_shape
    channels, channel = volume.channels, parts.get("channel")
    flat = channel is not None and len(file_shape) == 3
    if channel is not None:
        there = shape[2] if flat else channels or 0
        if channel >= there:
            raise InputError(f"shape {shape_text(volume.file_shape)} without a channel {channel} (the first is 0)")
        shape, channels, file_shape = (*shape[:2], 1) if flat else shape, 1, file_shape[:-1]
    cuts = [slice(None)] * 3
    for axis, letter in enumerate("xyz"):
        if letter in parts:
            index = parts[letter]
            if index >= shape[axis]:
                raise InputError(f"shape {shape_text(volume.file_shape)} without {letter}={index} (the first is 0)")
            cuts[axis] = slice(index, index + 1)
            shape = (*shape[:axis], 1, *shape[axis + 1 :])
            file_shape = (*file_shape[:axis], 1, *file_shape[axis + 1 :])
            affine = affine.copy()
            affine[:3, 3] += volume.affine[:3, axis] * index

    def decode() -> np.ndarray:
        voxels = volume.decode()
        if channel is not None:
            one = slice(channel, channel + 1)
            voxels = voxels[:, :, one] if flat else voxels[..., one]
        return voxels[tuple(cuts)]

    part = replace(volume, shape=shape, channels=channels, file_shape=file_shape, affine=affine, decode=decode)
    return part if affine is volume.affine else replace(part, place=None)


def image_header(path: str) -> Volume:
    """`Location.open` of an image, for what needs the header alone.

    Raises:
        InputError: naming the image, if it cannot be read.
    """
    try:
        place = Location.parse(path)
        if is_dicom_seg(place.path):
            raise InputError("a DICOM segmentation")
        return place.open()
    except InputError as error:
        raise error.at(path, expected="an image", advice="replace it or leave the case out") from error
