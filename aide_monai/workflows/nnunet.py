"""Data sets, and the labels of runs, as raw data folders of nnU-Net v2, whose own integrity check they pass."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from rich.progress import track

from aide_monai.data.case import Case
from aide_monai.data.checks.voxels import label_problems, on_grid
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.nnunet import SPLITS_FILE
from aide_monai.errors import InputError, Problem
from aide_monai.handlers.settings import trained_classes
from aide_monai.ignored import IGNORED, is_partial
from aide_monai.io.ahead import open_apart
from aide_monai.io.grid import Grid
from aide_monai.io.location import Location
from aide_monai.io.nifti import write_nifti
from aide_monai.io.volumes import Volume
from aide_monai.labels.history import LabelHistory
from aide_monai.labels.manifest import NETWORKS, labels_folder
from aide_monai.utils.files import new_folder, require_unused, write_text
from aide_monai.workflows.labels import Export, export_of, open_history, require_exportable

ENDING = ".nii.gz"

_LIST = "datalist.json"

Drawn: TypeAlias = "tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]"
"""Class indices (x, y, z) of a label, and the affine (4, 4) of its grid in mm."""

logger = logging.getLogger(__name__)


def write_nnunet(
    datalist: Datalist,
    folder: str | Path,
    *,
    label_of: Callable[[Case], Drawn] | None = None,
    progress: bool = False,
) -> None:
    """Write a data set as nnU-Net reads it.

    Labelled training and validation cases go to ``imagesTr`` and ``labelsTr``, test cases to ``imagesTs`` and
    ``labelsTs``, cases without a label to ``imagesTs`` alone, for nnU-Net cannot train on them. Validation cases are
    the fold 0 of ``splits_final.json``. Labels are class indices on the grid of their image. Images that are NIfTI
    (.nii.gz) of one channel are copied as they are, others written as such.

    Args:
        datalist: a checked data set.
        folder: new or empty folder, which appears when all is written. nnU-Net wants it to be called
            ``Dataset101_Liver`` or the like.
        label_of: from a labelled case to its label; None reads the label's file.
        progress: show a progress bar.

    Raises:
        InputError: if ``folder`` is used or cannot be written, the names of the classes do not fit, there is no
            labelled training case, labels are soft, or a file cannot be read.

    Examples:
        >>> from aide_monai import find_datalist, write_phantoms
        >>> from aide_monai.workflows import write_nnunet
        >>> write_nnunet(find_datalist(write_phantoms("phantoms", cases=2, shape=(32, 32, 4))), "Dataset101_Phantoms")
        >>> [case.name for case in find_datalist("Dataset101_Phantoms").cases]
        ['phantom_000', 'phantom_001']
    """
    require_unused(folder, "the data set")
    _require_writable_as_nnunet(datalist)
    sides = {case.name: "Tr" if case.label and case.split != "test" else "Ts" for case in datalist.cases}
    label_of = label_of or (lambda case: drawn_label(str(case.label), case, datalist)[:2])
    doubtful = sum(case.doubtful for case in datalist.cases)
    if doubtful:
        logger.warning("%s: %d labels are doubtful, which nnU-Net cannot be told", folder, doubtful)
    with new_folder(folder) as unfinished:
        for kind in ("imagesTr", "labelsTr", "imagesTs"):
            (unfinished / kind).mkdir()
        for case in track(datalist.cases, description="Writing", disable=not progress):
            side = sides[case.name]
            image = _write_image(case, unfinished / f"images{side}")
            if case.label is not None:
                label, affine = label_of(case)
                if Grid(label.shape, affine).mismatch(image.grid) is not None:  # as resample_labels allows
                    label, _ = on_grid(label, affine, image.affine, image.shape)
                label = np.where(label == IGNORED, len(datalist.labels), label).astype(np.uint8)
                file = unfinished / f"labels{side}" / f"{case.name}{ENDING}"
                write_nifti(file, label, image.affine, image.place)
        held_out = [case.name for case in datalist.of_split("validation")]
        training = [name for name, side in sides.items() if side == "Tr"]
        if held_out:
            fold = {"train": [name for name in training if name not in held_out], "val": held_out}
            write_text(unfinished / SPLITS_FILE, json.dumps([fold], indent=1))
        write_text(unfinished / "dataset.json", json.dumps(_content(datalist, len(training)), indent=1))


def export_nnunet(
    run: str | Path, generation: int, *, folder: str | Path, network: int = 1, roots: Iterable[str | Path] = ()
) -> Export:
    """Write the training cases of a run, with the labels of a generation, as nnU-Net reads them.

    Args:
        run: as in ``open_history``.
        generation: generation to export.
        folder: as in ``write_nnunet``.
        network: the network, 1 or 2, whose labels are written.
        roots: folders that the images may lie in.

    Raises:
        InputError: as ``labels.export`` and ``write_nnunet``, if the run does not know its images or the names of its
            classes, or they lie outside ``roots``.
    """
    if network not in NETWORKS:
        raise InputError(f"network is {network}; expected one of {', '.join(map(str, NETWORKS))}")
    require_unused(folder, "the labels")
    history = open_history(run)
    require_exportable(history, generation)
    datalist = _of_run(labels_folder(run).parent, history, roots=roots)

    def label_of(case: Case) -> Drawn:
        grid = history.grids[case.name]
        label = grid.to_original(history.read(generation, network, case.name).numpy())
        label = label * ~is_partial(label)
        return label.reshape((*label.shape, 1)[:3]), np.array(grid.original_affine)

    write_nnunet(datalist, folder, label_of=label_of)
    return export_of(history, files=len(datalist.cases))


def _of_run(run: Path, history: LabelHistory, *, roots: Iterable[str | Path]) -> Datalist:
    """The training cases of a run, with the run's own classes."""
    lists = [run / "standardized" / _LIST, *(folder / _LIST for folder in (run, *run.parents[:4]))]
    file = next((file for file in lists if file.is_file()), None)
    if file is None:
        raise InputError(
            f"{run}: does not know the images of its cases; expected {lists[0]}, as aide train leaves it, or the "
            f"{_LIST} of aide run: export the labels alone"
        )
    datalist = Datalist.load(file, roots=[file.parent, *roots])
    known = {case.name: case for case in datalist.cases}
    if missing := [name for name in history.shapes if name not in known]:
        raise InputError(f"{file}: found no case {missing[0]!r}, which the labels have; restore the file of this run")
    cases = [replace(known[name], label=known[name].images[0], split="training") for name in history.shapes]
    return replace(datalist, cases=cases, labels=_class_names(run, history, datalist))


def _class_names(run: Path, history: LabelHistory, datalist: Datalist) -> dict[int, str]:
    """Those that the networks were trained with, where the run has noted them, for a bundle may merge classes."""
    for weights in (run / "models" / "model.pt", run.parents[1] / "models" / "model.pt"):  # RUN, or BUNDLE/runs/001
        if names := trained_classes(weights):
            return names
    # a background, and the stored values of the classes, which are not 0
    found = {1 + np.count_nonzero(grid.values[1:IGNORED]) for grid in history.grids.values() if grid.values}
    merged = found - {len(datalist.labels)}
    if merged:
        raise InputError(f"{run}: does not know the names of its {merged.pop()} classes; export the labels alone")
    return datalist.labels


def _require_writable_as_nnunet(datalist: Datalist) -> None:
    names = [name for value, name in datalist.labels.items() if value]
    problems = [
        Problem(f'the class name "{name}"', "another one for each class, and none of nnU-Net's own", place="labels")
        for name in sorted(set(names))
        if names.count(name) > 1 or name in ("background", "ignore")
    ]
    if any(case.annotated is not None for case in datalist.cases):
        problems.append(Problem("cases with some structures alone annotated", "all, as nnU-Net cannot be told which"))
    if datalist.soft_labels:
        problems.append(Problem("soft labels", "one class for every voxel", "take one rater, or their majority"))
    if not any(case.label is not None and case.split != "test" for case in datalist.cases):
        problems.append(Problem("no labelled training case", "at least one"))
    if problems:
        raise InputError(f"{datalist.name}: cannot be written for nnU-Net", problems=problems)


def _content(datalist: Datalist, training: int) -> Mapping[str, Any]:
    names = {name if value else "background": value for value, name in sorted(datalist.labels.items())}
    return {
        "name": datalist.name,
        "channel_names": {str(channel): name for channel, name in sorted(datalist.modality.items())},
        "labels": names if datalist.ignore is None else {**names, "ignore": len(names)},  # the last, for nnU-Net
        "numTraining": training,
        "file_ending": ENDING,
    }


def _write_image(case: Case, folder: Path) -> Volume:
    """Write a file for each channel; returns the image, or the first of its files."""
    folder.mkdir(exist_ok=True)
    first: Volume | None = None
    number = 0
    for path in case.images:
        volume = open_apart(path)
        first = first or volume
        voxels = volume.decode()
        for channel in range(voxels.shape[3]):
            target = folder / f"{case.name}_{number:04d}{ENDING}"
            number += 1
            if is_plain(path, volume):
                shutil.copyfile(path, target)
            else:
                write_nifti(target, as_nifti(voxels[..., channel]), volume.affine, volume.place)
    assert first is not None  # a case has an image
    return first


def is_plain(path: str, volume: Volume) -> bool:
    """Whether a file is NIfTI (.nii.gz) of one channel, all of which is meant, so that it can be copied as it is."""
    return path.endswith(ENDING) and Location.parse(path).part == "" and len(volume.file_shape) == 3


def as_nifti(voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same numbers in a type that all readers of NIfTI have."""
    if voxels.dtype in (np.int64, np.uint64, np.float16):
        return voxels.astype(np.float64)
    return voxels.astype(np.uint8) if voxels.dtype == np.bool_ else voxels


def drawn_label(path: str, case: Case, datalist: Datalist) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any], Any]:
    """Class indices (x, y, z) of a label file of a case, the affine of its grid, and its place as NIfTI tells it.

    Raises:
        InputError: if it cannot be read, or holds values that the datalist does not know.
    """
    volume = open_apart(path)
    problems, label = label_problems(volume.decode(), case.name, path, datalist, case.annotated)
    if label is None:
        raise InputError(problems=problems)
    return label, volume.affine, volume.place
