"""Unlabelled cases become low-quality cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from aide_monai.data.datalist import Datalist
from aide_monai.data.folders import image_records
from aide_monai.errors import InputError
from aide_monai.workflows.prepare import prepare_datalist
from aide_monai.workflows.pseudo_labels import standardize_datalist, write_pseudo_labels


class Threshold(torch.nn.Module):
    """Foreground where the image is above a value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, image):
        return torch.cat([torch.zeros_like(image), 10 * (image - self.value)], dim=1)


class Pretrainer:
    """Counts how often training was asked for."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self) -> None:
        self.runs += 1


@pytest.fixture
def datalist(phantoms) -> Datalist:
    return prepare_datalist(phantoms, labeled=2, unlabeled=2)


def test_pseudo_labels_lie_on_the_grid_of_their_image(datalist, tmp_path):
    seen = []
    result = write_pseudo_labels(
        Threshold(0.0),
        datalist,
        tmp_path,
        axis=2,
        slice_size=(32, 32),
        classes={63: 1},
        on_case=lambda: seen.append(1),
    )
    assert len(seen) == 2
    by_quality = {q: [r for r in result.split("training") if r["quality"] == q] for q in ("high", "low")}
    assert len(by_quality["high"]) == len(by_quality["low"]) == 2
    for record in by_quality["low"]:
        image, label = nibabel.load(record["image"]), nibabel.load(record["label"])
        assert label.shape == image.shape
        assert np.array_equal(label.affine, image.affine)
        assert label.get_data_dtype() == np.uint8
        assert np.isnan(label.header["scl_slope"]) or label.header["scl_slope"] == 1
        values = np.asarray(label.dataobj)
        assert set(np.unique(values)) == {0, 63}  # in the stored values of the data set
        brightest = np.unravel_index(np.asarray(image.dataobj)[:, :, 3].argmax(), image.shape[:2])
        assert values[(*brightest, 3)] == 63
        assert "clean_label" in record
    assert Datalist.load(tmp_path / "datalist.json", roots=[datalist.records[0]["image"].rsplit("/", 2)[0]]).records


def test_a_finished_standardisation_is_used_again(datalist, tmp_path):
    pretrainer = Pretrainer()
    arguments = {"pretrainer": pretrainer, "network": Threshold(0.0), "axis": 2, "slice_size": (32, 32)}
    arguments["weights"] = tmp_path / "model.pt"
    first = standardize_datalist(datalist, tmp_path / "out", **arguments)
    again = standardize_datalist(datalist, tmp_path / "out", **arguments)
    assert pretrainer.runs == 1
    assert again.records == first.records
    labelled, *others = datalist.records
    asked = replace(datalist, cases=[{**labelled, "split": "validation"}, *others])
    assert "label" in labelled
    with pytest.raises(InputError, match="or others of them with labels; choose a new run folder"):
        standardize_datalist(asked, tmp_path / "out", **arguments)
    more = [{**record, "label": labelled["label"], "quality": "high"} for record in others]
    with pytest.raises(InputError, match="or others of them with labels; choose a new run folder"):
        standardize_datalist(replace(datalist, cases=[labelled, *more]), tmp_path / "out", **arguments)
    other = Datalist(datalist.name, datalist.labels, datalist.modality, datalist.records[1:])
    with pytest.raises(InputError, match="holds other cases than this run"):
        standardize_datalist(other, tmp_path / "out", **arguments)


def test_data_that_have_moved_since_are_named(datalist, tmp_path):
    arguments = {"pretrainer": Pretrainer(), "network": Threshold(0.0), "axis": 2, "slice_size": (32, 32)}
    arguments["weights"] = tmp_path / "model.pt"
    standardize_datalist(datalist, tmp_path / "out", **arguments)
    saved = tmp_path / "out" / "datalist.json"
    place = Path(datalist.records[0]["image"]).parents[1]
    saved.write_text(saved.read_text().replace(str(place), "/gone"))
    with pytest.raises(InputError, match="the data that this run began with are not where they were; put them back"):
        standardize_datalist(datalist, tmp_path / "out", **arguments)


def test_finished_weights_are_loaded_instead_of_training_again(datalist, tmp_path):
    pretrainer, network = Pretrainer(), torch.nn.Conv2d(1, 2, 1)
    torch.save(torch.nn.Conv2d(1, 2, 1).state_dict(), tmp_path / "model.pt")
    standardize_datalist(
        datalist,
        tmp_path / "out",
        pretrainer=pretrainer,
        network=network,
        weights=tmp_path / "model.pt",
        axis=2,
        slice_size=(32, 32),
    )
    assert pretrainer.runs == 0
    assert torch.equal(network.weight, torch.load(tmp_path / "model.pt", weights_only=True)["weight"])


def test_no_labelled_case_is_refused(datalist, tmp_path):
    bare = [{key: value for key, value in r.items() if key not in ("label", "quality")} for r in datalist.records]
    empty = Datalist("bare", datalist.labels, datalist.modality, bare)
    with pytest.raises(InputError, match="no labelled training case"):
        standardize_datalist(
            empty, tmp_path, pretrainer=Pretrainer(), network=None, weights="", axis=2, slice_size=(32, 32)
        )
    assert list(tmp_path.iterdir()) == []


def test_image_records(tmp_path):
    for name in ("b.nii.gz", "a.nii", "notes.txt"):
        (tmp_path / name).touch()
    assert [record["image"].rsplit("/", 1)[1] for record in image_records(tmp_path)] == ["a.nii", "b.nii.gz"]
    with pytest.raises(InputError, match="no such folder"):
        image_records(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found no volume"):
        image_records(tmp_path / "empty")


class TwoStructures(torch.nn.Module):
    """Class 1 where the image is dark, class 2 where it is bright."""

    def forward(self, image):
        return 10 * torch.cat([torch.full_like(image, 0.1), -image, image], dim=1)


def test_of_a_case_whose_label_had_some_structures_no_more_is_said(datalist, tmp_path):
    names = {0: "background", 1: "dark", 2: "bright"}
    cases = [replace(case, annotated=("bright",)) if case.label is None else case for case in datalist.cases]
    named = Datalist("phantoms", names, datalist.modality, cases)
    for given, found in ((named, {0, 2}), (replace(named, cases=datalist.cases), {1, 2})):
        folder = tmp_path / str(len(found)) / str(max(found - {2}))
        result = write_pseudo_labels(TwoStructures(), given, folder, axis=2, slice_size=(32, 32))
        (first, *_) = [case for case in result.of_split("training") if case.doubtful]
        assert found <= set(np.unique(np.asarray(nibabel.load(first.label).dataobj))) <= found | {0}
