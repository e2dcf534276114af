"""Borders of binary masks and the distances between them, in mm.

Equations 5 and 6 of the paper, as in the official CHAOS evaluation. Two options give the definitions of others: `edge`
says whether a mask that the edge of the image cuts off has a border there, `average` how the distances of both
borders become one mean.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from aide_monai.errors import InputError
from aide_monai.metrics.masks import ArrayLike, Mask, as_mask, as_mask_pair, check_spacing, joint_crop

Edge: TypeAlias = Literal["chaos", "monai"]
Average: TypeAlias = Literal["pooled", "directed_means"]
Distances: TypeAlias = "npt.NDArray[np.float64]"
Indices: TypeAlias = "npt.NDArray[np.int64]"

# These and the k-d tree's options: measured in benchmarks/surface_distance.py.
_LOOK_UPS = 100
_QUERIES_PER_THREAD = 5000  # below, starting a thread costs more than it saves


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
    border = np.empty_like(checked)
    _write_border(checked, edge, border)
    return border


def surface_distances(
    prediction: ArrayLike, reference: ArrayLike, *, spacing_mm: Sequence[float], edge: Edge = "chaos"
) -> SurfaceDistances:
    """Distances between the borders of two masks, both ways.

    Args:
        prediction: (H, W) or (D, H, W), any axis order; bool or 0 and 1.
        reference: as `prediction`.
        spacing_mm: distance of voxel centres along each axis in mm; slice spacing from positions, not SliceThickness.
        edge: see `mask_border`.

    Raises:
        InputError: masks that are not binary or differ in shape, wrong spacing, unknown `edge`.
    """
    check_edge(edge)
    masks = as_mask_pair(prediction, reference)
    return cropped_distances(*joint_crop(*masks, check_spacing(spacing_mm, masks[0].ndim)), edge)


def cropped_distances(prediction: Mask, reference: Mask, spacing: Sequence[float], edge: Edge) -> SurfaceDistances:
    """`surface_distances` of checked masks after `joint_crop`.

    Most border voxels of a fair segmentation lie on or near the other border, so the nearest voxels are looked up
    first, in order of distance. Only what they leave open asks a k-d tree. Both are exact.
    """
    steps, lengths = _nearest_steps(spacing, prediction.shape)
    # A rim as wide as the longest step keeps every look-up inside the grid, the only array of the masks' size.
    rim = np.abs(steps).max(axis=0)
    grid = np.zeros(prediction.shape + 2 * rim, dtype=np.bool_)
    inside = grid[tuple(slice(width, width + size) for width, size in zip(rim, prediction.shape, strict=True))]
    borders = []
    for mask in (prediction, reference):
        _write_border(mask, edge, inside)
        borders.append(np.flatnonzero(grid))
        inside[...] = False
    shape, offsets = grid.shape, steps @ np.array(grid.strides)
    directions = borders, borders[::-1]
    found = [_look_up(source, target, grid.reshape(-1), offsets, lengths) for source, target in directions]
    del grid, inside
    for distances, (source, target) in zip(found, directions, strict=True):
        far = np.isinf(distances)
        if len(target) and far.any():
            tree = cKDTree(_points(target, shape, spacing), balanced_tree=False, compact_nodes=False, leafsize=64)
            queries = _points(source[far], shape, spacing)
            threads = min(os.cpu_count() or 1, 1 + len(queries) // _QUERIES_PER_THREAD)
            distances[far] = tree.query(queries, workers=threads)[0]
    return SurfaceDistances(*found)


def _nearest_steps(spacing: Sequence[float], shape: Sequence[int]) -> tuple[Indices, Distances]:
    """The nearest voxels as steps from a voxel, nearest first and none left out, and their distances in mm."""
    volume = {2: math.pi, 3: 4 * math.pi / 3}[len(spacing)]
    radius = (_LOOK_UPS * math.prod(spacing) / volume) ** (1 / len(spacing))
    reach = [min(int(radius / step), size - 1) for step, size in zip(spacing, shape, strict=True)]
    steps = np.indices([2 * n + 1 for n in reach]).reshape(len(reach), -1).T - reach
    lengths = np.linalg.norm(steps * spacing, axis=1)
    order = np.argsort(lengths, kind="stable")[: int(np.count_nonzero(lengths <= radius))][:_LOOK_UPS]
    return steps[order], lengths[order]


def _look_up(source: Indices, target: Indices, grid: Mask, offsets: Indices, lengths: Distances) -> Distances:
    """Distance of each source voxel to the first of its nearest voxels that is a target; inf where none is.

    `grid` is all False before and after; `source`, `target` and `offsets` are flat indices into it.
    """
    distances = np.full(len(source), np.inf)
    grid[target] = True
    left = np.arange(len(source))
    for offset, length in zip(offsets, lengths, strict=True):
        hit = grid[source[left] + offset]
        distances[left[hit]] = length
        left = left[~hit]
        if not len(left):
            break
    grid[target] = False
    return distances


def _points(indices: Indices, shape: tuple[int, ...], spacing: Sequence[float]) -> Distances:
    """(n, axes) positions in mm of flat indices."""
    return np.column_stack(np.unravel_index(indices, shape)) * np.asarray(spacing)


def _write_border(mask: Mask, edge: Edge, out: Mask) -> None:
    out[...] = mask
    for axis in range(mask.ndim):
        interior, neighbour = np.moveaxis(out, axis, 0), np.moveaxis(mask, axis, 0)
        interior[1:] &= neighbour[:-1]
        interior[:-1] &= neighbour[1:]
        if edge == "monai":
            interior[:1] = interior[-1:] = False
    np.logical_xor(mask, out, out=out)
