"""What a path of a datalist may name: a file, a channel of it, a DICOM series, or a folder of PNG slices."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader

from aide_monai.data.datalist import on_disk, split_selection
from aide_monai.data.detached import data_file
from aide_monai.data.dicom import one_series
from aide_monai.data.dicom_elements import is_dicom
from aide_monai.data.dicom_pixels import decode
from aide_monai.data.png_stack import png_files
from aide_monai.data.readers import DicomSeriesReader, PNGStackReader
from aide_monai.data.volume_files import SUFFIXES, Volume
from aide_monai.data.volume_reader import VolumeReader, open_channel, split_channel
from aide_monai.errors import InputError

PathText = str | os.PathLike[str]

_NOTHING = f"no such file or folder; expected {', '.join(SUFFIXES)}, DICOM, or a folder of PNG slices"


class LocationReader(ImageReader):
    """Any of the locations of ``open_location`` for MONAI: ``LoadImaged(keys, reader=LocationReader)``.

    ``VolumeReader``, ``PNGStackReader`` or ``DicomSeriesReader`` reads it; several locations become channels. What
    comes out are MetaTensors with the affine in RAS mm, for any transforms of MONAI. A label on another grid than its
    image follows with ``ResampleToMatchd``::

        Compose([
            LoadImaged(["image", "label"], reader=LocationReader, ensure_channel_first=True),
            ResampleToMatchd("label", key_dst="image", mode="nearest", padding_mode="zeros"),
        ])({"image": ["MR/1/InPhase", "MR/1/OutPhase"], "label": "MR/1/label.nrrd"})

    ``LoadImaged(dtype=None)`` keeps the integers of the source, else they become float32.
    """

    def verify_suffix(self, filename: Sequence[PathText] | PathText) -> bool:
        """Always: whatever cannot be read is refused by name."""
        return True

    def read(self, data: Sequence[PathText] | PathText, **kwargs: Any) -> list[str]:
        """The paths: files are opened in ``get_data``, whose errors MONAI does not hide behind other readers."""
        return [str(data)] if isinstance(data, str | os.PathLike) else [str(path) for path in data]

    def get_data(self, img: list[str]) -> tuple[Any, dict[str, Any]]:
        """Voxels (x, y, z), or with a channel axis where there are several channels, and MONAI's metadata.

        The voxels are a tensor: MONAI would bring the memory of an array into the order of its axes, which takes longer
        than decoding DICOM and tears the slices apart. Unsigned integers, which torch hardly supports, become signed
        ones: of the same 16 bits if they fit, else of twice as many.

        Raises:
            InputError: as ``open_location``, channels on different grids, or voxels that are no single real numbers.
        """
        voxels, meta = self._read(img)
        if voxels.dtype.kind not in "biuf":
            raise InputError(
                f"{img[0]}: found voxels of type {voxels.dtype}; expected a number for each: convert the file"
            )
        if voxels.dtype == np.uint16:
            voxels = voxels.view(np.int16) if voxels.max(initial=0) < 2**15 else voxels.astype(np.int32)
        elif voxels.dtype.kind == "u" and voxels.dtype.itemsize > 2:
            voxels = voxels.astype(np.int64)
        if voxels.dtype.kind == "f" and voxels.dtype.itemsize not in (4, 8):
            voxels = voxels.astype(np.float32 if voxels.dtype.itemsize == 2 else np.float64)
        if min(voxels.strides, default=0) < 0 or not voxels.flags.writeable:
            voxels = voxels.copy(order="K")
        return torch.from_numpy(voxels), meta

    def _read(self, img: list[str]) -> tuple[np.ndarray, dict[str, Any]]:
        if all(is_volume_file(path) for path in img):
            return VolumeReader().get_data(img)
        for path in img:
            if not os.path.exists(on_disk(path)):
                raise InputError(f"{path}: found {_NOTHING}")
        return (PNGStackReader() if png_files(img[0]) else DicomSeriesReader()).get_data(img)


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
        voxels, meta = PNGStackReader().get_data([path])
        return _volume(voxels.shape, meta["affine"], (), lambda: voxels)
    source, select = split_selection(path)
    if not os.path.exists(source):
        raise InputError(_NOTHING)
    if os.path.isfile(source) and not is_dicom(source):
        raise InputError(f"a file of an unknown kind; expected {', '.join(SUFFIXES)} or DICOM")
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
