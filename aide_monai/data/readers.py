"""DICOM series and PNG label stacks for MONAI's ``LoadImaged(reader=...)``, on one grid.

Both readers look at the files in ``get_data`` only: an error in ``read`` would make MONAI try its own readers, which
take the first of several series, or stack two, without a word. ``read`` refuses what belongs to another reader, so
that several can be given: ``LoadImaged(keys, reader=[PNGStackReader, DicomSeriesReader])``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils.enums import MetaKeys, SpaceKeys

from aide_monai.data.datalist import absolute_paths, split_selection
from aide_monai.data.dicom import DicomSeries, find_series, list_files, one_series
from aide_monai.data.dicom_elements import is_dicom
from aide_monai.data.dicom_pixels import decode
from aide_monai.data.png_stack import match_dicom, png_files, read_png_stack
from aide_monai.data.volume_files import AFFINE_TOLERANCE_MM, affine_text, corner_distance_mm, shape_text
from aide_monai.errors import InputError

CHAOS_DICOM = "../DICOM_anon"

_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")

PathText = str | PathLike[str]


class DicomSeriesReader(ImageReader):
    """DICOM volumes in true order, spacing and intensity, for ``LoadImaged(reader=DicomSeriesReader)``.

    What a path may be:

    - a folder with one volume, in files of any names and order, also in subfolders;
    - ``FOLDER#echo=2.3``, ``FOLDER#series=UID``, ``FOLDER#type=...``, ``FOLDER#phase=2``, joined by ``&``: one of the
      volumes of a folder. A folder with several is refused by a message that lists them with these texts;
    - one file, usually a multi-frame one.

    Several folders, selections or multi-frame files become channels in the order given and must lie on one grid;
    several single-frame files are the slices of one volume.

    Values are rescaled (HU), MONOCHROME1 is turned round, and the integer type is kept where nothing is lost; see
    ``aide_monai.data.dicom_pixels.decode``. ``LoadImaged`` converts to its own ``dtype``, float32 by default.

    Args:
        roots: further folders that linked files may lead to; otherwise a link must stay inside the folder.
    """

    def __init__(self, *, roots: Iterable[str | Path] = ()) -> None:
        super().__init__()
        self.roots = tuple(roots)

    def verify_suffix(self, filename: Sequence[PathText] | PathText) -> bool:
        """Whether all paths are DICOM files or folders with some."""
        return all(_holds_dicom(split_selection(path)[0]) for path in _paths(filename))

    def read(self, data: Sequence[PathText] | PathText, **kwargs: Any) -> list[str]:
        """The paths; nothing is opened but to see whether it is DICOM."""
        return _for_this_reader(self, data, "a DICOM file or a folder of DICOM files")

    def get_data(self, img: list[str]) -> tuple[np.ndarray, dict[str, Any]]:
        """Read the volumes.

        Returns:
            Voxels (x, y, z), or (channel, x, y, z) of several volumes, and MONAI's metadata with the affine, RAS, mm.

        Raises:
            InputError: no volume, several, or one with missing, doubled, unevenly spaced or damaged slices; channels on
                different grids; a linked file that leads out of its folder.
        """
        channels = self._channels(img)
        _require_one_grid(channels, img)
        for doubt in dict.fromkeys(doubt for one in channels for doubt in one.doubts):
            warnings.warn(f"{img[0]}: {doubt}", stacklevel=2)
        voxels = decode(channels)
        first = channels[0]
        meta = _meta(first.affine, first.shape, channels=len(channels))
        return (voxels if len(channels) > 1 else voxels[0]), meta

    def _channels(self, paths: Sequence[str]) -> list[DicomSeries]:
        if len(paths) > 1 and all(os.path.isfile(path) for path in paths):
            series = find_series(paths, roots=self.roots, check=False)
            files = [one.files for one in series]
            if sorted(files) != sorted([path] for path in paths):
                return [one_series(paths, roots=self.roots)]
            by_file = {one.files[0]: one for one in series}
            return [by_file[path] for path in paths]
        selected = [split_selection(path) for path in paths]
        return [one_series(source, select=select, roots=self.roots) for source, select in selected]


class PNGStackReader(ImageReader):
    """A folder of PNG label slices as one volume, for ``LoadImaged(reader=PNGStackReader)``.

    The geometry comes from the DICOM slices that the labels were drawn on, so that image and label overlay exactly:
    every PNG belongs to the DICOM slice of the same name (without suffix), or, where no names agree and the numbers of
    files do, to the one of the same rank among the sorted file names (CHAOS CT). Both are then sorted by position; the
    order of file names may run the other way. Without DICOM slices, the PNG files are taken in the order of their names
    with ``spacing_mm``.

    Values are kept as stored, uint8 or uint16: numbers of a palette, 0 and 255 in files of one bit.

    Args:
        dicom: folder of the DICOM slices, absolute or seen from the folder of PNG files, searched with its subfolders;
            the default is where CHAOS has it. None: there are none.
        spacing_mm: voxel size (x, y, z) where there are no DICOM slices; None then warns and takes 1 mm.
        roots: further folders that linked files may lead to.
    """

    def __init__(
        self,
        *,
        dicom: str | Path | None = CHAOS_DICOM,
        spacing_mm: Sequence[float] | None = None,
        roots: Iterable[str | Path] = (),
    ) -> None:
        super().__init__()
        if spacing_mm is not None and (len(spacing_mm) != 3 or not all(value > 0 for value in spacing_mm)):
            raise InputError(f"spacing_mm={spacing_mm}: expected three lengths (x, y, z) in mm above 0")
        self.dicom = dicom
        self.spacing_mm = spacing_mm
        self.roots = tuple(roots)

    def verify_suffix(self, filename: Sequence[PathText] | PathText) -> bool:
        """Whether the path is a folder with PNG files."""
        return all(bool(png_files(path)) for path in _paths(filename))

    def read(self, data: Sequence[PathText] | PathText, **kwargs: Any) -> list[str]:
        """The paths; nothing is opened."""
        return _for_this_reader(self, data, "a folder of PNG files")

    def get_data(self, img: list[str]) -> tuple[np.ndarray, dict[str, Any]]:
        """Read the stack.

        Returns:
            Voxels (x, y, z), uint8 or uint16, and MONAI's metadata with the affine, RAS, mm.

        Raises:
            InputError: no PNG files, one that is damaged, in colour or of another size, or slices that do not match the
                DICOM slices one to one.
        """
        if len(img) != 1:
            raise InputError(f"{', '.join(img)}: found {len(img)} paths; expected one folder of PNG files")
        folder = img[0]
        files = png_files(folder)
        if not files:
            raise InputError(f"{folder}: found no PNG files; expected a folder with one PNG per slice")
        list_files(folder, roots=self.roots)  # refuses links that lead out
        series: DicomSeries | None = None
        place = "" if self.dicom is None else os.path.normpath(os.path.join(folder, self.dicom))
        if place and (os.path.isdir(place) or str(self.dicom) != CHAOS_DICOM):
            if not os.path.isabs(str(self.dicom)):
                absolute_paths(os.path.abspath(place), Path(place).absolute().parent, roots=self.roots)
            files, series = match_dicom(files, place, roots=self.roots)
            affine = series.affine
        else:
            if self.spacing_mm is None:
                warnings.warn(
                    f"{folder}: no DICOM slices, so in the order of file names with 1 mm voxels", stacklevel=2
                )
            affine = np.diag([*(self.spacing_mm or (1.0, 1.0, 1.0)), 1.0])
        voxels = read_png_stack(files)
        if series is not None and voxels.shape != series.shape:
            found, expected = shape_text(voxels.shape), shape_text(series.shape)
            raise InputError(f"{folder}: found shape {found}; expected {expected} as the DICOM slices in {place}")
        return voxels, _meta(affine, voxels.shape, channels=1)


def _paths(data: Sequence[PathText] | PathText) -> list[str]:
    return [str(data)] if isinstance(data, (str, PathLike)) else [str(path) for path in data]


def _for_this_reader(reader: ImageReader, data: Sequence[PathText] | PathText, expected: str) -> list[str]:
    paths = _paths(data)
    foreign = [path for path in paths if os.path.exists(path) and not reader.verify_suffix(path)]
    if foreign:
        raise InputError(f"{foreign[0]}: expected {expected}")
    return paths


def _holds_dicom(path: str) -> bool:
    if os.path.isfile(path):
        return path.lower().endswith(_DICOM_SUFFIXES) or is_dicom(path)
    return any(_holds_dicom(os.path.join(place, name)) for place, _, names in os.walk(path) for name in names)


def _require_one_grid(channels: Sequence[DicomSeries], paths: Sequence[str]) -> None:
    first = channels[0]
    for other, path in zip(channels[1:], paths[1:], strict=False):  # files of one volume are no channels
        if other.shape != first.shape:
            found, expected = f"shape {shape_text(other.shape)}", f"shape {shape_text(first.shape)}"
        elif corner_distance_mm(other.affine, first.affine, first.shape) > AFFINE_TOLERANCE_MM:
            found, expected = f"affine {affine_text(other.affine)}", f"affine {affine_text(first.affine)}"
        else:
            continue
        raise InputError(f"{path}: found {found}; expected {expected} as in {paths[0]}, to be channels of one image")


def _meta(affine: np.ndarray, shape: Sequence[int], *, channels: int) -> dict[str, Any]:
    return {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.asarray(shape),
        MetaKeys.ORIGINAL_CHANNEL_DIM: 0 if channels > 1 else float("nan"),
        MetaKeys.SPACE: SpaceKeys.RAS,
    }
