"""The layouts that ``aide prepare`` and bundles know, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aide_monai.data.datalist import Datalist
from aide_monai.data.sources import decathlon_datalist, folder_datalist
from aide_monai.data.sources.breast_dce import breast_datalist
from aide_monai.data.sources.chaos import chaos_datalist
from aide_monai.data.sources.domain_folders import domain_folders
from aide_monai.data.sources.nci_isbi import nci_isbi_datalist
from aide_monai.data.sources.promise12 import promise12_datalist
from aide_monai.data.sources.prostate import prostate_datalist
from aide_monai.data.sources.qubiq import qubiq_datalist


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
    "folder": Layout(folder_datalist, ("images/ and labels/",), ("patient_pattern",)),
    "domains": Layout(domain_folders, ("a folder per domain",), ("domains", "held_out", "label_names")),
}
