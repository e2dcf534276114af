"""Borders and surface distances, first by hand, then against brute force and as properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from aide_monai.errors import InputError
from aide_monai.metrics import class_scores, mask_border, segmentation_scores, surface_distances


def box_mask(shape: tuple[int, ...], *sides: slice) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[sides] = True
    return mask


def test_border_is_foreground_with_a_background_face_neighbour() -> None:
    mask = box_mask((5, 5), slice(1, 4), slice(1, 4))
    border = mask.copy()
    border[2, 2] = False
    np.testing.assert_array_equal(mask_border(mask), border)


def test_diagonal_neighbours_do_not_make_a_border() -> None:
    mask = np.ones((5, 5), dtype=bool)
    mask[0, 0] = False
    assert sorted(zip(*np.nonzero(mask_border(mask)), strict=True)) == [(0, 1), (1, 0)]


def test_border_in_3d_uses_six_neighbours() -> None:
    mask = np.ones((3, 3, 3), dtype=bool)
    mask[1, 1, 1] = False
    assert mask_border(mask).sum() == 6


def test_edge_option_decides_whether_the_image_edge_is_a_border() -> None:
    full = np.ones((3, 4), dtype=bool)
    assert mask_border(full).sum() == 0
    assert mask_border(full, edge="monai").sum() == 10
    cut_off = box_mask((4, 4), slice(0, 2), slice(None))
    np.testing.assert_array_equal(mask_border(cut_off), box_mask((4, 4), slice(1, 2), slice(None)))


def test_the_mask_is_not_changed() -> None:
    mask = torch.ones((3, 3), dtype=torch.uint8)
    mask_border(mask, edge="monai")
    assert mask.all()


def test_two_pixels_two_mm_apart() -> None:
    first, second = box_mask((1, 3), slice(None), slice(0, 1)), box_mask((1, 3), slice(None), slice(2, 3))
    distances = surface_distances(first, second, spacing_mm=(5.0, 1.0))
    assert distances.from_prediction.tolist() == [2.0]
    assert distances.from_reference.tolist() == [2.0]


def test_pooled_mean_weighs_by_voxels_and_directed_means_do_not() -> None:
    row = box_mask((3, 4), slice(1, 2), slice(0, 3))
    pixel = box_mask((3, 4), slice(1, 2), slice(0, 1))
    distances = surface_distances(row, pixel, spacing_mm=(1.0, 1.0))
    assert sorted(distances.from_prediction.tolist()) == [0.0, 1.0, 2.0]
    assert distances.from_reference.tolist() == [0.0]
    assert distances.mean() == 3 / 4
    assert distances.mean("directed_means") == 1 / 2
    assert distances.max() == 2.0


def test_distances_are_in_mm_along_each_axis() -> None:
    first, second = np.zeros((2, 4, 5), dtype=bool), np.zeros((2, 4, 5), dtype=bool)
    first[0, 0, 0] = second[1, 2, 3] = True
    distance = surface_distances(first, second, spacing_mm=(5.5, 0.7, 2.0)).max()
    assert distance == pytest.approx(math.sqrt(5.5**2 + 1.4**2 + 6.0**2), abs=1e-12)


@pytest.mark.parametrize("edge", ["chaos", "monai"])
def test_empty_masks(edge: str) -> None:
    empty, one = np.zeros((3, 3), dtype=bool), box_mask((3, 3), slice(1, 2), slice(1, 2))
    both = surface_distances(empty, empty, spacing_mm=(1, 1), edge=edge)
    assert (both.mean(), both.mean("directed_means"), both.max()) == (0, 0, 0)
    for pair in ((empty, one), (one, empty)):
        distances = surface_distances(*pair, spacing_mm=(1, 1), edge=edge)
        assert (distances.mean(), distances.mean("directed_means"), distances.max()) == (math.inf,) * 3


def test_mask_that_fills_the_image_has_no_border_to_measure_from() -> None:
    full, one = np.ones((3, 3), dtype=bool), box_mask((3, 3), slice(1, 2), slice(1, 2))
    assert surface_distances(full, full, spacing_mm=(1, 1)).max() == 0
    assert surface_distances(full, one, spacing_mm=(1, 1)).max() == math.inf
    assert surface_distances(full, one, spacing_mm=(1, 1), edge="monai").max() == pytest.approx(math.sqrt(2))


def test_wrong_options_and_masks() -> None:
    mask = np.zeros((3, 3), dtype=np.uint8)
    with pytest.raises(InputError, match=r'edge is "itk"; expected one of chaos, monai'):
        mask_border(mask, edge="itk")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r'average is "mean"; expected one of pooled, directed_means'):
        surface_distances(mask, mask, spacing_mm=(1, 1)).mean("mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"mask holds the values 63; expected a binary mask"):
        mask_border(mask + np.uint8(63))
    with pytest.raises(InputError, match=r"prediction holds the values 0\.5, nan"):
        surface_distances(np.array([[0.5, np.nan]]), mask, spacing_mm=(1, 1))
    with pytest.raises(InputError, match=r"mask has the dtype <U1"):
        mask_border(np.array([["a"]]))
    with pytest.raises(InputError, match=r"mask has the shape \(3,\)"):
        mask_border(mask[0])
    with pytest.raises(InputError, match=r"prediction has the shape \(3, 3\), reference \(2, 3\)"):
        surface_distances(mask, mask[:2], spacing_mm=(1, 1))


@pytest.mark.parametrize("spacing", [(1,), (1, 0), (1, -1), (1, math.inf), (1, math.nan), (1, 1, 1)])
def test_wrong_spacing(spacing: tuple[float, ...]) -> None:
    mask = np.ones((3, 3), dtype=bool)
    with pytest.raises(InputError, match=r"spacing_mm is \(1.*expected 2 positive numbers"):
        surface_distances(mask, mask, spacing_mm=spacing)


def test_values_that_are_zero_or_one_are_masks_whatever_their_type() -> None:
    mask = box_mask((4, 4), slice(1, 3), slice(1, 3))
    for values in (
        mask.astype(np.float32),
        mask.astype(np.int64),
        torch.from_numpy(mask).half(),
        np.asfortranarray(mask),
    ):
        np.testing.assert_array_equal(mask_border(values), mask_border(mask))


def tilted(degrees: float, spacing: tuple[float, float, float] = (0.8, 0.8, 5.0)) -> np.ndarray:
    """Steps (3, 3) along the axes of slices whose stack leans by so much, as a tilted gantry leaves them."""
    steps = np.diag(spacing)
    steps[1, 2] = math.tan(math.radians(degrees)) * spacing[2]
    return steps


def brute_force(prediction: np.ndarray, reference: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances from every border voxel to the nearest of the other mask, by all pairs of places in space."""
    places = [np.argwhere(mask_border(mask)) @ steps.T for mask in (prediction, reference)]
    pairs = np.linalg.norm(places[0][:, None] - places[1][None], axis=2)
    return pairs.min(axis=1), pairs.min(axis=0)


def test_a_tilted_stack_by_hand() -> None:
    """One slice up and the lean of it back again is 5 mm away, though 2.33 mm lie between the columns."""
    first, second = np.zeros((3, 9, 3), dtype=bool), np.zeros((3, 9, 3), dtype=bool)
    first[1, 4, 0] = second[1, 1, 1] = True
    steps = tilted(25)
    expected = math.hypot(5 * math.tan(math.radians(25)) - 3 * 0.8, 5)
    found = surface_distances(first, second, spacing_mm=steps)
    assert found.max() == pytest.approx(expected, abs=1e-12)
    assert found.max() < 5.001 < surface_distances(first, second, spacing_mm=np.linalg.norm(steps, axis=0)).max()


@pytest.mark.parametrize("edge", ["chaos", "monai"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_sheared_grids_by_brute_force(edge: str, order: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for degrees in (5, 25, -40):
        steps = (turn @ tilted(degrees))[:, order]
        masks = [np.pad(rng.random((7, 6, 5)) < 0.2, 2).transpose(order) for _ in range(2)]
        found = surface_distances(*masks, spacing_mm=steps, edge=edge)
        for distances, expected in zip(
            (found.from_prediction, found.from_reference), brute_force(*masks, steps), strict=True
        ):
            np.testing.assert_allclose(np.sort(distances), np.sort(expected), atol=1e-10)
        scores = segmentation_scores(*masks, spacing_mm=steps, edge=edge)
        assert (scores.assd, scores.mssd) == pytest.approx((found.mean(), found.max()), abs=1e-10)
        by_class = class_scores(*(mask.astype(np.uint8) for mask in masks), num_classes=2, spacing_mm=steps, edge=edge)
        assert by_class[1] == scores


def test_a_sheared_slice_by_brute_force() -> None:
    rng = np.random.default_rng(5)
    steps = np.array([[1.0, 0.6], [0.0, 0.9], [0.3, 0.2]])
    masks = [np.pad(rng.random((9, 8)) < 0.2, 2) for _ in range(2)]
    found = surface_distances(*masks, spacing_mm=steps)
    np.testing.assert_allclose(np.sort(found.from_prediction), np.sort(brute_force(*masks, steps)[0]), atol=1e-10)


def test_steps_at_right_angles_give_every_digit_of_their_lengths() -> None:
    rng = np.random.default_rng(6)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    steps = turn @ np.diag([0.7, 0.9, 3.3])
    masks = [rng.random((9, 8, 7)) < 0.3 for _ in range(2)]
    expected = segmentation_scores(*masks, spacing_mm=np.linalg.norm(steps, axis=0))
    assert segmentation_scores(*masks, spacing_mm=steps) == expected


def test_a_sheared_grid_with_an_empty_mask() -> None:
    full, empty = np.ones((3, 3, 3), dtype=bool), np.zeros((3, 3, 3), dtype=bool)
    full[0] = False
    assert surface_distances(full, empty, spacing_mm=tilted(25)).max() == math.inf
    assert surface_distances(empty, empty, spacing_mm=tilted(25)).max() == 0
