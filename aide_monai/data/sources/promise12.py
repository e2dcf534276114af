"""PROMISE12 (https://promise12.grand-challenge.org): the paper's prostate Domain 3."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from aide_monai.data.case import Case
from aide_monai.data.checks.datalist import refuse
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.files import files_below, source_folder, tell_left_out, typed
from aide_monai.data.split import hold_out
from aide_monai.errors import InputError, Problem
from aide_monai.io.headers import data_file_problems

CASES = 50
"""Training cases of the challenge."""

DUPLICATES = range(13, 26)
"""Numbers of the cases from Radboud (RUNMC), whose patients Domain 2 (NCI-ISBI 2013, 3 T) has too."""

_FILE = re.compile(r"case(\d+)(_segmentation)?\.mhd", re.IGNORECASE)
_PARTS = re.compile(r"case(\d+)(_segmentation)?\.(mhd|z?raw)", re.IGNORECASE)
_TEST = re.compile(r"(^|[_-])test", re.IGNORECASE)
_LAYOUT = "CaseXX.mhd, CaseXX.raw, CaseXX_segmentation.mhd and CaseXX_segmentation.raw"

logger = logging.getLogger(__name__)


def promise12_datalist(
    root: str | Path, *, keep_duplicates: bool = False, test: int | None = None, seed: int = 0
) -> Datalist:
    """The training data of PROMISE12, one record per ``CaseXX.mhd``, in order of the case number.

    Files may lie in the folder itself or in any subfolders, such as ``TrainingData_Part1``. Folders with "test" in
    their name (``TestData``, ``livechallenge_test_data``) are passed over: the challenge's test cases have no public
    labels, and the names of training cases.

    Read the files with ``VolumeReader``: MONAI's own reader fails on the 8-bit signed labels.

    Every case is T2-weighted, of quality "high", of domain "Domain 3", and a patient of its own. Cases 13 to 25 repeat
    patients of Domain 2 and are left out; with ``keep_duplicates`` they are kept and belong to "Domain 2". Centres are
    not recorded, because the files do not name them.

    Args:
        root: folder of the download.
        keep_duplicates: keep cases 13 to 25.
        test: cases to hold out by drawing; 10 is the paper's number (27/10). None: all are training cases.
        seed: seed of the drawing.

    Raises:
        InputError: one report of all missing partners, missing voxel files, doubled numbers and links out of ``root``;
            or ``test`` out of range.
    """
    root = source_folder(root, expected=f"the files {_LAYOUT} of PROMISE12")
    files, problems = files_below(root, suffixes=(".mhd",))
    images: dict[int, Path] = {}
    labels: dict[int, Path] = {}
    for file in files:
        match = _FILE.fullmatch(file.name)
        if match is None or _is_test(file.relative_to(root)):
            continue
        found, number = labels if match[2] else images, int(match[1])
        if number in found:
            problems.append(
                Problem(f"case {number}, as {found[number]} is", advice="remove one of the two", place=file)
            )
        found.setdefault(number, file)
    if not images and not labels and not problems:
        raise InputError(
            "no CaseXX.mhd in it or its subfolders", expected=f"{_LAYOUT} of PROMISE12's training", place=root
        )
    wanted = {number for number in images.keys() | labels.keys() if keep_duplicates or number not in DUPLICATES}
    for number in sorted(wanted):
        for found, partner, ending in ((images, labels, "_segmentation.mhd"), (labels, images, ".mhd")):
            if number not in found:
                continue
            problems += data_file_problems(found[number], root)
            if number not in partner:
                missing = f"{_stem(found[number])}{ending}"
                problems.append(
                    Problem(f"no {missing}", advice="put it beside it, or remove the case", place=found[number])
                )
    if problems:
        whole = sorted(wanted & images.keys() & labels.keys())
        refuse(f"{root}: PROMISE12 cannot be used", problems, _datalist(whole, images, labels))
    if not wanted:
        raise InputError(
            "only cases of 13 to 25, which repeat Domain 2",
            advice=f"add the others, or, in the layout promise12, set keep_duplicates ({typed('keep_duplicates')})",
            place=root,
        )
    used = [file for found in (images, labels) for number, file in found.items() if number in wanted]
    tell_left_out(root, used, _why_unused)
    if len(images) != CASES:
        logger.warning("%s: found %d cases; the challenge's training data are %d", root, len(images), CASES)
    datalist = _datalist(sorted(wanted), images, labels)
    return datalist if test is None else hold_out(datalist, test=test, seed=seed)


def _datalist(numbers: Sequence[int], images: Mapping[int, Path], labels: Mapping[int, Path]) -> Datalist:
    cases = [_case(number, images[number], labels[number]) for number in numbers]
    return Datalist("PROMISE12", {0: "background", 1: "prostate"}, {0: "T2"}, cases)


def _is_test(file: Path) -> bool:
    return any(map(_TEST.search, file.parts[:-1]))


def _why_unused(file: Path) -> str:
    if _is_test(file):
        return "test cases of the challenge, whose labels are not public"
    match = _PARTS.fullmatch(file.name)
    if match and int(match[1]) in DUPLICATES:
        return f"cases {DUPLICATES[0]} to {DUPLICATES[-1]} repeat patients of Domain 2"
    return "not called CaseXX.mhd or CaseXX_segmentation.mhd"


def _case(number: int, image: Path, label: Path) -> Case:
    name = f"Case{number:02d}"
    return Case(
        name=name,
        image=str(image),
        label=str(label),
        quality="high",
        patient=name,
        domain="Domain 2" if number in DUPLICATES else "Domain 3",
    )


def _stem(file: Path) -> str:
    return re.sub(r"(?i)(_segmentation)?\.mhd$", "", file.name)
