"""What is written for nnU-Net: folders that its own integrity check passes, and that are read back as they were.

Set AIDE_NNUNET_PYTHON to an interpreter with nnunetv2 to have its check run too; what it looks at is also checked here.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from aide_monai.data.datalist import Datalist
from aide_monai.data.sources import find_datalist
from aide_monai.io.location import open_location
from aide_monai.labels import LabelStore
from aide_monai.stream.preprocessing import load_volumes, volume_transforms
from aide_monai.workflows.nnunet import write_nnunet
from tests.bundles.doors import TRAINING, aide
from tests.bundles.layouts import UNET, write_chaos, write_decathlon, write_own_data
from tests.data.sources import nnunet_files

_CHECK = (
    "import sys; from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity as check\n"
    "if __name__ == '__main__': check(sys.argv[1], 1)"
)


def require_sound(folder: Path, channels: int, values: set[int]) -> None:
    """What nnU-Net's ``verify_dataset_integrity`` looks at, as the files read by SimpleITK have it."""
    content = json.loads((folder / "dataset.json").read_text())
    labels = sorted((folder / "labelsTr").iterdir())
    assert content["numTraining"] == len(labels) == len(list((folder / "imagesTr").iterdir())) / channels
    assert sorted(content["labels"].values()) == list(range(len(content["labels"])))
    assert content["labels"]["background"] == 0
    assert len(content["channel_names"]) == channels
    found: set[int] = set()
    for file in labels:
        label = sitk.ReadImage(str(file))
        assert "unsigned" in label.GetPixelIDTypeAsString()
        found |= set(np.unique(sitk.GetArrayFromImage(label)).tolist())
        for channel in range(channels):
            name = file.name.replace(".nii.gz", f"_{channel:04d}.nii.gz")
            image = sitk.ReadImage(str(folder / "imagesTr" / name))
            assert image.GetSize() == label.GetSize()
            for what in ("GetSpacing", "GetOrigin", "GetDirection"):
                assert np.allclose(getattr(image, what)(), getattr(label, what)(), atol=1e-5), what
    assert found == values
    if python := os.environ.get("AIDE_NNUNET_PYTHON"):
        script = folder.parent / "integrity.py"
        script.write_text(_CHECK)
        checked = subprocess.run([python, script, folder], capture_output=True, text=True, timeout=300, check=False)
        assert "verify_dataset_integrity Done" in checked.stdout, checked.stdout + checked.stderr
        assert "Warning" not in checked.stdout, checked.stdout


def test_a_folder_is_written_as_it_was_read(tmp_path: Path) -> None:
    given = find_datalist(nnunet_files.write_nnunet(tmp_path / "given", test=2))
    out = tmp_path / "nnUNet_raw" / "Dataset101_Phantoms"
    assert aide("prepare", "nnunet", tmp_path / "given", "--out", out, "--as", "nnunet") == 0
    require_sound(out, 2, {0, 1})
    back = find_datalist(out)
    assert (back.labels, back.modality) == (given.labels, given.modality)
    places = {case.name: (case.split, case.trusted) for case in given.cases}
    assert {case.name: (case.split, case.trusted) for case in back.cases} == places
    for case in given.cases:
        other = next(one for one in back.cases if one.name == case.name)
        for mine, written in zip((*case.images, *case.labels), (*other.images, *other.labels), strict=True):
            first, second = open_location(mine), open_location(written)
            assert np.array_equal(first.decode(), second.decode())
            assert first.grid.mismatch(second.grid) is None


def test_voxels_without_a_verdict_become_the_last_label(tmp_path: Path) -> None:
    given = nnunet_files.write_nnunet(tmp_path / "given", cases=3)
    datalist = find_datalist(given)
    for case in datalist.cases:
        if case.label:
            image = sitk.ReadImage(case.label)
            drawn = sitk.GetArrayFromImage(image).astype(np.uint8)
            drawn[:, :9] = 7
            label = sitk.GetImageFromArray(drawn)
            label.CopyInformation(image)
            sitk.WriteImage(label, case.label)
    out = tmp_path / "nnUNet_raw" / "Dataset105_Ignore"
    write_nnunet(replace(datalist, ignore=7), out)
    require_sound(out, 2, {0, 1, 2})
    assert json.loads((out / "dataset.json").read_text())["labels"] == {"background": 0, "organ": 1, "ignore": 2}
    assert find_datalist(out).ignore == 2


def test_two_echoes_of_dicom_and_labels_of_63(tmp_path: Path) -> None:
    write_chaos(tmp_path / "chaos")
    out = tmp_path / "Dataset102_Liver"
    words = ("prepare", "chaos", tmp_path / "chaos", "--labeled", 2, "--test", 1, "--out", out, "--as", "nnunet")
    assert aide(*words) == 0
    require_sound(out, 2, {0, 1})
    content = json.loads((out / "dataset.json").read_text())
    assert (content["labels"]["liver"], content["channel_names"]["0"]) == (1, "T1 in-phase")
    assert len(list((out / "imagesTs").iterdir())) == 4  # the case to judge by, and the one whose label is hidden
    assert len(list((out / "labelsTs").iterdir())) == 1
    given = find_datalist(out).of_split("training")[0]
    image = open_location(
        str(tmp_path / f"chaos/Train_Sets/MR/{given.name.removeprefix('MR-')}/T1DUAL/DICOM_anon/InPhase")
    )
    written = open_location(given.images[0])
    assert written.grid.mismatch(image.grid) is None
    assert np.array_equal(written.decode(), image.decode())


def test_channels_in_one_file_are_parted_and_validation_cases_are_a_fold(tmp_path: Path) -> None:
    write_own_data(tmp_path)
    datalist = Datalist.load(tmp_path / "datalist.json")
    datalist.cases[1] = replace(datalist.cases[1], split="validation")
    write_nnunet(datalist, tmp_path / "Dataset103_Mine")
    require_sound(tmp_path / "Dataset103_Mine", 2, {0, 1})
    (fold,) = json.loads((tmp_path / "Dataset103_Mine" / "splits_final.json").read_text())
    assert fold == {"train": ["case_0"], "val": ["case_1"]}
    both = open_location(str(tmp_path / "image_0.nii.gz")).decode()
    for channel in (0, 1):
        written = open_location(str(tmp_path / f"Dataset103_Mine/imagesTr/case_0_000{channel}.nii.gz")).decode()
        assert np.array_equal(written[..., 0], both[..., channel])


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_decathlon(tmp_path / "data")
    content = json.loads((tmp_path / "data" / "dataset.json").read_text())
    content["labels"]["1"] = "ignore"
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(content))
    words = ("prepare", "decathlon", tmp_path / "data", "--out", tmp_path / "out", "--as")
    assert aide(*words, "nnunet") == 2
    assert 'the class name "ignore"; expected another one' in " ".join(capsys.readouterr().err.split())
    assert aide(*words, "nnunetv1") == 2
    assert "--as is 'nnunetv1'; expected one of datalist, nnunet" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert aide(*words, "nnunet") == 2
    assert "is not an empty folder; choose a new one for the data set" in " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set with its own three classes, of which the bundle that is trained on it makes one; and the run."""
    root = tmp_path_factory.mktemp("trained")
    write_decathlon(root / "data")
    content = json.loads((root / "data" / "dataset.json").read_text())
    content["labels"] = {"0": "background", "1": "front", "2": "back"}
    (root / "data" / "dataset.json").write_text(json.dumps(content))
    options = {**UNET, **TRAINING, "labeled": 2, "unlabeled": 2, "profile": "paper", "epochs": 5}
    bundle = Path(__file__).parents[2] / "bundles" / "hippocampus_ssl"
    assert aide("train", bundle, "--dataset-dir", root / "data", "--run-dir", root / "run", **options) == 0
    return root / "data", root / "run"


def test_labels_of_a_run_are_written_with_their_images(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = trained
    store = LabelStore.from_volumes(
        load_volumes(
            Datalist.load(run / "standardized" / "datalist.json", roots=[data]).split("training"),
            volume_transforms(axis=2, slice_size=(32, 32), classes={1: 1, 2: 1}),
        ),
        folder=run / "labels",
        resume=True,
    )
    doubtful = next(case for case in store.cases if case not in store.high_quality)
    store.replace(2, doubtful, torch.ones_like(store.label(2, doubtful)), epoch=9, dice_before=0.5)
    last = store.commit(9)
    shared = ("labels", run, "--export", last)
    for network in (1, 2):
        out = tmp_path / f"Dataset10{network}_Corrected"
        words = (*shared, out, "--as", "nnunet", "--network", network, "--root", data)
        assert aide(*words) == 0
        require_sound(out, 1, {0, 1})
        assert json.loads((out / "dataset.json").read_text())["labels"] == {"background": 0, "hippocampus": 1}
        assert aide("labels", run, "--export", last, tmp_path / f"alone_{network}") == 0
        for file in (out / "labelsTr").iterdir():
            alone = open_location(str(tmp_path / f"alone_{network}/network_{network}/{file.name}"))
            assert np.array_equal(open_location(str(file)).decode(), alone.decode())
    filled = open_location(str(tmp_path / f"Dataset102_Corrected/labelsTr/{doubtful}.nii.gz")).decode()
    assert filled.all()


def test_labels_whose_images_are_not_found(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = trained
    words = ("labels", run, "--export", 0, tmp_path / "out", "--as", "nnunet")
    assert aide(*words) == 2
    assert "name its folder as a root (--root DIR" in " ".join(capsys.readouterr().err.split())
    assert aide(*words, "--network", 3) == 2
    assert "network is 3; expected one of 1, 2" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "run").mkdir()
    (run / "labels").rename(tmp_path / "run" / "labels")
    try:
        assert aide("labels", tmp_path / "run", "--export", 0, tmp_path / "out", "--as", "nnunet") == 2
        assert "does not know the images of its cases" in " ".join(capsys.readouterr().err.split())
    finally:
        (tmp_path / "run" / "labels").rename(run / "labels")
    assert aide("labels", run, "--as", "nnunet") == 2
    assert "found --as nnunet without --export" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
