"""A bundle meets volumes that are stored otherwise than those of its training, or that are unlike them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.reports.tables import read_csv
from tests.bundles.doors import ROOT, TRAINING, aide, monai_bundle_run, write_undecided_weights
from tests.bundles.layouts import UNET
from tests.io.dicom.dicom_files import write_series

BUNDLE = ROOT / "hippocampus_ssl"
STORED = ("RAS", "LAS", "LPS", "SRA", "ASR", "PIR", "RSA", "SPL")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder with what a training noted of its volumes; the weights mark about half of a volume."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_phantoms(folder / "data", cases=4, shape=(32, 30, 6), spacing_mm=(3, 3, 8))
    options = {**UNET, "dataset_dir": str(data)}
    assert aide("train", BUNDLE, **options, **TRAINING, labeled=1, unlabeled=2, run_dir=str(folder / "run")) == 0
    noted = json.loads((folder / "run" / "models" / "model.json").read_text())
    assert noted["training_data#orientations"] == {"RAS": 3}
    assert noted["training_data#through_plane"] == 2
    assert noted["training_data#spacing"] == [[3, 3], [3, 3], [8, 8]]
    assert noted["training_data#modality"] == ["MR"]
    write_undecided_weights(BUNDLE, folder / "undecided", **UNET, dataset_dir=str(data / "imagesTr"))
    shutil.copy(folder / "run" / "models" / "model.json", folder / "undecided" / "models")
    return folder


def stored_as(image: nibabel.Nifti1Image, codes: str) -> nibabel.Nifti1Image:
    now, then = nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nibabel.orientations.ornt_transform(now, then))


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was told of volumes, line by line, by the log of the bundle."""
    return [line.split("trained_on: ")[1] for line in capsys.readouterr().err.splitlines() if "trained_on: " in line]


@pytest.mark.parametrize("door", ["aide predict", "monai.bundle run"])
@pytest.mark.parametrize("fit", ["pad", "resize"])
def test_a_scan_gets_one_mask_however_its_axes_are_stored(door, fit, trained, tmp_path):
    scan = nibabel.load(trained / "data" / "imagesTr" / "phantom_003.nii.gz")
    (tmp_path / "scans").mkdir()
    for codes in STORED:
        nibabel.save(stored_as(scan, codes), tmp_path / "scans" / f"{codes}.nii.gz")
    run = tmp_path / "run"
    shutil.copytree(trained / "undecided", run)
    if fit == "resize":
        record = run / "models" / "model.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"volume_options#fit": fit}))
    options = {**UNET, "dataset_dir": str(tmp_path / "scans"), "run_dir": str(run), "volume_options#fit": fit}
    if door == "aide predict":
        assert aide("predict", BUNDLE, **options) == 0
    else:
        monai_bundle_run(BUNDLE, "inference", **options)
    expected = nibabel.load(run / "predictions" / "RAS_seg.nii.gz")
    assert 0.1 < np.asarray(expected.dataobj).mean() < 0.9
    for codes in STORED:
        mask = nibabel.load(run / "predictions" / f"{codes}_seg.nii.gz")
        image = nibabel.load(tmp_path / "scans" / f"{codes}.nii.gz")
        assert mask.shape == image.shape
        assert np.allclose(mask.affine, image.affine, atol=1e-4)
        assert np.array_equal(np.asarray(stored_as(mask, "RAS").dataobj), np.asarray(expected.dataobj)), codes


def test_evaluation_scores_a_turned_scan_as_it_scores_the_scan(trained, tmp_path):
    rows = {}
    for codes in ("RAS", "SLA"):
        data = tmp_path / codes
        for part in ("imagesTr", "labelsTr"):
            (data / part).mkdir(parents=True)
            for file in sorted((trained / "data" / part).iterdir()):
                nibabel.save(stored_as(nibabel.load(file), codes), data / part / file.name)
        shutil.copy(trained / "data" / "dataset.json", data)
        options = {
            **UNET,
            "dataset_dir": str(data),
            "labeled": 1,
            "unlabeled": 2,
            "run_dir": str(trained / "undecided"),
        }
        monai_bundle_run(BUNDLE, "evaluate", **options, output_dir=str(tmp_path / "eval" / codes))
        rows[codes] = read_csv(tmp_path / "eval" / codes / "per_case.csv")
    assert [row["dsc"] for row in rows["SLA"]] == [row["dsc"] for row in rows["RAS"]]
    assert 0 < rows["RAS"][0]["dsc"] < 1


def test_what_cannot_be_brought_is_told_in_one_line_or_refused(trained, tmp_path, capsys):
    scan = nibabel.load(trained / "data" / "imagesTr" / "phantom_003.nii.gz")
    voxels = np.asarray(scan.dataobj)
    (tmp_path / "scans").mkdir()
    nibabel.save(scan, tmp_path / "scans" / "alike.nii.gz")
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([3, 3, 20, 1])), tmp_path / "scans" / "thick.nii.gz")
    shifted = nibabel.Nifti1Image((voxels - voxels.max()).astype(np.float32), scan.affine)
    nibabel.save(shifted, tmp_path / "scans" / "units.nii.gz")
    bare = nibabel.Nifti1Image(voxels, None)
    bare.header["pixdim"][1:4] = (3, 3, 8)
    nibabel.save(bare, tmp_path / "scans" / "without_codes.nii.gz")
    options = {**UNET, "dataset_dir": str(tmp_path / "scans"), "run_dir": str(trained / "undecided")}
    assert aide("predict", BUNDLE, "--strict", **options, output_dir=str(tmp_path / "none")) == 2
    error = capsys.readouterr().err
    assert "3 problems" in error
    assert "alike.nii.gz" not in error
    assert not (tmp_path / "none").exists()
    assert "WARNING aide" not in error
    assert aide("predict", BUNDLE, **options, output_dir=str(tmp_path / "masks")) == 0
    assert len(list((tmp_path / "masks").iterdir())) == 4
    lines = told(capsys)
    assert len(lines) == 3
    for line, (name, text) in zip(
        lines,
        [
            ("thick", "spacing 3 x 3 x 20 mm; expected about 3 x 3 x 8 mm"),
            ("units", "are they in other units?"),
            ("without_codes", "the file does not say its orientation"),
        ],
        strict=True,
    ):
        assert f"{name}.nii.gz is unlike the training volumes" in line
        assert text in line
        assert line in error
    (tmp_path / "scans" / "alike.nii.gz").rename(tmp_path / "alike.nii.gz")
    shutil.rmtree(tmp_path / "scans")
    (tmp_path / "scans").mkdir()
    (tmp_path / "alike.nii.gz").rename(tmp_path / "scans" / "alike.nii.gz")
    assert aide("predict", BUNDLE, "--strict", **options, output_dir=str(tmp_path / "alike")) == 0


def test_a_dicom_series_of_another_modality_is_told(trained, tmp_path, capsys):
    voxels = np.asarray(nibabel.load(trained / "data" / "imagesTr" / "phantom_003.nii.gz").dataobj)
    voxels = np.clip(voxels, 0, None).astype("u2")
    write_series(tmp_path / "scan", voxels, spacing=(3, 3, 8), tags={"Modality": "CT"})
    options = {**UNET, "dataset_dir": str(tmp_path / "scan"), "run_dir": str(trained / "undecided")}
    assert aide("predict", BUNDLE, **options, output_dir=str(tmp_path / "masks")) == 0
    (line,) = told(capsys)
    assert "modality CT; expected MR" in line


def test_weights_without_a_record_are_used_and_it_is_told(trained, tmp_path, capsys):
    run = tmp_path / "run" / "models"
    run.mkdir(parents=True)
    shutil.copy(trained / "undecided" / "models" / "model.pt", run)
    options = {**UNET, "dataset_dir": str(trained / "data" / "imagesTr"), "run_dir": str(tmp_path / "run")}
    assert aide("predict", BUNDLE, **options) == 0
    (line,) = told(capsys)
    assert "orientation, spacing, intensities and modality of these are not compared" in line
    assert aide("predict", BUNDLE, "--strict", **options, output_dir=str(tmp_path / "none")) == 2
    assert not (tmp_path / "none").exists()
