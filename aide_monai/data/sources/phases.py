"""The phases of a dynamic contrast-enhanced study, in the order in which they were acquired."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from aide_monai.data.records import read_json
from aide_monai.errors import InputError, Problem
from aide_monai.io.dicom.series import find_series, listing, series_path
from aide_monai.io.dicom.stack import DicomSeries
from aide_monai.io.grid import Grid, shape_text
from aide_monai.io.headers import data_file_problems
from aide_monai.io.location import Location, without_suffix
from aide_monai.io.volumes import open_volume

TIMES_FILE = "phases.json"

_IN_NAME = re.compile(r"(?<![A-Za-z0-9])t=?(-?\d+(?:\.\d+)?)s(?![A-Za-z0-9])")
_CLOCK = re.compile(r"(\d{1,2}):?(\d{2}):?(\d{2}(?:\.\d+)?)")
_DAY_S = 86400.0


@dataclass(frozen=True)
class Phases:
    """The phases of one study, on one grid, the earliest first.

    Attributes:
        paths: how a datalist names each of them.
        times_s: when each was acquired, in seconds after the first; None when only their order is known.
        grid: where their voxels lie.
        series: the DICOM volumes, if these are some.
        others: DICOM files in the study's folder that belong to no phase.
    """

    paths: tuple[str, ...]
    times_s: tuple[float, ...] | None
    grid: Grid
    series: tuple[DicomSeries, ...] = ()
    others: tuple[str, ...] = ()

    def slices(self, axis: int, index: int) -> list[str]:
        """Paths of one slice of each phase, across ``axis``.

        Raises:
            InputError: a DICOM volume whose slices are no files of their own, or another axis than that of its slices.
        """
        if not self.series:
            return [str(Location.parse(path).slice(axis, index)) for path in self.paths]
        if axis != 2 or any(len(one.files) != len(one.slices) for one in self.series):
            expected = "a file for each slice, cut as the label of the central slice is"
            raise InputError("DICOM files of other slices", expected=expected, advice="convert to NIfTI")
        return [one.files[index] for one in self.series]


def find_phases(study: Path, images: Sequence[Path], *, root: Path) -> Phases:
    """The phases in the folder of one study.

    Args:
        study: absolute path of the folder.
        images: its volume files (NIfTI, MHD, NRRD) without the label; none: the folder holds DICOM.
        root: absolute path of the data set, which nothing may lead out of.

    Raises:
        InputError: one line per problem.
    """
    if not images:
        return _from_dicom(study)
    problems = [problem for file in images for problem in data_file_problems(file, root)]
    if problems:
        raise InputError(problems=problems)
    return _from_one_file(study, images[0]) if len(images) == 1 else _from_files(study, images)


def _from_one_file(study: Path, file: Path) -> Phases:
    try:
        volume = open_volume(str(file))
    except InputError as error:
        raise error.at(file, expected="the phases of a study") from error
    if volume.channels is None or volume.channels < 2:
        raise InputError(
            f"shape {shape_text(volume.file_shape)}",
            expected="a file per phase, or one of four axes (x, y, z, phase)",
            place=file,
        )
    beside = file.with_name(f"{without_suffix(file)}.json")
    for source, key in ((study / TIMES_FILE, file.name), (beside, "VolumeTiming")):
        if source.is_file():
            times = read_json(source).get(key)
            break
    else:
        raise InputError(
            f"no times of its {volume.channels} phases",
            advice=f'write {TIMES_FILE}: {{"{file.name}": [seconds, ...]}}',
            place=file,
        )
    if not isinstance(times, list) or len(times) != volume.channels or not all(map(_is_number, times)):
        raise InputError(
            f'"{key}": {json.dumps(times)}',
            expected=f"{volume.channels} times in seconds, one per phase",
            place=source,
        )
    paths = [str(Location(str(file)).channel(channel)) for channel in range(volume.channels)]
    order, seconds = _sorted(paths, [float(time) for time in times])
    return Phases(tuple(order), seconds, volume.grid)


def _from_files(study: Path, files: Sequence[Path]) -> Phases:
    problems: list[Problem] = []
    volumes = []
    for file in files:
        try:
            volume = open_volume(str(file))
        except InputError as error:
            problems += error.at(file, expected="a phase of a study").problems
            continue
        volumes.append((file, volume))
        first_file, first = volumes[0]
        if volume.channels != 1:
            problems.append(
                Problem(f"shape {shape_text(volume.file_shape)}", expected="one phase beside others", place=file)
            )
        elif wrong := first.grid.mismatch(volume.grid):
            problems.append(Problem(wrong.found, expected=f"{wrong.expected} as in {first_file.name}", place=file))
    if problems:
        raise InputError(problems=problems)
    order, seconds = _sorted([str(file) for file in files], _times_of_files(study, files))
    return Phases(tuple(order), seconds, volumes[0][1].grid)


def _times_of_files(study: Path, files: Sequence[Path]) -> list[float]:
    """From phases.json, else from a side file of each, else from each name."""
    listed, side_files = study / TIMES_FILE, {file: file.with_name(f"{without_suffix(file)}.json") for file in files}
    if listed.is_file():
        times = read_json(listed)
        names = {file.name for file in files}
        if times.keys() != names or not all(map(_is_number, times.values())):
            raise InputError(
                f"{json.dumps(times)}",
                expected=f"a number of seconds for each of {', '.join(sorted(names))}",
                place=listed,
            )
        return [float(times[file.name]) for file in files]
    if all(side.is_file() for side in side_files.values()):
        return _without_midnight([_acquisition_time(side) for side in side_files.values()])
    found = {file: _IN_NAME.findall(without_suffix(file)) for file in files}
    unknown = [file.name for file, numbers in found.items() if len(numbers) != 1]
    if unknown:
        raise InputError(
            f"no time of acquisition of {', '.join(unknown)}",
            advice=f"write {TIMES_FILE}: {{FILE: seconds, ...}}, a side file FILE.json with AcquisitionTime for each, "
            "or the time into each name, such as dce_t90s.nii.gz",
            place=study,
        )
    return [float(numbers[0]) for numbers in found.values()]


def _acquisition_time(side: Path) -> float:
    value = read_json(side).get("AcquisitionTime")
    match = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InputError(f'"AcquisitionTime": {json.dumps(value)}', expected='text such as "13:45:30.25"', place=side)
    return 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])


def _without_midnight(times: list[float]) -> list[float]:
    """Clock times of one study: a difference of more than half a day means that midnight came between."""
    late = max(times) - min(times) > _DAY_S / 2
    return [time + _DAY_S if late and time < _DAY_S / 2 else time for time in times]


def _from_dicom(study: Path) -> Phases:
    series = find_series(study, check=False)
    # Scanners put subtractions and projections beside the phases; some exports call everything derived.
    original = [one for one in series if one.image_type[:1] != ("DERIVED",)] or series
    grids: list[list[DicomSeries]] = []
    for one in original:
        for grid in grids:
            if one.shape == grid[0].shape and one.grid.distance_mm(grid[0].grid) < 1:
                grid.append(one)
                break
        else:
            grids.append([one])
    grids.sort(key=len, reverse=True)
    if not grids or len(grids[0]) < 2 or (len(grids) > 1 and len(grids[1]) == len(grids[0])):
        raise InputError(
            f"{len(series)} volumes, which are not several phases on one grid",
            advice=f"leave the dynamic series alone in the folder:\n{listing(series)}",
            place=study,
        )
    phases = grids[0]
    problems = [problem for one in phases for problem in one.problems]
    if problems:
        raise InputError(problems=problems)
    places = {series_path(study, one, series): one for one in phases}
    paths = list(places)
    if len({one.acquired for one in phases}) == len(phases) and all(one.acquired for one in phases):
        order, seconds = _sorted(paths, _without_midnight([_seconds(one.acquired) for one in phases]))
    elif len({one.uid for one in phases}) == 1 and len({one.phase for one in phases}) == len(phases):
        order, seconds = sorted(paths, key=lambda path: places[path].phase), None
    else:
        raise InputError(
            "phases without a time of acquisition of their own",
            expected=f"AcquisitionTime or temporal positions:\n{listing(series)}",
            place=study,
        )
    by_time = tuple(places[path] for path in order)
    others = tuple(file for one in series if one not in phases for file in one.files)
    return Phases(tuple(order), seconds, by_time[0].grid, by_time, others)


def _seconds(acquired: str) -> float:
    """DICOM's YYYYMMDDHHMMSS.ffffff, or the time alone, in seconds."""
    whole, _, fraction = acquired.partition(".")
    days = int(np.datetime64(f"{whole[:4]}-{whole[4:6]}-{whole[6:8]}").astype(int)) if len(whole) == 14 else 0
    clock = whole[-6:]
    return days * _DAY_S + 3600 * int(clock[:2]) + 60 * int(clock[2:4]) + float(f"{clock[4:6]}.{fraction or 0}")


def _sorted(paths: Sequence[str], times: Sequence[float]) -> tuple[list[str], tuple[float, ...]]:
    order = sorted(range(len(paths)), key=lambda index: times[index])
    for one, other in pairwise(order):
        if times[one] == times[other]:
            raise InputError(
                f"the same time, {times[one]:g} s",
                expected="a time of its own for each phase",
                place=f"{paths[one]} and {os.path.basename(paths[other])}",
            )
    return [paths[index] for index in order], tuple(times[index] - times[order[0]] for index in order)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
