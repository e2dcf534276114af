"""DICOM series and PNG label stacks for MONAI's ``LoadImaged(reader=...)``, on one grid.

Both readers look at the files in ``get_data`` only: an error in ``read`` would make MONAI try its own readers, which
take the first of several series, or stack two, without a word. ``read`` refuses what belongs to another reader, so
that several can be given: ``LoadImaged(keys, reader=[PNGStackReader, DicomSeriesReader])``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader

from aide_monai.errors import InputError
from aide_monai.io.ahead import read_apart
from aide_monai.io.channels import Channels, Meta, read_dicom, read_png_folder, read_volume_files
from aide_monai.io.folder import holds_dicom
from aide_monai.io.location import SUFFIXES, Location, PathText
from aide_monai.io.png import CHAOS_DICOM, png_files
from aide_monai.io.volumes import tell_doubts


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
    ``aide_monai.io.dicom.pixels.decode``. ``LoadImaged`` converts to its own ``dtype``, float32 by default.

    Args:
        roots: further folders that linked files may lead to; otherwise a link must stay inside the folder.
    """

    def __init__(self, *, roots: Iterable[str | Path] = ()) -> None:
        super().__init__()
        self.roots = tuple(roots)

    def verify_suffix(self, filename: Sequence[PathText] | PathText) -> bool:
        """Whether all paths are DICOM files or folders with some."""
        return all(holds_dicom(Location.parse(path).path) for path in _paths(filename))

    def read(self, data: Sequence[PathText] | PathText, **kwargs: Any) -> list[str]:
        """The paths; nothing is opened but to see whether it is DICOM."""
        return _for_this_reader(self, data, "a DICOM file or a folder of DICOM files")

    def get_data(self, img: list[str]) -> tuple[np.ndarray, Meta]:
        """Read the volumes.

        Returns:
            Voxels (x, y, z), or (channel, x, y, z) of several volumes, and MONAI's metadata with the affine, RAS, mm.

        Raises:
            InputError: no volume, several, or one with missing, doubled, unevenly spaced or damaged slices; channels on
                different grids; a linked file that leads out of its folder.
        """
        return _told(img, read_dicom(img, roots=self.roots))


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
            raise InputError(f"spacing_mm={spacing_mm}", expected="three lengths (x, y, z) in mm above 0")
        self.dicom = dicom
        self.spacing_mm = spacing_mm
        self.roots = tuple(roots)

    def verify_suffix(self, filename: Sequence[PathText] | PathText) -> bool:
        """Whether the path is a folder with PNG files."""
        return all(bool(png_files(path)) for path in _paths(filename))

    def read(self, data: Sequence[PathText] | PathText, **kwargs: Any) -> list[str]:
        """The paths; nothing is opened."""
        return _for_this_reader(self, data, "a folder of PNG files")

    def get_data(self, img: list[str]) -> tuple[np.ndarray, Meta]:
        """Read the stack.

        Returns:
            Voxels (x, y, z), uint8 or uint16, and MONAI's metadata with the affine, RAS, mm.

        Raises:
            InputError: no PNG files, one that is damaged, in colour or of another size, or slices that do not match the
                DICOM slices one to one.
        """
        how: dict[str, Any] = {"dicom": self.dicom, "spacing_mm": self.spacing_mm, "roots": self.roots}
        return _told(img, read_png_folder(img, **how))


def _paths(data: Sequence[PathText] | PathText) -> list[str]:
    return [str(data)] if isinstance(data, (str, PathLike)) else [str(path) for path in data]


def _for_this_reader(reader: ImageReader, data: Sequence[PathText] | PathText, expected: str) -> list[str]:
    paths = _paths(data)
    foreign = [path for path in paths if os.path.exists(path) and not reader.verify_suffix(path)]
    if foreign:
        raise InputError("another kind of file", expected=expected, place=foreign[0])
    return paths


def _told(paths: Sequence[str], found: Channels) -> tuple[np.ndarray, Meta]:
    """Voxels and metadata for MONAI, and a warning for each doubt."""
    tell_doubts(paths[0], found.doubts)
    return found.voxels, found.meta()


class LocationReader(ImageReader):
    """Any of the locations of ``open_location`` for MONAI: ``LoadImaged(keys, reader=LocationReader)``.

    They are read as ``VolumeReader``, ``PNGStackReader`` or ``DicomSeriesReader`` do, but by another process, so that a
    decoder that dies or hangs is an error that names the file. Several locations become channels. What comes out are
    MetaTensors with the affine in RAS mm, for any transforms of MONAI. A label on another grid than its image follows
    with ``aide_monai.transforms.ByVotesd``::

        Compose([
            LoadImaged(["image", "label"], reader=LocationReader, ensure_channel_first=True),
            ByVotesd("label"),
        ])({"image": ["MR/1/InPhase", "MR/1/OutPhase"], "label": "MR/1/label.nrrd"})

    ``LoadImaged(dtype=None)`` keeps the integers of the source, else they become float32.

    Examples:
        >>> from monai.transforms import LoadImage
        >>> from aide_monai import LocationReader, write_phantoms
        >>> folder = write_phantoms("phantoms", cases=1, shape=(32, 32, 4))
        >>> LoadImage(reader=LocationReader)(f"{folder}/imagesTr/phantom_000.nii.gz#z=2").shape  # one slice of it
        torch.Size([32, 32, 1])
    """

    def verify_suffix(self, filename: Sequence[PathText] | PathText) -> bool:
        """Always: whatever cannot be read is refused by name."""
        return True

    def read(self, data: Sequence[PathText] | PathText, **kwargs: Any) -> list[str]:
        """The paths: files are opened in ``get_data``, whose errors MONAI does not hide behind other readers."""
        return [str(data)] if isinstance(data, str | os.PathLike) else [str(path) for path in data]

    def get_data(self, img: list[str]) -> tuple[Any, Meta]:
        """Voxels (x, y, z), or with a channel axis where there are several channels, and MONAI's metadata.

        The voxels are a tensor: MONAI would bring the memory of an array into the order of its axes, which takes longer
        than decoding DICOM and tears the slices apart. Unsigned integers, which torch hardly supports, become signed
        ones: of the same 16 bits if they fit, else of twice as many.

        Raises:
            InputError: as ``open_location``, channels on different grids, voxels that are no single real numbers, or a
                file at which its decoder died, hung or took too much memory.
        """
        voxels, meta = _told(img, read_apart(img))
        if voxels.dtype.kind not in "biuf":
            raise InputError(
                f"voxels of type {voxels.dtype}", expected="a number for each", advice="convert the file", place=img[0]
            )
        if voxels.dtype == np.uint16:
            voxels = voxels.view(np.int16) if voxels.max(initial=0) < 2**15 else voxels.astype(np.int32)
        elif voxels.dtype.kind == "u" and voxels.dtype.itemsize > 2:
            voxels = voxels.astype(np.int64)
        if voxels.dtype.kind == "f" and voxels.dtype.itemsize not in (4, 8):
            voxels = voxels.astype(np.float32 if voxels.dtype.itemsize == 2 else np.float64)
        return torch.from_numpy(voxels), meta


class VolumeReader(ImageReader):
    """Volumes of every voxel type, for ``LoadImaged(reader=VolumeReader)``.

    Unlike MONAI's own readers it reads 8-bit signed MetaImages (PROMISE12's labels), gives 2D files a slice axis, so
    that image and label agree, and understands ``FILE#channel=K`` and ``FILE#z=12``. Several files become channels.
    Give it last in a list of readers: MONAI asks the last one first, and this one refuses what is not its own.

    Raises:
        InputError: a file that cannot be read, has more than one further axis, or another grid than the first one.
    """

    def verify_suffix(self, filename: Sequence[PathText] | PathText) -> bool:
        """Whether all files have a suffix of a volume."""
        return all(Location.parse(path).is_volume_file for path in _paths(filename))

    def read(self, data: Sequence[PathText] | PathText, **kwargs: Any) -> list[str]:
        """The paths: files are opened in ``get_data``, whose errors MONAI does not hide behind other readers."""
        if not self.verify_suffix(data):
            raise InputError(
                "another kind of file",
                expected=f"files that end in {', '.join(SUFFIXES)}",
                place=", ".join(map(str, _paths(data))),
            )
        return [str(path) for path in _paths(data)]

    def get_data(self, img: list[str]) -> tuple[np.ndarray, Meta]:
        """Voxels (x, y, z), or with channels where there are any, and MONAI's metadata; affine in RAS mm."""
        return _told(img, read_volume_files(img))
