"""Compiled loops over voxels: the border voxels of a mask, and their distances to the nearest of another border.

The distances are those of the separable Euclidean distance transform (Felzenszwalb & Huttenlocher, Theory of Computing
8, 2012), computed only at the voxels that ask and plane by plane, so that no array of the volume's size is needed. The
first call of a new installation compiles for some seconds; the result is cached on disk.

What would replace them, and why it does not (two masks of 512 x 512 x 78 voxels, 2 mm apart; cores with both borders,
``benchmarks/surface_distance.py``):

| rival | licence | ms, these: 18 | what broke |
|---|---|---|---|
| scipy 1.17.1 ``distance_transform_edt`` | BSD 3 | 882 | the time; arrays of the volume's size in float64 |
| scipy 1.17.1 ``cKDTree`` | BSD 3 | 176 | the time, most of all between flat borders far apart |
| edt 3.1.2 | LGPL 3 | 352 | float32, four bytes per voxel of the box |
| pykdtree 1.4.3 | LGPL 3 | 112 | the time |

| whole library | licence | ms, all scores: 28 | what broke |
|---|---|---|---|
| MONAI 1.6.1 | Apache 2.0 | 2588 | its own rule at the image's edge |
| SimpleITK 2.5.7 | Apache 2.0 | 1671 | the mean of directed means alone, no HD95, no NSD |
| surface-distance 0.1 | Apache 2.0 | 947 | areas as weights; an empty mask fails on NumPy 2 |
| MedPy 0.5.2 | GPL 3 | 13993 | the licence |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

Voxels: TypeAlias = "tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32]]"

# Steps of the search around a voxel that cost as much as one voxel of the envelope.
_STEPS_PER_VOXEL = 4


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled at the first call, without the interpreter's lock; cached where any folder for it can be written."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's
        return njit(nogil=True)(function)


@_compiled
def border_voxels(grid: npt.NDArray[np.uint8], sweep: int) -> Voxels:  # pragma: no cover
    """Foreground voxels with a background voxel among their 6 face neighbours, by planes.

    Args:
        grid: (a + 2, b + 2, c + 2) mask of 0 and 1 in a rim of one voxel, which says what lies outside.
        sweep: the axis, 0 to 2, that the planes are perpendicular to.

    Returns:
        Where the voxels of each plane start (planes + 1), and their positions along the other two axes, the rim not
        counted.
    """
    rows, columns, width = grid.shape[0] - 2, grid.shape[1] - 2, grid.shape[2] - 2
    start = np.zeros(grid.shape[sweep] - 1, np.int64)
    found, number = np.empty((1024, 3), np.int32), 0  # in the order of the grid
    is_border = np.empty(width, np.uint8)
    for i in range(rows):
        for j in range(columns):
            middle, above, below = grid[i + 1, j + 1], grid[i, j + 1], grid[i + 2, j + 1]
            before, behind = grid[i + 1, j], grid[i + 1, j + 2]
            total = 0
            for k in range(width):
                here = k + 1
                inside = middle[k] & middle[k + 2] & above[here] & below[here] & before[here] & behind[here]
                is_border[k] = middle[here] & ~inside
                total += is_border[k]
            if not total:
                continue
            if number + total > len(found):
                longer = np.empty((2 * (number + total), 3), np.int32)
                longer[:number] = found[:number]
                found = longer
            for k in range(width):
                if is_border[k]:
                    found[number, 0], found[number, 1], found[number, 2] = i, j, k
                    start[found[number, sweep] + 1] += 1
                    number += 1
    start = np.cumsum(start)
    first, second = np.empty(number, np.int32), np.empty(number, np.int32)
    place = start.copy()
    u, v = (1 if sweep == 0 else 0), (1 if sweep == 2 else 2)
    for n in range(number):
        at = place[found[n, sweep]]
        first[at], second[at] = found[n, u], found[n, v]
        place[found[n, sweep]] += 1
    return start, first, second


@_compiled
def _search(squares, u, v, step_u, step_v):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Smallest squares[x, y] + squared distance from (u, v) to (x, y), and how many steps it took to be sure."""
    rows, columns = squares.shape
    best = squares[u, v]
    steps = du = 0
    while du < rows and (du * step_u) ** 2 < best:
        across = (du * step_u) ** 2
        for side in range(2):
            x = u - du if side else u + du
            if x < 0 or x >= rows or (side and not du):
                continue
            dv = 0
            away = across
            while away < best:
                left, right = v - dv, v + dv
                if left >= 0:
                    best = min(best, squares[x, left] + away)
                elif right >= columns:
                    break
                if right < columns:
                    best = min(best, squares[x, right] + away)
                dv += 1
                away = across + (dv * step_v) ** 2
            steps += dv
        du += 1
    return best, steps


@_compiled
def _search_column(squares, u, v, step_u):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Smallest squares[x, v] + squared distance from u to x."""
    best = squares[u, v]
    for du in range(1, squares.shape[0]):
        across = (du * step_u) ** 2
        if across >= best:
            break
        if du <= u:
            best = min(best, squares[u - du, v] + across)
        if u + du < squares.shape[0]:
            best = min(best, squares[u + du, v] + across)
    return best


@_compiled
def _lower_envelope(squares, step, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Each row of `out`: smallest squares[., y] + squared distance from v to y, from the envelope of all parabolas."""
    rows, columns = squares.shape
    foot, bound = np.empty(columns, np.int64), np.empty(columns, np.float64)
    scale = step * step
    for u in range(rows):
        row = squares[u]
        n = 0
        for v in range(columns):
            if row[v] == np.inf:
                continue
            crossing = -np.inf
            while n:
                last = foot[n - 1]
                crossing = 0.5 * ((row[v] - row[last]) / (scale * (v - last)) + (v + last))
                if crossing > bound[n - 1]:
                    break
                n -= 1
            foot[n] = v
            bound[n] = crossing if n else -np.inf
            n += 1
        lowest = 0
        for v in range(columns):
            while lowest + 1 < n and bound[lowest + 1] < v:
                lowest += 1
            out[u, v] = row[foot[lowest]] + scale * (v - foot[lowest]) ** 2 if n else np.inf


@_compiled
def nearest_distances(
    source: Voxels, target: Voxels, shape: tuple[int, int], spacing: tuple[float, float, float]
) -> npt.NDArray[np.float64]:  # pragma: no cover
    """Distance of each source voxel to the nearest target voxel, exact; inf without targets.

    Near voxels search the plane around them; where that would take longer than the envelope of the whole plane, for
    many or for far voxels, the envelope is made.

    Args:
        source: as from `border_voxels`.
        target: likewise, along the same axis.
        shape: of the planes.
        spacing: mm from plane to plane, and along both axes of the planes.
    """
    starts, source_u, source_v = source
    target_starts, target_u, target_v = target
    step, step_u, step_v = spacing
    planes = len(starts) - 1
    distances = np.full(len(source_u), np.inf)
    if not len(target_u):
        return distances
    # For every place of a plane, the nearest planes with a target there, from this plane on and before it.
    ahead, passed = np.full(shape, np.inf, np.float32), np.full(shape, -np.inf, np.float32)
    following = np.empty(len(target_u), np.float32)
    for plane in range(planes - 1, -1, -1):
        for t in range(target_starts[plane], target_starts[plane + 1]):
            following[t] = ahead[target_u[t], target_v[t]]
            ahead[target_u[t], target_v[t]] = plane
    squares, envelope = np.empty(shape), np.empty(shape)
    affordable = _STEPS_PER_VOXEL * shape[0] * shape[1]
    mean_square = 0.0  # of the last plane: the next one will be much alike
    for plane in range(planes):
        start, stop = starts[plane], starts[plane + 1]
        if stop > start:
            for u in range(shape[0]):
                for v in range(shape[1]):
                    along = min(ahead[u, v] - plane, plane - passed[u, v]) * step
                    squares[u, v] = along * along
            steps, total = 0, 0.0
            expected = (stop - start) * math.pi * mean_square / (step_u * step_v) / 2
            s = start
            while s < stop and expected < affordable and steps < affordable:
                square, taken = _search(squares, source_u[s], source_v[s], step_u, step_v)
                distances[s] = math.sqrt(square)
                total += square
                steps += taken
                s += 1
            if s < stop:
                _lower_envelope(squares, step_v, envelope)
            for left in range(s, stop):
                square = _search_column(envelope, source_u[left], source_v[left], step_u)
                distances[left] = math.sqrt(square)
                total += square
            mean_square = total / (stop - start)
        for t in range(target_starts[plane], target_starts[plane + 1]):
            passed[target_u[t], target_v[t]] = plane
            ahead[target_u[t], target_v[t]] = following[t]
    return distances
