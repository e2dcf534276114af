"""Labels on another grid: every voxel gets the class that has the largest share of it.

The nearest voxel, which most libraries take, knows one point of a voxel alone: thin structures vanish between the
points of a coarser grid, and points half way between two voxels, as a grid twice as fine has them, go to even numbers
in some libraries, so that slices become one and three voxels thick by turns. Linear shares take the corners off small
structures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from aide_monai.ignored import IGNORED, PARTIAL

_TOLERANCE_VOXELS = 0.01
"""Axes count as parallel when no voxel is further off than this; a centre is inside up to this beyond an edge."""

_TIE = 1e-3
"""All places are moved by this share of a new voxel towards larger indices, so that halves go one way."""

_POINTS = 4
"""Points per old voxel and axis by which shares are counted on turned and sheared grids."""


def resample_by_votes(
    label: npt.NDArray[Any], matrix: npt.NDArray[np.floating[Any]], shape: Sequence[int], *, beyond_edges: bool = False
) -> npt.NDArray[Any]:
    """A label on another grid by the largest share of a voxel.

    Where the axes of both grids are parallel the shares are exact volumes. On turned and sheared grids they are counted
    at points, four for each old voxel and axis. Of a new voxel that is partly outside, the part inside counts. Equal
    shares go to the background, then to the smallest value.

    Args:
        label: (spatial...) numbers; 0 is the background.
        matrix: (D + 1, D + 1) voxel index of the new grid to that of the label.
        shape: spatial shape of the new grid.
        beyond_edges: the voxels at the edges reach on without end; otherwise voxels whose centre is outside are 0.

    Returns:
        (``shape``) of the label's dtype.

    Examples:
        >>> resample_by_votes(np.array([0, 5, 0]), np.array([[0.5, -0.25], [0, 1]]), [6])
        array([0, 0, 5, 5, 0, 0])
    """
    linear = np.asarray(matrix)[:-1, :-1]
    offset = np.asarray(matrix)[:-1, -1] + _TIE * np.abs(linear).sum(axis=1)
    result = np.zeros(tuple(shape), dtype=label.dtype)
    if not label.any():
        return result
    axes = np.abs(linear).argmax(axis=1)
    aside = np.abs(linear)
    aside[range(label.ndim), axes] = 0
    parallel = len(set(axes.tolist())) == label.ndim
    if parallel and (aside @ np.maximum(np.array(shape) - 1, 0) < _TOLERANCE_VOXELS).all():
        overlaps = [
            _overlaps(label.shape[old], shape[new], linear[old, new], offset[old], beyond_edges=beyond_edges)
            for old, new in enumerate(axes.tolist())
        ]
        _elect_by_volume(label, overlaps, result.transpose(axes))
    else:
        here = (slice(None),) * label.ndim if beyond_edges else _around_marks(label, linear, offset, result.shape)
        start = offset + linear @ [part.start or 0 for part in here]
        _elect_by_points(label, linear, start, result[here], beyond_edges=beyond_edges)
    return result


def indices_by_votes(
    label: npt.NDArray[Any], matrix: npt.NDArray[np.floating[Any]], shape: Sequence[int], *, beyond_edges: bool = False
) -> npt.NDArray[Any]:
    """``resample_by_votes`` for class indices: voxels without a verdict vote like a class of their own.

    Where the label has such voxels, those whose centre is outside have no verdict either, and equal shares go to them.

    Examples:
        >>> indices_by_votes(np.array([0, 255, 5]), np.array([[0.5, -0.25], [0, 1]]), [8])
        array([  0,   0, 255, 255,   5,   5, 255, 255])
    """
    if not (label >= PARTIAL).any():
        return resample_by_votes(label, matrix, shape, beyond_edges=beyond_edges)
    # 0 and IGNORED change places, for 0 is what there is outside
    return IGNORED - resample_by_votes(IGNORED - label, matrix, shape, beyond_edges=beyond_edges)


def _overlaps(old: int, new: int, scale: float, start: float, *, beyond_edges: bool) -> npt.NDArray[np.float32]:
    """Length of every old voxel that lies in every new one, along one axis: (new, old), in old voxels."""
    edges = np.arange(old + 1) - 0.5
    if beyond_edges:
        edges[0], edges[-1] = -np.inf, np.inf
    centres = start + scale * np.arange(new)
    low, high = (centres + half * abs(scale) for half in (-0.5, 0.5))
    lengths = np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1])
    lengths[(centres < edges[0] - _TOLERANCE_VOXELS) | (centres > edges[-1] + _TOLERANCE_VOXELS)] = 0
    return np.maximum(lengths, 0).astype(np.float32)


def _elect_by_volume(
    label: npt.NDArray[Any], overlaps: Sequence[npt.NDArray[np.float32]], result: npt.NDArray[Any]
) -> None:
    """Fill ``result``, whose axes are those of the label; only what touches a mark is looked at."""
    marked = [
        np.flatnonzero(label.any(axis=tuple(k for k in range(label.ndim) if k != axis))) for axis in range(label.ndim)
    ]
    there = tuple(slice(int(found[0]), int(found[-1]) + 1) for found in marked)
    near = [np.flatnonzero(lengths[:, part].any(axis=1)) for lengths, part in zip(overlaps, there, strict=True)]
    if not all(map(len, near)):
        return
    here = tuple(slice(int(found[0]), int(found[-1]) + 1) for found in near)
    from scipy import sparse  # only here, for a process that reads files starts faster without

    kept = [sparse.csr_matrix(lengths[rows, part]) for lengths, rows, part in zip(overlaps, here, there, strict=True)]
    background = reduce(
        np.multiply.outer, [lengths[rows].sum(axis=1) for lengths, rows in zip(overlaps, here, strict=True)]
    )
    winner, most = np.zeros(background.shape, label.dtype), np.zeros_like(background)
    for value in np.unique(label[there]):
        if not value:
            continue
        share = (label[there] == value).astype(np.float32)
        for axis, lengths in enumerate(kept):
            first = np.moveaxis(share, axis, 0)
            moved = lengths @ first.reshape(len(first), -1)
            share = np.moveaxis(moved.reshape(-1, *first.shape[1:]), 0, axis)
        winner[share > most] = value
        np.maximum(most, share, out=most)
        background -= share
    result[here] = np.where(most > background, winner, 0)


def _around_marks(
    label: npt.NDArray[Any], linear: npt.NDArray[np.float64], offset: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[slice, ...]:
    """The part of a new grid that the marked voxels can reach."""
    marks = np.argwhere(label)
    ends = np.stack([marks.min(axis=0) - 1, marks.max(axis=0) + 1])
    corners = np.array(
        [[ends[end, axis] for axis, end in enumerate(corner)] for corner in np.ndindex(*(2,) * label.ndim)]
    )
    places = np.linalg.solve(linear, (corners - offset).T)
    low, high = np.floor(places.min(axis=1)) - 1, np.ceil(places.max(axis=1)) + 2
    return tuple(slice(*np.clip([a, b], 0, n).astype(int).tolist()) for a, b, n in zip(low, high, shape, strict=True))


def _elect_by_points(
    label: npt.NDArray[Any],
    linear: npt.NDArray[np.float64],
    offset: npt.NDArray[np.float64],
    result: npt.NDArray[Any],
    *,
    beyond_edges: bool,
) -> None:
    """Fill ``result``, point after point of all its voxels at once."""
    from scipy import ndimage  # only here, as above

    values, codes = np.unique(label, return_inverse=True)
    stored: npt.NDArray[np.uint16] = (codes.reshape(label.shape) + 1).astype(np.uint16)  # 0 is outside
    how: dict[str, Any] = {"output": np.uint16, "order": 0, "mode": "nearest" if beyond_edges else "grid-constant"}
    counts = np.maximum(np.ceil(_POINTS * np.linalg.norm(linear, axis=0)), 1).astype(int)

    def at(place: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
        return np.asarray(ndimage.affine_transform(stored, linear, offset + linear @ place, result.shape, **how))

    votes = np.zeros((len(values), *result.shape), dtype=np.uint32)
    for index in np.ndindex(*counts):
        found = at((np.array(index) + 0.5) / counts - 0.5)
        for number, vote in enumerate(votes, start=1):
            vote += found == number
    result[...] = values[votes.argmax(axis=0)]
    result[at(np.zeros(label.ndim)) == 0] = 0
