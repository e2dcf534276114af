"""Cases of a raw data folder of nnU-Net v2 (Isensee et al., Nature Methods 2021; documentation/dataset_format.md)."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aide_monai.data.case import Case, Split
from aide_monai.data.checks.datalist import refuse
from aide_monai.data.datalist import Datalist
from aide_monai.data.records import ignored_value, kind_of, name_problems, numbered_names, read_json
from aide_monai.data.sources.files import case_paths, tell_left_out, typed
from aide_monai.data.sources.folder import PATIENT_PATTERN, patient_expression, patient_of
from aide_monai.errors import InputError, Problem
from aide_monai.io.location import SUFFIXES, Location
from aide_monai.utils.files import JsonObject

SPLITS_FILE = "splits_final.json"

_SECTIONS: dict[str, Split] = {"Tr": "training", "Ts": "test"}
_LISTS = ("train", "val")
_CHANNEL_FILE = re.compile(r"(.+)_(\d{4})")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    """A case as the folder has it: paths as they are written, relative ones from the folder."""

    name: str
    images: tuple[str, ...]
    label: str | None
    split: Split


def nnunet_datalist(
    root: str | Path,
    *,
    split_fold: int | None = None,
    splits: str | Path | None = None,
    patient_pattern: str = PATIENT_PATTERN,
    roots: Iterable[str | Path] = (),
) -> Datalist:
    """Cases of ``imagesTr`` and ``imagesTs``; ``X_0000.nii.gz``, ``X_0001.nii.gz`` are the channels of the case ``X``.

    A case of ``imagesTr`` with its label in ``labelsTr`` is a training case of quality "high"; one without is an
    unlabelled training case. Cases of ``imagesTs`` with a label in ``labelsTs`` are test cases, the others unlabelled
    training cases, for nothing can be measured on them. The key "dataset" of ``dataset.json``, which names files that
    lie elsewhere, is understood.

    Args:
        root: the folder of ``dataset.json``, or the path of such a file under another name.
        split_fold: number, from 0, of the fold of ``splits`` whose "val" cases are held out as test cases; labelled
            cases in none of its two lists are left out, as nnU-Net does.
        splits: nnU-Net's ``splits_final.json``; None: the one in ``root``.
        patient_pattern: as in `folder_datalist`: nnU-Net knows no patients, and its folds may part their cases.
        roots: further folders that files may lie in.

    Raises:
        InputError: one report of all that is malformed, missing, doubled, leads out of the folder and the roots, or is
            not supported: labels by regions, files that are no volumes.

    Examples:
        >>> import json
        >>> from pathlib import Path
        >>> from aide_monai import write_phantoms
        >>> from aide_monai.data.sources import nnunet_datalist
        >>> folder = write_phantoms("phantoms", cases=2, shape=(32, 32, 4))
        >>> for file in (folder / "imagesTr").iterdir():
        ...     _ = file.rename(file.with_name(file.name.replace(".nii.gz", "_0000.nii.gz")))
        >>> labels = {"background": 0, "organ": 1}
        >>> content = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
        >>> _ = (folder / "dataset.json").write_text(json.dumps(content))
        >>> [case.name for case in nnunet_datalist(folder).cases]
        ['phantom_000', 'phantom_001']
    """
    file = Path(root)
    file = file / "dataset.json" if file.is_dir() else file
    content = read_json(file)
    folder = Path(os.path.abspath(file.parent))
    title = f"{file}: the nnU-Net data set cannot be used"
    labels, ignore, problems = _labels(content)
    modality, wrong = numbered_names(content.get("channel_names"), "channel_names")
    ending, found = _file_ending(content)
    problems += [*wrong, *found]
    malformed = bool(problems)
    entries = [] if wrong or found else _entries(content, folder, ending, len(modality), problems)
    pattern = patient_expression(patient_pattern, "patient_pattern")
    cases: list[Case] = []
    for entry in entries:
        try:
            patient = patient_of(entry.name, pattern) or entry.name
            cases.append(replace(_case(entry, folder, roots=roots), patient=patient))
        except InputError as error:
            problems += error.at("", case=entry.name).problems
    if malformed:
        raise InputError(title, problems=problems)
    cases = _of_fold(cases, folder, split_fold, splits, problems)
    datalist = Datalist(str(content.get("name") or folder.name), labels, modality, cases, ignore=ignore)
    if problems:
        refuse(title, problems, datalist)
    for kind in [kind for side in _SECTIONS for kind in (f"images{side}", f"labels{side}")]:
        if (folder / kind).is_dir():
            tell_left_out(folder / kind, case_paths(cases), lambda file: f"not called CASE_0000{ending}")
    return datalist


def is_nnunet(file: Path) -> bool:
    """Whether a ``dataset.json`` is nnU-Net's; that of the Decathlon lists its files and has "modality".

    Raises:
        InputError: if it is no JSON file.
    """
    return not {"channel_names", "file_ending"}.isdisjoint(read_json(file))


def nnunet_images(folder: Path) -> dict[str, tuple[str, ...]] | None:
    """The images of ``imagesTr`` or ``imagesTs`` of a raw data folder, by case; None for any other folder.

    Raises:
        InputError: one report of all files without a number, and cases without all channels.
    """
    file = folder.parent / "dataset.json"
    if folder.name not in [f"images{side}" for side in _SECTIONS] or not file.is_file() or not is_nnunet(file):
        return None
    content = read_json(file)
    ending, problems = _file_ending(content)
    modality, wrong = numbered_names(content.get("channel_names"), "channel_names")
    problems += wrong
    found = {} if problems else _images(folder, ending, len(modality), problems)
    if problems:
        raise InputError(f"{folder}: the images cannot be used", problems=problems)
    return found


def _labels(content: JsonObject) -> tuple[dict[int, str], int | None, list[Problem]]:
    """The names by value, the value of "ignore", and what is malformed or cannot be trained on."""
    given, place = content.get("labels"), 'key "labels"'
    if not isinstance(given, dict):
        expected = 'names with values, such as {"background": 0, "liver": 1}'
        return {}, None, [Problem(kind_of(given), expected, place=place)]
    problems = []
    names: dict[int, str] = {}
    for name, value in given.items():
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(value, list):
            advice = 'name each stored value once in "labels", without "regions_class_order"'
            problems.append(Problem(f'"{name}" as the region {value}', "one value per name", advice, place))
        elif type(value) is not int or value < 0:
            problems.append(Problem(f'"{name}": {value!r}', "a whole number from 0", place=place))
        elif value in names:
            problems.append(Problem(f'"{names[value]}" and "{name}" for {value}', "one name per value", place=place))
        else:
            names[value] = name
    ignore = next((value for value, name in names.items() if name == "ignore"), None)
    names = {value: name for value, name in names.items() if value != ignore}
    if not problems:
        problems = name_problems(names, "labels") + ([] if ignore is None else ignored_value(ignore, names))
    return names, ignore, problems


def _file_ending(content: JsonObject) -> tuple[str, list[Problem]]:
    ending = content.get("file_ending")
    if isinstance(ending, str) and ending.lower() in SUFFIXES:
        return ending, []
    expected = f"one of {', '.join(SUFFIXES)}"
    return "", [Problem(json.dumps(ending), expected, "convert the files", 'key "file_ending"')]


def _entries(content: JsonObject, folder: Path, ending: str, channels: int, problems: list[Problem]) -> list[_Entry]:
    """All cases of both sides; what is wrong is added to ``problems``."""
    entries: list[_Entry] = []
    before = len(problems)
    for side, split in _SECTIONS.items():
        if split == "training" and "dataset" in content:
            entries += _listed(content["dataset"], problems)
        else:
            entries += _side(folder, side, ending, channels, problems)
        complete = split == "training" and len(problems) == before  # else cases are missing that are told already
        if complete and content.get("numTraining", len(entries)) != len(entries):
            found, advice = f"{content['numTraining']!r}", "look for the cases that are missing, or correct the number"
            problems.append(Problem(found, f"{len(entries)}, the number of its cases", advice, 'key "numTraining"'))
    sides = {entry.name: entry for entry in reversed(entries)}
    problems += [
        Problem("a case in imagesTr and in imagesTs", "one of them", "remove one of the two", case=entry.name)
        for entry in entries
        if sides[entry.name] is not entry
    ]
    return list(sides.values())[::-1]


def _side(folder: Path, side: str, ending: str, channels: int, problems: list[Problem]) -> list[_Entry]:
    """The cases of ``imagesTr`` or ``imagesTs``."""
    images, labels = folder / f"images{side}", folder / f"labels{side}"
    if not images.is_dir():
        if side == "Tr":
            problems.append(Problem("no such folder", f"images called CASE_0000{ending}", place=images))
        return []
    found = _images(images, ending, channels, problems)
    drawn = {file.name.removesuffix(ending): str(file) for file in _files(labels, ending)}
    problems += [
        Problem(f"no image of this name in images{side}/", advice="add it, or remove the label", place=drawn[name])
        for name in sorted(drawn.keys() - _names(images, ending))
    ]
    return [_Entry(name, paths, drawn.get(name), _SECTIONS[side]) for name, paths in found.items()]


def _images(folder: Path, ending: str, channels: int, problems: list[Problem]) -> dict[str, tuple[str, ...]]:
    """The channels of each case of which all are there."""
    found: dict[str, dict[int, str]] = {}
    for file in _files(folder, ending):
        if match := _CHANNEL_FILE.fullmatch(file.name.removesuffix(ending)):
            found.setdefault(match[1], {})[int(match[2])] = str(file)
        else:
            expected = f"the number of its channel, such as {file.name.removesuffix(ending)}_0000{ending}"
            problems.append(Problem("a name without a number", expected, "rename it", file))
    problems += [
        Problem(
            f"the channels {', '.join(f'_{number:04d}' for number in sorted(files))}",
            f"_0000 to _{channels - 1:04d}, as channel_names has them",
            "add the missing file, or remove the case",
            folder / name,
            name,
        )
        for name, files in found.items()
        if sorted(files) != list(range(channels))
    ]
    return {
        name: tuple(files[number] for number in range(channels))
        for name, files in found.items()
        if sorted(files) == list(range(channels))
    }


def _names(folder: Path, ending: str) -> set[str]:
    """The cases that have any image."""
    return {
        match[1]
        for file in _files(folder, ending)
        if (match := _CHANNEL_FILE.fullmatch(file.name.removesuffix(ending)))
    }


def _files(folder: Path, ending: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.name.endswith(ending) and not file.name.startswith("."))


def _listed(dataset: Any, problems: list[Problem]) -> list[_Entry]:
    """The cases of the key "dataset"."""
    expected = '{"CASE": {"images": [path, ...], "label": path}}'
    if not isinstance(dataset, dict):
        problems.append(Problem(kind_of(dataset), expected, place='key "dataset"'))
        return []
    entries = []
    for name, known in dataset.items():
        images = known.get("images") if isinstance(known, dict) else None
        label = known.get("label") if isinstance(known, dict) else None
        paths = [*images, *([] if label is None else [label])] if isinstance(images, list) and images else [None]
        if all(isinstance(path, str) and path for path in paths):
            entries.append(_Entry(name, tuple(images or ()), label, "training"))
        else:
            problems.append(Problem(json.dumps(known)[:200], expected, place=f'key "dataset", "{name}"'))
    return entries


def _case(entry: _Entry, folder: Path, *, roots: Iterable[str | Path]) -> Case:
    def absolute(text: str) -> str:
        return str(Location.parse(text).absolute(folder, roots=roots))

    paths = tuple(map(absolute, entry.images))
    case = Case(name=entry.name, image=paths[0] if len(paths) == 1 else paths)
    if entry.label is None:
        return case
    return replace(case, label=absolute(entry.label), quality="high", split=entry.split)


def _of_fold(
    cases: list[Case], folder: Path, number: int | None, splits: str | Path | None, problems: list[Problem]
) -> list[Case]:
    """The cases with the "val" cases of a fold held out; what is wrong with it is added to ``problems``."""
    file = folder / SPLITS_FILE if splits is None else Path(splits)
    if number is None:
        if splits is not None or file.is_file():
            logger.warning("%s: no fold of it is used; name one by its number (%s)", file, typed("split_fold", "0"))
        return cases
    try:
        fold = _fold(file, number)
    except InputError as error:
        problems += error.problems
        return cases
    known = {case.name for case in cases if case.split == "training"}
    both = sorted(fold["train"] & fold["val"])
    problems += [Problem("a case in train and in val: a leak", place=file, case=name) for name in both]
    problems += [
        Problem("a case that imagesTr does not have", advice="add it, or correct the fold", place=file, case=name)
        for name in sorted((fold["train"] | fold["val"]) - known)
    ]
    problems += [
        Problem("a case to be held out without a label", place=file, case=case.name)
        for case in cases
        if case.name in fold["val"] and case.label is None
    ]
    unused = [c.name for c in cases if c.label and c.split == "training" and c.name not in fold["train"] | fold["val"]]
    if unused:
        logger.warning("%s: %d labelled cases in neither list of fold %d are left out", file, len(unused), number)
    return [replace(c, split="test") if c.name in fold["val"] else c for c in cases if c.name not in unused]


def _fold(file: Path, number: int) -> Mapping[str, set[str]]:
    """The names of the two lists of a fold.

    Raises:
        InputError: no such file, no such fold, or another content.
    """
    expected = 'a list of folds, {"train": [case, ...], "val": [case, ...]}'
    if not file.is_file():
        advice = f"name it ({typed('splits', 'FILE')}): nnU-Net keeps it in nnUNet_preprocessed"
        raise InputError("no such file", expected=expected, advice=advice, place=file)
    try:
        folds = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"not readable as JSON ({error})", expected=expected, place=file) from error
    sound = isinstance(folds, list) and all(
        isinstance(fold, dict)
        and all(isinstance(fold.get(key), list) and all(isinstance(name, str) for name in fold[key]) for key in _LISTS)
        for fold in folds
    )
    if not sound:
        raise InputError("something else", expected=expected, place=file)
    if not 0 <= number < len(folds):
        raise InputError(f"{len(folds)} folds", expected=f"a fold {number}", advice="the first is 0", place=file)
    return {key: set(folds[number][key]) for key in _LISTS}
