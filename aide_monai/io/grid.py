"""Where the voxels of a volume lie in space, and what two volumes must share to lie on one grid."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aide_monai.errors import InputError
from aide_monai.utils.axes import COSINE_TOLERANCE, largest_cosine

AFFINE_TOLERANCE_MM = 0.05
FLAT = 1e-6  # of axes of length 1, the least width of what they span
SHEARED = "axes that are not at right angles"
TOLERANCE_VOXELS = 0.1  # rounding: by so much the centre of a label voxel may lie beyond the image's border

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Grid:
    """The voxels of a volume as places in space.

    Attributes:
        shape: voxels (x, y, z).
        affine: (4, 4) float64, voxel index to mm, RAS.

    Examples:
        >>> grid = Grid((4, 4, 2), np.diag([1.0, 1.0, 5.0, 1.0]))
        >>> grid.spacing_mm
        (1.0, 1.0, 5.0)
        >>> grid.mismatch(Grid((4, 4, 3), grid.affine)).found
        'shape 4 x 4 x 3'
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    @property
    def steps_mm(self) -> NDArray[np.float64]:
        """(3, 3): a column for each axis, how one voxel along it moves in space."""
        return self.affine[:3, :3]

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance of voxel centres along each axis."""
        return tuple(np.linalg.norm(self.steps_mm, axis=0).tolist())

    @property
    def sheared(self) -> bool:
        """Whether the axes are not at right angles, as a tilted gantry leaves them."""
        return largest_cosine(self.steps_mm) > COSINE_TOLERANCE

    def require_sound(self) -> None:
        """Raises InputError for an affine that spans no volume."""
        spacing = np.linalg.norm(self.steps_mm, axis=0)
        flat = not np.isfinite(self.affine).all() or np.any(spacing == 0)
        if flat or np.linalg.svd(self.steps_mm / spacing, compute_uv=False)[-1] < FLAT:
            raise InputError(f"an affine without a volume: {affine_text(self.affine)}")

    def distance_mm(self, other: Grid) -> float:
        """Largest distance between the places of the same corner voxel, of those that this grid has."""
        corners = np.array([(*index, 1) for index in np.ndindex(2, 2, 2)]) * (*(size - 1 for size in self.shape), 1)
        return float(np.linalg.norm(corners @ (self.affine - other.affine)[:3].T, axis=1).max())

    def mismatch(self, other: Grid) -> Mismatch | None:
        """What another grid has that this one has not; None when they are one, to 0.05 mm at each corner."""
        if other.shape != self.shape:
            reason = _reason(self, other)
            return Mismatch("shape " + shape_text(other.shape), "shape " + shape_text(self.shape), None, reason)
        distance = self.distance_mm(other)
        if distance <= AFFINE_TOLERANCE_MM:
            return None
        found, expected = ("affine " + affine_text(grid.affine) for grid in (other, self))
        return Mismatch(found, expected, distance, _reason(self, other))

    def index_of(self, other: Grid, places: ArrayLike) -> NDArray[np.float64]:
        """Voxel indices (N, 3) of another grid as indices of this one, with fractions."""
        matrix = np.linalg.solve(self.affine, other.affine)
        return np.asarray(places) @ matrix[:3, :3].T + matrix[:3, 3]

    def shared_part(self, other: Grid) -> float:
        """How much of the smaller one of two grids lies inside the other, 0..1, as boxes along the axes of this one."""
        ends = np.array(list(np.ndindex(2, 2, 2))) * np.array(other.shape) - 0.5
        corners = self.index_of(other, ends)
        low, high = corners.min(axis=0), corners.max(axis=0)
        common = np.minimum(high, np.array(self.shape) - 0.5) - np.maximum(low, -0.5)
        return float(np.prod(np.maximum(common, 0)) / min(np.prod(high - low), np.prod(self.shape)))


@dataclass(frozen=True)
class Mismatch:
    """How a grid differs from the one that was expected.

    Attributes:
        found: what it has, for messages: "shape 3 x 4 x 5" or "affine [...]".
        expected: what it should have.
        distance_mm: how far corners lie apart; None for another shape.
        reason: what makes such a difference, for messages; "" when none is known.
    """

    found: str
    expected: str
    distance_mm: float | None
    reason: str = ""


def _reason(one: Grid, other: Grid) -> str:
    """What usually lies behind the difference of two grids, from the plainest to the least plain."""
    factors = np.linalg.norm(other.steps_mm, axis=0) / np.linalg.norm(one.steps_mm, axis=0)
    for factor in (1000.0, 10.0, 0.1, 0.001):
        if np.allclose(factors, factor, rtol=1e-3):
            return f"all lengths are {factor:g} times as large: one of the two names a wrong unit, or none"
    if one.sheared != other.sheared:
        return "the axes of one alone are at right angles: a tilted gantry, which not every format can say"
    if one.shape == other.shape:
        for axes, signs in (("x and y", (-1, -1, 1)), ("x", (-1, 1, 1)), ("y", (1, -1, 1)), ("z", (1, 1, -1))):
            turned = np.diag([*signs, 1.0]) @ other.affine
            if one.distance_mm(Grid(other.shape, turned)) <= AFFINE_TOLERANCE_MM:
                return f"places are mirrored in {axes}: one of the two counts them in another direction (RAS or LPS)"
        if np.allclose(one.steps_mm, other.steps_mm, atol=1e-3):
            shift = " ".join(f"{value:.4g}" for value in (other.affine - one.affine)[:3, 3])
            return f"shifted by {shift} mm to the right, front, top"
    return ""


def require_inside(image: Grid, label: Grid, voxels: NDArray[np.generic], *, label_name: str, image_name: str) -> None:
    """Check that what a label marks lies inside its image; warn when a smaller part of it does not.

    Args:
        image, label: their grids.
        voxels: (x, y, z) label; all but 0 is marked.
        label_name, image_name: what messages call the two, usually their files.

    Raises:
        InputError: more than half of the marked voxels lie outside.
    """
    places = image.index_of(label, np.argwhere(voxels))
    beyond = np.maximum(-0.5 - places, places - (np.array(image.shape) - 0.5)).max(axis=1, initial=-1)
    outside = int((beyond > TOLERANCE_VOXELS).sum())
    if not outside:
        return
    found = (
        f"{outside} of {len(places)} label voxels outside of the image {image_name}, up to {beyond.max():.3g} voxels"
    )
    if outside > len(places) / 2:
        advice = "download both again"
        raise InputError(found, expected="the label of this image", advice=advice, place=label_name)
    logger.warning("%s: found %s; resampling onto the image loses them", label_name, found)


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
    like = getattr(volume, "like", volume)  # of a ``MappedTensor``, which is in a file
    return through_plane_axis(like.affine) if hasattr(like, "affine") else volume.ndim - 2


def affine_text(affine: NDArray[np.float64]) -> str:
    """The first three rows of a (4, 4) affine, for messages."""
    return "[" + "; ".join(" ".join(f"{value:g}" for value in row) for row in affine[:3]) + "]"


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape for messages: 3 x 4."""
    return " x ".join(str(size) for size in shape)
