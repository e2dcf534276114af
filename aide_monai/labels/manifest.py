"""Where the labels of a run are."""

from __future__ import annotations

from pathlib import Path

from aide_monai.errors import InputError

JOURNAL = "journal.jsonl"
"""The file in a folder of labels that lists its generations."""
MANIFEST = "manifest.json"
"""What older runs have in its place."""
NETWORKS = (1, 2)
"""Each has labels of its own."""


def labels_folder(run: str | Path) -> Path:
    """The folder of the labels of a run.

    Args:
        run: run folder of ``aide train``, ``aide run`` or ``aide demo``, or the folder of the labels itself.

    Raises:
        InputError: if there are no labels, or those of several runs.
    """
    run = Path(run)
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; expected the folder of a run")
    for candidates in ([run], [run / "labels"], sorted(run.glob("*/labels")), sorted(run.glob("*/*/*/labels"))):
        found = [folder for folder in candidates if has_labels(folder)]
        if len(found) > 1:
            names = ", ".join(str(folder.parent) for folder in found)
            raise InputError(f"{run}: found the labels of several runs; expected one of {names}")
        if found:
            return found[0]
    raise InputError(f"{run}: no labels of a run; expected a run folder with labels/{JOURNAL}, as aide train makes it")


def has_labels(folder: Path) -> bool:
    """Whether labels of a run are committed in a folder."""
    return (folder / JOURNAL).is_file() or (folder / MANIFEST).is_file()


def is_used(folder: Path, *, resume: bool) -> bool:
    """Whether a folder holds the labels of a run.

    Raises:
        InputError: if it does, and that run is not to be resumed.
    """
    used = has_labels(folder)
    if used and not resume:
        raise InputError(
            f"{folder} already holds the labels of a run; choose a new folder, or pass --resume (resume=True) to "
            "continue that run"
        )
    return used
