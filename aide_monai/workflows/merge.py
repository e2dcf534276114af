"""Several data sets, which may have different structures annotated, as one to train on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.progress import track

from aide_monai.data.case import Case
from aide_monai.data.checks.datalist import require_valid
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources import find_datalist
from aide_monai.errors import InputError, Problem
from aide_monai.ignored import IGNORED, MOST_PARTIAL, marked
from aide_monai.io.nifti import write_nifti
from aide_monai.utils.files import new_folder, require_unused
from aide_monai.workflows.nnunet import drawn_label

_FILE = "datalist.json"


def merge_data_sets(
    data: Sequence[str | Path], folder: str | Path, *, roots: Iterable[str | Path] = (), progress: bool = False
) -> Datalist:
    """Merge data sets by the names of their structures.

    Writes ``folder/labels``, all labels in one numbering, and ``folder/datalist.json``, in which each case tells which
    structures its data set has ("annotated", where these are not all). Images stay where they are. Cases and patients
    get the name of their data set in front, which is their domain; splits and qualities stay.

    Args:
        data: two data sets or more, folders or datalists, see ``find_datalist``; their file names are theirs.
        folder: new folder.
        roots: further folders that the files of a datalist may lie in.
        progress: show progress bars.

    Raises:
        InputError: one report of all that is wrong with the data sets; other numbers of channels, soft labels, or more
            than ``MOST_PARTIAL`` structures where data sets have not all of them. Then nothing is written.

    Examples:
        >>> from aide_monai import write_phantoms
        >>> from aide_monai.workflows import merge_data_sets
        >>> for name in ("first", "second"):
        ...     _ = write_phantoms(name, cases=2, shape=(32, 32, 4))
        >>> [case.name for case in merge_data_sets(["first", "second"], "both").cases]
        ['first_phantom_000', 'first_phantom_001', 'second_phantom_000', 'second_phantom_001']
    """
    require_unused(folder, "the data set")
    folder = Path(os.path.abspath(folder))
    lists = _found(data, roots)
    names = _names(lists)
    for one in lists.values():
        require_valid(one, progress=progress)
    silent = any(one.ignore is not None for one in lists.values())
    with new_folder(folder) as unfinished:
        cases = []
        whole = [(name, one, case) for name, one in lists.items() for case in one.cases]
        for name, one, case in track(whole, description="Merging", disable=not progress):
            cases.append(_merged(case, one, name, names, unfinished))
        first = next(iter(lists.values()))
        merged = Datalist(
            " + ".join(one.name for one in lists.values()),
            dict(enumerate(names)),
            first.modality,
            cases,
            resample_labels=any(one.resample_labels for one in lists.values()),
            ignore=IGNORED if silent else None,
        )
        merged.save(unfinished / _FILE)
    return Datalist.load(folder / _FILE, roots=merged.folders)


def _found(data: Sequence[str | Path], roots: Iterable[str | Path]) -> dict[str, Datalist]:
    """The data sets by the names of their folders or files."""
    lists = {(Path(one).parent if Path(one).name == _FILE else Path(one)).resolve().stem: one for one in data}
    if len(lists) < 2 or len(lists) < len(data):
        raise InputError(f"data sets {', '.join(map(str, data))}; expected two or more, in folders of different names")
    found = {name: find_datalist(one, roots=roots) for name, one in lists.items()}
    channels = {len(one.modality) for one in found.values()}
    problems = [
        Problem("soft labels", "one class for every voxel", place=n) for n, one in found.items() if one.soft_labels
    ]
    if len(channels) > 1:
        counts = ", ".join(f"{len(one.modality)} in {name}" for name, one in found.items())
        problems.append(Problem(f"channels: {counts}", "as many in all data sets"))
    if problems:
        raise InputError("data sets that cannot be merged", problems=problems)
    return found


def _names(lists: dict[str, Datalist]) -> list[str]:
    """Background, and the structures of all data sets, each once."""
    known = [[name for index, name in sorted(one.labels.items()) if index] for one in lists.values()]
    names = list(dict.fromkeys(name for structures in known for name in structures))
    partial = any(set(structures) != set(names) for structures in known)
    if partial and len(names) > MOST_PARTIAL:
        raise InputError(
            f"{len(names)} structures: {', '.join(names)}; expected at most {MOST_PARTIAL} where data sets have not "
            "all of them: name alike what is alike (--label-names), merge some, or leave some out"
        )
    return ["background", *names]


def _merged(case: Case, own: Datalist, source: str, names: list[str], folder: Path) -> Case:
    """A case of one data set as one of all; its labels are written."""
    annotated = case.annotated or tuple(name for index, name in sorted(own.labels.items()) if index)
    number = {index: names.index(name) for index, name in own.labels.items() if index}
    name = f"{source}_{case.name}"
    written: dict[str, Any] = {}
    for key, kind in (("label", "labels"), ("clean_label", "clean_labels")):
        path = getattr(case, key)
        if path is not None:
            label, affine, place = drawn_label(path, case, own)
            moved = label * ~marked(label)
            for index, value in number.items():
                moved[label == index] = value
            written[key] = str(write_nifti(folder / kind / f"{name}.nii.gz", moved, affine, place))
    labelled = case.label is not None or case.clean_label is not None
    return replace(
        case,
        name=name,
        patient=f"{source}_{case.patient or case.name}",
        domain=case.domain or source,
        annotated=annotated if labelled and set(annotated) != set(names[1:]) else None,
        sha256=None,
        **written,
    )
