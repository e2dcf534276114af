"""nnU-Net's raw data folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aide_monai.cli.main import app, run
from aide_monai.data import image_records
from aide_monai.data.checks.datalist import check_datalist
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources import find_datalist, nnunet_datalist
from aide_monai.errors import InputError

from .nnunet_files import write_json, write_nnunet


def aide(*words: object) -> int:
    return run(lambda: app([str(word) for word in words], standalone_mode=False))


def roles(datalist: Datalist) -> dict[str, tuple[str, bool]]:
    return {case.name: (case.split, case.trusted) for case in datalist.cases}


def test_a_folder_is_recognised_with_its_channels_and_its_cases_without_a_label(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path / "Dataset007_Phantoms", test=2)
    datalist = find_datalist(folder)
    assert (datalist.name, datalist.labels) == ("Dataset007_Phantoms", {0: "background", 1: "organ"})
    assert datalist.modality == {0: "T1", 1: "T2"}
    assert roles(datalist) == {
        "phantom_002": ("training", True),
        "phantom_003": ("training", True),
        "phantom_004": ("training", True),
        "phantom_005": ("training", False),
        "phantom_000": ("training", False),  # of imagesTs, without a label
        "phantom_001": ("test", True),
    }
    assert datalist.cases[0].record() == {
        "case": "phantom_002",
        "image": [str(folder / f"imagesTr/phantom_002_000{channel}.nii.gz") for channel in (0, 1)],
        "label": str(folder / "labelsTr/phantom_002.nii.gz"),
        "quality": "high",
        "patient": "phantom_002",
        "split": "training",
    }
    assert [found for found in check_datalist(datalist) if found.severity == "error"] == []
    assert find_datalist(folder / "dataset.json") == datalist


def test_one_channel_is_a_path_and_values_may_stand_in_lists_of_one(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path / "data", channels=1)
    write_json(folder, labels={"background": 0, "organ": [1]}, name="Organs")
    datalist = nnunet_datalist(folder)
    assert (datalist.name, datalist.labels[1]) == ("Organs", "organ")
    assert datalist.cases[0].image == str(folder / "imagesTr/phantom_000_0000.nii.gz")


def test_files_that_the_json_names_may_lie_elsewhere(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path / "raw")
    (tmp_path / "raw" / "imagesTr").rename(tmp_path / "scans")
    cases = {
        f"p{number}": {
            "images": [f"../scans/phantom_00{number}_000{channel}.nii.gz" for channel in (0, 1)],
            "label": f"labelsTr/phantom_00{number}.nii.gz",
        }
        for number in (0, 1)
    }
    write_json(folder, dataset=cases, numTraining=2)
    with pytest.raises(InputError, match=r'case "p0".*name its folder as a root'):
        nnunet_datalist(folder)
    datalist = nnunet_datalist(folder, roots=[tmp_path])
    assert datalist.cases[1].images[1] == str(tmp_path / "scans/phantom_001_0001.nii.gz")
    assert datalist.cases[1].label == str(folder / "labelsTr/phantom_001.nii.gz")
    write_json(folder, dataset={"a": {"images": []}, "b": 7}, numTraining=None)
    with pytest.raises(InputError, match=r'"dataset", "a": found .*(\n.*)*"dataset", "b": found 7; expected') as caught:
        nnunet_datalist(folder)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]},
            ['"whole" as the region [1, 2]; expected one value per name', 'without "regions_class_order"'],
        ),
        ({"labels": {"background": 0, "organ": 1, "ignore": 1}}, ['"organ" and "ignore" for 1; expected one name']),
        ({"labels": {"background": 0, "organ": 2}}, ["the numbers [0, 2]; expected 0, 1, 2, ... without gaps"]),
        ({"labels": {"0": "background"}}, ["\"0\": 'background'; expected a whole number from 0"]),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, ['"a" and "b" for 1; expected one name per value']),
        ({"labels": None}, ['key "labels": found null; expected names with values']),
        ({"channel_names": None}, ['key "channel_names": found null']),
        ({"file_ending": ".png"}, ['key "file_ending": found ".png"; expected one of .nii.gz']),
        ({"numTraining": 9}, ['key "numTraining": found 9; expected 6, the number of its cases']),
    ],
)
def test_what_is_malformed_or_cannot_be_trained_on_is_told(
    tmp_path: Path, changes: dict[str, Any], told: list[str]
) -> None:
    folder = write_nnunet(tmp_path / "data")
    write_json(folder, **changes)
    with pytest.raises(InputError) as caught:
        find_datalist(folder)
    assert [part for part in told if part not in str(caught.value)] == []


def test_a_malformed_json_and_missing_files_are_one_report(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path / "data")
    write_json(folder, labels={"background": 0, "organ": 7}, numTraining=3)
    (folder / "imagesTr" / "phantom_002_0001.nii.gz").unlink()
    (folder / "labelsTr" / "other.nii.gz").touch()
    with pytest.raises(InputError) as caught:
        find_datalist(folder)
    told = ("the numbers [0, 7]", "_0000 to _0001", "other.nii.gz: found no image of this name in imagesTr/")
    assert [part for part in told if part not in str(caught.value)] == []
    assert len(caught.value.problems) == 3


def test_a_fold_of_splits_final_is_held_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_nnunet(tmp_path / "raw")
    names = [f"phantom_00{number}" for number in range(6)]
    folds = [{"train": names[1:3], "val": names[:1]}, {"train": names[:3], "val": names[3:5]}]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    assert {split for split, _ in roles(nnunet_datalist(folder)).values()} == {"training"}
    assert "no fold of it is used; name one by its number (--split-fold 0" in caplog.text
    out = tmp_path / "datalist.json"
    assert aide("prepare", "nnunet", folder, "--split-fold", 1, "--out", out) == 0
    found = roles(Datalist.load(out, roots=[folder]))
    assert {name for name, (split, _) in found.items() if split == "test"} == set(names[3:5])
    assert "phantom_005" in found  # without a label, so in no fold
    kept = roles(nnunet_datalist(folder, split_fold=0))
    assert set(kept) == {*names[:3], names[5]}
    assert "2 labelled cases in neither list of fold 0 are left out" in caplog.text
    elsewhere = (folder / "splits_final.json").rename(tmp_path / "splits.json")
    assert roles(nnunet_datalist(folder, split_fold=0, splits=elsewhere)) == kept


def test_frames_of_one_patient_are_not_parted_by_a_fold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_nnunet(tmp_path / "raw", unlabelled=0)
    for file in [file for file in folder.rglob("phantom_00*") if file.name[:11] < "phantom_002"]:
        file.rename(file.with_name(file.name.replace("phantom_00", "patient001_frame0")))
    fold = {"train": ["patient001_frame00", "phantom_002"], "val": ["patient001_frame01"]}
    (folder / "splits_final.json").write_text(json.dumps([fold]))
    out = tmp_path / "datalist.json"
    words = ("prepare", "nnunet", folder, "--split-fold", 0, "--out", out)
    assert aide(*words) == 2
    assert 'the same patient "patient001"' in " ".join(capsys.readouterr().err.split())
    assert aide(*words, "--patient-pattern", "(.+)") == 0


@pytest.mark.parametrize(
    ("folds", "told"),
    [
        ([{"train": ["phantom_000"], "val": ["phantom_000"]}], "a leak"),
        ([{"train": ["phantom_000"], "val": ["other"]}], 'case "other"'),
        ([{"train": ["phantom_000"], "val": ["phantom_005"]}], "to be held out without a label"),
        ([], "0 folds; expected a fold 0"),
        ([{"train": 3}], "found something else"),
        (None, "no such file"),
    ],
)
def test_a_fold_that_does_not_fit_is_told(tmp_path: Path, folds: Any, told: str) -> None:
    folder = write_nnunet(tmp_path / "raw")
    if folds is not None:
        (folder / "splits_final.json").write_text(json.dumps(folds))
    with pytest.raises(InputError) as caught:
        nnunet_datalist(folder, split_fold=0)
    assert told in str(caught.value)


def test_the_folder_of_the_images_alone_has_cases_of_all_channels(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path / "raw", test=2)
    assert image_records(folder / "imagesTs", channels=2) == [
        {"image": [str(folder / f"imagesTs/{case}_000{channel}.nii.gz") for channel in (0, 1)], "case": case}
        for case in ("phantom_000", "phantom_001")
    ]
    assert len(image_records(folder, channels=2)) == 6
    (folder / "imagesTs/phantom_001_0001.nii.gz").unlink()
    with pytest.raises(InputError, match="found the channels _0000; expected _0000 to _0001"):
        image_records(folder / "imagesTs")


def test_the_label_ignore_is_the_value_of_voxels_without_a_verdict(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path / "data", cases=3)
    write_json(folder, labels={"background": 0, "organ": 1, "ignore": 2})
    datalist = nnunet_datalist(folder)
    assert (datalist.labels, datalist.ignore) == ({0: "background", 1: "organ"}, 2)
