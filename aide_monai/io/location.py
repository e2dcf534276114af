"""Opens what a path of a datalist names: a file, a part of it, a DICOM series, or a folder of PNG slices."""

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
from aide_monai.io.dicom.series import one_series
from aide_monai.io.grid import shape_text
from aide_monai.io.headers import data_file
from aide_monai.io.paths import PathText, split_channel, split_parts, split_selection
from aide_monai.io.png import open_png_stack, png_files
from aide_monai.io.volumes import SUFFIXES, Volume, open_volume

NOTHING_THERE = Problem("no such file or folder", f"{', '.join(SUFFIXES)}, DICOM, or a folder of PNG slices")


def open_location(path: str) -> Volume:
    """The header of a volume; voxels on demand.

    Args:
        path: a NIfTI, MHD or NRRD file; ``FILE#channel=K``; a DICOM file or folder, ``FOLDER#echo=2.3`` and the like
            (see ``DicomSeriesReader``); a folder of PNG slices (see ``PNGStackReader``).

    Raises:
        InputError: nothing there, unreadable, or not one volume.
    """
    if is_volume_file(path):
        return open_channel(path)
    if png_files(path):
        voxels, affine = open_png_stack(path)
        return _volume(voxels.shape, affine, (), lambda: voxels)
    source, select = split_selection(path)
    if not os.path.exists(source):
        raise InputError(problems=[NOTHING_THERE])
    if os.path.isfile(source) and not is_dicom(source):
        raise InputError("a file of an unknown kind", expected=f"{', '.join(SUFFIXES)} or DICOM")
    series = one_series(source, select=select)
    volume = _volume(series.shape, series.affine, series.doubts, lambda: decode([series])[0])
    return replace(volume, modality=series.modality, echo_ms=series.echo_ms, acquired=series.acquired)


def is_volume_file(path: str) -> bool:
    """Whether the path names a NIfTI, MHD or NRRD file or a channel of it."""
    return split_channel(path)[0].lower().endswith(SUFFIXES)


def files_of(path: str) -> list[str]:
    """The files that a location consists of, in order.

    Raises:
        InputError: as ``open_location``.
    """
    if is_volume_file(path):
        file = split_channel(path)[0]
        return list(dict.fromkeys([file, str(data_file(Path(file)))]))
    return png_files(path) or one_series(*split_selection(path)[:1], select=split_selection(path)[1]).files


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


def open_channel(path: PathText) -> Volume:
    """``open_volume`` for paths that may name a channel and a slice; the volume then has that part only.

    With a channel named, a file of three axes is a 2D image (x, y, channel), such as QUBIQ's brain tumours. A slice
    keeps its place in space.

    Raises:
        InputError: as ``open_volume``, or the file has no such channel or slice.
    """
    file, parts = split_parts(path)
    return part_of(open_volume(file), parts)


def part_of(volume: Volume, parts: dict[str, int]) -> Volume:
    """The channel and slice of a volume that ``parts`` names."""
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
    """The header of an image, see ``open_location``.

    Raises:
        InputError: naming the image, if it cannot be read.
    """
    try:
        return open_location(path)
    except InputError as error:
        raise error.at(path, expected="an image", advice="replace it or leave the case out") from error
