"""Everything that can be wrong with a data set, found before the training and told at once.

Every file is opened and decoded once; what the checks need is kept as a few facts per file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from rich.progress import track

from aide_monai.data.datalist import PATH_KEYS, QUALITIES, SPLITS, Datalist, as_paths, report
from aide_monai.data.details import changed_files
from aide_monai.data.locations import open_location
from aide_monai.data.volume_files import (
    AFFINE_TOLERANCE_MM,
    Volume,
    affine_text,
    corner_distance_mm,
    label_values,
    listed,
    shape_text,
)
from aide_monai.errors import InputError

Severity = Literal["error", "warning"]
_Role = Literal["channels", "channel", "label"]  # all channels of an image, one of them, or a label


@dataclass(frozen=True)
class Problem:
    """One finding. ``case`` and ``file`` are empty when it concerns the whole datalist."""

    severity: Severity
    case: str
    file: str
    found: str
    expected: str
    advice: str

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.case and f'case "{self.case}"', self.file) if part)
        return f"{place + ': ' if place else ''}found {self.found}; expected {self.expected}; {self.advice}"


@dataclass(frozen=True)
class _Facts:
    shape: tuple[int, ...]
    affine: np.ndarray
    doubts: tuple[str, ...]
    digest: str = ""


def check_datalist(datalist: Datalist, *, read_voxels: bool = True, progress: bool = False) -> list[Problem]:
    """Find all problems of a data set, errors first.

    Args:
        datalist: the data set.
        read_voxels: also decode the voxels: NaN, label values, constant images, truncated files and equal content
            under different names are found only then. Otherwise only headers are read.
        progress: show a progress bar.
    """
    problems = [*_case_problems(datalist), *_patient_leaks(datalist)]
    facts: dict[str, _Facts] = {}
    uses = _uses(datalist)
    for key, (case, file, role) in track(uses.items(), description="Checking files", disable=not progress):
        try:
            volume = open_location(file)
            problems += _header_problems(volume, case, file, role, len(datalist.modality))
            digest = ""
            if read_voxels and volume.channels is not None and 0 not in volume.shape:
                voxels = volume.decode()
                if role == "label":
                    problems += _label_problems(voxels, case, file, datalist)
                else:
                    found, digest = _image_problems(voxels, case, file)
                    problems += found
            facts[key] = _Facts(volume.shape, volume.affine, volume.doubts, digest)
        except InputError as error:
            problems.append(_error(case, file, str(error), "one volume per file", "replace or remove it"))
    problems += _grid_problems(datalist, facts)
    problems += _geometry_doubts(uses, facts)
    problems += _file_leaks(datalist, facts)
    if read_voxels:
        broken = {problem.file for problem in problems if problem.severity == "error"}
        problems += _changes(datalist, broken)
    return sorted(problems, key=lambda problem: problem.severity)


def require_valid(datalist: Datalist, *, read_voxels: bool = True, progress: bool = False) -> list[Problem]:
    """Run `check_datalist` and return its warnings.

    Raises:
        InputError: one readable report of all errors.
    """
    problems = check_datalist(datalist, read_voxels=read_voxels, progress=progress)
    errors = [str(problem) for problem in problems if problem.severity == "error"]
    if errors:
        raise InputError(report(f'datalist "{datalist.name}" cannot be used', errors))
    return problems


def _error(case: str, file: str, found: str, expected: str, advice: str) -> Problem:
    return Problem("error", case, file, found, expected, advice)


def _uses(datalist: Datalist) -> dict[str, tuple[str, str, _Role]]:
    """Real path -> (first case, path as written, role), so that a file shared by cases is read once."""
    uses: dict[str, tuple[str, str, _Role]] = {}
    for record in datalist.records:
        for file in as_paths(record["image"]):
            role: _Role = "channels" if isinstance(record["image"], str) else "channel"
            uses.setdefault(os.path.realpath(file), (record["case"], file, role))
        for key in ("label", "clean_label"):
            if key in record:
                uses.setdefault(os.path.realpath(record[key]), (record["case"], record[key], "label"))
    return uses


def _case_problems(datalist: Datalist) -> Iterator[Problem]:
    if not datalist.records:
        yield _error("", "", "no cases", "at least one labelled training case", "add cases to the datalist")
    elif not any("label" in record for record in datalist.split("training")):
        yield _error("", "", "no labelled training case", "at least one", 'add a "label" and "quality": "high" to one')
    channels = len(datalist.modality)
    for record in datalist.records:
        case, labelled, quality = record["case"], "label" in record, record.get("quality")
        if labelled and quality is None:
            yield _error(case, record["label"], "a label without a quality", " or ".join(QUALITIES), 'add "quality"')
        if not labelled and quality is not None:
            yield _error(case, "", f'quality "{quality}" without a label', "both or neither", "add or remove one")
        if isinstance(record["image"], list) and len(record["image"]) != channels:
            yield _error(
                case,
                ", ".join(record["image"]),
                f"{len(record['image'])} image files",
                f"{channels}, one per modality ({', '.join(datalist.modality.values())})",
                "list one file per modality, in the same order for all cases",
            )
        labels = {os.path.realpath(record[key]) for key in ("label", "clean_label") if key in record}
        for file in as_paths(record["image"]):
            if os.path.realpath(file) in labels:
                yield _error(case, file, "one file as image and as label", "two files", "correct one of the two paths")


def _header_problems(volume: Volume, case: str, file: str, role: _Role, channels: int) -> Iterator[Problem]:
    expected = channels if role == "channels" else 1
    shape = f"shape {shape_text(volume.file_shape)}"
    if 0 in volume.file_shape:
        yield _error(case, file, f"no voxels ({shape})", "at least one", "replace the file")
    elif volume.channels != expected:
        wanted = "3 axes (x, y, z)" if expected == 1 else f"4 axes (x, y, z, channel) with {expected} channels"
        advice = (
            "write labels as one volume of whole numbers"
            if role == "label"
            else "name every channel under modality, or write one time point or channel per file"
        )
        yield _error(case, file, shape, wanted, advice)


def _label_problems(voxels: np.ndarray, case: str, file: str, datalist: Datalist) -> Iterator[Problem]:
    classes = datalist.stored_classes
    known = "the labels " + ", ".join(
        f"{listed([value for value, index in classes.items() if index == number])} {name}"
        for number, name in datalist.labels.items()
    )
    try:
        outside = [value for value in label_values(voxels) if value not in classes]
    except InputError as error:
        yield _error(case, file, str(error), known, "write the label as whole numbers")
        return
    if outside:
        yield _error(case, file, f"label values {listed(outside)}", known, "add them to labels, or relabel the file")


def _image_problems(voxels: np.ndarray, case: str, file: str) -> tuple[list[Problem], str]:
    """Problems of an image and the digest of its content; a constant image has no digest, for all of them are equal."""
    if voxels.dtype.kind not in "biuf":
        return [_error(case, file, f"voxels of type {voxels.dtype}", "real numbers", "convert the image")], ""
    if voxels.dtype.kind == "f":
        broken = voxels.size - int(np.isfinite(voxels).sum())
        if broken:
            found = f"{broken} of {voxels.size} voxels NaN or infinite"
            return [_error(case, file, found, "finite values", "repair the image or leave the case out")], ""
    constant = np.flatnonzero(voxels.max(axis=(0, 1, 2)) == voxels.min(axis=(0, 1, 2)))
    if constant.size:
        found = f"the same value {voxels[0, 0, 0, constant[0]]:g} in all voxels"
        found += f" of channel {constant[0]}" if voxels.shape[-1] > 1 else ""
        return [Problem("warning", case, file, found, "an image", "look at the image; leave the case out if empty")], ""
    digest = hashlib.blake2b(repr(voxels.shape).encode())
    digest.update(np.ascontiguousarray(voxels, dtype=np.float32).tobytes())
    return [], digest.hexdigest()


def _grid_problems(datalist: Datalist, facts: dict[str, _Facts]) -> Iterator[Problem]:
    for record in datalist.records:
        files = as_paths(record["image"]) + [record[key] for key in ("label", "clean_label") if key in record]
        known = [(file, facts[os.path.realpath(file)]) for file in files if os.path.realpath(file) in facts]
        if not known:
            continue
        (first_file, first), *others = known
        labels = {record[key] for key in ("label", "clean_label") if key in record}
        for file, other in others:
            if datalist.resample_labels and file in labels:
                if not _overlap(first, other):
                    found = f"affine {affine_text(other.affine)}, nowhere on the image"
                    expected = f"a place on affine {affine_text(first.affine)} of {first_file}"
                    yield _error(record["case"], file, found, expected, "correct the header that is wrong")
                continue
            if other.shape != first.shape:
                found, expected = (
                    f"shape {shape_text(other.shape)}",
                    f"shape {shape_text(first.shape)} as in {first_file}",
                )
                advice = "resample it to the grid of the image"
            elif (distance := corner_distance_mm(first.affine, other.affine, first.shape)) > AFFINE_TOLERANCE_MM:
                found = f"affine {affine_text(other.affine)}, up to {distance:.3g} mm off"
                expected = f"affine {affine_text(first.affine)} as in {first_file}"
                advice = "resample it to the grid of the image, or correct the header that is wrong"
            else:
                continue
            yield _error(record["case"], file, found, expected, advice)


def _overlap(first: _Facts, second: _Facts) -> bool:
    """Whether the boxes around two volumes, along the patient's axes, have a common part."""
    boxes = []
    for fact in (first, second):
        corners = np.array([(*index, 1) for index in np.ndindex(2, 2, 2)]) * (*(size - 1 for size in fact.shape), 1)
        boxes.append((corners @ fact.affine[:3].T).min(axis=0))
        boxes.append((corners @ fact.affine[:3].T).max(axis=0))
    return bool(np.all(np.maximum(boxes[0], boxes[2]) <= np.minimum(boxes[1], boxes[3])))


def _geometry_doubts(uses: dict[str, tuple[str, str, _Role]], facts: dict[str, _Facts]) -> Iterator[Problem]:
    """One warning per kind of doubt, for a data set from one converter has it in every file."""
    doubtful: dict[str, list[str]] = {}
    for key, fact in facts.items():
        for doubt in fact.doubts:
            doubtful.setdefault(doubt, []).append(key)
    for doubt, keys in doubtful.items():
        case, file, _ = uses[keys[0]]
        found = doubt + (f" (and {len(keys) - 1} more files)" if len(keys) > 1 else "")
        yield Problem("warning", case, file, found, "one plain geometry", "look at an overlay of image and label")


def _file_leaks(datalist: Datalist, facts: dict[str, _Facts]) -> Iterator[Problem]:
    """A file of two groups is told once: by its path, or else by its content."""
    by_path: dict[str, list[tuple[dict[str, Any], str]]] = {}
    by_content: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for record in datalist.records:
        labels = [record[key] for key in ("label", "clean_label") if key in record]
        for file in as_paths(record["image"]) + labels:
            key = os.path.realpath(file)
            by_path.setdefault(key, []).append((record, file))
            if key in facts and facts[key].digest:
                by_content.setdefault(facts[key].digest, []).append((record, file))
    for uses in by_path.values():
        yield from _leaks(uses, "the same file")
    for uses in by_content.values():
        if len({os.path.realpath(file) for _, file in uses}) > 1:
            yield from _leaks(uses, "the same image content")


def _changes(datalist: Datalist, broken: set[str]) -> Iterator[Problem]:
    for record in datalist.records:
        if broken.isdisjoint(path for key in PATH_KEYS if key in record for path in as_paths(record[key])):
            for file in changed_files(record):
                found, expected = "other content than when the datalist was made", "the same"
                yield Problem(
                    "warning", record["case"], file, found, expected, "make the datalist anew if this is right"
                )


def _patient_leaks(datalist: Datalist) -> Iterator[Problem]:
    by_patient: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for record in datalist.records:
        if "patient" in record:
            by_patient.setdefault(record["patient"], []).append((record, ""))
    for patient, uses in by_patient.items():
        yield from _leaks(uses, f'the same patient "{patient}"')


def _leaks(uses: list[tuple[dict[str, Any], str]], what: str) -> Iterator[Problem]:
    """One error per pair of splits, or of domains, that the uses of one thing fall into."""
    for group, order in (("split", SPLITS), ("domain", ())):
        default = "training" if group == "split" else None
        first_of: dict[str, tuple[dict[str, Any], str]] = {}
        for record, file in uses:
            member = record.get(group, default)
            if member is not None:
                first_of.setdefault(member, (record, file))
        members = [member for member in order if member in first_of] or list(first_of)
        for other in members[1:]:
            (one, _), (two, file) = first_of[members[0]], first_of[other]
            places = f'{group} "{members[0]}" (case "{one["case"]}") and {group} "{other}" (case "{two["case"]}")'
            yield _error(two["case"], file, f"{what} in {places}: a leak", "it in one of them", "remove one of the two")
