"""The Decathlon's layout, and how a layout is recognised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from aide_monai.data.checks.datalist import check_datalist
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources import decathlon_datalist, find_datalist
from aide_monai.errors import InputError
from aide_monai.io.location import without_suffix


def written(folder: Path, **changes: Any) -> Path:
    content = {
        "name": "Liver",
        "description": "made up",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver"},
        "numTraining": 1,
        "training": [{"image": "./imagesTr/liver_1.nii.gz", "label": "./labelsTr/liver_1.nii.gz"}],
        "test": ["./imagesTs/liver_2.nii.gz"],
        **changes,
    }
    (folder / "dataset.json").write_text(
        json.dumps({key: value for key, value in content.items() if value is not None})
    )
    return folder


def test_plain_test_entries_become_unlabelled_training_cases(tmp_path: Path) -> None:
    datalist = decathlon_datalist(written(tmp_path))
    assert (datalist.name, datalist.labels, datalist.modality) == ("Liver", {0: "background", 1: "liver"}, {0: "CT"})
    assert datalist.records == [
        {
            "case": "liver_1",
            "image": str(tmp_path / "imagesTr/liver_1.nii.gz"),
            "label": str(tmp_path / "labelsTr/liver_1.nii.gz"),
            "quality": "high",
            "split": "training",
        },
        {"case": "liver_2", "image": str(tmp_path / "imagesTs/liver_2.nii.gz"), "split": "training"},
    ]


def test_labelled_cases_keep_their_section(tmp_path: Path) -> None:
    entries = {name: [{"image": f"{name}.nii", "label": f"{name}_label.nii"}] for name in ("validation", "test")}
    datalist = decathlon_datalist(written(tmp_path, **entries))
    assert [record["split"] for record in datalist.records] == ["training", "validation", "test"]


def test_several_modalities_are_one_file_or_a_list(tmp_path: Path) -> None:
    training = [{"image": "a.nii"}, {"image": ["b_T1.nii", "b_T2.nii"], "label": "b.nii"}]
    datalist = decathlon_datalist(written(tmp_path, modality={"0": "T1", "1": "T2"}, training=training, test=None))
    assert [record["image"] for record in datalist.records] == [
        str(tmp_path / "a.nii"),
        [str(tmp_path / "b_T1.nii"), str(tmp_path / "b_T2.nii")],
    ]
    voxels = np.random.default_rng(0).normal(size=(4, 4, 4, 2))
    for name, volume in (
        ("a", voxels),
        ("b_T1", voxels[..., 0] + 1),
        ("b_T2", voxels[..., 1]),
        ("b", np.indices((4, 4, 4)).sum(axis=0) == 3),
    ):
        nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii")
    assert check_datalist(datalist) == []


def test_all_that_is_malformed_is_told_at_once(tmp_path: Path) -> None:
    training = [{"label": "a.nii"}, {"image": "a.nii", "label": 3}, {"image": "../b.nii", "label": "b.nii"}, 7]
    with pytest.raises(InputError) as caught:
        decathlon_datalist(written(tmp_path, labels={"background": 0}, modality=None, training=training, test={"a": 1}))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'dataset.json'}: the data set cannot be used: 7 problems")
    for part in (
        'key "labels": found the number "background"; expected names of whole numbers',
        'key "modality": found null; expected numbers with names',
        "training[0]: found {'label': 'a.nii'}; expected {\"image\": path",
        'training[1]: found "label": 3; expected a path',
        'training[2]: found path "../b.nii", which leads to',
        "training[3]: found 7; expected",
        'key "test": found no list; expected a list of cases',
    ):
        assert part in message


def test_files_outside_need_a_root(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "imagesTr").mkdir()
    (folder / "imagesTr").symlink_to(tmp_path / "imagesTr")
    written(folder)
    with pytest.raises(InputError, match="name its folder as a root"):
        find_datalist(folder)
    assert find_datalist(folder, roots=[tmp_path]).records[0]["image"] == str(folder / "imagesTr/liver_1.nii.gz")


def test_two_images_of_one_name(tmp_path: Path) -> None:
    written(tmp_path, test=["imagesTs/liver_1.nii.gz"])
    with pytest.raises(InputError, match='case "liver_1" twice, in'):
        decathlon_datalist(tmp_path)


def test_no_dataset_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset\.json: found no such file"):
        decathlon_datalist(tmp_path)


@pytest.mark.parametrize(
    ("file", "name"), [("x/a.nii.gz", "a"), ("a.b.NII", "a.b"), ("a.mhd", "a"), ("a.nrrd", "a"), ("a.png", "a.png")]
)
def test_case_names(file: str, name: str) -> None:
    assert without_suffix(file) == name


def test_real_hippocampus(aide_data: Path) -> None:
    datalist = decathlon_datalist(aide_data / "msd_hippocampus")
    assert len(datalist.split("training")) == len(datalist.records) == 100
    assert datalist.num_classes == 3
    assert datalist.records[0]["case"] == "hippocampus_001"


def test_find_datalist_tells_the_layouts_apart(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "images").mkdir()
    decathlon = find_datalist(tmp_path)
    assert decathlon.name == "Liver"
    assert find_datalist(tmp_path / "dataset.json") == decathlon
    Datalist("own", {0: "background"}, {0: "CT"}, decathlon.records).save(tmp_path / "datalist.json")
    assert find_datalist(tmp_path).name == "own"
    (tmp_path / "datalist.json").rename(tmp_path / "dataset.json")
    assert find_datalist(tmp_path).name == "own"


def test_find_datalist_says_what_it_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: found no such folder; expected one with a datalist\.json"):
        find_datalist(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"found an empty folder; expected a datalist\.json"):
        find_datalist(tmp_path)
    (tmp_path / "scans").mkdir()
    for index in range(11):
        (tmp_path / f"{index:02d}.dcm").touch()
    with pytest.raises(InputError, match=r"no known layout, but 00.dcm, .*09.dcm and 2 more; expected .* labels/"):
        find_datalist(tmp_path)
