"""Fusing several raters: hand-computed votes, means and estimates, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged

from aide_monai.data.rater_fusion import FuseRatersd
from aide_monai.data.raters import (
    as_mask,
    fuse_raters,
    majority_vote,
    mean_label,
    staple_label,
    staple_probability,
    write_fused,
)
from aide_monai.errors import InputError

THREE = np.array([[1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0]], dtype=np.float32)
FOUR = np.array([[[1, 1], [0, 0]], [[1, 1], [0, 1]], [[1, 0], [0, 0]], [[1, 0], [1, 0]]], dtype=np.uint8)


def test_majority_vote_by_hand() -> None:
    assert majority_vote(THREE).tolist() == [1, 1, 0, 0, 0]
    assert majority_vote(THREE).dtype == np.uint8


def test_a_tie_is_background_unless_asked_otherwise() -> None:
    assert majority_vote(FOUR).tolist() == [[1, 0], [0, 0]]
    assert majority_vote(FOUR, tie=1).tolist() == [[1, 1], [0, 0]]
    with pytest.raises(InputError, match=r"tie is 2; expected 0 \(background\) or 1"):
        majority_vote(FOUR, tie=2)


def test_the_vote_of_many_raters_does_not_overflow() -> None:
    assert majority_vote(np.ones((300, 2), dtype=np.uint8)).tolist() == [1, 1]
    assert mean_label(np.ones((300, 2), dtype=np.uint8)).tolist() == [1, 1]


def test_mean_label_by_hand() -> None:
    assert mean_label(FOUR).tolist() == [[1, 0.5], [0.25, 0.25]]
    assert mean_label(THREE).dtype == np.float32
    assert mean_label(THREE) == pytest.approx([1, 2 / 3, 1 / 3, 0, 0])


def naive_staple(masks: np.ndarray) -> np.ndarray:
    """The paper's equations, voxel by voxel: prior = mean of all decisions, sensitivities start near 1."""
    prior = masks.mean()
    sensitivity = specificity = np.full(len(masks), 0.99999)
    for _ in range(500):
        probability = []
        for decisions in masks.T:
            inside = prior * np.prod(np.where(decisions == 1, sensitivity, 1 - sensitivity))
            outside = (1 - prior) * np.prod(np.where(decisions == 0, specificity, 1 - specificity))
            probability.append(inside / (inside + outside))
        w = np.array(probability)
        sensitivity = (masks * w).sum(axis=1) / w.sum()
        specificity = ((1 - masks) * (1 - w)).sum(axis=1) / (1 - w).sum()
    return w


def test_staple_is_the_estimate_of_the_paper() -> None:
    masks = np.array([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]])
    assert staple_probability(masks) == pytest.approx(naive_staple(masks), abs=1e-4)


def test_staple_by_hand() -> None:
    """One rater sees nothing that the other two see: the estimate trusts the two."""
    masks = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    assert staple_probability(masks) == pytest.approx([1, 1, 0, 0], abs=1e-6)
    assert staple_label(masks).tolist() == [1, 1, 0, 0]


def test_staple_knows_no_favourite_between_two_opposites() -> None:
    opposites = np.array([[1, 0], [0, 1]])
    assert staple_probability(opposites).tolist() == [0.5, 0.5]
    assert staple_label(opposites).tolist() == [0, 0]


@pytest.mark.parametrize("value", [0, 1])
def test_staple_of_empty_and_of_full_masks(value: int) -> None:
    masks = np.full((3, 2, 2), value)
    assert staple_probability(masks).tolist() == np.full((2, 2), value).tolist()


def test_staple_stops_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    masks = np.random.default_rng(0).random((5, 2000)) < 0.3
    with caplog.at_level(logging.WARNING):
        staple_probability(masks, max_iterations=3)
    assert "STAPLE stopped after 3 iterations without settling" in caplog.text


stacks = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 1))
)


@settings(deadline=None)
@given(stacks, st.randoms(use_true_random=False), st.sampled_from(["majority", "mean", "staple"]))
def test_the_order_of_the_raters_does_not_matter(masks: np.ndarray, random: object, method: str) -> None:
    order = list(range(len(masks)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert np.array_equal(fuse_raters(masks, method), fuse_raters(masks[order], method))


def test_the_estimate_is_the_same_to_the_last_bit_for_every_order() -> None:
    truth = np.random.default_rng(0).random(5000) < 0.3
    flips = np.random.default_rng(1).random((5, 5000)) < np.array([[0.05], [0.1], [0.15], [0.2], [0.3]])
    masks = truth ^ flips
    expected = staple_probability(masks)
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        assert np.array_equal(staple_probability(masks[order]), expected)


@settings(deadline=None)
@given(stacks, st.integers(1, 6), st.sampled_from(["majority", "mean", "staple", 1]))
def test_raters_who_agree_are_right(masks: np.ndarray, raters: int, method: str | int) -> None:
    same = np.repeat(masks[:1], raters, axis=0)
    assert np.array_equal(fuse_raters(same, method), masks[0])


@settings(deadline=None)
@given(stacks)
def test_vote_and_mean_fit_together(masks: np.ndarray) -> None:
    mean = mean_label(masks)
    assert np.array_equal(majority_vote(masks), mean > 0.5)
    assert np.array_equal(majority_vote(masks, tie=1), mean >= 0.5)
    assert np.array_equal(majority_vote(1 - masks, tie=1), 1 - majority_vote(masks))


def test_one_rater_is_counted_from_one() -> None:
    assert fuse_raters(THREE, 2).tolist() == [1, 0, 0, 0, 0]
    with pytest.raises(InputError, match="rater 4: there are 3 raters; expected a number from 1 to 3"):
        fuse_raters(THREE, 4)
    for wrong in (0, "vote", True):
        with pytest.raises(InputError, match=f"rater fusion {wrong!r}: expected one of majority, mean, staple, or the"):
            fuse_raters(THREE, wrong)


def test_masks_stored_as_floats_are_thresholded() -> None:
    assert as_mask(np.array([0.0, 0.0004, 0.9999, 1.0])).tolist() == [False, False, True, True]
    assert as_mask(np.array([True, False])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("values", "found"),
    [([0, 255], "255"), ([0.5, 1], "0.5"), ([0, 2], "2"), ([-1, 1], "-1"), ([np.nan, 1], "nan"), ([0.3, 0.7], "0.3, ")],
)
def test_other_values_are_refused_by_name(values: list[float], found: str) -> None:
    with pytest.raises(InputError, match=rf"a\.nii: found the values {found}.*; expected a mask of 0 and 1"):
        as_mask(np.array(values), name="a.nii")
    with pytest.raises(InputError, match=f"masks of the raters: found the values {found}"):
        majority_vote(np.array([values]))


def test_no_raters_or_no_numbers() -> None:
    for masks in (np.zeros((0, 3)), np.array(1)):
        with pytest.raises(InputError, match=r"masks of the raters have the shape .*; expected \(raters, spatial"):
            mean_label(masks)
    with pytest.raises(InputError, match="found voxels of type complex128"):
        as_mask(np.array([1j]))


def write_mask(file: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> str:
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), np.eye(4) if affine is None else affine), file)
    return str(file)


def test_the_transform_fuses_what_monai_loads_from_several_files(tmp_path: Path) -> None:
    affine = np.diag([2.0, 3, 4, 1])
    files = [write_mask(tmp_path / f"{k}.nii.gz", mask.reshape(5, 1, 1), affine) for k, mask in enumerate(THREE)]
    load = LoadImaged("label", ensure_channel_first=True)
    result = Compose([load, FuseRatersd("label", method="majority")])({"label": files})["label"]
    assert isinstance(result, MetaTensor)
    assert result.affine.diagonal().tolist() == [2, 3, 4, 1]
    assert result.dtype == torch.uint8
    assert result.shape == (1, 5, 1, 1)
    assert result.flatten().tolist() == [1, 1, 0, 0, 0]
    soft = Compose([load, FuseRatersd("label", method="mean")])({"label": files})["label"]
    assert soft.dtype == torch.float32
    assert soft.flatten().tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0, 0])
    assert FuseRatersd("label", method=2)({"label": torch.tensor(THREE)})["label"].tolist() == [[1, 0, 0, 0, 0]]


def test_the_transform_names_what_it_refuses() -> None:
    with pytest.raises(InputError, match="rater fusion 'vote': expected one of"):
        FuseRatersd("label", method="vote")
    grey = MetaTensor(torch.full((2, 3), 0.4), meta={"filename_or_obj": "grey.nii"})
    with pytest.raises(InputError, match=r"grey\.nii: found the values 0\.4"):
        FuseRatersd("label", method="mean")({"label": grey})
    with pytest.raises(KeyError):
        FuseRatersd("label", method="mean")({})
    assert FuseRatersd("label", method="mean", allow_missing_keys=True)({"image": 1}) == {"image": 1}


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 1, 1)])
def test_fused_files_keep_shape_and_affine(tmp_path: Path, shape: tuple[int, ...]) -> None:
    affine = np.diag([2.0, 3, 4, 1])
    files = [write_mask(tmp_path / f"{k}.nii.gz", mask.reshape(shape), affine) for k, mask in enumerate(THREE)]
    for method, dtype in (("majority", np.uint8), ("staple", np.uint8), ("mean", np.float32)):
        written = nibabel.load(write_fused(files, tmp_path / "out" / f"{method}.nii.gz", method=method))
        assert written.shape == shape
        assert written.get_data_dtype() == dtype
        assert written.affine.diagonal().tolist() == [2, 3, 4, 1]
        assert np.array_equal(np.asarray(written.dataobj), fuse_raters(THREE, method).reshape(shape))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "majority.nii.gz",
        "mean.nii.gz",
        "staple.nii.gz",
    ]


def test_files_that_cannot_be_fused_are_told_together_and_nothing_is_written(tmp_path: Path) -> None:
    shifted = np.eye(4)
    shifted[0, 3] = 1
    files = [
        write_mask(tmp_path / "grey.nii", np.full((2, 2, 2), 0.2)),
        write_mask(tmp_path / "one.nii", np.zeros((2, 2, 2))),
        write_mask(tmp_path / "large.nii", np.zeros((2, 2, 3))),
        write_mask(tmp_path / "moved.nii", np.zeros((2, 2, 2)), shifted),
        str(tmp_path / "none.nii"),
    ]
    target = tmp_path / "out.nii"
    with pytest.raises(InputError) as caught:
        write_fused(files, target, method="majority")
    message = str(caught.value)
    assert message.startswith(f"{target}: the raters cannot be fused: 4 problems")
    for part in (
        f"{files[0]}: found the values 0.2; expected a mask",
        f"{files[2]}: found shape 2 x 2 x 3; expected 2 x 2 x 2 as in {files[1]}",
        f"{files[3]}: found affine [1 0 0 1; 0 1 0 0; 0 0 1 0]; expected affine [1 0 0 0; 0 1 0 0; 0 0 1 0] as in",
        f"{files[4]}: found no such file",
    ):
        assert part in message
    assert not target.exists()
    with pytest.raises(InputError, match="no files; expected the masks of at least one rater"):
        write_fused([], target, method="majority")


def test_real_raters(aide_data: Path) -> None:
    folder = aide_data / "qubiq" / "brain-growth" / "Training" / "case01"
    masks = np.stack([nibabel.load(file).get_fdata() for file in sorted(folder.glob("task01_seg*.nii.gz"))])
    mean = mean_label(masks)
    assert len(masks) == 7
    # STAPLE and the vote can differ only where raters do.
    fused = staple_label(masks)
    assert (fused[mean == 1] == 1).all()
    assert (fused[mean == 0] == 0).all()
    dice = 2 * (fused & majority_vote(masks)).sum() / (fused.sum() + majority_vote(masks).sum())
    assert dice > 0.95
