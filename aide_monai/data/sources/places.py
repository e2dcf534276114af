"""Where a label lies in its image when the two are stored on different grids."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aide_monai.errors import InputError

TOLERANCE_VOXELS = 0.1  # rounding: by so much the centre of a label voxel may lie beyond the image's border

logger = logging.getLogger(__name__)


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
