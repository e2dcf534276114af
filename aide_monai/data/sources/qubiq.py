"""QUBIQ (https://qubiq.grand-challenge.org): 2D images with masks of several raters."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aide_monai.data.case import Case, Quality, Split
from aide_monai.data.checks.datalist import refuse
from aide_monai.data.checks.duplicates import find_twins, signature
from aide_monai.data.datalist import Datalist
from aide_monai.data.raters import FUSIONS, as_mask, write_fused
from aide_monai.data.sources.files import case_paths, files_below, source_folder, tell_left_out, typed
from aide_monai.errors import InputError, Problem
from aide_monai.io.ahead import open_apart
from aide_monai.io.grid import Grid, shape_text
from aide_monai.io.location import Location

TASKS = ("prostate", "brain-growth", "brain-tumor", "kidney")
PAPER_SPLIT = {"prostate": (48, 7), "brain-growth": (34, 5), "brain-tumor": (28, 4), "kidney": (20, 4)}
"""Training and test cases of each task."""

SPLIT_FOLDERS: dict[str, Split] = {"Training": "training", "Validation": "test"}

_MASK = re.compile(r"task(\d+)_seg(\d+)\.nii(\.gz)?", re.IGNORECASE)
_IMAGE = re.compile(r"image\.nii(\.gz)?", re.IGNORECASE)
_LAYOUT = "TASK/Training/caseXX and TASK/Validation/caseXX with image.nii.gz, task01_seg01.nii.gz, ..."
_DEPTH = 3  # ROOT/training_data_v2/TASK/Training is how the two archives unpack

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QUBIQCase:
    """One image and the masks that the raters drew for one structure.

    Attributes:
        case: name of its folder; with the split before it when both splits have that name.
        split: "training" or "test".
        image: the file, with its channels on the fourth axis if any; or one path per channel of the third axis.
        channels: number of channels.
        masks: file of each rater's mask, by the number of the rater, in order.
    """

    case: str
    split: Split
    image: str | tuple[str, ...]
    channels: int
    masks: dict[int, str]


def qubiq_datalist(
    root: str | Path,
    *,
    task: str | None = None,
    subtask: int = 1,
    rater: int | str | None = None,
    reference: str | None = None,
    fused_dir: str | Path | None = None,
) -> Datalist:
    """The cases of one task, with the labels of one rater, of all raters fused, or of each rater.

    The challenge's folders are the paper's split: ``Training`` gives the training cases, ``Validation`` the test cases
    (48/7 prostate, 34/5 brain growth, 28/4 brain tumour, 20/4 kidney). Read the files with ``VolumeReader``: images are
    2D, and the four channels of a brain tumour may be the third axis of its file.

    Labels of one rater are of quality "low" in training cases, for the paper takes them for noisy, and "high" in test
    cases; fused labels are "high". A training case that rater k did not annotate stays as an unlabelled one; such a
    test case is left out. A log message names them.

    Args:
        root: folder of the download, or of one task.
        task: name of the task's folder, such as "brain-growth"; None: ``root`` is that folder.
        subtask: number of the structure, the XX of ``taskXX_seg01``.
        rater: number k of a rater; "majority", "mean" or "staple" to fuse them, see ``raters.fuse_raters``; None: one
            record per case and rater, ``case01_rater1`` and so on, all of the same patient.
        reference: when given ("majority", "mean" or "staple"), the fused label of all raters becomes the label of test
            cases and the ``clean_label`` of training cases. Test cases are then listed once.
        fused_dir: folder that fused labels are written to, outside the download; needed for fusing. Soft labels
            ("mean") are for scoring (``QUBIQScoreMetric``); networks train on the others.

    Raises:
        InputError: an option that does not fit, or one report of all that is missing, doubled, no mask of 0 and 1, on
            another grid than its image, in both splits, or outside ``root``.
    """
    _require_options(rater, reference, fused_dir)
    number = int(rater) if rater is not None and rater not in FUSIONS else None
    cases = qubiq_cases(root, task=task, subtask=subtask)
    raters = sorted({known for case in cases for known in case.masks})
    if number is not None and number not in raters:
        raise InputError(f"rater={rater}: nobody of this number; the raters are {_listed(raters)}")
    name = task or Path(os.path.abspath(root)).name

    def fused(case: QUBIQCase, method: str) -> str:
        target = Path(os.path.abspath(fused_dir or "")) / name / f"{case.case}_task{subtask:02d}_{method}.nii.gz"
        return str(write_fused(list(case.masks.values()), target, method=method))

    listed: list[Case] = []
    for case in cases:
        chosen: list[int | str] = [*case.masks] if rater is None else [rater if number is None else number]
        if reference is not None and case.split == "test":
            chosen = [reference]
        for one in chosen:
            known = _case(case, one, each=rater is None and one != reference, fused=fused)
            if known is not None and reference is not None and case.split == "training":
                known = replace(known, clean_label=fused(case, reference))
            if known is not None:
                listed.append(known)
    used = case_paths(listed)
    if rater in FUSIONS or reference is not None:
        used += [mask for case in cases for mask in case.masks.values()]
    tell_left_out(Path(os.path.abspath(root)), used, _why_unused)
    label = name.replace("-", " ") + (f" {subtask}" if subtask > 1 else "")
    channels = cases[0].channels
    modality = "CT" if name == "kidney" else "MR"
    names = {k: f"{modality} channel {k + 1}" for k in range(channels)} if channels > 1 else {0: modality}
    soft = "mean" in (rater, reference)
    if PAPER_SPLIT.get(name) not in (None, found := tuple(_count(cases, split) for split in SPLIT_FOLDERS.values())):
        logger.warning("%s: found %d and %d cases; the paper has %d and %d", name, *found, *PAPER_SPLIT[name])
    return Datalist(f"QUBIQ {label}", {0: "background", 1: label}, names, listed, soft_labels=soft)


def _why_unused(file: Path) -> str:
    known = _MASK.fullmatch(file.name) or _IMAGE.fullmatch(file.name)
    return "of another task, subtask or rater" if known else "neither image.nii.gz nor taskXX_segXX.nii.gz"


def qubiq_cases(root: str | Path, *, task: str | None = None, subtask: int = 1) -> list[QUBIQCase]:
    """The images of one task with the masks of all raters, training cases first, in order of their names.

    All masks are opened: 0 and 1 (or floats within 0.001 of them) on the grid of the image.

    Args:
        root: folder of the download, or of one task.
        task: name of the task's folder; None: ``root`` is that folder.
        subtask: number of the structure.

    Raises:
        InputError: one report, as in ``qubiq_datalist``.
    """
    root = source_folder(root, expected=_LAYOUT)
    splits = _split_folders(root, task)
    problems: list[Problem] = []
    cases: list[QUBIQCase] = []
    contents = {}
    for split, folder in splits.items():
        files, found = files_below(folder)
        problems += found
        by_case: dict[Path, list[Path]] = {}
        for file in files:
            if file.parent.parent == folder:
                by_case.setdefault(file.parent, []).append(file)
        if not by_case:
            problems.append(Problem("no case folders", expected=_LAYOUT, place=folder))
        for case_folder, case_files in sorted(by_case.items()):
            try:
                case, content = _read_case(case_folder, case_files, SPLIT_FOLDERS[split], subtask)
                cases.append(case)
                contents[str(case_folder)] = content
            except InputError as error:
                problems += error.problems
    for twins in find_twins(contents):
        both = f"{twins.first} and {twins.second}: one image in two cases"
        if Path(twins.first).parent != Path(twins.second).parent:
            problems.append(Problem(f"{both}, in training and in validation: a leak", advice="remove one of the two"))
        else:
            logger.warning("%s; look at them", both)
    problems += _channel_problems(cases)
    if problems:  # masks have been looked into, images have not
        images = [Case(name=f"{case.split}_{case.case}", image=case.image) for case in cases]
        channels = cases[0].channels if cases else 1
        names = {0: "background", 1: "structure"}
        rest = Datalist("QUBIQ", names, {k: f"channel {k}" for k in range(channels)}, images)
        refuse(f"{root}: QUBIQ cannot be used", problems, rest)
    _warn_of_missing_raters(cases)
    return _with_unique_names(cases)


def _require_options(rater: int | str | None, reference: str | None, fused_dir: str | Path | None) -> None:
    if rater is not None and rater not in FUSIONS and not str(rater).isdecimal():
        raise InputError(f"rater={rater!r}: expected the number of a rater, {', '.join(FUSIONS)}, or None for each")
    if reference is not None and reference not in FUSIONS:
        raise InputError(f"reference={reference!r}: expected one of {', '.join(FUSIONS)}, or None")
    if (rater in FUSIONS or reference is not None) and fused_dir is None:
        raise InputError(
            "fused labels are new files: name a folder for them, outside the download, by fused_dir "
            f"({typed('fused_dir', 'DIR')})"
        )


def _split_folders(root: Path, task: str | None) -> dict[str, Path]:
    """Folders of the training and validation cases; the archives unpack to different ones."""
    found: dict[str, list[Path]] = {split: [] for split in SPLIT_FOLDERS}
    tasks = set()
    for folder in _folders(root, depth=_DEPTH):
        if folder.name in found:
            parent = folder.parent
            tasks.add(parent.name)
            if (parent == root) if task is None else (parent.name == task):
                found[folder.name].append(folder)
    problems = [
        Problem(", ".join(map(str, folders)), expected=f"one: leave one version of the data below {root}", place=split)
        for split, folders in found.items()
        if len(folders) > 1
    ]
    if problems:
        raise InputError(f"{root}: QUBIQ cannot be used", problems=problems)
    splits = {split: folders[0] for split, folders in found.items() if folders}
    if not splits:
        missing = f"no folder {'' if task is None else task + '/'}Training or Validation"
        if tasks:
            there = f"{missing}, but the tasks {', '.join(sorted(tasks))}"
            raise InputError(there, advice=f"name one by task ({typed('task', 'TASK')})", place=root)
        raise InputError(missing, expected=_LAYOUT, place=root)
    for split in SPLIT_FOLDERS.keys() - splits.keys():
        logger.warning("%s: no folder %s of %s; its cases are missing", root, split, task or root.name)
    return splits


def _folders(root: Path, *, depth: int) -> Iterable[Path]:
    """Subfolders down to ``depth`` levels, sorted; linked and hidden ones are passed over."""
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith("."):
            yield folder
            if depth > 1:
                yield from _folders(folder, depth=depth - 1)


def _read_case(folder: Path, files: list[Path], split: Split, subtask: int) -> tuple[QUBIQCase, Any]:
    """The case and the signature of its image.

    Raises:
        InputError: one line per problem.
    """
    images = [file for file in files if _IMAGE.fullmatch(file.name)]
    masks: dict[int, Path] = {}
    other: set[int] = set()
    problems = []
    if len(images) != 1:
        problems.append(Problem(f"{len(images)} files image.nii.gz or image.nii", expected="one", place=folder))
    for file in files:
        match = _MASK.fullmatch(file.name)
        if match is None:
            continue
        rater = int(match[2])
        if int(match[1]) != subtask:
            other.add(int(match[1]))
        elif rater in masks:
            problems.append(
                Problem(f"the same rater as in {masks[rater].name}", advice="remove one of the two", place=file)
            )
        else:
            masks[rater] = file
    if not masks:
        there = f"; there are masks of task {_listed(other)}" if other else ""
        problems.append(Problem(f"no mask task{subtask:02d}_segXX.nii.gz{there}", place=folder))
    if problems:
        raise InputError(problems=problems)
    return _opened(images[0], dict(sorted(masks.items())), folder.name, split)


def _opened(image: Path, masks: dict[int, Path], case: str, split: Split) -> tuple[QUBIQCase, Any]:
    try:
        volume = open_apart(str(image))
        voxels = volume.decode()
    except InputError as error:
        raise error.at(image, expected="an image", advice="unpack the archive again") from error
    problems: list[Problem] = []
    flat = 0
    for file in masks.values():
        try:
            mask = open_apart(str(file))
            as_mask(mask.decode(), name=str(file))
        except InputError as error:
            problems += error.at(file).problems
            continue
        # The third axis of a brain tumour's file is no axis of space: its masks have two.
        channels_third = len(volume.file_shape) == 3 and mask.shape == (*volume.shape[:2], 1) != volume.shape
        flat += channels_third
        if mask.channels != 1 or (mask.shape != volume.shape and not channels_third):
            found, expected = shape_text(mask.file_shape), shape_text(volume.file_shape)
            problems.append(Problem(f"shape {found}", expected=f"the grid of image.nii.gz, {expected}", place=file))
        elif wrong := Grid(mask.shape, volume.affine).mismatch(mask.grid):
            problems.append(Problem(wrong.found, expected=f"that of image.nii.gz, {wrong.expected}", place=file))
    if problems:
        raise InputError(problems=problems)
    channels = volume.shape[2] if flat else volume.channels or 0
    if channels == 0:
        raise InputError(f"shape {shape_text(volume.file_shape)}", expected="(x, y) and channels", place=image)
    paths = tuple(str(Location(str(image)).channel(channel)) for channel in range(channels)) if flat else str(image)
    content = signature(voxels[:, :, :1, 0] if flat else voxels[..., 0], volume.affine)
    return QUBIQCase(case, split, paths, channels, {rater: str(file) for rater, file in masks.items()}), content


def _channel_problems(cases: list[QUBIQCase]) -> list[Problem]:
    channels = [case.channels for case in cases]
    usual = max(channels, key=channels.count, default=1)
    return [
        Problem(
            f"{case.channels} channels in image.nii.gz", f"{usual} as in most cases", case=f"{case.split}/{case.case}"
        )
        for case in cases
        if case.channels != usual
    ]


def _warn_of_missing_raters(cases: list[QUBIQCase]) -> None:
    everyone = {rater for case in cases for rater in case.masks}
    for case in cases:
        if missing := sorted(everyone - case.masks.keys()):
            logger.warning("%s case %s has no mask of rater %s", case.split, case.case, _listed(missing))


def _with_unique_names(cases: list[QUBIQCase]) -> list[QUBIQCase]:
    names = [case.case for case in cases]
    return [replace(case, case=f"{case.split}_{case.case}") if names.count(case.case) > 1 else case for case in cases]


def _case(case: QUBIQCase, rater: int | str, *, each: bool, fused: Callable[[QUBIQCase, str], str]) -> Case | None:
    """One case of the datalist; None for a test case that the rater did not annotate."""
    name = f"{case.case}_rater{rater}" if each else case.case
    known = Case(name=name, image=case.image, patient=case.case, split=case.split)
    if isinstance(rater, str):
        return replace(known, label=fused(case, rater), quality="high", rater=rater)
    if rater not in case.masks:
        what = "kept without a label" if case.split == "training" else "left out"
        logger.warning("%s case %s: rater %d did not annotate it; %s", case.split, case.case, rater, what)
        return known if case.split == "training" else None
    quality: Quality = "low" if case.split == "training" else "high"
    return replace(known, label=case.masks[rater], quality=quality, rater=str(rater))


def _count(cases: list[QUBIQCase], split: str) -> int:
    return sum(case.split == split for case in cases)


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
