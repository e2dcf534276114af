"""Small copies of PROMISE12's download: real MetaImage headers with raw files beside them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import SimpleITK as sitk


def prostate_volume(seed: int, *, shape: tuple[int, int, int] = (32, 32, 8)) -> tuple[np.ndarray, np.ndarray]:
    """An image (X, Y, Z) int16 with a bright ellipsoid on a smooth background of its own, and its label, uint8."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    centre = rng.uniform(-0.2, 0.2, 3)
    radii = rng.uniform(0.35, 0.6, 3)
    label = sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), centre, radii, strict=True)) < 1
    waves = rng.uniform(1, 6, (4, 3))
    image = 200 + sum(60 * np.cos(w[0] * x + w[1] * y + w[2] * z + 6 * rng.random()) for w in waves) + 150 * label
    return (image + rng.normal(0, 10, shape)).astype(np.int16), label.astype(np.uint8)


def write_case(
    folder: Path,
    number: int,
    *,
    seed: int | None = None,
    voxels: np.ndarray | None = None,
    segmentation: bool = True,
    spacing_mm: tuple[float, float, float] = (0.625, 0.625, 3.6),
    origin_mm: tuple[float, float, float] = (-7.0, -8.0, 5.0),
) -> None:
    """``CaseXX.mhd/.raw`` and, unless switched off, ``CaseXX_segmentation.mhd/.raw``; origin in ITK's LPS."""
    folder.mkdir(parents=True, exist_ok=True)
    image, label = prostate_volume(number if seed is None else seed)
    if voxels is not None:
        image, label = voxels, (voxels > voxels.mean()).astype(np.uint8)
    volumes = {"": image, "_segmentation": label.astype(np.int8)} if segmentation else {"": image}
    for ending, array in volumes.items():
        volume = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
        volume.SetSpacing(spacing_mm)
        volume.SetOrigin(origin_mm)
        sitk.WriteImage(volume, str(folder / f"Case{number:02d}{ending}.mhd"))


def write_promise12(root: Path, numbers: Iterable[int] = range(50), *, parts: bool = False) -> Path:
    """The training data, flat or in the three parts of the download."""
    for number in numbers:
        write_case(root / f"TrainingData_Part{1 + number // 20}" if parts else root, number)
    return root
