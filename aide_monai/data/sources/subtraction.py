"""Subtraction images as files, so that they are modalities like all others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aide_monai.data.case import Case
from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError, Problem
from aide_monai.io.ahead import open_apart
from aide_monai.io.nifti import write_nifti
from aide_monai.io.volumes import Volume


def with_subtractions(datalist: Datalist, folder: str | Path) -> Datalist:
    """The data set with each later phase minus the first one as further modalities, written as NIfTI.

    Differences of whole numbers are whole numbers, in the smallest signed type that holds them; others are float32.

    Args:
        datalist: images are lists of phases, the one before contrast first; unchanged by the call.
        folder: where ``CASE_minus_K.nii.gz`` go; made when it is missing, files of these names are replaced.

    Raises:
        InputError: one phase alone, or one report of all phases that cannot be read or lie on different grids.
    """
    if len(datalist.modality) < 2:
        raise InputError(
            "one phase, which leaves nothing to subtract", advice="ask for two or more", place=datalist.name
        )
    target = Path(os.path.abspath(folder))
    cases: list[Case] = []
    problems: list[Problem] = []
    for case in datalist.cases:
        try:
            targets = [target / f"{case.name}_minus_{k}.nii.gz" for k in range(1, len(case.images))]
            cases.append(replace(case, image=(*case.images, *map(str, _write(case.images, targets)))))
        except InputError as error:
            problems += error.at("", case=case.name).problems
    if problems:
        raise InputError(f"{datalist.name}: subtraction images cannot be made", problems=problems)
    from aide_monai.transforms.subtraction import subtraction_channels

    return replace(datalist, cases=cases, modality=subtraction_channels(datalist.modality))


def _write(paths: Sequence[str], targets: Sequence[Path]) -> list[Path]:
    before = _opened(paths[0])
    first = before.decode()[..., 0]
    written = []
    for path, target in zip(paths[1:], targets, strict=True):
        volume = _opened(path)
        if volume.shape != before.shape:
            raise InputError(f"another grid than {paths[0]}", expected="phases on one grid", place=path)
        difference = _difference(volume.decode()[..., 0], first)
        written.append(write_nifti(target, difference, before.affine, before.place))
    return written


def _opened(path: str) -> Volume:
    try:
        return open_apart(path)
    except InputError as error:
        raise error.at(path, expected="a phase", advice="replace the file") from error


def _difference(late: NDArray[Any], first: NDArray[Any]) -> NDArray[Any]:
    if {late.dtype.kind, first.dtype.kind} <= set("biu"):
        exact = late.astype(np.int64) - first.astype(np.int64)
        reach = int(np.abs(exact).max())
        return exact.astype(np.int16 if reach < 2**15 else np.int32 if reach < 2**31 else np.float32)
    return (late.astype(np.float64) - first.astype(np.float64)).astype(np.float32)
