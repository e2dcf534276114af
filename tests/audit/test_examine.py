"""What one label and its predictions say, on volumes that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from aide_monai.audit import examine
from aide_monai.audit.kinds import EXTRA, LARGE, MIRRORED, MISSING, MISTAKES, OTHER, SHIFTED, SLICES, SMALL, WRONG_CLASS

SPACING = (1.0, 1.0, 2.0)


def two_blocks() -> np.ndarray:
    """Class 1 of 6 x 6 x 8 voxels and class 2 of 8 x 4 x 8, apart from each other."""
    truth = np.zeros((24, 24, 12), np.uint8)
    truth[3:9, 4:10, 2:10] = 1
    truth[13:21, 12:16, 2:10] = 2
    return truth


def shares_of(mask: np.ndarray) -> np.ndarray:
    return np.stack([mask == index for index in range(3)]).astype(np.float32)


def examined(label: np.ndarray, truth: np.ndarray | None = None):
    return examine(label, shares_of(two_blocks() if truth is None else truth), spacing_mm=SPACING, axis=2)


def without(index: int) -> np.ndarray:
    truth = two_blocks()
    return np.where(truth == index, 0, truth).astype(np.uint8)


def with_block(index: int) -> np.ndarray:
    label = two_blocks()
    label[3:6, 18:22, 3:6] = index
    return label


def without_slices() -> np.ndarray:
    label = two_blocks()
    label[..., 5:7] = 0
    return label


def copied() -> np.ndarray:
    truth = slanted()
    truth[..., 5] = truth[..., 4]
    return truth


def slanted() -> np.ndarray:
    """Each slice one voxel further than the one before."""
    truth = np.zeros((24, 24, 12), np.uint8)
    for z in range(2, 10):
        truth[z : z + 8, 6:14, z] = 1
    return truth


def l_shape() -> np.ndarray:
    """A structure that looks otherwise in a mirror."""
    truth = np.zeros((24, 24, 12), np.uint8)
    truth[4:8, 4:20, 2:10] = 1
    truth[4:18, 4:8, 2:10] = 1
    return truth


@pytest.mark.parametrize(
    ("label", "truth", "kind"),
    [
        (without(2), two_blocks(), MISSING),
        (with_block(1), two_blocks(), EXTRA),
        (np.array([0, 2, 1], np.uint8)[two_blocks()], two_blocks(), WRONG_CLASS),
        (np.roll(two_blocks(), 2, axis=0), two_blocks(), SHIFTED),
        (l_shape()[::-1], l_shape(), MIRRORED),
        (l_shape()[:, ::-1], l_shape(), MIRRORED),
        (without_slices(), two_blocks(), SLICES),
        (copied(), slanted(), SLICES),
        (np.pad(two_blocks()[:, :, :6], ((0, 0), (0, 0), (0, 6))), two_blocks(), SMALL),
        (np.maximum(two_blocks(), np.roll(two_blocks(), 1, axis=1)), two_blocks(), LARGE),
    ],
)
def test_the_kind_of_a_mistake(label: np.ndarray, truth: np.ndarray, kind: str) -> None:
    assert examined(label, truth).kind == kind


def test_another_organ() -> None:
    label = np.zeros((24, 24, 12), np.uint8)
    label[18:22, 18:22, 1:3] = 1
    assert examined(label).kind == OTHER


def test_a_label_that_is_right_has_no_regions() -> None:
    found = examined(two_blocks())
    assert (found.regions, found.slices) == ((), {})
    assert np.array_equal(found.proposal, two_blocks())
    assert max(found.measures[:-1]) == pytest.approx(0)


def test_a_region_by_hand() -> None:
    found = examined(without(2))
    (region,) = found.regions
    assert (region.kind, region.label, region.voxels) == (MISSING, 2, 8 * 4 * 8)
    assert region.volume_ml == pytest.approx(8 * 4 * 8 * 2 / 1000)
    assert region.box == ((13, 21), (12, 16), (2, 10))
    assert region.centre == (17, 14, 6)  # the middle of 13 to 20, 12 to 15, 2 to 9, a box begun one voxel before
    assert np.array_equal(found.proposal, two_blocks())
    assert list(found.slices) == list(range(2, 10))


def test_the_proposal_keeps_what_is_not_contradicted() -> None:
    """A border that the prediction is not sure of stays as it was drawn."""
    label = without(2)
    shares = shares_of(two_blocks())
    shares[:, 3, 4:10, 2:10] = np.array([0.7, 0.3, 0.0], np.float32)[:, None, None]  # 0.4 more for background
    found = examine(label, shares, spacing_mm=SPACING, axis=2)
    assert np.array_equal(found.proposal, two_blocks())
    assert len(found.regions) == 1


def test_slices_are_counted_along_the_slice_axis() -> None:
    label = two_blocks()
    label[4] = 0
    found = examine(label, shares_of(two_blocks()), spacing_mm=SPACING, axis=0)
    assert (found.kind, list(found.slices)) == (SLICES, [4])


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_made_by_the_seed_and_change_the_label(name: str) -> None:
    label = two_blocks()
    made = [MISTAKES[name](label, SPACING, 2, np.random.default_rng(seed)) for seed in (1, 1)]
    assert np.array_equal(made[0], made[1])
    assert (made[0].dtype, made[0].shape) == (np.uint8, label.shape)
    assert set(np.unique(made[0])) <= {0, 1, 2}
    seeds = range(5)
    assert any(not np.array_equal(MISTAKES[name](label, SPACING, 2, np.random.default_rng(s)), label) for s in seeds)
    assert np.array_equal(label, two_blocks())


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_made_in_one_class_and_one_slice(name: str) -> None:
    flat = (two_blocks()[..., 4:5] > 0).astype(np.uint8)
    made = MISTAKES[name](flat, SPACING, 2, np.random.default_rng(0))
    assert made.shape == flat.shape
