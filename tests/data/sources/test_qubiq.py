"""QUBIQ from its download: splits, raters, channels, and what is told about damaged masks."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged

from aide_monai.data.checks.datalist import check_datalist, require_valid
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.qubiq import qubiq_cases, qubiq_datalist
from aide_monai.errors import InputError
from aide_monai.io.readers import VolumeReader
from aide_monai.transforms import AsClassIndicesd

from .qubiq_files import CASES, write_case, write_qubiq


def cases(datalist: Datalist, split: str = "training") -> list[str]:
    return [record["case"] for record in datalist.split(split)]


def rewrite(file: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), np.eye(4) if affine is None else affine), file)


@pytest.mark.parametrize("task", CASES)
def test_the_folders_are_the_papers_splits(tmp_path: Path, task: str) -> None:
    datalist = qubiq_datalist(write_qubiq(tmp_path, task), task=task, rater=1)
    assert (len(datalist.split("training")), len(datalist.split("test"))) == CASES[task]


def test_one_rater(tmp_path: Path) -> None:
    datalist = qubiq_datalist(write_qubiq(tmp_path, "brain-growth", cases=(2, 1)), task="brain-growth", rater=2)
    folder = tmp_path / "brain-growth"
    assert datalist.name == "QUBIQ brain growth"
    assert (datalist.labels, datalist.modality) == ({0: "background", 1: "brain growth"}, {0: "MR"})
    assert datalist.records[0] == {
        "case": "case01",
        "image": str(folder / "Training/case01/image.nii.gz"),
        "label": str(folder / "Training/case01/task01_seg02.nii.gz"),
        "quality": "low",
        "rater": "2",
        "patient": "case01",
        "split": "training",
    }
    assert datalist.records[2] == {
        "case": "case03",
        "image": str(folder / "Validation/case03/image.nii.gz"),
        "label": str(folder / "Validation/case03/task01_seg02.nii.gz"),
        "quality": "high",
        "rater": "2",
        "patient": "case03",
        "split": "test",
    }
    assert require_valid(datalist) == []
    assert qubiq_datalist(folder, rater="2").records == datalist.records


def test_each_rater_is_a_record_of_the_same_patient(tmp_path: Path) -> None:
    datalist = qubiq_datalist(write_qubiq(tmp_path, "kidney", cases=(2, 1)), task="kidney")
    assert [(record["case"], record["patient"], record["rater"]) for record in datalist.records[:4]] == [
        ("case01_rater1", "case01", "1"),
        ("case01_rater2", "case01", "2"),
        ("case01_rater3", "case01", "3"),
        ("case02_rater1", "case02", "1"),
    ]
    assert len({record["label"] for record in datalist.records}) == 9
    assert cases(datalist, "test") == ["case03_rater1", "case03_rater2", "case03_rater3"]
    assert datalist.modality == {0: "CT"}
    assert require_valid(datalist) == []


@pytest.mark.parametrize("method", ["majority", "mean", "staple"])
def test_fused_labels_are_written_outside_the_download(tmp_path: Path, method: str) -> None:
    """Raters draw one disc, each wider than the last: the vote of three is the second one's mask."""
    root = write_qubiq(tmp_path / "set", "kidney", cases=(1, 1))
    before = sorted(root.rglob("*"))
    datalist = qubiq_datalist(root, task="kidney", rater=method, fused_dir=tmp_path / "fused")
    record = datalist.records[0]
    assert record["label"] == str(tmp_path / "fused" / "kidney" / f"case01_task01_{method}.nii.gz")
    assert (record["rater"], record["quality"]) == (method, "high")
    fused = nibabel.load(record["label"]).get_fdata()
    masks = [
        nibabel.load(root / "kidney/Training/case01" / f"task01_seg0{rater}.nii.gz").get_fdata() for rater in (1, 2, 3)
    ]
    expected = np.mean(masks, axis=0) if method == "mean" else masks[1]
    assert fused == pytest.approx(expected)
    assert sorted(root.rglob("*")) == before


def test_a_reference_beside_one_rater(tmp_path: Path) -> None:
    """The paper's setting: trained on one rater, measured against all."""
    root = write_qubiq(tmp_path / "set", "brain-growth", cases=(2, 1))
    datalist = qubiq_datalist(root, task="brain-growth", rater=1, reference="majority", fused_dir=tmp_path / "fused")
    training, test = datalist.split("training"), datalist.split("test")
    assert [record["rater"] for record in datalist.records] == ["1", "1", "majority"]
    assert training[0]["label"].endswith("task01_seg01.nii.gz")
    assert training[0]["clean_label"] == str(tmp_path / "fused/brain-growth/case01_task01_majority.nii.gz")
    assert test[0]["label"] == str(tmp_path / "fused/brain-growth/case03_task01_majority.nii.gz")
    assert "clean_label" not in test[0]
    assert require_valid(datalist) == []
    each = qubiq_datalist(root, task="brain-growth", reference="majority", fused_dir=tmp_path / "fused")
    assert cases(each, "test") == ["case03"]
    assert len(each.split("training")) == 14


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rater": "majority"},
            "fused labels are new files: name a folder for them, outside the download, by fused_dir",
        ),
        ({"rater": 1, "reference": "mean"}, "fused labels are new files"),
        ({"rater": "vote"}, "rater='vote': expected the number of a rater, majority, mean, staple, or None for each"),
        ({"rater": -1}, "rater=-1: expected the number"),
        ({"reference": "1"}, "reference='1': expected one of majority, mean, staple, or None"),
        ({"rater": 9}, "rater=9: nobody of this number; the raters are 1, 2, 3"),
        ({"subtask": 2}, r"case01: found no mask task02_segXX\.nii\.gz; there are masks of task 1"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, object], message: str) -> None:
    write_qubiq(tmp_path, "kidney", cases=(1, 1))
    with pytest.raises(InputError, match=message):
        qubiq_datalist(tmp_path, task="kidney", **options)


def test_a_subtask_has_masks_of_its_own(tmp_path: Path) -> None:
    datalist = qubiq_datalist(write_qubiq(tmp_path, "prostate", cases=(1, 1)), task="prostate", subtask=2, rater=1)
    assert datalist.records[0]["label"].endswith("task02_seg01.nii.gz")
    assert datalist.labels == {0: "background", 1: "prostate 2"}


def test_a_subject_without_one_rater(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_qubiq(tmp_path / "set", "prostate", cases=(3, 1))
    with caplog.at_level(logging.WARNING):
        datalist = qubiq_datalist(root, task="prostate", rater=6)
    assert "training case case03 has no mask of rater 6" in caplog.text
    assert "case03: rater 6 did not annotate it; kept without a label" in caplog.text
    assert [("label" in record, "quality" in record) for record in datalist.records] == [
        (True, True),
        (True, True),
        (False, False),
        (True, True),
    ]
    assert len(qubiq_datalist(root, task="prostate").split("training")) == 6 + 6 + 5
    fused = qubiq_datalist(root, task="prostate", rater="mean", fused_dir=tmp_path / "fused")
    values = np.unique(nibabel.load(fused.records[2]["label"]).get_fdata())
    assert values == pytest.approx(np.arange(6) / 5)


def test_a_test_case_without_the_rater_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_qubiq(tmp_path, "prostate", cases=(2, 1))
    assert cases(qubiq_datalist(root, task="prostate", rater=6), "test") == []
    assert "test case case03: rater 6 did not annotate it; left out" in caplog.text


def test_a_brain_tumour_has_four_channels_in_one_file(tmp_path: Path) -> None:
    datalist = qubiq_datalist(write_qubiq(tmp_path, "brain-tumor", cases=(2, 1)), task="brain-tumor", rater=1)
    file = tmp_path / "brain-tumor/Training/case01/image.nii.gz"
    record = datalist.records[0]
    assert record["image"] == [f"{file}#channel={channel}" for channel in range(4)]
    assert list(datalist.modality) == [0, 1, 2, 3]
    read = Compose([LoadImaged(["image", "label"], reader=VolumeReader, ensure_channel_first=True)])
    loaded = AsClassIndicesd("label", image_key="image")(read(record))
    assert loaded["image"].shape == (4, 16, 16, 1)
    assert np.array_equal(loaded["image"][2, ..., 0].numpy(), nibabel.load(file).get_fdata()[..., 2])
    assert loaded["label"].shape == (1, 16, 16, 1)


def test_channels_on_a_fourth_axis(tmp_path: Path) -> None:
    root = write_qubiq(tmp_path, "brain-tumor", cases=(1, 1))
    for file in root.rglob("*.nii.gz"):
        voxels = nibabel.load(file).get_fdata()
        rewrite(file, voxels[:, :, None])
    datalist = qubiq_datalist(root, task="brain-tumor", rater=1)
    record = datalist.records[0]
    assert record["image"] == str(root / "brain-tumor/Training/case01/image.nii.gz")
    assert len(datalist.modality) == 4
    loaded = LoadImaged(["image", "label"], reader=VolumeReader, ensure_channel_first=True)(record)
    assert loaded["image"].shape == (4, 16, 16, 1)


@pytest.mark.parametrize(("task", "shape"), [("kidney", (18, 18)), ("prostate", (20, 16)), ("brain-growth", (16, 16))])
def test_flat_files_become_slices(tmp_path: Path, task: str, shape: tuple[int, int]) -> None:
    record = qubiq_datalist(write_qubiq(tmp_path, task, cases=(1, 1)), task=task, rater=1).records[0]
    loaded = LoadImaged(["image", "label"], reader=VolumeReader, ensure_channel_first=True)(record)
    assert loaded["image"].shape == loaded["label"].shape == (1, *shape, 1)
    if task == "kidney":
        assert loaded["image"].min() < 0


def test_the_two_archives_unpack_to_two_folders(tmp_path: Path) -> None:
    write_qubiq(tmp_path, "kidney", cases=(2, 1), archives=True)
    datalist = qubiq_datalist(tmp_path, task="kidney", rater=1)
    assert (cases(datalist), cases(datalist, "test")) == (["case01", "case02"], ["case03"])
    write_case(tmp_path / "training_data_v3/kidney/Training/case01", "kidney", seed=1)
    with pytest.raises(InputError, match=r"Training: found .*v2/kidney/Training, .*v3/kidney/Training; expected one"):
        qubiq_datalist(tmp_path, task="kidney", rater=1)


def test_numbers_that_start_anew_in_validation(tmp_path: Path) -> None:
    write_case(tmp_path / "kidney/Training/case01", "kidney", seed=1)
    write_case(tmp_path / "kidney/Validation/case01", "kidney", seed=2)
    datalist = qubiq_datalist(tmp_path, task="kidney", rater=1)
    assert [record["case"] for record in datalist.records] == ["training_case01", "test_case01"]
    assert require_valid(datalist) == []


def test_an_image_in_both_splits_is_a_leak(tmp_path: Path) -> None:
    """Also when one copy was windowed to 8 bit."""
    root = write_qubiq(tmp_path, "kidney", cases=(2, 1)) / "kidney"
    shutil.copytree(root / "Training/case02", root / "Validation/case09")
    image = root / "Validation/case09/image.nii.gz"
    voxels = nibabel.load(image).get_fdata()
    rewrite(image, np.round(np.clip((voxels + 1024) / 4, 0, 255)))
    with pytest.raises(InputError) as caught:
        qubiq_datalist(root, rater=1)
    assert str(caught.value).splitlines() == [
        f"{root}: QUBIQ cannot be used: 1 problem",
        f"  - {root}/Training/case02 and {root}/Validation/case09: one image in two cases, in training and in "
        "validation: a leak; remove one of the two",
    ]
    (root / "Validation/case09").rename(root / "Training/case09")
    assert len(qubiq_datalist(root, rater=1).split("training")) == 3


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    root = write_qubiq(tmp_path, "brain-growth", cases=(8, 1)) / "brain-growth/Training"
    (root / "case01/image.nii.gz").unlink()
    for file in (root / "case02").glob("task*"):
        file.unlink()
    rewrite(root / "case03/task01_seg01.nii.gz", np.full((16, 16, 1), 0.4))
    rewrite(root / "case03/task01_seg02.nii.gz", np.full((16, 16, 1), 255))
    rewrite(root / "case04/task01_seg03.nii.gz", np.zeros((16, 15, 1)))
    rewrite(root / "case05/task01_seg07.nii.gz", np.zeros((16, 16, 1)), np.diag([2, 2, 2, 1]))
    (root / "case06/task01_seg04.nii.gz").write_bytes(b"nothing")
    (root / "case07/image.nii.gz").write_bytes(b"nothing")
    shutil.copy(root / "case08/task01_seg01.nii.gz", root / "case08/task1_seg1.nii.gz")
    with pytest.raises(InputError) as caught:
        qubiq_datalist(root.parent, rater=1)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{root.parent}: QUBIQ cannot be used: 9 problems"
    for line, part in zip(
        lines[1:],
        (
            f"{root}/case01: found 0 files image.nii.gz or image.nii; expected one",
            f"{root}/case02: found no mask task01_segXX.nii.gz",
            f"{root}/case03/task01_seg01.nii.gz: found the values 0.4; expected a mask of 0 and 1",
            f"{root}/case03/task01_seg02.nii.gz: found the values 255; expected a mask of 0 and 1",
            f"{root}/case04/task01_seg03.nii.gz: found shape 16 x 15 x 1; expected the grid of image.nii.gz, 16 x 16",
            f"{root}/case05/task01_seg07.nii.gz: found affine [2 0 0 0; 0 2 0 0; 0 0 2 0]; expected that of image",
            f"{root}/case06/task01_seg04.nii.gz: found a header that cannot be read",
            f"{root}/case07/image.nii.gz: found a header that cannot be read",
            f"{root}/case08/task1_seg1.nii.gz: found the same rater as in task01_seg01.nii.gz; remove one of the two",
        ),
        strict=True,
    ):
        assert line.startswith(f"  - {part}")


def test_a_case_with_another_number_of_channels(tmp_path: Path) -> None:
    root = write_qubiq(tmp_path, "brain-tumor", cases=(3, 1)) / "brain-tumor"
    image = root / "Training/case02/image.nii.gz"
    rewrite(image, nibabel.load(image).get_fdata()[..., :2])
    with pytest.raises(
        InputError, match=r'training/case02": found 2 channels in image\.nii\.gz; expected 4 as in most'
    ):
        qubiq_datalist(root, rater=1)


def test_masks_that_read_back_inexactly_are_fine(tmp_path: Path) -> None:
    root = write_qubiq(tmp_path, "kidney", cases=(1, 1)) / "kidney"
    file = root / "Training/case01/task01_seg01.nii.gz"
    rewrite(file, nibabel.load(file).get_fdata() * 0.9999)
    datalist = qubiq_datalist(root, rater=1)
    assert check_datalist(datalist) == []


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    root = write_qubiq(tmp_path / "set", "kidney", cases=(1, 1)) / "kidney"
    outside = tmp_path / "outside"
    write_case(outside, "kidney", seed=5)
    (root / "Training/case07").symlink_to(outside)
    with pytest.raises(
        InputError, match=rf"Training/case07: found a link to {outside}, outside {root}/Training; put the"
    ):
        qubiq_datalist(root, rater=1)


def test_nothing_to_find(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match=r"none: found no such folder; expected TASK/Training/caseXX"):
        qubiq_datalist(tmp_path / "none")
    with pytest.raises(InputError, match=r"no folder kidney/Training or Validation; expected TASK/Training/caseXX"):
        qubiq_datalist(tmp_path, task="kidney")
    write_qubiq(tmp_path, "kidney", cases=(1, 0))
    with pytest.raises(InputError, match="no folder Training or Validation, but the tasks kidney; name one by task"):
        qubiq_datalist(tmp_path)
    assert len(qubiq_datalist(tmp_path, task="kidney", rater=1).records) == 1
    assert "no folder Validation of kidney; its cases are missing" in caplog.text
    (tmp_path / "kidney/Validation").mkdir()
    with pytest.raises(InputError, match=r"kidney/Validation: found no case folders"):
        qubiq_datalist(tmp_path, task="kidney", rater=1)


def test_all_masks_of_a_case(tmp_path: Path) -> None:
    found = qubiq_cases(write_qubiq(tmp_path, "kidney", cases=(1, 1)), task="kidney")
    assert [(case.case, case.split, list(case.masks)) for case in found] == [
        ("case01", "training", [1, 2, 3]),
        ("case02", "test", [1, 2, 3]),
    ]


def test_real_brain_growth(aide_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    datalist = qubiq_datalist(
        aide_data / "qubiq", task="brain-growth", rater=4, reference="majority", fused_dir=tmp_path
    )
    assert (len(datalist.split("training")), len(datalist.split("test"))) == (34, 5)
    assert check_datalist(datalist) == []
    assert caplog.text == ""
    assert len(qubiq_datalist(aide_data / "qubiq" / "brain-growth").records) == 39 * 7
