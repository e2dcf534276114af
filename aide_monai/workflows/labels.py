"""What happened to the labels of a run: list its generations, compare them, export them, go back to one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aide_monai.errors import InputError
from aide_monai.ignored import IGNORED, is_partial, marked
from aide_monai.labels.manifest import NETWORKS, labels_folder
from aide_monai.utils.files import new_folder, require_unused
from aide_monai.utils.locks import lock_folder, locks_of_this_block

if TYPE_CHECKING:
    from aide_monai.labels.history import Generation, LabelHistory
    from aide_monai.reports.tables import Row


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        files: number of files.
        resampled: cases whose labels were resampled for training, so that they are back on their grid to the nearest
            voxel only.
        cropped: cases of which the training saw a part only; outside of it the exported label is background.
    """

    files: int
    resampled: tuple[str, ...]
    cropped: tuple[str, ...]


def open_history(run: str | Path) -> LabelHistory:
    """The history of a run's labels.

    Args:
        run: run folder of ``aide train``, ``aide run`` or ``aide demo``, or the folder of the labels itself.

    Raises:
        InputError: if there are no labels, those of several runs, or the manifest is damaged.
    """
    folder = labels_folder(run)
    from aide_monai.labels.history import LabelHistory  # only who has labels waits for PyTorch

    return LabelHistory.load(folder)


def list_generations(run: str | Path) -> list[Row]:
    """What each generation changed, oldest first.

    Args:
        run: as in ``open_history``.

    Returns:
        Dictionaries with "generation", "epoch", "change" (text), "cases" (number whose label changed for any network),
        "voxels" (changed class; None for a rollback) and "dice_before" (mean Dice, 0..1, between the replaced labels
        and the predictions that ranked them; None without any).

    Raises:
        InputError: as ``open_history``.
    """
    return [_row(number, entry) for number, entry in enumerate(open_history(run).generations)]


def diff(run: str | Path, first: int, second: int) -> list[Row]:
    """The labels that differ between two generations, those that differ most first.

    Args:
        run: as in ``open_history``.
        first: generation to compare.
        second: generation to compare it with.

    Returns:
        Dictionaries with "case", "networks" (those whose labels changed in this way; both where they agree before and
        after), "foreground_first" and "foreground_second" (voxels), "voxels" (of another
        class) and "dice" (0..1, between both labels, the mean over the classes that either has).

    Raises:
        InputError: as ``open_history``, or if there is no such generation or a label is damaged.
    """
    history = open_history(run)
    rows: list[Row] = []
    for case in history.shapes:
        seen = None
        for network in NETWORKS:
            if history.file(first, network, case) == history.file(second, network, case):
                continue
            a, b = (history.read(generation, network, case).numpy() for generation in (first, second))
            voxels = int(np.count_nonzero(a != b))
            if not voxels:
                continue
            if seen is not None and np.array_equal(seen[0], a) and np.array_equal(seen[1], b):
                rows[-1]["networks"].append(network)
                continue
            seen = (a, b)
            foreground = {
                "foreground_first": np.count_nonzero(marked(a)),
                "foreground_second": np.count_nonzero(marked(b)),
            }
            rows.append({"case": case, "networks": [network], **foreground, "voxels": voxels, "dice": _dice(a, b)})
    return sorted(rows, key=lambda row: -row["voxels"])


def export(run: str | Path, generation: int, *, folder: str | Path) -> Export:
    """Write the labels of a generation as NIfTI on the original grid of each case.

    ``folder/network_1/<case>.nii.gz`` is the label that network 1 trains on, ``network_2`` likewise, in
    the values in which the data set stores its labels (of merged ones the smallest), slope 1, with the affine of the
    file that the label came from. A run that has not noted these values gives class indices. Padding is taken off; see
    ``Export`` for what other preprocessing means. ``folder`` appears when all is written.

    Args:
        run: as in ``open_history``.
        generation: generation to export.
        folder: new or empty folder.

    Raises:
        InputError: as ``open_history``; if there is no such generation, the run does not know where a label came from,
            ``folder`` is used, or it cannot be written.
    """
    history = open_history(run)
    folder = Path(os.path.realpath(folder))
    require_unused(folder, "the labels")
    require_exportable(history, generation)
    import torch

    from aide_monai.io.nifti import NiftiPlace
    from aide_monai.io.writers import write_label

    with new_folder(folder) as unfinished:
        for case in history.shapes:
            grid = history.grids[case]
            for network in NETWORKS:
                label = grid.to_original(history.read(generation, network, case).numpy())
                label = label * ~is_partial(label)  # the background of what was not annotated
                stored = np.array(grid.values)[label] if grid.values else label
                file = unfinished / f"network_{network}" / f"{case}.nii.gz"
                write_label(file, torch.from_numpy(stored), grid.original_affine, NiftiPlace.of(grid.place))
    return export_of(history, files=len(NETWORKS) * len(history.shapes))


def export_of(history: LabelHistory, *, files: int) -> Export:
    """What is to be known of so many files with the labels of a history."""
    return Export(
        files=files,
        resampled=tuple(case for case in history.shapes if not history.grids[case].voxel_exact()),
        cropped=tuple(case for case in history.shapes if not history.grids[case].covers(history.shapes[case])),
    )


def rollback(run: str | Path, generation: int) -> int:
    """Bring the labels of an earlier generation back into force, as a new generation.

    Nothing is lost: every generation in between stays, and can be listed, exported or returned to. A run that is
    resumed trains on these labels.

    Args:
        run: as in ``open_history``.
        generation: generation to return to.

    Returns:
        Number of the new generation.

    Raises:
        InputError: as ``open_history``; if there is no such generation, it is in force already, one of its labels is
            damaged, the folder cannot be written, or the run is at work.
    """
    history = open_history(run)
    folder = history.require(generation)
    if generation in (history.generation, history.generations[history.generation].rollback_to):
        raise InputError(f"{folder}: generation {generation} is in force already; expected an earlier one")
    with locks_of_this_block():
        lock_folder(_locked_by_a_training(folder.parent))
        history.rollback(generation)
    return history.generation


def _locked_by_a_training(run: Path) -> Path:
    """The folder that a training of this run locks: a bundle, if the run is one of its ``runs/001``, ..."""
    bundle = run.parent.parent
    return bundle if run.parent.name == "runs" and (bundle / "configs").is_dir() else run


def _row(number: int, entry: Generation) -> Row:
    dice = [record.dice_before for record in entry.records if record.dice_before is not None]
    if entry.rollback_to is not None:
        change, voxels = f"rolled back to {entry.rollback_to}", None
    elif entry.continues is not None:
        change, voxels = f"as given, after {entry.continues}", None
    else:
        change = "corrected" if number else "as given"
        voxels = sum(record.voxels_changed for record in entry.records)
    return {
        "generation": number,
        "epoch": entry.epoch,
        "change": change,
        "cases": len({key.partition("/")[2] for key in entry.files}),
        "voxels": voxels,
        "dice_before": float(np.mean(dice)) if dice else None,
    }


def _dice(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    counts = [np.bincount(array.ravel(), minlength=256)[1:IGNORED] for array in (a, b)]
    common = np.bincount(a[a == b].ravel(), minlength=256)[1:IGNORED]
    present = (counts[0] + counts[1]) > 0
    if not present.any():
        return 1.0  # of background, and voxels without a verdict
    return float((2 * common[present] / (counts[0] + counts[1])[present]).mean())


def require_exportable(history: LabelHistory, generation: int) -> None:
    """Refuse a history without this generation, or of labels that cannot be brought back to files.

    Raises:
        InputError: see ``export``.
    """
    history.require(generation)
    unknown = [case for case in history.shapes if case not in history.grids]
    if unknown:
        raise InputError(
            f"{history.folder}: does not know the original grid of {_listed(unknown)}; expected a run whose labels "
            "were loaded from files: train in a new run folder to have them exported"
        )
    unsafe = [case for case in history.shapes if Path(case).name != case or case.startswith(".")]
    if unsafe:
        raise InputError(
            f"{history.folder}: {_listed(unsafe)} cannot be the name of a file; expected names without slashes and "
            "without a leading dot: rename the case in the datalist"
        )


def _listed(cases: Sequence[str]) -> str:
    return f"case {cases[0]!r}" + (f" and {len(cases) - 1} more" if len(cases) > 1 else "")
