"""Cases of the plain layout ``images/ labels/ unlabeled/``, matched by file name."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aide_monai.data.case import Case
from aide_monai.data.checks.datalist import refuse
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.files import tell_beside
from aide_monai.errors import InputError, Problem
from aide_monai.io.ahead import open_apart
from aide_monai.io.dicom.seg import is_dicom_seg
from aide_monai.io.folder import volumes_in
from aide_monai.io.location import SUFFIXES, without_suffix
from aide_monai.io.segmentations import case_of
from aide_monai.io.segments import named_segments
from aide_monai.io.volumes import label_values

PATIENT_PATTERN = r"(.+?)(?:_frame\d+)?"

_FOLDERS = ("images", "labels", "unlabeled")
_Cases = dict[str, list[Path]]  # name to files
_CHANNEL = re.compile(r"(.+)_(\d{4})")


def folder_datalist(
    root: str | Path,
    *,
    patient_pattern: str = PATIENT_PATTERN,
    label_names: Mapping[Any, str] | None = None,
    ignore: int | None = None,
) -> Datalist:
    """Cases of ``images/`` with their labels of the same name in ``labels/``, and those of ``unlabeled/``.

    Names of labels may have what programs append: ``liver_07_seg``, ``liver_07-mask``, ``liver_07_pred``, see
    ``case_of``.

    A case is a volume file (.nii.gz, .mha, .nrrd and the like), a DICOM file, or a subfolder of DICOM or PNG slices;
    image and label may differ in this. What else lies there is named in the log. nnU-Net's names are accepted:
    images ``liver_0000``, ``liver_0001`` are the channels 0 and 1 of the case ``liver``, whose label is ``liver``.
    All cases are training cases; labels count as quality "high". Hidden files are passed over.

    Args:
        root: the folder.
        patient_pattern: regular expression; its first group, where the name of a case has it, is the patient, see
            ``patient_of``. The default takes ``patient001_frame01`` and ``patient001_frame12`` for one patient, and
            other names for one patient each.
        label_names: name of every label value; they become the classes 1, 2, ... in the order of their values. None:
            values, and names where files have them, are read from the label files, which takes a while.
        ignore: label value of voxels without a verdict, as in ``Datalist``; None: every voxel has a class.

    Raises:
        InputError: a folder or partner is missing, two files stand for one case, or label values have gaps.
    """
    root = Path(os.path.abspath(root))
    pattern = patient_expression(patient_pattern, "patient_pattern")
    image_files, label_files = _volumes(root / "images"), _volumes(root / "labels")
    problems: list[Problem] = []
    labels, doubled = _of_images(_cases(label_files, problems, channels=False), image_files)
    channels = _has_channel_suffix(image_files, set(labels))
    images = _cases(image_files, problems, channels=channels)
    unlabeled = _cases(_volumes(root / "unlabeled"), problems, channels=channels)
    if not images and not unlabeled:
        raise InputError(
            "no volumes in images/ or unlabeled/",
            expected=f"DICOM, or files that end in {', '.join(SUFFIXES)}",
            place=root,
        )
    problems += doubled + _without_partner(root, images, labels, unlabeled)
    tell_beside(root, _FOLDERS, "in none of images/, labels/ and unlabeled/")
    number = max(len(files) for files in (*images.values(), *unlabeled.values()))
    problems += [
        Problem(f"{len(files)} channel files", f"{number}, numbered _0000 to _{number - 1:04d}", case=case)
        for case, files in sorted({**unlabeled, **images}.items())
        if channels and not _channels_are(files, number)
    ]
    problems += [
        Problem(
            f'a name that the patient pattern "{patient_pattern}" does not match',
            advice="give a fitting one",
            case=case,
        )
        for case in sorted(images.keys() | unlabeled.keys())
        if patient_of(case, pattern) is None
    ]
    cases: list[Case] = []
    for name, files in sorted({**unlabeled, **images}.items()):
        if name in images and name not in labels:
            continue  # a problem of its own
        image = str(files[0]) if number == 1 else tuple(str(file) for file in files)
        case = Case(name=name, image=image, patient=patient_of(name, pattern) or name)
        cases.append(replace(case, label=str(labels[name][0]), quality="high") if name in images else case)
    if label_names is None:
        stored = _names_from_labels([Path(case.label) for case in cases if case.label is not None], problems, ignore)
    else:
        given = {int(value): name for value, name in label_names.items()}
        stored = {0: "background", **{value: given[value] for value in sorted(given)}}
    names = dict(enumerate(stored.values()))
    classes = {} if [*stored] == [*names] else {value: index for index, value in enumerate(stored) if value}
    modality = {channel: f"channel {channel}" for channel in range(number)}
    sparse = any(is_dicom_seg(files[0]) for files in labels.values())  # which leaves out slices without a mark
    datalist = Datalist(root.name, names, modality, cases, classes, resample_labels=sparse, ignore=ignore)
    if problems:
        refuse(f"{root}: the folder cannot be used", problems, datalist)
    return datalist


def patient_expression(text: str, name: str) -> re.Pattern[str]:
    """A regular expression whose first group names the patient; ``name`` is that of the option.

    Raises:
        InputError: if it is none.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(f'{name} "{text}": not a regular expression ({error})') from error
    if not pattern.groups:
        raise InputError(f'{name} "{text}": no group; put the part that names the patient in ( )')
    return pattern


def patient_of(case: str, pattern: re.Pattern[str]) -> str | None:
    """The patient in the name of a case: "" where the pattern's group is no part of it, None where nothing matches.

    A pattern may stand for the whole name, ``(.+?)(?:_frame[0-9]+)?``, or for a part of it, ``(patient[0-9]+)``.

    Examples:
        >>> import re
        >>> from aide_monai.data.sources.folder import patient_of
        >>> patient_of("patient001_frame01", re.compile("(patient[0-9]+)"))
        'patient001'
    """
    match = pattern.fullmatch(case) or pattern.search(case)
    return None if match is None else match[1] or ""


def _without_partner(root: Path, images: _Cases, labels: _Cases, unlabeled: _Cases) -> list[Problem]:
    """What is wrong with the names in the three folders."""
    problems = [
        Problem(
            "no label of this name in labels/",
            advice="add it, or move the image to unlabeled/",
            place=root / "images" / images[case][0].name,
        )
        for case in sorted(images.keys() - labels.keys())
    ]
    problems += [
        Problem("no image of this name in images/", advice="add it, or remove the label", place=labels[case][0])
        for case in sorted(labels.keys() - images.keys())
    ]
    problems += [
        Problem("an image in images/ and in unlabeled/", advice="remove one of the two", case=case)
        for case in sorted(images.keys() & unlabeled.keys())
    ]
    return problems


def _volumes(folder: Path) -> list[Path]:
    return volumes_in(folder) if folder.is_dir() else []


def _case(path: Path) -> str:
    return without_suffix(path) if path.is_dir() or not path.name.lower().endswith(".dcm") else path.stem


def _has_channel_suffix(images: list[Path], labels: set[str]) -> bool:
    """Whether ``_0000`` is nnU-Net's channel; when the labels have it too, it belongs to the name of the case."""
    names = [_case(file) for file in images]
    return bool(names) and all(_CHANNEL.fullmatch(name) for name in names) and not labels & set(names)


def _cases(files: list[Path], problems: list[Problem], *, channels: bool) -> _Cases:
    """Files by case, of two with one name the first; ``problems`` takes the others."""
    cases: _Cases = {}
    seen: dict[str, Path] = {}
    for file in files:
        name = _case(file)
        if name in seen:
            both = f"{seen[name]} and {file.name}"
            problems.append(Problem("two files for one name", advice="remove one of them", place=both))
            continue
        seen[name] = file
        match = _CHANNEL.fullmatch(name) if channels else None
        cases.setdefault(match[1] if match else name, []).append(file)
    return cases


def _of_images(labels: _Cases, images: list[Path]) -> tuple[_Cases, list[Problem]]:
    """Labels by the names of their images, where they are called ``liver_07_seg`` and the like; and doubled ones."""
    names = {_case(file) for file in images}
    known = names | {match[1] for name in names if (match := _CHANNEL.fullmatch(name))}
    found: _Cases = {}
    problems = []
    for name, files in labels.items():
        case = case_of(name) if name not in known and case_of(name) in known else name
        first = found.setdefault(case, files)[0]
        if first != files[0]:
            both = f"{first} and {files[0].name}"
            problems.append(Problem(f"two labels for the image {case}", advice="remove one of them", place=both))
    return found, problems


def _channels_are(files: list[Path], number: int) -> bool:
    found = [_CHANNEL.fullmatch(_case(file)) for file in files]
    return [int(match[2]) if match else 0 for match in found] == list(range(number))


def _names_from_labels(files: list[Path], problems: list[Problem], ignore: int | None) -> dict[int, str]:
    """Names of the values that the files hold, ``ignore`` apart, as the files call them.

    Where names differ is found by the check. What is wrong with files and values is added to ``problems``; values with
    gaps are named as they are.
    """
    values = {0}
    called: dict[int, str] = {}
    for file in files:
        try:
            values |= set(label_values(open_apart(str(file)).decode()))
        except InputError as error:
            problems += error.at(file, expected="a label of whole numbers").problems
            continue
        for one in named_segments(file):
            if one.known_as:
                called.setdefault(one.value, str(one))
    values -= {ignore}
    if values != set(range(len(values))):
        place = shlex.quote(str(files[0].parent.parent))
        example = ",".join(f"{value}={called.get(value, 'NAME')}" for value in sorted(values - {0}))
        problems.append(
            Problem(
                f"labels of the values {', '.join(map(str, sorted(values)))}",
                expected="0, 1, 2, ... without gaps",
                advice=f"relabel the files, or name all values in a datalist: aide prepare folder {place} --out "
                f'{place}/datalist.json --label-names "{example}"; a value that means "nobody knows": --ignore VALUE',
                place=files[0].parent,
            )
        )
    return {value: called.get(value, f"label {value}") if value else "background" for value in sorted(values)}
