"""How much a label is doubted, and which image is served next."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from aide_monai.errors import InputError
from aide_monai.label_app.suspicion import BundleScorer, ImageScore, changed, most_suspicious
from tests.label.tiny import tiny_bundle


def test_suspicion_doubts_the_label_or_the_networks():
    assert ImageScore(0.25).suspicion == 0.25
    assert ImageScore(0.25, 0.9).suspicion == pytest.approx(0.1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return tiny_bundle("hippocampus_ssl", tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def image(tmp_path) -> Path:
    voxels = np.random.default_rng(0).integers(0, 1000, (20, 24, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 8.0, 1.0])), tmp_path / "image.nii.gz")
    return tmp_path / "image.nii.gz"


def with_biases(bundle: Path, first: float, second: float) -> None:
    """Weights with which both networks say foreground everywhere, or nowhere."""
    path = bundle / "models" / "model.pt"
    weights = torch.load(path, weights_only=True)
    for name, bias in (("network_1", first), ("network_2", second)):
        weights[f"{name}.final_conv.weight"].zero_()
        weights[f"{name}.final_conv.bias"].copy_(torch.tensor([0.0, bias]))
    torch.save(weights, path)


def write_label(image: Path, columns: int) -> Path:
    label = np.zeros((20, 24, 3), dtype=np.uint8)
    label[:columns] = 1
    path = image.with_name("label.nii.gz")
    nibabel.save(nibabel.Nifti1Image(label, nibabel.load(image).affine), path)
    return path


def test_scores_of_networks_whose_masks_are_known(bundle, image):
    with_biases(bundle, 3, 2)
    score = BundleScorer(bundle)(image, write_label(image, 10))
    assert score.disagreement == 0
    assert score.label_quality == pytest.approx(2 * 10 / (20 + 10))

    with_biases(bundle, 3, -2)  # the mean network says foreground: log(p1 + p2) is what counts
    score = BundleScorer(bundle)(image)
    assert score.disagreement == 1
    assert score.label_quality is None

    with_biases(bundle, -3, -3)
    score = BundleScorer(bundle)(image, write_label(image, 0))
    assert score.disagreement == 1  # two empty masks say nothing about the image
    assert score.label_quality == 1


def test_broken_files_and_other_grids_are_named(bundle, image, tmp_path):
    scorer = BundleScorer(bundle)
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"broken\.nii\.gz"):
        scorer(broken)
    small = tmp_path / "small.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 3), dtype=np.uint8), np.eye(4)), small)
    with pytest.raises(
        InputError, match=r"small\.nii\.gz: shape \(4, 4, 3\); expected that of its image, \(20, 24, 3\)"
    ):
        scorer(image, small)


def test_missing_weights_are_named(bundle, tmp_path):
    copy = tiny_bundle("hippocampus_ssl", tmp_path / "copy")
    (copy / "models" / "model.pt").unlink()
    with pytest.raises(InputError, match=r"model\.pt: there are no weights here"):
        BundleScorer(copy)


def test_the_most_suspicious_image_comes_first():
    infos = {"a": {"aide": {"suspicion": 0.2}}, "b": {"aide": {"suspicion": 0.7}}, "c": {"aide": {"suspicion": 0.7}}}
    assert most_suspicious(infos) == "b"
    assert most_suspicious({**infos, "new": {}}) == "new"
    assert most_suspicious({}) is None


def test_an_image_that_somebody_works_on_comes_last():
    infos = {
        "a": {"aide": {"suspicion": 0.2}},
        "b": {"aide": {"suspicion": 0.7}, "strategy": {"suspicious": {"ts": 1000}}},
    }
    assert most_suspicious(infos, now=1100) == "a"
    assert most_suspicious({"b": infos["b"]}, now=1100) == "b"
    assert most_suspicious(infos, now=1600) == "b"
    assert most_suspicious(infos, strategy="other", now=1100) == "b"


def test_only_what_has_changed_is_scored_again():
    infos = {"a": {"aide": {"scored": "m1 5"}}, "b": {"aide": {"scored": "m1 None"}}, "c": {}}
    assert changed(["a", "b", "c"], infos, {"a": "m1 5", "b": "m1 7", "c": "m1 None"}) == ["b", "c"]
