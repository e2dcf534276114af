"""NIfTI, MetaImage and NRRD volumes for MONAI's ``LoadImaged``, whole or one channel or slice of a file."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils.enums import MetaKeys, SpaceKeys

from aide_monai.data.volume_files import (
    AFFINE_TOLERANCE_MM,
    SUFFIXES,
    Volume,
    affine_text,
    corner_distance_mm,
    open_volume,
    shape_text,
)
from aide_monai.errors import InputError

_PART = re.compile(r"(?P<file>.+)#(?P<parts>(?:channel|[xyz])=\d{1,9}(?:&(?:channel|[xyz])=\d{1,9})*)", re.DOTALL)

Path = str | PathLike[str]


def channel_path(file: Path, channel: int) -> str:
    """How a datalist names one channel (or time point) of a file: ``FILE#channel=K``, K from 0 on the last axis."""
    return f"{file}#channel={channel}"


def slice_path(path: Path, axis: int, index: int) -> str:
    """How a datalist names one slice of a volume, across axis 0, 1 or 2: ``FILE#z=12``, ``FILE#channel=K&z=12``."""
    return f"{path}{'#' if split_channel(path)[0] == str(path) else '&'}{'xyz'[axis]}={index}"


def split_channel(path: Path) -> tuple[str, int | None]:
    """The file of a path, and the channel that the path names, or None."""
    file, parts = _split(path)
    return file, parts.get("channel")


def open_channel(path: Path) -> Volume:
    """``open_volume`` for paths that may name a channel and a slice; the volume then has that part only.

    With a channel named, a file of three axes is a 2D image (x, y, channel), such as QUBIQ's brain tumours. A slice
    keeps its place in space.

    Raises:
        InputError: as ``open_volume``, or the file has no such channel or slice.
    """
    file, parts = _split(path)
    return _part(open_volume(file), parts)


def _split(path: Path) -> tuple[str, dict[str, int]]:
    match = _PART.fullmatch(str(path))
    if match is None or os.path.lexists(path):
        return str(path), {}
    pairs = [part.split("=") for part in match["parts"].split("&")]
    return match["file"], {key: int(number) for key, number in pairs}


def _part(volume: Volume, parts: dict[str, int]) -> Volume:
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

    return replace(volume, shape=shape, channels=channels, file_shape=file_shape, affine=affine, decode=decode)


class VolumeReader(ImageReader):
    """Volumes of every voxel type, for ``LoadImaged(reader=VolumeReader)``.

    Unlike MONAI's own readers it reads 8-bit signed MetaImages (PROMISE12's labels), gives 2D files a slice axis, so
    that image and label agree, and understands ``FILE#channel=K`` and ``FILE#z=12``. Several files become channels.
    Give it last in a list of readers: MONAI asks the last one first, and this one refuses what is not its own.

    Raises:
        InputError: a file that cannot be read, has more than one further axis, or another grid than the first one.
    """

    def verify_suffix(self, filename: Sequence[Path] | Path) -> bool:
        """Whether all files have a suffix of a volume."""
        return all(split_channel(path)[0].lower().endswith(SUFFIXES) for path in _paths(filename))

    def read(self, data: Sequence[Path] | Path, **kwargs: Any) -> list[str]:
        """The paths: files are opened in ``get_data``, whose errors MONAI does not hide behind other readers."""
        if not self.verify_suffix(data):
            raise InputError(f"{', '.join(map(str, _paths(data)))}: expected files that end in {', '.join(SUFFIXES)}")
        return [str(path) for path in _paths(data)]

    def get_data(self, img: list[str]) -> tuple[np.ndarray, dict[str, Any]]:
        """Voxels (x, y, z), or with channels where there are any, and MONAI's metadata; affine in RAS mm."""
        files: dict[str, Volume] = {}
        arrays: list[np.ndarray] = []
        first: Volume | None = None
        for path in img:
            try:
                file, parts = _split(path)
                if file not in files:
                    files[file] = _decoded_once(open_volume(file))
                volume = _part(files[file], parts)
                if volume.channels is None:
                    raise InputError(f"shape {shape_text(volume.file_shape)} with several further axes")
                arrays.append(volume.decode())
            except InputError as error:
                raise InputError(f"{path}: found {error}; expected a volume (x, y, z) or (x, y, z, channel)") from error
            first = first or volume
            _require_same_grid(path, volume, img[0], first)
        if first is None:
            raise InputError("no files; expected at least one volume")
        stack = np.concatenate(arrays, axis=-1)
        stack = stack.astype(stack.dtype.newbyteorder("="), copy=False)  # torch takes the machine's byte order only
        one = stack.shape[-1] == 1
        meta: dict[str, Any] = {
            MetaKeys.AFFINE: first.affine,
            MetaKeys.ORIGINAL_AFFINE: first.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(first.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if one else -1,
            MetaKeys.SPACE: SpaceKeys.RAS,
        }
        return stack[..., 0] if one else stack, meta


def _paths(data: Sequence[Path] | Path) -> Sequence[Path]:
    return [data] if isinstance(data, (str, PathLike)) else data


def _decoded_once(volume: Volume) -> Volume:
    """The volume, whose voxels stay in memory: phases of one file are decoded together."""
    return replace(volume, decode=functools.cache(volume.decode))


def _require_same_grid(path: str, volume: Volume, first_path: str, first: Volume) -> None:
    if volume.shape != first.shape:
        found, expected = f"shape {shape_text(volume.shape)}", f"shape {shape_text(first.shape)}"
    elif corner_distance_mm(volume.affine, first.affine, first.shape) > AFFINE_TOLERANCE_MM:
        found, expected = f"affine {affine_text(volume.affine)}", f"affine {affine_text(first.affine)}"
    else:
        return
    raise InputError(f"{path}: found {found}; expected {expected} as in {first_path}, to be channels of one image")
