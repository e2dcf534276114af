"""Borders of binary masks and the distances between them, in mm.

Equations 5 and 6 of the paper, as in the official CHAOS evaluation. Two options give the definitions of others: `edge`
says whether a mask that the edge of the image cuts off has a border there, `average` how the distances of both
borders become one mean.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from aide_monai.errors import InputError
from aide_monai.metrics.border_kernels import Voxels, border_voxels, nearest_distances
from aide_monai.metrics.masks import (
    ArrayLike,
    Mask,
    Spacing,
    Steps,
    as_mask,
    as_mask_pair,
    check_spacing,
    joint_crop,
)
from aide_monai.metrics.tolerance import check_tolerance

Edge: TypeAlias = Literal["chaos", "monai"]
Average: TypeAlias = Literal["pooled", "directed_means"]
Distances: TypeAlias = "npt.NDArray[np.float64]"

_VOXELS_PER_THREAD = 5000  # of a border: below, starting a thread costs more than it saves


def check_edge(edge: str) -> None:
    """Raises InputError for an unknown `edge`, naming the known ones."""
    if edge not in get_args(Edge):
        raise InputError(f'edge is "{edge}"; expected one of {", ".join(get_args(Edge))}')


def check_average(average: str) -> None:
    """Raises InputError for an unknown `average`, naming the known ones."""
    if average not in get_args(Average):
        raise InputError(f'average is "{average}"; expected one of {", ".join(get_args(Average))}')


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance from each border voxel to the nearest border voxel of the other mask, in mm, in no given order.

    Attributes:
        from_prediction: (border voxels of the prediction,) float64; inf where the reference has no border.
        from_reference: (border voxels of the reference,) float64; inf where the prediction has no border.
    """

    from_prediction: Distances
    from_reference: Distances

    def mean(self, average: Average = "pooled") -> float:
        """ASSD in mm: eq. 5 pools all distances; "directed_means" is the mean of the two directed means.

        0 when neither mask has a border, inf when only one has.
        """
        check_average(average)
        directed = [distances for distances in (self.from_prediction, self.from_reference) if len(distances)]
        if not directed:
            return 0.0
        if average == "directed_means":
            return float(np.mean([distances.mean() for distances in directed]))
        return float(sum(distances.sum() for distances in directed) / sum(len(distances) for distances in directed))

    def max(self) -> float:
        """MSSD in mm (eq. 6, the Hausdorff distance): 0 when neither mask has a border, inf when only one has."""
        return float(max(self.from_prediction.max(initial=0.0), self.from_reference.max(initial=0.0)))

    def percentile(self, percent: float = 95.0) -> float:
        """HD95 in mm: the larger one of the percentiles of both directions, as MONAI has it.

        Others take one percentile of the distances of both directions together, which is smaller or equal where one
        border is far longer. 0 when neither mask has a border, inf when only one has.

        Args:
            percent: 0..100; between two distances the percentile is linear.

        Raises:
            InputError: a percentage out of range.
        """
        if not 0 <= percent <= 100:
            raise InputError(f"percent is {percent}; expected 0 to 100")
        directed = [distances for distances in (self.from_prediction, self.from_reference) if len(distances)]
        if any(np.isinf(distances[0]) for distances in directed):
            return math.inf  # all of them are: the other mask has no border
        return float(max((np.percentile(distances, percent) for distances in directed), default=0.0))

    def share_within(self, tolerance_mm: float) -> float:
        """NSD: the share of the border voxels of both masks that are at most this far from the other border, 0..1.

        Each border voxel counts once, as in MONAI's ``compute_surface_dice``; the package surface-distance weighs them
        by their area. 1 when neither mask has a border, 0 when only one has.

        Args:
            tolerance_mm: the largest distance in mm that counts as right, at least 0.

        Raises:
            InputError: a tolerance below 0.
        """
        check_tolerance(tolerance_mm)
        number = len(self.from_prediction) + len(self.from_reference)
        within = sum(np.count_nonzero(d <= tolerance_mm) for d in (self.from_prediction, self.from_reference))
        return float(within / number) if number else 1.0


def mask_border(mask: ArrayLike, *, edge: Edge = "chaos") -> Mask:
    """Foreground voxels with a background voxel among their 6 face neighbours (4 in 2D).

    Args:
        mask: (H, W) or (D, H, W), any axis order; bool or 0 and 1.
        edge: what lies outside the image: "chaos" foreground, so that a mask has no border where the image cuts it
            off (and none at all when it fills the image); "monai" background, so that it has.

    Returns:
        Bool array of the mask's shape.

    Raises:
        InputError: not a binary mask, or an unknown `edge`.
    """
    check_edge(edge)
    checked = as_mask(mask, "mask")
    starts, rows, columns = border_voxels(_in_a_rim(checked, edge), 0)
    slices = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    border = np.zeros(_three(checked.shape), dtype=np.bool_)
    border[slices, rows, columns] = True
    return border.reshape(checked.shape)


def surface_distances(
    prediction: ArrayLike, reference: ArrayLike, *, spacing_mm: Spacing, edge: Edge = "chaos"
) -> SurfaceDistances:
    """Distances between the borders of two masks, both ways.

    Args:
        prediction: (H, W) or (D, H, W), any axis order; bool or 0 and 1.
        reference: as `prediction`.
        spacing_mm: distance of voxel centres along each axis in mm; slice spacing from positions, not SliceThickness.
            Where the axes may not be at right angles, as after a gantry tilt: the steps (3, D) along them, which are
            columns of an affine. Distances are those of places in space either way.
        edge: see `mask_border`.

    Raises:
        InputError: masks that are not binary or differ in shape, wrong spacing, unknown `edge`.
    """
    check_edge(edge)
    masks = as_mask_pair(prediction, reference)
    return cropped_distances(*joint_crop(*masks, check_spacing(spacing_mm, masks[0].ndim)), edge)


def cropped_distances(prediction: Mask, reference: Mask, spacing: Steps, edge: Edge) -> SurfaceDistances:
    """`surface_distances` of checked masks after `joint_crop`."""
    if isinstance(spacing, np.ndarray):
        return _sheared_distances(prediction, reference, spacing, edge)
    shape = _three(prediction.shape)
    # Planes across the longest axis are the smallest.
    sweep = int(np.argmax(shape))
    borders = [border_voxels(_in_a_rim(mask, edge), sweep) for mask in (prediction, reference)]
    steps = (1.0,) * (3 - len(spacing)) + tuple(spacing)
    others = [axis for axis in range(3) if axis != sweep]
    plane, steps = tuple(shape[axis] for axis in others), tuple(steps[axis] for axis in (sweep, *others))

    def directed(source: Voxels, target: Voxels) -> Distances:
        found: Distances = nearest_distances(source, target, plane, steps)
        return found

    directions = borders, borders[::-1]
    if min(len(border[1]) for border in borders) < _VOXELS_PER_THREAD:
        return SurfaceDistances(*(directed(*direction) for direction in directions))
    with ThreadPoolExecutor(2) as pool:
        return SurfaceDistances(*pool.map(directed, *zip(*directions, strict=True)))


def _sheared_distances(prediction: Mask, reference: Mask, steps: npt.NDArray[Any], edge: Edge) -> SurfaceDistances:
    """Squares of the axes do not add up on a sheared grid, so the nearest places in space are looked for."""
    places = [np.argwhere(mask_border(mask, edge=edge)) @ steps.T for mask in (prediction, reference)]

    def directed(source: Distances, target: Distances) -> Distances:
        return np.asarray(KDTree(target).query(source)[0]) if len(target) else np.full(len(source), np.inf)

    return SurfaceDistances(directed(*places), directed(*places[::-1]))


def _three(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a 2D mask as a volume of one slice."""
    return (1,) * (3 - len(shape)) + shape


def _in_a_rim(mask: Mask, edge: Edge) -> npt.NDArray[np.uint8]:
    """The mask as a volume in a rim of one voxel, as `border_voxels` takes it."""
    grid = np.ones([size + 2 for size in _three(mask.shape)], dtype=np.uint8)
    # A 2D mask has no neighbours above and below, so nothing there makes a border.
    outer = grid if mask.ndim == 3 else grid[1]
    outer[...] = edge == "chaos"
    outer[(slice(1, -1),) * mask.ndim] = mask
    return grid
