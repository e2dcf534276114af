"""What one path of a datalist holds, or several together: the channels of one image, without torch and MONAI."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from aide_monai.errors import InputError
from aide_monai.io.dicom.pixels import decode
from aide_monai.io.dicom.seg import is_dicom_seg
from aide_monai.io.dicom.series import DicomSeries, find_series, one_series
from aide_monai.io.grid import shape_text
from aide_monai.io.location import Location
from aide_monai.io.nifti import PLACE, NiftiPlace
from aide_monai.io.opening import NOTHING_THERE, part_of
from aide_monai.io.png import CHAOS_DICOM, open_png_stack, png_files
from aide_monai.io.volumes import Volume, open_volume

Meta: TypeAlias = dict[str, Any]
"""MONAI's metadata of an image, by key."""


@dataclass(frozen=True)
class Channels:
    """An image that was read.

    Attributes:
        voxels: (x, y, z), or with an axis of channels where there are several.
        affine: (4, 4) float64, voxel index to mm, RAS.
        shape: (x, y, z).
        channel_axis: which of the axes of ``voxels`` is that of the channels; None for a single one.
        place: how the NIfTI header of the first file says where it lies, as ``Volume.place``.
        doubts: what is strange about the files.
        told: what else the files say: "modality" of DICOM, "oriented" of volumes, "sparse" of a label whose
            slices without a mark may be left out.
    """

    voxels: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    shape: tuple[int, ...]
    channel_axis: int | None = None
    place: NiftiPlace | None = None
    doubts: tuple[str, ...] = ()
    told: Meta = field(default_factory=dict)

    def meta(self) -> Meta:
        """MONAI's metadata, by the texts that ``MetaKeys`` stands for."""
        meta: Meta = {
            "affine": self.affine,
            "original_affine": self.affine.copy(),
            "spatial_shape": np.asarray(self.shape),
            "original_channel_dim": float("nan") if self.channel_axis is None else self.channel_axis,
            "space": "RAS",
            **self.told,
        }
        if self.place is not None:
            meta[PLACE] = {name: np.array(numbers) for name, numbers in self.place.fields.items()}
        return meta


def read_channels(paths: Sequence[str]) -> Channels:
    """Any of the locations of ``open_location``, one or several on one grid.

    Raises:
        InputError: naming the path that cannot be read or lies on another grid.
    """
    if all(Location.parse(path).is_volume_file for path in paths):
        return read_volume_files(paths)
    for path in paths:
        if not os.path.exists(Location.parse(path).path):
            raise InputError(problems=[replace(NOTHING_THERE, place=path)])
    if len(paths) == 1 and is_dicom_seg(paths[0]):
        try:
            seg = Location.parse(paths[0]).open()
        except InputError as error:
            raise error.at(paths[0]) from error
        return Channels(seg.decode()[..., 0], seg.affine, seg.shape, told={"modality": seg.modality, "sparse": True})
    return read_png_folder(paths) if png_files(paths[0]) else read_dicom(paths)


def read_volume_files(paths: Sequence[str]) -> Channels:
    """NIfTI, MetaImage, NRRD, MGH and Analyze files, or channels and slices of them; see ``VolumeReader``."""
    files: dict[str, Volume] = {}
    arrays: list[npt.NDArray[Any]] = []
    first: Volume | None = None
    for path in paths:
        try:
            place = Location.parse(path)
            if place.path not in files:
                files[place.path] = _decoded_once(open_volume(place.path))
            volume = part_of(files[place.path], place.numbers)
            if volume.channels is None:
                raise InputError(f"shape {shape_text(volume.file_shape)} with several further axes")
            arrays.append(volume.decode())
        except InputError as error:
            raise error.at(path, expected="a volume (x, y, z) or (x, y, z, channel)") from error
        first = first or volume
        if wrong := first.grid.mismatch(volume.grid):
            expected = f"{wrong.expected} as in {paths[0]}, to be channels of one image"
            raise InputError(wrong.found, expected=expected, place=path)
    if first is None:
        raise InputError("no files", expected="at least one volume")
    stack = np.concatenate(arrays, axis=-1)
    stack = stack.astype(stack.dtype.newbyteorder("="), copy=False)  # torch takes the machine's byte order only
    one = stack.shape[-1] == 1
    return Channels(
        stack[..., 0] if one else stack,
        first.affine,
        first.shape,
        channel_axis=None if one else -1,
        place=first.place,
        doubts=first.doubts,
        told={"oriented": first.oriented},
    )


def read_dicom(paths: Sequence[str], *, roots: Iterable[str | Path] = ()) -> Channels:
    """DICOM files or folders; see ``DicomSeriesReader``."""
    series = _dicom_series(paths, tuple(roots))
    first = series[0]
    for other, path in zip(series[1:], paths[1:], strict=False):  # files of one volume are no channels
        if wrong := first.grid.mismatch(other.grid):
            expected = f"{wrong.expected} as in {paths[0]}, to be channels of one image"
            raise InputError(wrong.found, expected=expected, place=path)
    voxels = decode(series)
    several = len(series) > 1
    return Channels(
        voxels if several else voxels[0],
        first.affine,
        first.shape,
        channel_axis=0 if several else None,
        doubts=tuple(dict.fromkeys(doubt for one in series for doubt in one.doubts)),
        told={"modality": first.modality},
    )


def _dicom_series(paths: Sequence[str], roots: tuple[str | Path, ...]) -> list[DicomSeries]:
    if len(paths) > 1 and all(os.path.isfile(path) for path in paths):
        series = find_series(paths, roots=roots, check=False)
        files = [one.files for one in series]
        if sorted(files) != sorted([path] for path in paths):
            return [one_series(paths, roots=roots)]
        by_file = {one.files[0]: one for one in series}
        return [by_file[path] for path in paths]
    return [one_series(place.path, select=place.part, roots=roots) for place in map(Location.parse, paths)]


def read_png_folder(
    paths: Sequence[str],
    *,
    dicom: str | Path | None = CHAOS_DICOM,
    spacing_mm: Sequence[float] | None = None,
    roots: Iterable[str | Path] = (),
) -> Channels:
    """A folder of PNG slices; see ``PNGStackReader``."""
    if len(paths) != 1:
        raise InputError(f"{len(paths)} paths", expected="one folder of PNG files", place=", ".join(paths))
    voxels, affine = open_png_stack(paths[0], dicom=dicom, spacing_mm=spacing_mm, roots=roots)
    return Channels(voxels, affine, voxels.shape)


def _decoded_once(volume: Volume) -> Volume:
    """The volume, whose voxels stay in memory: phases of one file are decoded together."""
    return replace(volume, decode=functools.cache(volume.decode))
