"""The layouts that ``aide prepare`` and bundles know, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aide_monai.data.case import SPLITS
from aide_monai.data.checks.datalist import refuse
from aide_monai.data.datalist import Datalist
from aide_monai.data.records import read_json
from aide_monai.data.sources.breast_dce import breast_datalist
from aide_monai.data.sources.chaos import chaos_datalist
from aide_monai.data.sources.decathlon import decathlon_datalist
from aide_monai.data.sources.domain_folders import domain_folders
from aide_monai.data.sources.folder import folder_datalist
from aide_monai.data.sources.nci_isbi import nci_isbi_datalist
from aide_monai.data.sources.nnunet import is_nnunet, nnunet_datalist
from aide_monai.data.sources.promise12 import promise12_datalist
from aide_monai.data.sources.prostate import prostate_datalist
from aide_monai.data.sources.qubiq import qubiq_datalist
from aide_monai.errors import InputError, Problem
from aide_monai.utils.validation import require_choices

_RECOGNISED = (
    "a datalist.json; a dataset.json of nnU-Net or of the Medical Segmentation Decathlon; or the folders images/ and "
    "labels/ (and unlabeled/) with files of the same names"
)


@dataclass(frozen=True)
class Layout:
    """How a data set is downloaded.

    Attributes:
        source: from the folders to the datalist.
        folders: what each folder is.
        options: keyword arguments of ``source`` that a user may give.
        paper: those that give the paper's split; None for data sets that the paper does not have.
    """

    source: Callable[..., Datalist]
    folders: tuple[str, ...]
    options: tuple[str, ...] = ()
    paper: Mapping[str, Any] | None = None


LAYOUTS = {
    "chaos": Layout(chaos_datalist, ("CHAOS",), ("modality", "organs"), {"paper_split": True}),
    "nci-isbi": Layout(nci_isbi_datalist, ("NCI-ISBI 2013",), ("merge_zones",), {}),
    "promise12": Layout(promise12_datalist, ("PROMISE12",), ("keep_duplicates",), {"test": 10}),
    "prostate": Layout(prostate_datalist, ("NCI-ISBI 2013", "PROMISE12"), (), {}),
    "qubiq": Layout(qubiq_datalist, ("QUBIQ",), ("task", "subtask", "rater", "reference", "fused_dir"), {}),
    "breast": Layout(
        breast_datalist,
        ("breast DCE-MR",),
        ("centre", "phases", "times_s", "keep_unlabeled", "subtraction_dir"),
        {"test": 100},
    ),
    "decathlon": Layout(decathlon_datalist, ("Decathlon",)),
    "nnunet": Layout(nnunet_datalist, ("nnU-Net",), ("split_fold", "splits", "patient_pattern")),
    "folder": Layout(folder_datalist, ("images/ and labels/",), ("patient_pattern", "label_names", "ignore")),
    "domains": Layout(domain_folders, ("a folder per domain",), ("domains", "held_out", "label_names", "ignore")),
}


def find_datalist(
    root: str | Path,
    *,
    roots: Iterable[str | Path] = (),
    left_out: list[Problem] | None = None,
    layout: str | None = None,
) -> Datalist:
    """Recognise the layout of a data set and read its cases.

    Args:
        root: a JSON file (datalist, nnU-Net or Decathlon), or a folder with, in this order, ``datalist.json``,
            ``dataset.json``, or ``images/`` (or ``unlabeled/``).
        roots: further folders that the files of a JSON list may lie in.
        left_out: as in ``Datalist.load``, of a datalist.
        layout: key of ``LAYOUTS`` of one folder, for a folder that does not show what it is, such as "chaos"; None
            recognises it.

    Raises:
        InputError: nothing there, or no layout that is known; tells what was found and what is accepted. Or one report
            of everything that is wrong, see ``refuse``.

    Examples:
        >>> from aide_monai import find_datalist, write_phantoms
        >>> [case.name for case in find_datalist(write_phantoms("phantoms", cases=2, shape=(32, 32, 4))).cases]
        ['phantom_000', 'phantom_001']
    """
    root = Path(root)
    if layout is not None:
        known = [name for name, one in LAYOUTS.items() if len(one.folders) == 1 and name != "domains"]
        require_choices({"layout": layout}, {"layout": tuple(known)})
        return LAYOUTS[layout].source(root)
    if not root.exists():
        raise InputError("no such folder", expected=f"one with {_RECOGNISED}", place=root)
    files = [root] if root.is_file() else [root / "datalist.json", root / "dataset.json"]
    for file in files:
        if file.is_file():
            if is_datalist(file):
                wrong: list[Problem] = []
                datalist = Datalist.load(file, roots=roots, left_out=wrong if left_out is None else left_out)
                if wrong:
                    refuse(f"{os.path.abspath(file)}: the datalist cannot be used", wrong, datalist)
                return datalist
            return (nnunet_datalist if is_nnunet(file) else decathlon_datalist)(file, roots=roots)
    if (root / "images").is_dir() or (root / "unlabeled").is_dir():
        return folder_datalist(root)
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
    if not names:
        raise InputError("an empty folder", expected=_RECOGNISED, place=root)
    found = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    raise InputError(f"no known layout, but {found}", expected=_RECOGNISED, place=root)


def is_datalist(file: Path) -> bool:
    """Whether a JSON file is a datalist, which names its cases, or a Decathlon list, which has paths alone.

    Raises:
        InputError: if it is no JSON file.
    """
    content = read_json(file)
    sections = [content[split] for split in SPLITS if isinstance(content.get(split), list)]
    return any(isinstance(entry, dict) and "case" in entry for entries in sections for entry in entries)
