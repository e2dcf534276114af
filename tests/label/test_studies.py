"""From a datastore to training cases and back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from aide_monai.errors import InputError
from aide_monai.label_app.studies import broken_images, datastore_cases, remember

LABELS = {"0": "background", "1": "organ"}


class FakeDatastore:
    """Images and labels of a folder, with MONAI Label's interface."""

    def __init__(self, folder: Path, images: list[str], labelled: list[str]) -> None:
        self.folder = folder
        self.images = images
        self.labelled = labelled
        self.infos: dict[str, dict[str, Any]] = {image: {"ts": 1} for image in images}
        self.refreshed = 0

    def list_images(self) -> list[str]:
        return self.images

    def get_labeled_images(self) -> list[str]:
        return self.labelled

    def get_unlabeled_images(self) -> list[str]:
        return [image for image in self.images if image not in self.labelled]

    def get_image_uri(self, image_id: str) -> str:
        return str(self.folder / f"{image_id}.nii.gz")

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        return str(self.folder / "labels" / label_tag / f"{label_id}.nii.gz")

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        return copy.deepcopy(self.infos[image_id])

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        return {}

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        self.infos[image_id].update(info)

    def refresh(self) -> None:
        self.refreshed += 1


@pytest.fixture
def datastore(tmp_path) -> FakeDatastore:
    (tmp_path / "labels" / "final").mkdir(parents=True)
    images = ["d", "c", "b", "a"]
    for number, image in enumerate(images):
        voxels = np.random.default_rng(number).integers(0, 100, (6, 5, 4)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{image}.nii.gz")
        label = (voxels > 50).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), tmp_path / "labels" / "final" / f"{image}.nii.gz")
    return FakeDatastore(tmp_path, images, ["c", "a", "b"])


def cases(datalist, split: str) -> list[tuple[str, str | None]]:
    return [(record["case"], record.get("quality")) for record in datalist.split(split)]


def test_labelled_images_are_high_quality_and_the_others_unlabelled(datastore):
    datalist, problems = datastore_cases(datastore, labels=LABELS)
    assert problems == []
    assert cases(datalist, "training") == [("a", "high"), ("b", "high"), ("c", "high"), ("d", None)]
    assert datalist.labels == {0: "background", 1: "organ"}


def test_a_share_of_the_labelled_images_is_for_validation(datastore):
    datalist, _ = datastore_cases(datastore, labels=LABELS, validation=0.5)
    assert cases(datalist, "validation") == [("c", "high")]  # 1.5 cases, rounded down
    assert cases(datalist, "training") == [("a", "high"), ("b", "high"), ("d", None)]


@pytest.mark.parametrize("validation", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(datastore, validation):
    with pytest.raises(InputError, match=r"val_split is .*; expected a share from 0 up to but not including 1"):
        datastore_cases(datastore, labels=LABELS, validation=validation)


def test_broken_files_are_left_out_and_named(datastore, tmp_path):
    (tmp_path / "d.nii.gz").write_bytes(b"nothing")
    wrong = nibabel.Nifti1Image(np.full((6, 5, 4), 7, dtype=np.uint8), np.eye(4))
    nibabel.save(wrong, tmp_path / "labels" / "final" / "b.nii.gz")
    datalist, problems = datastore_cases(datastore, labels=LABELS)
    assert cases(datalist, "training") == [("a", "high"), ("c", "high")]
    assert {problem.case for problem in problems} == {"b", "d"}
    findings = broken_images(datastore, problems)
    assert "found label values 7" in findings["b"]["problem"]
    assert findings["a"] == {"problem": None}


def test_stored_values_may_differ_from_class_indices(datastore, tmp_path):
    label = nibabel.Nifti1Image(np.full((6, 5, 4), 63, dtype=np.uint8), np.eye(4))
    nibabel.save(label, tmp_path / "labels" / "final" / "b.nii.gz")
    datalist, problems = datastore_cases(datastore, labels=LABELS, classes={"63": 1, "1": 1})
    assert problems == []
    assert datalist.stored_classes == {0: 0, 63: 1, 1: 1}


def test_without_a_sound_label_there_is_nothing_to_learn_from(datastore):
    datastore.labelled = []
    with pytest.raises(InputError, match=r"found 4 images, 0 of them labelled, .*label one, then train$"):
        datastore_cases(datastore, labels=LABELS)
    datastore.images = []
    with pytest.raises(InputError, match="found 0 images"):
        datastore_cases(datastore, labels=LABELS)


def test_findings_are_added_to_what_is_known(datastore):
    remember(datastore, {"a": {"suspicion": 0.5, "problem": "broken"}, "gone": {"suspicion": 1.0}})
    remember(datastore, {"a": {"problem": None, "disagreement": 0.25}})
    assert datastore.infos["a"] == {"ts": 1, "aide": {"suspicion": 0.5, "disagreement": 0.25}}
    seen = datastore.refreshed
    remember(datastore, {"a": {"suspicion": 0.5, "problem": None}, "b": {"problem": None}})
    assert datastore.refreshed == seen + 1  # nothing is written where nothing is new
    assert datastore.infos["b"] == {"ts": 1}


def test_every_finding_is_added_to_what_others_have_just_written(datastore):
    """A datastore writes all that it knows of all images, so it must know what a client has put meanwhile."""
    writes = []
    refresh, update = datastore.refresh, datastore.update_image_info
    datastore.refresh = lambda: (refresh(), writes.append("refresh"))
    datastore.update_image_info = lambda image, info: (update(image, info), writes.append(image))
    remember(datastore, {"a": {"suspicion": 0.5}, "b": {"suspicion": 0.25}})
    assert writes == ["refresh", "refresh", "a", "refresh", "b"]
