"""Label slices in PNG files: reading them, and finding the DICOM slices that they were drawn on."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from aide_monai.errors import InputError, Problem
from aide_monai.io.dicom.header import MAX_SLICE_PIXELS
from aide_monai.io.dicom.series import DicomSeries, find_series, list_files, listing, require_sound
from aide_monai.io.grid import shape_text
from aide_monai.io.location import Location

CHAOS_DICOM = "../DICOM_anon"

_SHOWN = 5


def png_files(folder: str | PathLike[str]) -> list[str]:
    """PNG files of a folder in the order of their names, numbers by value; hidden ones are passed over."""
    if not os.path.isdir(folder):
        return []
    names = [name for name in os.listdir(folder) if name.lower().endswith(".png") and not name.startswith(".")]
    return [os.path.join(folder, name) for name in sorted(names, key=_natural)]


def read_png(file: str) -> np.ndarray:
    """One grey picture (rows, columns): uint8, or uint16 when it has 16 bits.

    A picture of one bit has the values 0 and 255, one with a palette the numbers of its colours.

    Raises:
        InputError: not PNG, damaged, in colour, or of more than 2^26 pixels.
    """
    try:
        with Image.open(file, formats=("PNG",)) as picture:
            if picture.width * picture.height > MAX_SLICE_PIXELS:
                size = f"{picture.width} x {picture.height} pixels"
                raise InputError(size, expected=f"at most {MAX_SLICE_PIXELS}", advice="replace the file", place=file)
            if picture.mode not in ("1", "L", "P") and not picture.mode.startswith("I"):
                raise InputError(
                    f"a picture in colour or with transparency ({picture.mode})",
                    expected="one grey value per pixel",
                    advice="convert it",
                    place=file,
                )
            pixels = np.asarray(picture)
    except InputError:
        raise
    except Exception as error:  # whatever a decoder makes of a damaged file is the same finding
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"no readable PNG ({reason})", advice="replace the file", place=file) from error
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.uint16)


def read_png_stack(files: Sequence[str]) -> np.ndarray:
    """PNG files as a volume (x, y, z) in the order given, uint8, or uint16 when one of them has 16 bits.

    Raises:
        InputError: one report of all files that cannot be read or differ from the first in size.
    """
    problems: list[Problem] = []
    slices: list[np.ndarray] = []
    for file in files:
        try:
            slices.append(read_png(file))
        except InputError as error:
            problems += error.problems
            continue
        if slices[-1].shape != slices[0].shape:
            rows, columns = slices[-1].shape
            expected = f"{slices[0].shape[0]} x {slices[0].shape[1]}"
            found = f"{rows} x {columns} pixels (rows x columns)"
            problems.append(Problem(found, f"{expected} as in others", place=file))
    if problems:
        title = f"{os.path.dirname(files[0])}: the slices do not make a volume"
        raise InputError(title, problems=problems)
    return np.stack(slices).transpose(2, 1, 0)


def match_dicom(
    files: Sequence[str], folder: str, *, roots: Iterable[str | Path] = ()
) -> tuple[list[str], DicomSeries]:
    """``pair_slices`` with the volumes of a folder, of whose files no more are opened than needed.

    Args:
        files: PNG files.
        folder: folder of the DICOM files, searched with its subfolders.
        roots: further folders that linked files may lead to.

    Raises:
        InputError: as ``find_series`` and ``pair_slices``.
    """
    dicom = list_files(folder, roots=roots)
    stems = {Path(file).stem for file in files}
    # all files of the folders where a name fits: a slice without a PNG must be found too
    fitting = {os.path.dirname(file) for file in dicom if Path(file).stem in stems}
    source = [file for file in dicom if os.path.dirname(file) in fitting] if fitting else folder
    return pair_slices(files, find_series(source, roots=roots, check=False), folder)


def pair_slices(files: Sequence[str], series: Sequence[DicomSeries], folder: str) -> tuple[list[str], DicomSeries]:
    """The DICOM volume that PNG slices were drawn on, and the PNG files in the order of its slices.

    PNG and DICOM slice belong together when their names are equal but for the suffix. When no name is, and one volume
    has as many slices as there are PNG files, they belong together by the rank of their file names.

    Args:
        files: PNG files.
        series: volumes to choose from.
        folder: where they come from, for messages.

    Raises:
        InputError: no volume fits, or several do; tells which slices have no partner.
    """
    by_stem = {Path(file).stem: file for file in files}
    shared = [sum(Path(one.file).stem in by_stem for one in volume.slices) for volume in series]
    if not max(shared, default=0):
        return _by_rank(files, series, folder)
    best = series[shared.index(max(shared))]
    stems = [Path(one.file).stem for one in best.slices]
    without_dicom, without_png = sorted(by_stem.keys() - set(stems)), sorted(set(stems) - by_stem.keys())
    if without_dicom or without_png:
        raise InputError(
            (
                f"PNG and DICOM slices that do not match; without a DICOM slice in {folder}: "
                f"{_names(without_dicom)}; without a PNG: {_names(without_png)}"
            ),
            advice="add or remove files",
            place=os.path.dirname(files[0]),
        )
    require_sound([best], folder)
    if shared.count(max(shared)) > 1 or len(set(stems)) < len(stems):
        raise InputError(
            f"names of PNG files that fit several slices in {folder}",
            expected="one for each",
            advice="name the folder of one DICOM volume",
            place=os.path.dirname(files[0]),
        )
    return [by_stem[stem] for stem in stems], best


def _by_rank(files: Sequence[str], series: Sequence[DicomSeries], folder: str) -> tuple[list[str], DicomSeries]:
    fitting = [one for one in series if len(one.slices) == len(files)]
    if len(fitting) != 1:
        raise InputError(
            f"{len(files)} PNG files, none with the name of a DICOM slice",
            expected=f"one volume of as many slices in {folder}",
            advice=f"the folder has\n{listing(series)}",
            place=os.path.dirname(files[0]),
        )
    require_sound(fitting, folder)
    slices = fitting[0].slices
    by_name = sorted(range(len(slices)), key=lambda index: (_natural(slices[index].file), slices[index].frame))
    ordered = dict(zip(by_name, sorted(files, key=_natural), strict=True))
    return [ordered[index] for index in range(len(slices))], fitting[0]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts 2 before 10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in parts]


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"


def open_png_stack(
    folder: str,
    *,
    dicom: str | Path | None = CHAOS_DICOM,
    spacing_mm: Sequence[float] | None = None,
    roots: Iterable[str | Path] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """A folder of PNG slices as a volume in space; the arguments are those of ``PNGStackReader``.

    Returns:
        Voxels (x, y, z), uint8 or uint16, and their affine (4, 4), RAS, mm.

    Raises:
        InputError: no PNG files, one that is damaged, in colour or of another size, or slices that do not match the
            DICOM slices one to one.
    """
    files = png_files(folder)
    if not files:
        raise InputError("no PNG files", expected="a folder with one PNG per slice", place=folder)
    list_files(folder, roots=roots)  # refuses links that lead out
    place = "" if dicom is None else os.path.normpath(os.path.join(folder, dicom))
    if not place or (not os.path.isdir(place) and str(dicom) == CHAOS_DICOM):
        if spacing_mm is None:
            warnings.warn(f"{folder}: no DICOM slices, so in the order of file names with 1 mm voxels", stacklevel=3)
        return read_png_stack(files), np.diag([*(spacing_mm or (1.0, 1.0, 1.0)), 1.0])
    if not os.path.isabs(str(dicom)):
        Location(os.path.abspath(place)).absolute(Path(place).absolute().parent, roots=roots)
    files, series = match_dicom(files, place, roots=roots)
    voxels = read_png_stack(files)
    if voxels.shape != series.shape:
        found, expected = shape_text(voxels.shape), shape_text(series.shape)
        raise InputError(f"shape {found}", expected=f"{expected} as the DICOM slices in {place}", place=folder)
    return voxels, series.affine
