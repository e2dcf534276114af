"""What lies in the folder of a download and is not used is named in one line with the reason, by every layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aide_monai.data.sources.domain_folders import domain_folders
from tests.bundles.doors import aide
from tests.bundles.layouts import write_cardiac, write_chaos, write_decathlon
from tests.data.sources import breast_files, nci_isbi_files, nnunet_files, promise12_files, qubiq_files
from tests.data.sources.breast_files import write_nifti
from tests.data.sources.promise12_files import prostate_volume


def volume(file: Path) -> None:
    write_nifti(file, prostate_volume(7)[0])


def chaos(root: Path) -> None:
    write_chaos(root)
    case = root / "Train_Sets/MR/37"
    shutil.copytree(case / "T1DUAL", case / "T2SPIR")
    volume(case / "T1DUAL/Ground/liver.nii")
    (root / "notes.txt").write_text("no image")


def promise12(root: Path) -> None:
    promise12_files.write_promise12(root, (0, 1, 13))
    promise12_files.write_case(root / "TestData", 1, segmentation=False)
    volume(root / "Case02.nii.gz")


def nci_isbi(root: Path) -> None:
    nci_isbi_files.write_nci_isbi(root, (1, 0, 1))
    patient = root / "PROSTATE-DIAGNOSIS" / "ProstateDx-01-0001"
    breast_files.write_series(patient / "scout", prostate_volume(9)[0], spacing=(2, 2, 9), names="s{}.dcm")
    truth = root / "Training" / "ProstateDx-01-0001.nrrd"
    shutil.copy(truth, truth.with_name("mean.nrrd"))
    volume(root / "Training" / "ProstateDx-01-0002.nii.gz")


def qubiq(root: Path) -> None:
    qubiq_files.write_qubiq(root, "prostate", cases=(2, 1))
    qubiq_files.write_qubiq(root, "kidney", cases=(2, 1))
    volume(root / "prostate/Training/case01/prior.nii.gz")


def breast(root: Path) -> None:
    breast_files.write_centres(root, {"GPPH": 2})
    breast_files.write_centres(root, {"HPPH": 1})
    breast_files.write_dicom_study(root / "GPPH/P003", 5)
    write_nifti(root / "GPPH/P003/label.nii.gz", breast_files.uptake(5)[1])
    breast_files.write_series(
        root / "GPPH/P003/map", prostate_volume(9)[0], spacing=(2, 2, 9), tags={"ImageType": ["DERIVED", "SECONDARY"]}
    )
    (root / "GPPH/P001/curve.mat").write_bytes(b"no image")


def decathlon(root: Path) -> None:
    write_decathlon(root)
    volume(root / "imagesTs" / "phantom_900.nii.gz")
    volume(root / "labelsTr" / "second_rater.nii.gz")


def nnunet(root: Path) -> None:
    nnunet_files.write_nnunet(root)
    (root / "imagesTr" / "notes.mat").write_bytes(b"no image")


def domains(root: Path) -> None:
    write_cardiac(root)
    volume(root / "third" / "images" / "a.nii.gz")
    volume(root / "acdc" / "a.nii.gz")


@pytest.mark.parametrize(
    ("write", "command", "told"),
    [
        (
            chaos,
            ["chaos", "."],
            "2 files and folders are not used: Train_Sets/MR/37/T1DUAL/Ground/liver.nii (no DICOM in a folder "
            "DICOM_anon and no PNG in a folder Ground of a case); Train_Sets/MR/37/T2SPIR/ (of another modality than "
            "T1DUAL)",
        ),
        (
            promise12,
            ["promise12", "."],
            "6 files and folders are not used: Case02.nii.gz (not called CaseXX.mhd or CaseXX_segmentation.mhd); "
            "Case13.mhd, Case13.raw, Case13_segmentation.mhd and 1 more (cases 13 to 25 repeat patients of Domain 2); "
            "TestData/ (test cases of the challenge, whose labels are not public)",
        ),
        (
            nci_isbi,
            ["nci-isbi", "."],
            "3 files and folders are not used: PROSTATE-DIAGNOSIS/ProstateDx-01-0001/scout/ (of another volume than "
            "the label was drawn on); Training/ProstateDx-01-0002.nii.gz (neither .nrrd nor in a folder of a patient); "
            "Training/mean.nrrd (labels without a patient ProstateDx-... or Prostate3T-... in their name)",
        ),
        (
            qubiq,
            ["qubiq", ".", "--task", "prostate", "--rater", "1"],
            "33 files and folders are not used: kidney/, prostate/Training/case01/task01_seg02.nii.gz, ",
        ),
        (
            qubiq,
            ["qubiq", ".", "--task", "prostate", "--rater", "majority", "--fused-dir", "../fused"],
            "prostate/Training/case01/prior.nii.gz (neither image.nii.gz nor taskXX_segXX.nii.gz)",
        ),
        (
            breast,
            ["breast", ".", "--centre", "GPPH"],
            "6 files and folders are not used: GPPH/P001/a.nii.gz, GPPH/P002/a.nii.gz, GPPH/P003/map/ and 1 more "
            "(phases that are not asked for, and images that are no phase); GPPH/P001/curve.mat (neither a phase nor a "
            "label); "
            "HPPH/ (of another centre)",
        ),
        (
            decathlon,
            ["decathlon", "."],
            "/imagesTs: 1 file is not used: phantom_900.nii.gz (not in the list)",
        ),
        (
            decathlon,
            ["decathlon", "."],
            "/labelsTr: 1 file is not used: second_rater.nii.gz (not in the list)",
        ),
        (
            nnunet,
            ["nnunet", "."],
            "/imagesTr: 1 file is not used: notes.mat (not called CASE_0000.nii.gz)",
        ),
        (
            domains,
            [],
            ": 1 folder is not used: third/ (no folder of a domain)",
        ),
        (
            domains,
            [],
            "/acdc: 1 file is not used: a.nii.gz (in none of images/, labels/ and unlabeled/)",
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_is_left_out_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    write: Callable[[Path], None],
    command: list[str],
    told: str,
) -> None:
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path / "set")
    write(tmp_path / "set")
    if command:
        assert aide("prepare", *command, "--out", tmp_path / "list.json") == 0
    else:
        domain_folders(".", domains={"A": "acdc", "B": "mscmr_lge"})
    assert told in "\n".join(caplog.messages)
