"""Each kind of label noise on masks small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from aide_monai.errors import InputError
from aide_monai.ignored import IGNORED
from aide_monai.transforms import RandLabelNoised
from aide_monai.transforms.label_noise import (
    NOISES,
    corrupt,
    deform,
    drop_components,
    resize,
    shift_boundary,
    shift_slices,
)


def box(size: int = 12, low: int = 4, high: int = 8) -> np.ndarray:
    label = np.zeros((size, size, 5), np.uint8)
    label[low:high, low:high, 1:4] = 1
    return label


def test_dilation_and_erosion_move_the_border_by_whole_voxels() -> None:
    line = np.zeros((9, 1, 1), np.uint8)
    line[3:6] = 1
    grown = resize(line, distance_mm=2, spacing_mm=(2, 2, 2))  # one voxel of 2 mm on either side
    assert grown[:, 0, 0].tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert resize(line, distance_mm=-2, spacing_mm=(2, 2, 2))[:, 0, 0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert resize(line, distance_mm=0.5, spacing_mm=(2, 2, 2)).tolist() == line.tolist()


def test_new_foreground_takes_the_nearest_class() -> None:
    line = np.array([0, 0, 1, 1, 2, 2, 0, 0], np.uint8)[:, None, None]
    assert resize(line, distance_mm=1, spacing_mm=(1, 1, 1))[:, 0, 0].tolist() == [0, 1, 1, 1, 2, 2, 2, 0]


def test_a_boundary_shift_goes_both_ways_and_keeps_the_volume_roughly() -> None:
    label = np.zeros((60, 60, 1), np.uint8)
    label[15:45, 15:45] = 1
    noisy = shift_boundary(label, magnitude_mm=3, spacing_mm=(1, 1, 1), generator=np.random.default_rng(0))
    assert (noisy > label).sum() > 20
    assert (noisy < label).sum() > 20
    assert noisy[30, 30, 0] == 1  # 15 mm inside, five standard deviations


def test_elastic_deformation_displaces_within_the_plane_of_a_single_slice() -> None:
    label = np.zeros((40, 40, 1), np.uint8)
    label[10:30, 10:30] = 2
    noisy = deform(label, magnitude_mm=2, spacing_mm=(1, 1, 1), generator=np.random.default_rng(0))
    assert set(np.unique(noisy)) == {0, 2}
    assert 0 < (noisy != label).sum() < 400


def test_components_are_dropped_slice_by_slice() -> None:
    label = box()
    assert drop_components(label, share=1, axis=2, generator=np.random.default_rng(0)).sum() == 0
    assert (drop_components(label, share=0, axis=2, generator=np.random.default_rng(0)) == label).all()
    tall = np.zeros((6, 6, 400), np.uint8)
    tall[1:3, 1:3] = 1
    left = drop_components(tall, share=0.5, axis=2, generator=np.random.default_rng(0)).any(axis=(0, 1)).sum()
    assert 160 < left < 240  # 200 expected, standard deviation 10


def test_slices_are_shifted_by_hand() -> None:
    label = np.arange(1, 5, dtype=np.uint8)[None, None]
    assert shift_slices(label, slices=1, axis=2).ravel().tolist() == [0, 1, 2, 3]
    assert shift_slices(label, slices=-2, axis=2).ravel().tolist() == [3, 4, 0, 0]
    assert shift_slices(label, slices=9, axis=2).sum() == 0
    assert shift_slices(label.T, slices=1, axis=0).ravel().tolist() == [0, 1, 2, 3]


def test_a_shift_in_mm_is_at_least_one_slice() -> None:
    noisy = corrupt(
        box(), ["wrong_slice"], magnitude_mm=3, spacing_mm=(1, 1, 10), axis=2, generator=np.random.default_rng(0)
    )
    assert noisy.any(axis=(0, 1)).tolist() in ([False, False, True, True, True], [True, True, True, False, False])


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(sorted(NOISES)), seed=st.integers(0, 1000), classes=st.integers(1, 3))
def test_every_kind_is_seeded_and_invents_no_class(kind: str, seed: int, classes: int) -> None:
    label = np.zeros((14, 12, 4), np.uint8)
    label[3:10, 3:9, 1:3] = np.random.default_rng(seed).integers(1, classes + 1, (7, 6, 2))
    before = label.copy()
    first, second = (
        corrupt(label, [kind], magnitude_mm=2, spacing_mm=(1, 1, 3), axis=2, generator=np.random.default_rng(seed))
        for _ in range(2)
    )
    assert (first == second).all()
    assert first.dtype == np.uint8
    assert first.shape == label.shape
    assert set(np.unique(first)) <= {0, *np.unique(label)}
    assert (label == before).all()


def test_the_transform_corrupts_the_stated_share() -> None:
    noise = RandLabelNoised("label", kinds=["resize"], rate=0.3, magnitude_mm=1.0, axis=2).set_random_state(0)
    label = MetaTensor(torch.from_numpy(box())[None])
    changed = sum(bool((noise({"label": label})["label"] != label).any()) for _ in range(200))
    assert 40 <= changed <= 80  # 60 expected, standard deviation 6.5
    noise.set_random_state(1)
    first = noise({"label": label})["label"]
    noise.set_random_state(1)
    assert torch.equal(noise({"label": label})["label"], first)
    assert isinstance(first, MetaTensor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["blur"]}, "label noise 'blur': expected some of boundary, resize"),
        ({"kinds": []}, "expected some of"),
        ({"magnitude_mm": 0.0}, "magnitude_mm is 0.0; expected a size"),
    ],
)
def test_wrong_noise_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RandLabelNoised("label", **options)


@pytest.mark.parametrize("kind", NOISES)
def test_voxels_without_a_verdict_stay_so_and_are_no_structure(kind: str) -> None:
    label = box()
    label[:3] = IGNORED
    noisy = corrupt(label, [kind], magnitude_mm=3, spacing_mm=(1, 1, 3), axis=2, generator=np.random.default_rng(0))
    assert np.array_equal(noisy == IGNORED, label == IGNORED)
    assert set(np.unique(noisy)) <= {0, 1, IGNORED}
