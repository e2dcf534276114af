"""The compiled loops: near and far voxels, every axis order, threads, and no folder for the cache."""

from __future__ import annotations

import itertools
import os
from typing import Any

import numba
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from aide_monai.metrics import border_kernels, mask_border, surface_distances

SPACING = (0.7, 1.3, 2.0)


def ellipsoid(shape: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    grid = np.ogrid[tuple(slice(0, size) for size in shape)]
    return np.asarray(sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radii, strict=True)) < 1)


def nearest(source: np.ndarray, target: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Sorted distances of every border voxel to the nearest of the other border, from all pairs."""
    points = [np.argwhere(mask_border(mask)) * spacing for mask in (source, target)]
    return np.sort(
        np.concatenate(
            [cdist(part, points[1]).min(axis=1) for part in np.array_split(points[0], 1 + len(points[0]) // 500)]
        )
    )


def assert_exact(first: np.ndarray, second: np.ndarray, spacing: tuple[float, ...]) -> None:
    found = surface_distances(first, second, spacing_mm=spacing)
    for distances, (source, target) in (
        (found.from_prediction, (first, second)),
        (found.from_reference, (second, first)),
    ):
        np.testing.assert_allclose(np.sort(distances), nearest(source, target, spacing), rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_far_and_near_voxels_in_every_axis_order(order: tuple[int, ...]) -> None:
    """The part off the larger mask is near it, the small one far from all: both searches are needed."""
    shape = (40, 30, 24)
    first = ellipsoid(shape, (12, 12, 10), (9, 9, 7)) | ellipsoid(shape, (36, 26, 21), (2, 2, 2))
    second = ellipsoid(shape, (13, 12, 11), (9, 10, 7))
    first, second = (np.ascontiguousarray(mask.transpose(order)) for mask in (first, second))
    assert_exact(first, second, tuple(SPACING[axis] for axis in order))


@pytest.mark.parametrize("steps", [0, 10**9])
def test_both_searches_give_the_same(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Without compiling, so that the limit can be set: the envelope alone, and the search alone."""
    module = border_kernels
    for name in ("_search", "_search_column", "_lower_envelope"):
        monkeypatch.setattr(module, name, getattr(module, name).py_func)
    monkeypatch.setattr(module, "_STEPS_PER_VOXEL", steps)
    first, second = np.random.default_rng(0).random((2, 7, 6, 9)) > 0.9
    grids = [np.pad(mask, 1).view(np.uint8) for mask in (first, second)]
    borders = [module.border_voxels.py_func(grid, 2) for grid in grids]
    found = module.nearest_distances.py_func(*borders, (7, 6), (2.0, 0.7, 1.3))
    np.testing.assert_allclose(np.sort(found), nearest(first, second, SPACING), rtol=0, atol=1e-9)


def test_large_borders_in_two_threads() -> None:
    shape = (70, 64, 60)
    first = ellipsoid(shape, (32, 32, 30), (28, 28, 26))
    second = ellipsoid(shape, (36, 32, 30), (30, 26, 27))
    assert min(mask_border(mask).sum() for mask in (first, second)) > 5000
    assert_exact(first, second, SPACING)


def test_walls_at_both_ends_of_the_volume() -> None:
    first, second = np.ones((2, 12, 10, 9), dtype=bool)
    first[:2] = second[-1:] = first[6, 5, 4] = False
    assert_exact(first, second, SPACING)


def test_a_place_without_any_folder_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    real = numba.njit

    def refusing(**options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(border_kernels, "njit", refusing)
    assert border_kernels._compiled(lambda number: number + 1)(os.getpid()) == os.getpid() + 1
