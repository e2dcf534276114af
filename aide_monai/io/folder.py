"""What lies in a folder: volumes of every kind that is read here, and one line about whatever is not used."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from aide_monai.errors import InputError
from aide_monai.io.dicom.elements import is_dicom
from aide_monai.io.headers import data_file, matrix_file
from aide_monai.io.location import SUFFIXES
from aide_monai.io.png import png_files
from aide_monai.utils.texts import tell_unused

DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
NO_VOLUME = "no volume"


def volumes_in(folder: str | Path) -> list[Path]:
    """The volumes that lie in a folder, sorted: volume files, DICOM files, and subfolders of DICOM or PNG slices.

    Hidden files are passed over; a line of the log names what else is not used.

    Raises:
        InputError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no such folder", place=folder)
    shown = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    volumes = [path for path in shown if _is_volume(path)]
    unused = {str(path): "no DICOM or PNG slices in it" if path.is_dir() else NO_VOLUME for path in shown}
    for path in (*volumes, *voxel_files(volumes)):
        unused.pop(str(path), None)
    tell_unused(folder, unused)
    return volumes


def voxel_files(volumes: Iterable[Path]) -> list[Path]:
    """The files beside headers in which their voxels, or the place of these, are said."""
    found = []
    for path in volumes:
        try:
            found += [file for file in (data_file(path), matrix_file(path)) if file is not None]
        except (InputError, OSError):
            continue  # whoever opens the volume tells what is wrong with it
    return found


def _is_volume(path: Path) -> bool:
    return holds_dicom(path) or (path.name.lower().endswith(SUFFIXES) if path.is_file() else bool(png_files(path)))


def holds_dicom(path: str | Path) -> bool:
    """Whether a file is DICOM, by its content or its name, or a folder holds one."""
    if os.path.isfile(path):
        return str(path).lower().endswith(DICOM_SUFFIXES) or is_dicom(path)
    return any(holds_dicom(os.path.join(place, name)) for place, _, names in os.walk(path) for name in names)
