"""DICOM SEG files as the labels of a training: sparse, named, and on no grid but that of their frames."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from aide_monai.io.dicom.seg import write_dicom_seg
from aide_monai.io.dicom.series import one_series
from aide_monai.io.location import open_location
from aide_monai.stream.preprocessing import volume_transforms
from aide_monai.utils.tensors import plain
from tests.bundles.doors import TRAINING, aide, as_options
from tests.bundles.layouts import UNET
from tests.io.dicom.dicom_files import write_series

NAMES = {1: "liver", 2: "tumour"}


def drawn(number: int) -> np.ndarray:
    """Marks in slices 2 and 3 of 6: the other slices are left out of a SEG."""
    label = np.zeros((32, 30, 6), dtype=np.uint8)
    label[8:20, 6 : 18 + number, 2:4], label[10:14, 8:12, 3] = 1, 2
    return label


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three series with a tilted plane, with labels as SEG: of any suffix, and of none."""
    for number, suffix in enumerate((".dcm", ".dcm", "")):
        label = drawn(number)
        image = np.random.default_rng(number).integers(0, 100, label.shape).astype("u2")
        series = tmp_path / "set" / "images" / f"c{number}"
        write_series(series, image + 200 * (label > 0).astype("u2"), spacing=(3, 3, 8), orientation="double-oblique")
        (tmp_path / "set" / "labels").mkdir(exist_ok=True)
        write_dicom_seg(tmp_path / "set" / "labels" / f"c{number}{suffix}", label, one_series(str(series)), NAMES)
    return tmp_path / "set"


def test_they_train_and_come_back_as_they_were_drawn(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = data / "list.json"
    assert aide("prepare", "folder", data, "--labeled", 2, "--out", listed) == 0
    noted = json.loads(listed.read_text())
    assert noted["labels"] == {"0": "background", "1": "liver", "2": "tumour"}
    aide("check", listed, "--out", tmp_path / "report")
    assert "0 errors" in capsys.readouterr().out

    for number, suffix in enumerate((".dcm", ".dcm", "")):
        record = {"image": str(data / "images" / f"c{number}"), "label": str(data / "labels" / f"c{number}{suffix}")}
        label = volume_transforms(axis=2, resample_labels=True)(record)["label"]
        np.testing.assert_array_equal(plain(label)[0], drawn(number))

    bundle, run = tmp_path / "mine", tmp_path / "run"
    assert aide("new-bundle", bundle, "--datalist", listed, "--root", data) == 0
    options = as_options({**UNET, **TRAINING})
    assert aide("train", bundle, *options, "--dataset_dir", listed, "--run_dir", run) == 0
    assert aide("labels", run, "--export", 0, tmp_path / "exported") == 0
    exported = sorted((tmp_path / "exported" / "network_1").iterdir())
    assert len(exported) == 2
    for file in exported:
        number = int(file.name[1])
        np.testing.assert_array_equal(nibabel.load(file).dataobj, drawn(number))


def test_one_of_a_tilted_gantry_lies_on_its_image(tmp_path: Path) -> None:
    """It has all slices and states no spacing, which along the normal would not be that from slice to slice."""
    label = drawn(0)
    write_series(tmp_path / "image", 100 * label.astype("u2"), spacing=(3, 3, 8), shear=(0, 2.5, 0))
    write_dicom_seg(tmp_path / "label.dcm", label, one_series(str(tmp_path / "image")), NAMES)
    measures = pydicom.dcmread(tmp_path / "label.dcm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert "SpacingBetweenSlices" not in measures
    transform = volume_transforms(axis=2, resample_labels=True)
    moved = transform({"image": str(tmp_path / "image"), "label": str(tmp_path / "label.dcm")})["label"]
    np.testing.assert_array_equal(plain(moved)[0], label)


def test_of_a_folder_its_file_is_to_be_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As archives ship it: the advice is followed by the file in place of the folder."""
    file, listed = data / "labels" / "c1.dcm", data / "list.json"
    (data / "labels" / "c1").mkdir()
    inside = file.rename(data / "labels" / "c1" / "1-1.dcm")
    assert aide("prepare", "folder", data, "--labeled", 2, "--out", listed) == 2
    assert "name the file of a segmentation, not its folder" in " ".join(capsys.readouterr().err.split())
    inside.rename(file)
    inside.parent.rmdir()
    assert aide("prepare", "folder", data, "--labeled", 2, "--out", listed) == 0


def test_an_image_is_none(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "labels" / "c0.dcm").rename(data / "images" / "c3.dcm")
    (data / "images" / "c0").rename(data / "labels" / "c3")
    assert aide("prepare", "folder", data, "--label-names", "1=liver,2=tumour", "--out", tmp_path / "list.json") == 2
    assert "c3.dcm: found a DICOM segmentation; expected an image" in capsys.readouterr().err


def test_a_datalist_by_hand_is_told_what_to_write(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = data / "list.json"
    assert aide("prepare", "folder", data, "--labeled", 2, "--out", listed) == 0
    noted = json.loads(listed.read_text())
    del noted["resample_labels"]
    listed.write_text(json.dumps(noted))
    capsys.readouterr()
    aide("check", listed, "--out", data.parent / "report")
    told = " ".join(capsys.readouterr().out.split())
    assert 'write "resample_labels": true into the datalist' in told
    assert "3 errors" in told
    listed.write_text(json.dumps({**noted, "resample_labels": True}))
    aide("check", listed, "--out", data.parent / "again")
    assert "0 errors" in capsys.readouterr().out


def test_one_that_leaves_open_where_its_slices_lie_is_refused_in_one_sentence(data: Path) -> None:
    file = data / "labels" / "c0.dcm"
    dataset = pydicom.dcmread(file)
    for measures in dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence:
        del measures.SpacingBetweenSlices
    dataset.save_as(file)
    with pytest.raises(ValueError, match="does not say how far its slices are apart") as error:
        open_location(str(file))
    assert str(error.value).count("found") <= 1
