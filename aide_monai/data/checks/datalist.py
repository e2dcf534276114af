"""Everything that can be wrong with a data set, found before the training and told at once.

Every file is opened and decoded once, by another process; what the comparison of cases needs is kept as a few facts per
file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt
from rich.progress import track

from aide_monai.data.case import QUALITIES, Case
from aide_monai.data.checks.cases import Facts, compare_cases, key_of
from aide_monai.data.checks.duplicates import signature
from aide_monai.data.checks.names import name_problems
from aide_monai.data.checks.voxels import content, image_problems, is_ct, label_problems, on_grid, pair_problems
from aide_monai.data.datalist import Datalist
from aide_monai.data.fingerprints import changed_files
from aide_monai.errors import InputError, Problem
from aide_monai.ignored import marked
from aide_monai.io.ahead import volumes_ahead
from aide_monai.io.dicom.seg import SEG
from aide_monai.io.grid import affine_text, shape_text, through_plane_axis
from aide_monai.io.location import open_location
from aide_monai.io.segments import Segment, named_segments
from aide_monai.io.volumes import Volume

__all__ = ["Problem", "check_datalist", "refuse", "require_valid"]

_REPLACE = "replace the file, or remove the case"

_Role = Literal["channels", "channel", "label"]  # all channels of an image, one of them, or a label
_Label = npt.NDArray[np.uint8] | None

Visit = Callable[[Case, Volume, npt.NDArray[Any], _Label], None]
"""Gets a case: its record, its (first) image, the voxels (x, y, z), and the class indices on the image's grid."""


def check_datalist(
    datalist: Datalist, *, read_voxels: bool = True, progress: bool = False, visit: Visit | None = None
) -> list[Problem]:
    """Find all problems of a data set, errors first.

    Args:
        datalist: the data set.
        read_voxels: also decode the voxels: what the images and labels show, truncated files, and equal content
            under different names are found only then. Otherwise only headers are read.
        progress: show a progress bar.
        visit: called for every case whose files could be read and have no errors.
    """
    with volumes_ahead(_in_order(datalist)) if read_voxels else nullcontext(open_location) as opened:
        check = _Check(datalist, read_voxels, opened)
        for case in track(datalist.cases, description="Checking", disable=not progress):
            check.case(case, visit)
    problems = [*_case_problems(datalist), *check.problems]
    problems += _geometry_doubts(check)
    problems += compare_cases(datalist, check.facts)
    if read_voxels:
        broken = {found.case for found in problems if found.severity == "error"}
        problems += _changes(datalist, broken)
    return sorted(problems, key=lambda found: found.severity)


def require_valid(datalist: Datalist, *, read_voxels: bool = True, progress: bool = False) -> list[Problem]:
    """Run `check_datalist` and return its warnings.

    Raises:
        InputError: one readable report of all errors.
    """
    problems = check_datalist(datalist, read_voxels=read_voxels, progress=progress)
    errors = [found for found in problems if found.severity == "error"]
    if errors:
        raise InputError(f'datalist "{datalist.name}" cannot be used', problems=errors)
    return problems


def collected(problems: list[Problem], read: Callable[[], Datalist]) -> Datalist | None:
    """What ``read`` finds, one of several parts of a data set; None where ``problems`` has taken what is wrong."""
    try:
        return read()
    except InputError as error:
        problems += error.problems
        return None


def refuse(title: str, problems: Sequence[Problem], *rest: Datalist) -> NoReturn:
    """Refuse a data set in one report: of what was found wrong before, and of the files of the cases that are left.

    Args:
        title: what cannot be used.
        problems: what was found.
        rest: the cases that these problems do not concern, of each part of the data set.

    Raises:
        InputError: always.
    """
    told = {str(problem.place) for problem in problems}
    found = [problem for part in rest if part.cases for problem in check_datalist(part)]
    # what concerns no case, such as that none is labelled, is of what is left and no fault of the data set
    of_files = [problem for problem in found if problem.severity == "error" and problem.case]
    more = [problem for problem in of_files if str(problem.place) not in told]
    raise InputError(title, problems=[*problems, *more])


class _Check:
    """Reads case by case; keeps the facts of all files and the voxels of the last image."""

    def __init__(self, datalist: Datalist, read_voxels: bool, opened: Callable[[str], Volume]) -> None:
        self.datalist = datalist
        self.opened = opened
        self.read_voxels = read_voxels
        self.problems: list[Problem] = []
        self.facts: dict[str, Facts] = {}
        self.first_use: dict[str, tuple[str, str]] = {}
        self.called: dict[int, tuple[Segment, str]] = {}  # label value to the first segment of it and its case
        self._last: tuple[str, Volume, npt.NDArray[Any]] | None = None

    def case(self, case: Case, visit: Visit | None) -> None:
        before = len(self.problems)
        role: _Role = "channels" if isinstance(case.image, str) else "channel"
        for number, path in reversed(list(enumerate(case.images))):
            self._image(case.name, path, role, first=number == 0)
        labels: list[tuple[str, Volume, npt.NDArray[np.uint8]]] = []
        for path in case.labels:
            if (found := self._label(case.name, path, case.annotated)) is not None:
                labels.append((path, *found))
        self.problems += _grid_problems(case, self.facts, self.datalist)
        if self._last is None or self._last[0] != key_of(case.images[0]) or self._errors_from(before):
            return
        _, image, voxels = self._last
        drawn: _Label = None
        for path, volume, label in labels:
            beyond = 0.0
            if self.datalist.resample_labels:
                label, beyond = on_grid(label, volume.affine, image.affine, image.shape)
            axis = through_plane_axis(image.affine)
            self.problems += pair_problems(voxels, label, case.name, path, outside=beyond, axis=axis)
            drawn = label if drawn is None else drawn
        if visit is not None and not self._errors_from(before):
            visit(case, image, voxels, drawn)

    def _errors_from(self, place: int) -> bool:
        return any(found.severity == "error" for found in self.problems[place:])

    def _image(self, case: str, path: str, role: _Role, *, first: bool) -> None:
        key = key_of(path)
        if first and self._last is not None and self._last[0] == key:
            return
        known = self._is_known(key, case, path)
        if known and not first:
            return
        try:
            volume = self.opened(path)
            problems = list(_header_problems(volume, case, path, role, len(self.datalist.modality)))
            fact = _facts(volume)
            if self.read_voxels and volume.channels is not None and 0 not in volume.shape:
                voxels = volume.decode()
                hounsfield = is_ct(volume.modality, self.datalist.modality)
                problems += image_problems(voxels, case, path, hounsfield=hounsfield)
                if not any(found.severity == "error" for found in problems):
                    whole = voxels.dtype.kind in "ui" and voxels.min() >= 0
                    fact = replace(
                        fact,
                        digest=content(voxels),
                        signature=signature(voxels[..., 0], volume.affine) if first else None,
                        highest=float(voxels.max()) if whole else None,
                    )
                    if first:
                        self._last = (key, volume, voxels[..., 0])
            self.facts[key] = fact
        except InputError as error:
            problems = _unreadable(error, case, path)
        self.problems += [] if known else problems

    def _label(
        self, case: str, path: str, annotated: Sequence[str] | None
    ) -> tuple[Volume, npt.NDArray[np.uint8]] | None:
        key = key_of(path)
        known = self._is_known(key, case, path)
        label: _Label = None
        try:
            volume = self.opened(path)
            problems = list(_header_problems(volume, case, path, "label", 1))
            problems += name_problems(named_segments(path), case, path, self.datalist, self.called)
            fact = _facts(volume)
            if self.read_voxels and volume.channels is not None and 0 not in volume.shape:
                voxels = volume.decode()
                found, label = label_problems(voxels, case, path, self.datalist, annotated)
                problems += found
                if label is not None:
                    fact = replace(fact, digest=content(label), marked=int(np.count_nonzero(marked(label))))
            self.facts[key] = fact
        except InputError as error:
            problems = _unreadable(error, case, path)
        self.problems += [] if known else problems
        return None if label is None else (volume, label)

    def _is_known(self, key: str, case: str, path: str) -> bool:
        known = key in self.first_use
        self.first_use.setdefault(key, (case, path))
        return known


def _unreadable(error: InputError, case: str, path: str) -> list[Problem]:
    return list(error.at(path, case=case, expected="one sound volume", advice=_REPLACE).problems)


def _in_order(datalist: Datalist) -> list[str]:
    """The paths that ``_Check`` opens, in its order, if all can be read."""
    order: list[str] = []
    known: set[str] = set()
    last = ""
    for case in datalist.cases:
        first, *others = case.images
        for path in reversed(others):
            order += [path] if key_of(path) not in known else []
            known.add(key_of(path))
        order += [first] if key_of(first) != last else []
        last = key_of(first)
        order += case.labels
        known |= {last, *map(key_of, case.labels)}
    return order


def _facts(volume: Volume) -> Facts:
    return Facts(
        volume.shape,
        volume.affine,
        volume.doubts,
        modality=volume.modality,
        echo_ms=volume.echo_ms,
        acquired=volume.acquired,
    )


def _case_problems(datalist: Datalist) -> Iterator[Problem]:
    if not datalist.cases:
        yield Problem("no cases", "at least one labelled training case", "add cases to the datalist")
    elif all(case.label is None for case in datalist.of_split("training")):
        yield Problem("no labelled training case", "at least one", 'add a "label" and "quality": "high" to one')
    channels = len(datalist.modality)
    for case in datalist.cases:
        name = case.name
        if case.label is not None and case.quality is None:
            yield Problem("a label without a quality", " or ".join(QUALITIES), 'add "quality"', case.label, name)
        if case.label is None and case.quality is not None:
            yield Problem(f'quality "{case.quality}" without a label', "both or neither", "add or remove one", "", name)
        if isinstance(case.image, tuple) and len(case.image) != channels:
            yield Problem(
                f"{len(case.image)} image files",
                f"{channels}, one per modality ({', '.join(datalist.modality.values())})",
                "list one file per modality, in the same order for all cases",
                ", ".join(case.image),
                name,
            )
        labels = {os.path.realpath(path) for path in case.labels}
        for file in case.images:
            if os.path.realpath(file) in labels:
                yield Problem("one file as image and as label", "two files", "correct one of the two paths", file, name)


def _header_problems(volume: Volume, case: str, file: str, role: _Role, channels: int) -> Iterator[Problem]:
    expected = channels if role == "channels" else 1
    shape = f"shape {shape_text(volume.file_shape)}"
    if role != "label" and volume.modality == SEG:
        yield Problem("a DICOM segmentation", "an image", "replace it or leave the case out", file, case)
    if 0 in volume.file_shape:
        yield Problem(f"no voxels ({shape})", "at least one", "replace the file", file, case)
    elif volume.channels != expected:
        wanted = "3 axes (x, y, z)" if expected == 1 else f"4 axes (x, y, z, channel) with {expected} channels"
        advice = (
            "write labels as one volume of whole numbers"
            if role == "label"
            else "name every channel under modality, or write one time point or channel per file"
        )
        yield Problem(shape, wanted, advice, file, case)


def _grid_problems(case: Case, facts: dict[str, Facts], datalist: Datalist) -> Iterator[Problem]:
    known = [(file, facts[key_of(file)]) for file in case.images + case.labels if key_of(file) in facts]
    if not known:
        return
    (first_file, first), *others = known
    for file, other in others:
        if datalist.resample_labels and file in case.labels:
            if not _overlap(first, other):
                found = f"affine {affine_text(other.affine)}, nowhere on the image"
                expected = f"a place on affine {affine_text(first.affine)} of {first_file}"
                yield Problem(found, expected, "correct the header that is wrong", file, case.name)
            continue
        wrong = first.grid.mismatch(other.grid)
        if wrong is None:
            continue
        found, advice = wrong.found, "resample it to the grid of the image"
        if file in case.labels:
            advice += ' (all labels: write "resample_labels": true into the datalist)'
        if wrong.distance_mm is not None:
            found += f", up to {wrong.distance_mm:.3g} mm off"
            advice += ", or correct the header that is wrong"
        known_reasons = [
            wrong.reason,
            *(f"{name} has {doubt}" for name, fact in ((file, other), (first_file, first)) for doubt in fact.doubts),
        ]
        found += "".join(f" ({reason})" for reason in known_reasons if reason)
        yield Problem(found, f"{wrong.expected} as in {first_file}", advice, file, case.name)


def _overlap(first: Facts, second: Facts) -> bool:
    """Whether the boxes around two volumes, along the patient's axes, have a common part."""
    boxes = []
    for fact in (first, second):
        corners = np.array([(*index, 1) for index in np.ndindex(2, 2, 2)]) * (*(size - 1 for size in fact.shape), 1)
        boxes.append((corners @ fact.affine[:3].T).min(axis=0))
        boxes.append((corners @ fact.affine[:3].T).max(axis=0))
    return bool(np.all(np.maximum(boxes[0], boxes[2]) <= np.minimum(boxes[1], boxes[3])))


def _geometry_doubts(check: _Check) -> Iterator[Problem]:
    """One warning per kind of doubt, for a data set from one converter has it in every file."""
    doubtful: dict[str, list[str]] = {}
    for key, fact in check.facts.items():
        for doubt in fact.doubts:
            doubtful.setdefault(doubt, []).append(key)
    for doubt, keys in doubtful.items():
        case, file = check.first_use[keys[0]]
        found = doubt + (f" (and {len(keys) - 1} more files)" if len(keys) > 1 else "")
        yield Problem(found, "one plain geometry", "look at an overlay of image and label", file, case, "warning")


def _changes(datalist: Datalist, broken: set[str]) -> Iterator[Problem]:
    for case in datalist.cases:
        if case.name in broken:
            continue  # its files may be unreadable, and have other faults to tell
        for file in changed_files(case):
            found, advice = "other content than when the datalist was made", "make the datalist anew if this is right"
            yield Problem(found, "the same", advice, file, case.name, "warning")
