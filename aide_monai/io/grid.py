"""Where voxels lie in space."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aide_monai.errors import InputError
from aide_monai.utils.mapped_tensor import MappedTensor

AFFINE_TOLERANCE_MM = 0.05
COSINE_TOLERANCE = 1e-3
TOLERANCE_VOXELS = 0.1  # rounding: by so much the centre of a label voxel may lie beyond the image's border
logger = logging.getLogger(__name__)


def corner_distance_mm(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """Largest distance in mm between the places at which two (4, 4) affines put the same corner voxel of a volume."""
    corners = np.array([(*index, 1) for index in np.ndindex(2, 2, 2)]) * (*(size - 1 for size in shape), 1)
    return float(np.linalg.norm(corners @ (affine - other)[:3].T, axis=1).max())


def affine_text(affine: np.ndarray) -> str:
    """The first three rows of a (4, 4) affine, for messages."""
    return "[" + "; ".join(" ".join(f"{value:g}" for value in row) for row in affine[:3]) + "]"


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape for messages: 3 x 4."""
    return " x ".join(str(size) for size in shape)


def _cosine_doubts(affine: np.ndarray) -> tuple[str, ...]:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or np.any(spacing == 0) or np.linalg.det(affine[:3, :3] / spacing) == 0:
        raise InputError(f"an affine without a volume: {affine_text(affine)}")
    cosines = affine[:3, :3] / spacing
    skewed = np.abs(cosines.T @ cosines - np.eye(3)).max() > COSINE_TOLERANCE
    return ("axes that are not at right angles",) if skewed else ()


def through_plane_axis(affine: Any, *, tolerance: float = 0.01) -> int:
    """The axis along which slices were acquired: the one with the largest spacing.

    Args:
        affine: (4, 4) voxel-to-world matrix in mm.
        tolerance: relative difference below which two spacings count as equal.

    Returns:
        0, 1 or 2; the last of the candidates when spacings are equal, so 2 for isotropic volumes.
    """
    spacing = np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0)
    return int(np.flatnonzero(spacing >= spacing.max() * (1 - tolerance))[-1])


def slice_axis(volume: Any, axis: int | str) -> int:
    """The spatial axis of a volume (channels, X, Y, Z) that ``axis`` means.

    "auto" is the through-plane axis from the affine of a MetaTensor, else the last.
    """
    if axis != "auto":
        return int(axis)
    like = volume.like if isinstance(volume, MappedTensor) else volume
    return through_plane_axis(like.affine) if hasattr(like, "affine") else volume.ndim - 2


def to_index(image_affine: NDArray[np.float64], label_affine: NDArray[np.float64], places: ArrayLike) -> NDArray:
    """Voxel indices (N, 3) of a label as indices of the image, with fractions; the (4, 4) affines are in one space."""
    matrix = np.linalg.solve(image_affine, label_affine)
    return np.asarray(places) @ matrix[:3, :3].T + matrix[:3, 3]


def shared_part(
    image_affine: NDArray[np.float64],
    image_shape: tuple[int, ...],
    label_affine: NDArray[np.float64],
    label_shape: tuple[int, ...],
) -> float:
    """How much of the smaller one of two volumes lies inside the other, 0..1, as boxes along the image's axes."""
    ends = np.array(list(np.ndindex(2, 2, 2))) * np.array(label_shape) - 0.5
    corners = to_index(image_affine, label_affine, ends)
    low, high = corners.min(axis=0), corners.max(axis=0)
    common = np.minimum(high, np.array(image_shape) - 0.5) - np.maximum(low, -0.5)
    return float(np.prod(np.maximum(common, 0)) / min(np.prod(high - low), np.prod(image_shape)))


def require_inside(
    image_affine: NDArray[np.float64],
    image_shape: tuple[int, ...],
    label_affine: NDArray[np.float64],
    voxels: NDArray[np.generic],
    *,
    label: str,
    image: str,
) -> None:
    """Check that what a label marks lies inside its image; warn when a smaller part of it does not.

    Args:
        image_affine, label_affine: (4, 4) voxel index to mm.
        image_shape: voxels (x, y, z) of the image.
        voxels: (x, y, z) label; all but 0 is marked.
        label, image: what messages call the two, usually their files.

    Raises:
        InputError: more than half of the marked voxels lie outside.
    """
    places = to_index(image_affine, label_affine, np.argwhere(voxels))
    beyond = np.maximum(-0.5 - places, places - (np.array(image_shape) - 0.5)).max(axis=1, initial=-1)
    outside = int((beyond > TOLERANCE_VOXELS).sum())
    if not outside:
        return
    found = (
        f"{label}: found {outside} of {len(places)} label voxels outside of the image {image}, up to "
        f"{beyond.max():.3g} voxels"
    )
    if outside > len(places) / 2:
        raise InputError(f"{found}; expected the label of this image: download both again")
    logger.warning("%s; resampling onto the image loses them", found)
