"""Small studies of dynamic contrast-enhanced breast MR, in each layout that ``breast_datalist`` accepts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from tests.io.dicom.dicom_files import write_series

from .promise12_files import prostate_volume

AFFINE = np.array([[-0.8, 0, 0, 10.0], [0, -0.8, 0, 20.0], [0, 0, 2.5, 30.0], [0, 0, 0, 1.0]])
SHAPE = (20, 18, 6)
TIMES_S = (0.0, 90.0, 180.0)


def uptake(seed: int, times_s: Sequence[float] = TIMES_S) -> tuple[list[np.ndarray], np.ndarray]:
    """Phases (X, Y, Z) int16 of a tumour that takes up contrast from time 0 on, and its label, uint8."""
    image, label = prostate_volume(seed, shape=SHAPE)
    return [(image + label * np.int16(time)).astype(np.int16) for time in times_s], label


def write_nifti(file: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), file)
    return file


def write_phase_files(folder: Path, seed: int, *, names: Sequence[str], times_s: Sequence[float] = TIMES_S) -> None:
    """One file per phase; the name of a phase says nothing unless ``names`` do."""
    phases, _ = uptake(seed, times_s)
    for name, phase in zip(names, phases, strict=True):
        write_nifti(folder / name, phase)


def write_study(folder: Path, seed: int, *, label: bool = True) -> None:
    """Phases whose names run against their times, ``phases.json``, and a label of the whole volume."""
    names = ("c.nii.gz", "b.nii.gz", "a.nii.gz")
    write_phase_files(folder, seed, names=names)
    (folder / "phases.json").write_text(json.dumps(dict(zip(names, TIMES_S, strict=True))))
    if label:
        write_nifti(folder / "label.nii.gz", uptake(seed)[1])


def one_slice(label: np.ndarray, index: int) -> np.ndarray:
    """The label with all other slices emptied."""
    central = np.zeros_like(label)
    central[:, :, index] = label[:, :, index]
    return central


def write_central_study(folder: Path, seed: int, *, index: int = 3) -> None:
    """As ``write_study``, with the label in one slice of a full volume."""
    write_study(folder, seed, label=False)
    write_nifti(folder / "label.nii.gz", one_slice(uptake(seed)[1], index))


def write_centres(root: Path, numbers: dict[str, int]) -> Path:
    """Studies per centre; GGH with central slices."""
    for seed, (centre, patient) in enumerate(
        (centre, patient) for centre, count in numbers.items() for patient in range(1, count + 1)
    ):
        write = write_central_study if centre == "GGH" else write_study
        write(root / centre / f"P{patient:03d}", seed)
    return root


def write_dicom_study(
    folder: Path,
    seed: int,
    *,
    times_s: Sequence[float] = TIMES_S,
    start: str = "134500",
    one_series: bool = False,
    clock: bool = True,
    temporal_position: bool = False,
) -> list[np.ndarray]:
    """Phases as DICOM, the latest first in names and series numbers; in a folder each, or all in one series."""
    phases, _ = uptake(seed, times_s)
    uid = "1.2.826.0.1.3680043.8.498.1"
    seconds = 3600 * int(start[:2]) + 60 * int(start[2:4]) + int(start[4:])
    for number, (phase, time) in enumerate(zip(phases, times_s, strict=True)):
        moment = int(seconds + time)
        days, moment = divmod(moment, 86400)
        tags: dict[str, object] = {"SeriesNumber": 90 - number}
        if clock:
            tags |= {
                "AcquisitionDate": f"{20200131 if days == 0 else 20200201}",
                "AcquisitionTime": f"{moment // 3600:02d}{moment // 60 % 60:02d}{moment % 60:02d}.500000",
            }
        if temporal_position:
            tags["TemporalPositionIdentifier"] = number + 1
        write_series(
            folder if one_series else folder / f"series_{9 - number}",
            phase,
            spacing=(0.8, 0.8, 2.5),
            position=(-10, -20, 30),
            names=[f"{9 - number}_{z:03d}.dcm" for z in range(phase.shape[2])],
            series_uid=uid if one_series else f"{uid}.{number + 1}",
            tags=tags,
        )
    return phases
