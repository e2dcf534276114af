"""Labels on another grid by shares, against brute force and volumes known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from aide_monai.utils.votes import resample_by_votes


def require_largest_shares(label: np.ndarray, matrix: np.ndarray, found: np.ndarray, tolerance: float) -> None:
    """Counts points in every new voxel, straight from the definition; no other class may have clearly more."""
    dimensions = label.ndim
    inside = (np.stack(np.meshgrid(*[np.arange(40)] * dimensions, indexing="ij"), -1) + 0.5) / 40 - 0.5
    for index in np.ndindex(*found.shape):
        places = np.rint((inside.reshape(-1, dimensions) + index) @ matrix[:-1, :-1].T + matrix[:-1, -1]).astype(int)
        known = places[((places >= 0) & (places < label.shape)).all(axis=1)]
        centre = matrix[:-1, :-1] @ index + matrix[:-1, -1]
        if ((centre < -0.5) | (centre > np.array(label.shape) - 0.5)).any():
            assert found[index] == 0
            continue
        shares = np.bincount(label[tuple(known.T)], minlength=int(label.max()) + 1) / len(known)
        assert shares[found[index]] > shares.max() - tolerance


def scaled(*steps: float, starts: tuple[float, ...]) -> np.ndarray:
    matrix = np.diag([*steps, 1.0])
    matrix[:-1, -1] = starts
    return matrix


@pytest.mark.parametrize("start", [0.0, -0.25, 0.25])
@pytest.mark.parametrize("thickness", [1, 2, 3])
@pytest.mark.parametrize("first", [2, 3, 4, 5])
def test_every_slice_becomes_two_on_a_grid_twice_as_fine(start: float, thickness: int, first: int) -> None:
    """Of points at whole and half places, of those at quarters, wherever the sheet begins."""
    sheet = np.zeros(12, dtype=np.uint8)
    sheet[first : first + thickness] = 4
    fine = resample_by_votes(sheet, scaled(0.5, starts=(start,)), [23])
    assert np.count_nonzero(fine) == 2 * thickness
    centre = np.flatnonzero(fine).mean() * 0.5 + start
    assert abs(centre - (first + (thickness - 1) / 2)) <= 0.25  # half a voxel of the fine grid
    back = resample_by_votes(fine, scaled(2.0, starts=(-2 * start,)), [12])
    np.testing.assert_array_equal(back, sheet)


def test_a_voxel_keeps_its_corners_on_a_fine_grid() -> None:
    """Linear shares would leave 20 of the 64."""
    label = np.zeros((3, 3, 3), dtype=np.int16)
    label[1, 1, 1] = -7
    fine = resample_by_votes(label, scaled(0.25, 0.25, 0.25, starts=(-0.375,) * 3), (12, 12, 12))
    assert fine.dtype == np.int16
    np.testing.assert_array_equal(np.argwhere(fine == -7).min(axis=0), [4, 4, 4])
    assert np.count_nonzero(fine) == 64


def test_two_thirds_of_a_coarse_voxel_win_wherever_they_lie() -> None:
    """Its centre knows one of three alone."""
    label = np.array([0, 0, 0, 6, 0, 6, 0, 6, 0], dtype=np.uint8)
    assert resample_by_votes(label, scaled(3.0, starts=(1.0,)), [3]).tolist() == [0, 6, 0]


def test_equal_shares_go_to_the_background_then_to_the_smallest() -> None:
    label = np.array([9, 3, 0, 3], dtype=np.uint8)[:, None].repeat(2, axis=1)
    turned = np.array([[2.0, 0, 0.5 - 2e-3], [0, 1, 0], [0, 0, 1]])  # less the step that settles ties
    assert resample_by_votes(label, turned, (2, 2)).tolist() == [[3, 3], [0, 0]]


@pytest.mark.parametrize("seed", range(8))
def test_parallel_axes_in_any_order_and_direction(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, (6, 5), dtype=np.uint8)
    matrix = np.eye(3)
    matrix[:2, :2] = np.diag(rng.uniform(0.4, 2.5, 2) * rng.choice([-1, 1], 2))[:, rng.permutation(2)]
    matrix[:2, 2] = np.array([2.5, 2.0]) - matrix[:2, :2] @ [3.0, 3.5] + rng.uniform(-0.3, 0.3, 2)
    require_largest_shares(label, matrix, resample_by_votes(label, matrix, (7, 8)), 0.03)


@pytest.mark.parametrize("degrees", [7.0, 45.0])
def test_turned_and_sheared_grids(degrees: float) -> None:
    label = np.zeros((20, 20), dtype=np.uint8)
    label[4:15, 6:11], label[5:9, 11:13] = 1, 2
    angle = np.radians(degrees)
    matrix = np.eye(3)
    matrix[:2, :2] = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ [[0.8, 0.2], [0, 1]]
    matrix[:2, 2] = np.array([9.5, 9.5]) - matrix[:2, :2] @ [13.5, 13.5]
    found = resample_by_votes(label, matrix, (28, 28))
    require_largest_shares(label, matrix, found, 0.15)
    volume = abs(np.linalg.det(matrix[:2, :2]))
    assert np.count_nonzero(found == 1) * volume == pytest.approx(55, rel=0.1)


def test_outside_is_background_or_goes_on() -> None:
    label = np.array([5, 0, 7], dtype=np.uint8)
    along = scaled(1.0, starts=(-2.0,))
    assert resample_by_votes(label, along, [8]).tolist() == [0, 0, 5, 0, 7, 0, 0, 0]
    assert resample_by_votes(label, along, [8], beyond_edges=True).tolist() == [5, 5, 5, 0, 7, 7, 7, 7]
    partly = scaled(1.0, starts=(-0.4,))
    assert resample_by_votes(label, partly, [3]).tolist() == [5, 0, 7]
    turned = np.array([[0.0, 1, 0], [1, 0.2, -2], [0, 0, 1]])
    sheet = np.full((2, 3), 5, dtype=np.uint8)
    assert resample_by_votes(sheet, turned, (6, 2)).any(axis=1).tolist() == [False, False, True, True, True, False]
    assert resample_by_votes(sheet, turned, (6, 2), beyond_edges=True).all()


def test_an_empty_label_stays_empty() -> None:
    assert not resample_by_votes(np.zeros((3, 3, 3), np.uint8), np.eye(4), (5, 5, 5), beyond_edges=True).any()
