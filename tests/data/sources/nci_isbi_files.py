"""Small copies of NCI-ISBI 2013 as TCIA's programs download it: DICOM series per patient, labels as NRRD."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from tests.io.dicom.dicom_files import write_series

from .promise12_files import prostate_volume

COLLECTIONS = {"ProstateDx": "PROSTATE-DIAGNOSIS", "Prostate3T": "Prostate-3T"}
SPACING = {"ProstateDx": (0.4, 0.4, 3.0), "Prostate3T": (0.625, 0.625, 3.6)}
GROUPS = {"01": "Training", "02": "Leaderboard", "03": "Test"}


def zones(label: np.ndarray) -> np.ndarray:
    """Halves of a prostate as 1 (peripheral zone) and 2 (central gland)."""
    result = label.astype(np.uint8)
    result[:, : label.shape[1] // 2] *= 2
    return result


def write_label(file: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """NRRD of voxels (X, Y, Z) with their (4, 4) RAS affine."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(file))


def regridded(
    voxels: np.ndarray, affine: np.ndarray, *, slices: slice = slice(None), flip: Sequence[int] = (), order: str = "xyz"
) -> tuple[np.ndarray, np.ndarray]:
    """The same label stored otherwise: some slices only, axes mirrored, axes in another order."""
    start = slices.indices(voxels.shape[2])[0]
    voxels, moved = voxels[:, :, slices], affine.copy()
    moved[:3, 3] += affine[:3, 2] * start
    for axis in flip:
        moved[:3, 3] += moved[:3, axis] * (voxels.shape[axis] - 1)
        moved[:3, axis] *= -1
        voxels = np.flip(voxels, axis)
    axes = ["xyz".index(letter) for letter in order]
    turned = moved.copy()
    turned[:, :3] = moved[:, axes]
    return voxels.transpose(axes), turned


def write_patient(
    root: Path,
    patient: str,
    *,
    seed: int,
    orientation: str = "axial",
    transfer_syntax: str = "explicit",
    ending: str = "",
    label: bool = True,
    slices: slice = slice(None),
    flip: Sequence[int] = (),
    order: str = "xyz",
) -> tuple[np.ndarray, np.ndarray]:
    """One patient: files named against the order of the slices, as downloads have them. Returns image and zones."""
    collection, part, _ = patient.split("-")
    image, prostate = prostate_volume(seed)
    series = root / COLLECTIONS[collection] / patient / "1.3.6.1.4.1.14519.5.2.1.1" / f"1.3.6.1.4.1.14519.5.2.1.{seed}"
    names = [f"1-{number:02d}.dcm" for number in range(image.shape[2], 0, -1)]
    written = write_series(
        series,
        image,
        spacing=SPACING[collection],
        orientation=orientation,
        position=(-5.0, -4.0, 12.0),
        transfer_syntax=transfer_syntax,
        patient=patient,
        names=names,
    )
    truth = zones(prostate)
    if label:
        stored, affine = regridded(truth, written.affine, slices=slices, flip=flip, order=order)
        write_label(root / GROUPS.get(part, "Training") / f"{patient}{ending}.nrrd", stored, affine)
    return image, truth


def patients(collection: str, numbers: tuple[int, int, int]) -> list[str]:
    """Names of training, leaderboard and test patients."""
    return [f"{collection}-{k:02d}-{n:04d}" for k, count in enumerate(numbers, 1) for n in range(1, count + 1)]


def write_nci_isbi(root: Path, numbers: tuple[int, int, int] = (30, 5, 5), *, first_seed: int = 100) -> Path:
    """Both collections, with training, leaderboard and test patients."""
    names = [name for collection in COLLECTIONS for name in patients(collection, numbers)]
    for seed, name in enumerate(names, first_seed):
        write_patient(root, name, seed=seed)
    return root
