"""Signatures of scans: what makes no difference, what does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from aide_monai.data.checks import duplicates
from aide_monai.data.checks.duplicates import LIKENESS, Twins, block_means, find_twins, signature
from aide_monai.data.sources import find_datalist
from aide_monai.io.volumes import open_volume
from tests.data.sources.promise12_files import prostate_volume

RAS = np.diag([0.6, 0.6, 3.6, 1])


def test_hand_computed_signatures() -> None:
    """Two halves, 0 and 4: mean 2, so +-1 over the root of the number of blocks; ranks say the same."""
    voxels = np.zeros((2, 1, 1))
    voxels[1] = 4
    rows = signature(voxels, RAS)
    assert rows is not None
    blocks = 32 * 32 * 16
    assert rows.shape == (2, blocks)
    assert rows[:, 0] == pytest.approx(-1 / np.sqrt(blocks))
    assert rows[:, -1] == pytest.approx(1 / np.sqrt(blocks))
    assert find_twins({"a": rows, "b": rows, "c": -rows}) == [Twins("a", "b", pytest.approx(1.0))]


@pytest.mark.parametrize("shape", [(35, 51, 35), (7, 3, 2), (32, 32, 16), (1, 40, 17)])
def test_block_means_are_those_of_adaptive_pooling(shape: tuple[int, int, int]) -> None:
    voxels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    pooled = torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(voxels)[None], (32, 32, 16))[0].numpy()
    assert np.allclose(block_means(voxels, (32, 32, 16)), pooled, rtol=0, atol=1e-5)


def test_a_constant_scan_is_like_nothing() -> None:
    assert signature(np.full((3, 3, 3), 7), RAS) is None
    assert find_twins({"a": None, "b": None, "c": signature(prostate_volume(0)[0], RAS)}) == []
    assert find_twins({}) == []


COPIES = {
    "the same": lambda image: image,
    "scaled": lambda image: image * 3.7 + 1000,
    "8 bit, clipped": lambda image: np.round(np.clip(image / np.percentile(image, 99.5), 0, 1) * 255),
    "gamma": lambda image: np.sqrt(image - image.min()),
    "noise": lambda image: image + np.random.default_rng(0).normal(0, 0.02 * np.ptp(image), image.shape),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found(kind: str) -> None:
    image = prostate_volume(1, shape=(40, 40, 20))[0].astype(float)
    copy = COPIES[kind](image)
    assert len(find_twins({"image": signature(image, RAS), "copy": signature(copy, RAS)})) == 1


def test_pairs_across_blocks_are_those_that_a_comparison_of_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK", 3)
    rows = [signature(prostate_volume(seed)[0], RAS) for seed in (0, 1, 2, 1, 3, 0, 4, 1)]
    stacked = np.stack([row for row in rows if row is not None])
    alike = np.einsum("ikn,jkn->ijk", stacked, stacked).max(axis=2)
    for likeness in (0.7, 0.98):
        expected = [(str(i), str(j)) for i in range(8) for j in range(i + 1, 8) if alike[i, j] >= likeness]
        found = find_twins({str(place): row for place, row in enumerate(rows)}, likeness=likeness)
        assert [(twins.first, twins.second) for twins in found] == expected
        assert {("0", "5"), ("1", "3"), ("1", "7"), ("3", "7")} <= set(expected)


def test_noise_on_an_empty_background_does_not_hide_a_copy() -> None:
    """There the ranks are noise alone; the averages see through it."""
    image, label = prostate_volume(1, shape=(40, 40, 20))
    alone = np.where(label, image, 0).astype(float)
    copy = alone + np.random.default_rng(0).normal(0, 5, alone.shape)
    averages, ranks = zip(signature(alone, RAS), signature(copy, RAS), strict=True)  # type: ignore[arg-type]
    assert ranks[0] @ ranks[1] < LIKENESS < averages[0] @ averages[1]
    assert len(find_twins({"image": signature(alone, RAS), "copy": signature(copy, RAS)})) == 1


def test_the_stored_orientation_makes_no_difference() -> None:
    image = prostate_volume(1)[0]
    flipped = image[::-1, :, ::-1].transpose(2, 0, 1)
    affine = np.array([[0, -0.6, 0, 9.0], [0, 0, 0.6, 0], [-3.6, 0, 0, 5], [0, 0, 0, 1]])
    assert np.array_equal(signature(image, RAS), signature(flipped, affine))
    assert find_twins({"a": signature(image, RAS), "b": signature(image[::-1], RAS)}) == []


def test_other_patients_are_told_apart() -> None:
    signatures = {str(seed): signature(prostate_volume(seed)[0], RAS) for seed in range(12)}
    assert find_twins(signatures) == []


@pytest.mark.parametrize("folder", ["acdc", "mscmr_lge"])
def test_real_patients_are_told_apart_and_their_copies_found(aide_data: Path, folder: str) -> None:
    signatures, patients = {}, {}
    for record in find_datalist(aide_data / folder).records:
        volume = open_volume(record["image"])
        voxels = volume.decode()[..., 0].astype(float)
        signatures[record["case"]] = signature(voxels, volume.affine)
        patients[record["case"]] = record["patient"]
        copy = np.round(np.clip(voxels / np.percentile(voxels, 99.5), 0, 1) * 255)
        assert find_twins({"image": signatures[record["case"]], "copy": signature(copy, volume.affine)})
    strangers = [twins for twins in find_twins(signatures) if patients[twins.first] != patients[twins.second]]
    assert strangers == []
    close = [t.likeness for t in find_twins(signatures, likeness=0.8) if patients[t.first] != patients[t.second]]
    assert max(close, default=0) < LIKENESS - 0.02
