"""Procedural MR phantoms: a small abdominal data set that anyone can make, in the Decathlon layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aide_monai.io.nifti import write_nifti
from aide_monai.utils.files import write_text

SHAPE = (64, 64, 20)
SPACING_MM = (3.0, 3.0, 6.0)


def write_phantoms(
    folder: str | Path,
    *,
    cases: int = 28,
    shape: Sequence[int] = SHAPE,
    spacing_mm: Sequence[float] = SPACING_MM,
    seed: int = 0,
) -> Path:
    """Write phantoms as ``imagesTr``, ``labelsTr`` and ``dataset.json`` (written last) and return the folder.

    Case k is the same whatever the number of cases.

    Args:
        folder: new or empty folder.
        cases: number of labelled volumes.
        shape: voxels (X, Y, Z).
        spacing_mm: voxel size in mm.
        seed: seed of the data set.

    Examples:
        >>> from aide_monai import write_phantoms
        >>> folder = write_phantoms("phantoms", cases=2, shape=(32, 32, 4))
        >>> sorted(path.name for path in folder.iterdir())
        ['dataset.json', 'imagesTr', 'labelsTr']
    """
    folder = Path(folder)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = [-s * (n - 1) / 2 for s, n in zip(spacing_mm, shape, strict=True)]
    training = []
    for number in range(cases):
        image, label = phantom(np.random.default_rng([seed, number]), shape=shape, spacing_mm=spacing_mm)
        name = f"phantom_{number:03d}.nii.gz"
        write_nifti(folder / "imagesTr" / name, image, affine)
        write_nifti(folder / "labelsTr" / name, label, affine)
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    content = {
        "name": "Phantoms",
        "description": "procedural abdominal MR phantoms",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "organ"},
        "numTraining": cases,
        "numTest": 0,
        "training": training,
    }
    write_text(folder / "dataset.json", json.dumps(content, indent=1))
    return folder


def phantom(
    rng: np.random.Generator, *, shape: Sequence[int] = SHAPE, spacing_mm: Sequence[float] = SPACING_MM
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """One case: a liver-like organ with vessels among neighbours of similar intensity, seen by a scanner of its own.

    Position, size, shape and contrast of the organ, the neighbours' intensities, bias field, gamma, blur and Rician
    noise vary from case to case, so that a model of a single case fits some other cases and fails on others.

    Args:
        rng: source of all randomness.
        shape: voxels (X, Y, Z); the body fills about 180 x 140 mm of the plane.
        spacing_mm: voxel size in mm.

    Returns:
        Image (X, Y, Z) int16, at least 0, and label (X, Y, Z) uint8, 1 = organ.
    """
    canvas = _Canvas(rng, tuple(shape), tuple(spacing_mm))
    uniform = rng.uniform
    body = canvas.blob(
        (uniform(-3, 3), uniform(-3, 3), 0), (uniform(78, 90), uniform(62, 76), 400), power=2.5, roughness=0.03
    )
    organ = body & canvas.blob(
        (uniform(-44, -26), uniform(-14, 14), uniform(-8, 8)),
        (uniform(30, 44), uniform(26, 38), uniform(32, 48)),
        angle=uniform(-0.6, 0.6),
        power=2.3,
        roughness=0.16,
    )
    stomach = canvas.blob(
        (uniform(12, 34), uniform(-22, 4), uniform(-8, 8)),
        (uniform(18, 26), uniform(14, 22), uniform(24, 36)),
        angle=uniform(-0.8, 0.8),
        roughness=0.14,
    )
    spleen = canvas.blob(
        (uniform(50, 62), uniform(12, 28), uniform(-8, 8)), (uniform(10, 16), uniform(14, 20), uniform(18, 28))
    )
    kidneys = [
        canvas.blob(
            (side * uniform(28, 36), uniform(34, 42), uniform(-10, 10)),
            (uniform(9, 13), uniform(11, 15), uniform(20, 28)),
        )
        for side in (-1, 1)
    ]
    spine = canvas.blob((uniform(-3, 3), uniform(40, 46), 0), (12, 11, 400), roughness=0.05)

    intensity = uniform(0.52, 0.75)
    image = np.where(body, 0.35, 0.0)
    image[spine] = 0.2
    image[spleen] = uniform(0.45, 0.75)
    for kidney in kidneys:
        image[kidney] = uniform(0.5, 0.9)
    image[stomach] = uniform(0.25, 0.75)
    image[organ] = intensity
    vessels = organ & (np.abs(canvas.field(9)) < 0.1)
    image[vessels] = intensity + uniform(-0.25, 0.05)
    image[body] += 0.06 * canvas.field(4)[body]
    return canvas.scan(image), organ.astype(np.uint8)


class _Canvas:
    """Draws shapes and fields on one voxel grid, in mm from its centre."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> None:
        self.rng = rng
        self.shape = shape
        self.spacing_mm = spacing_mm
        axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
        self.grid = np.meshgrid(*axes, indexing="ij")

    def field(self, length_mm: float) -> NDArray[np.float64]:
        """Smooth random field with unit standard deviation."""
        sigma = [length_mm / s for s in self.spacing_mm]
        smooth = ndimage.gaussian_filter(self.rng.standard_normal(self.shape), sigma, mode="nearest")
        return smooth / smooth.std()

    def blob(
        self,
        centre_mm: Sequence[float],
        radii_mm: Sequence[float],
        *,
        angle: float = 0.0,
        power: float = 2.0,
        roughness: float = 0.09,
    ) -> NDArray[np.bool_]:
        """Superellipsoid, turned in the plane by ``angle`` radians, with a randomly deformed surface."""
        x, y, z = (axis - c for axis, c in zip(self.grid, centre_mm, strict=True))
        u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        total = sum(np.abs(offset / radius) ** power for offset, radius in zip((u, v, z), radii_mm, strict=True))
        return total ** (1 / power) + roughness * self.field(12) < 1

    def scan(self, image: NDArray[np.float64]) -> NDArray[np.int16]:
        """Blur, bias field, gamma, Rician noise and gain of one scanner."""
        uniform = self.rng.uniform
        image = ndimage.gaussian_filter(image, [uniform(0.4, 1.0), uniform(0.4, 1.0), 0.3])
        bias = np.exp(uniform(0.1, 0.27) * self.field(60))
        image = np.clip(image * bias, 0, None) ** uniform(0.7, 1.4)
        noise = uniform(0.03, 0.10)
        real, imaginary = noise * self.rng.standard_normal((2, *self.shape))
        return (np.hypot(image + real, imaginary) * uniform(400, 900)).astype(np.int16)
