"""Data sets as the folder of studies that a MONAI Label server serves."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
from rich.progress import track

from aide_monai.data.case import Case
from aide_monai.data.checks.voxels import on_grid
from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError
from aide_monai.io.ahead import open_apart
from aide_monai.io.nifti import write_nifti
from aide_monai.io.volumes import Volume
from aide_monai.utils.files import new_folder, require_unused
from aide_monai.utils.texts import names_text
from aide_monai.workflows.nnunet import ENDING, as_nifti, is_plain

_FINAL, _ORIGINAL = "labels/final", "labels/original"  # MONAI Label's own names: submitted, and proposed

logger = logging.getLogger(__name__)


def write_studies(datalist: Datalist, folder: str | Path, *, progress: bool = False) -> None:
    """Write the training cases for a MONAI Label server, ``--studies FOLDER``.

    ``CASE.nii.gz`` is an image, of several channels with four axes, channels last. ``labels/final/CASE.nii.gz`` is its
    label in stored values, on its grid, if it is trusted, and ``labels/original/CASE.nii.gz`` if it is doubtful: the
    server learns from the former, and an annotator may begin with the latter. Cases that are held out are left out,
    for the server would learn from them; the log names them.

    Args:
        datalist: a checked data set.
        folder: new or empty folder, which appears when all is written.
        progress: show a progress bar.

    Raises:
        InputError: if ``folder`` is used or cannot be written, there is no training case, labels are soft or have
            voxels without a verdict, which MONAI Label cannot be told, or a file cannot be read.
    """
    require_unused(folder, "the studies")
    training = datalist.of_split("training")
    partial = any(case.annotated is not None for case in training)
    if datalist.soft_labels or datalist.ignore is not None or partial:
        what = "soft labels" if datalist.soft_labels else "labels with voxels that nobody has judged"
        raise InputError(f"{datalist.name}: found {what}; expected a class for every voxel, as MONAI Label has it")
    if not training:
        raise InputError(f"{datalist.name}: no training case; expected at least one")
    if held_out := [case.name for case in datalist.cases if case.split != "training"]:
        logger.warning("%s: %d held-out cases are left out: %s", folder, len(held_out), names_text(held_out))
    with new_folder(folder) as unfinished:
        for case in track(training, description="Writing", disable=not progress):
            image = _write_image(case, unfinished / f"{case.name}{ENDING}")
            if case.label is not None:
                place = unfinished / (_FINAL if case.trusted else _ORIGINAL) / f"{case.name}{ENDING}"
                _write_label(case.label, image, place)


def _write_image(case: Case, target: Path) -> Volume:
    """Write the image, of all channels; returns it, or the first of its files."""
    volumes = [open_apart(path) for path in case.images]
    if len(volumes) == 1 and is_plain(case.images[0], volumes[0]):
        shutil.copyfile(case.images[0], target)
    else:
        voxels = np.concatenate([volume.decode() for volume in volumes], axis=3)
        voxels = voxels[..., 0] if voxels.shape[3] == 1 else voxels
        write_nifti(target, as_nifti(voxels), volumes[0].affine, volumes[0].place)
    return volumes[0]


def _write_label(path: str, image: Volume, target: Path) -> None:
    volume = open_apart(path)
    label = np.rint(volume.decode()[..., 0])
    label = label.astype(np.uint8 if label.max(initial=0) < 256 else np.uint16)
    if volume.grid.mismatch(image.grid) is not None:  # as resample_labels allows
        label, _ = on_grid(label, volume.affine, image.affine, image.shape)
    write_nifti(target, label, image.affine, image.place)
