"""Finding the volumes in a folder of DICOM files; headers alone are read.

``find_series`` lists all volumes of a folder, ``one_series`` insists on one. Which slices make a volume, in which order
and where it lies is in ``aide_monai.io.dicom.stack``, the voxels are read by ``aide_monai.io.dicom.pixels``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from aide_monai.errors import InputError, Problem
from aide_monai.io.dicom.header import DicomSlice, NotAnImageError, read_slices
from aide_monai.io.dicom.stack import DicomSeries, to_volumes
from aide_monai.utils.texts import tell_unused

__all__ = ["DicomSeries", "find_series", "list_files", "listing", "one_series", "require_sound"]

MAX_FILES = 100_000
SELECTORS = ("series", "echo", "type", "phase", "volume")

_LISTED = 12


def find_series(
    source: str | Path | Sequence[str | Path],
    *,
    select: str = "",
    roots: Iterable[str | Path] = (),
    check: bool = True,
) -> list[DicomSeries]:
    """All volumes of a folder and its subfolders, of one file, or of a list of files.

    Objects without a scan in them (reports, segmentations, directories) and files that are no DICOM are passed over;
    a line of the log names them. A file that ends in .dcm must be DICOM. Hidden files and linked subfolders are passed
    over too.

    Args:
        source: a folder, a file, or files.
        select: which volumes, as ``key=value`` joined by ``&``: ``series`` (SeriesInstanceUID), ``echo`` (ms, compared
            to as many decimals as given), ``type`` (ImageType, its parts joined by ``+``), ``phase``
            (1, 2, ...), ``volume`` (number in the result without selection, from 1).
        roots: further folders in which the targets of linked files may lie.
        check: raise the problems of the selected volumes; otherwise they are left in ``problems``.

    Raises:
        InputError: nothing there, a damaged file, a link that leaves the folder, an unknown selection, nothing
            selected, or (with ``check``) slices that make no volume; all problems in one report.
    """
    one_folder = isinstance(source, (str, Path)) and os.path.isdir(source)
    name = str(source) if isinstance(source, (str, Path)) else f"{len(source)} DICOM files"
    if one_folder:
        files = list_files(str(source), roots=roots)
    else:
        files = [str(source)] if isinstance(source, (str, Path)) else sorted({str(file) for file in source})
    slices, skipped = _read(name, files, all_must_be_dicom=not one_folder)
    if not slices:
        others = "; ".join(f"{Path(file).name}: {reason}" for file, reason in list(skipped.items())[:3])
        found = f"no DICOM images ({others})" if others else "no DICOM images"
        advice = "name the file of a segmentation, not its folder" if "Segmentation Storage" in others else ""
        raise InputError(found, expected="the slices of a scan", advice=advice, place=name)
    if skipped:
        tell_unused(name, skipped, they_are="no part of a scan")
    series = _with_selectors(to_volumes(slices))
    chosen = _select(series, select)
    if not chosen:
        raise InputError(f"no volume with {select}", advice=f"the folder has\n{listing(series)}", place=name)
    if check:
        require_sound(chosen, name)
    return chosen


def one_series(
    source: str | Path | Sequence[str | Path], *, select: str = "", roots: Iterable[str | Path] = ()
) -> DicomSeries:
    """The only volume that ``find_series`` finds there with this selection.

    Raises:
        InputError: as ``find_series``, or several volumes; lists them with the text that selects each.
    """
    series = find_series(source, select=select, roots=roots, check=False)
    name = str(source) if isinstance(source, (str, Path)) else f"{len(source)} DICOM files"
    if len(series) > 1:
        prefix = f"{name}#" if isinstance(source, (str, Path)) else ""
        lines = listing(series, prefix=prefix)
        raise InputError(
            f"{len(series)} volumes", expected="one", advice=f"leave the files of one, or name it:\n{lines}", place=name
        )
    require_sound(series, name)
    return series[0]


def require_sound(series: Sequence[DicomSeries], name: str) -> None:
    """Raise the problems of all volumes in one report."""
    problems = [problem for one in series for problem in one.problems]
    if problems:
        raise InputError(f"{name}: the slices do not make a volume", problems=problems)


def list_files(folder: str, *, roots: Iterable[str | Path] = ()) -> list[str]:
    """Files of a folder and its subfolders, sorted; hidden files and linked subfolders are passed over.

    Raises:
        InputError: a linked file whose target lies outside the folder and all ``roots``, or more than 100 000 files.
    """
    allowed = [os.path.realpath(root) for root in (folder, *roots)]
    files: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += (os.path.join(place, name) for name in sorted(names) if not name.startswith("."))
        if len(files) > MAX_FILES:
            raise InputError(f"more than {MAX_FILES} files", advice="name the folder of one patient", place=folder)
    outside = [
        Problem(
            f"a link to {os.path.realpath(file)}", "", "put the file itself there, or name its folder as a root", file
        )
        for file in files
        if os.path.islink(file) and not any(Path(os.path.realpath(file)).is_relative_to(root) for root in allowed)
    ]
    if outside:
        raise InputError(f"{folder}: files that lead out of the folder", problems=outside)
    return files


def series_path(folder: Path, one: DicomSeries, series: Sequence[DicomSeries]) -> str:
    """How a datalist names one of the volumes that ``find_series(folder)`` found, for ``DicomSeriesReader``.

    Returns:
        The folder of its files when no other volume lies there, else ``FOLDER#`` and the text that selects it.
    """
    place = os.path.commonpath([os.path.dirname(file) for file in one.files])
    others = [file for other in series if other is not one for file in other.files]
    if any(Path(file).is_relative_to(place) for file in others):
        return f"{folder}#{one.selector}"
    return place


def listing(series: Sequence[DicomSeries], *, prefix: str = "") -> str:
    """One line per volume with the text that selects it."""
    lines = [f"  - {prefix}{one.selector or 'all'}: {one}" for one in series[:_LISTED]]
    return "\n".join(lines + [f"  and {len(series) - _LISTED} more"] * (len(series) > _LISTED))


def _read(name: str, files: Sequence[str], *, all_must_be_dicom: bool) -> tuple[list[DicomSlice], dict[str, str]]:
    slices: list[DicomSlice] = []
    skipped: dict[str, str] = {}
    problems: list[Problem] = []
    for file in files:
        try:
            slices += read_slices(file)
        except NotAnImageError as reason:
            if not os.path.exists(file):
                problems.append(Problem("no such file", place=file))
            elif str(reason) == "not DICOM" and (all_must_be_dicom or file.lower().endswith(".dcm")):
                advice = "it may be truncated, empty or unreadable: replace it"
                problems.append(Problem("no DICOM file", advice=advice, place=file))
            else:
                skipped[file] = str(reason)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(f"{name}: files that cannot be used", problems=problems)
    return slices, skipped


def _with_selectors(series: list[DicomSeries]) -> list[DicomSeries]:
    named = []
    for number, one in enumerate(series, 1):
        values = _selectable(one, number)
        rivals, parts = [_selectable(other, index) for index, other in enumerate(series, 1)], []
        for key in SELECTORS:
            remaining = [rival for rival in rivals if rival[key] == values[key]]
            if values[key] and len(remaining) < len(rivals):
                rivals = remaining
                parts.append(f"{key}={values[key]}")
        named.append(replace(one, selector="&".join(parts)))
    return named


def _selectable(one: DicomSeries, number: int) -> dict[str, str]:
    echo = "" if one.echo_ms is None else f"{one.echo_ms:g}"
    kind, phase = "+".join(one.image_type), str(one.phase) if one.phases > 1 else ""
    return {"series": one.uid, "echo": echo, "type": kind, "phase": phase, "volume": str(number)}


def _select(series: list[DicomSeries], select: str) -> list[DicomSeries]:
    wanted: dict[str, str] = {}
    for part in filter(None, select.split("&")):
        key, _, value = part.partition("=")
        if key not in SELECTORS or not value:
            raise InputError(f'selection "{part}"', expected=", ".join(SELECTORS) + ', then "=" and a value')
        wanted[key] = value
    return [
        one
        for number, one in enumerate(series, 1)
        if all(_matches(key, value, _selectable(one, number)[key]) for key, value in wanted.items())
    ]


def _matches(key: str, wanted: str, found: str) -> bool:
    if key != "echo":
        return wanted == found
    try:
        decimals = len(wanted.partition(".")[2])
        return bool(found) and round(float(found), decimals) == round(float(wanted), decimals)
    except ValueError:
        raise InputError(f'selection "echo={wanted}"', expected="a number in ms") from None
