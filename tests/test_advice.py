"""What a message advises can be typed where it is given: each kind of advice is read off the message, and followed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from aide_monai.data.sources.phantom import write_phantoms
from tests.bundles.doors import ROOT, TRAINING, aide, as_options, write_undecided_weights
from tests.bundles.layouts import BUNDLES, UNET, write_breast, write_chaos
from tests.data.sources import breast_files, qubiq_files
from tests.data.sources.promise12_files import prostate_volume, write_case
from tests.io.dicom.dicom_files import write_series

AFFINE = np.diag([-1.0, -1.0, 3.0, 1.0])


def block() -> np.ndarray:
    label = np.zeros((8, 7, 6), dtype=np.uint8)
    label[2:6, 2:5, 2:4] = 1
    return label


def nifti(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def refused(capsys: pytest.CaptureFixture, *command: object, code: int = 2) -> str:
    """The message of a command, on one line."""
    capsys.readouterr()
    assert aide(*command) == code
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_evaluation_of_another_grid(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    nifti(tmp_path / "pred" / "a.nii", block(), AFFINE @ np.diag([0.5, 0.5, 1, 1]))
    nifti(tmp_path / "ref" / "a.nii", block())
    command = ["evaluate", "--pred", tmp_path / "pred", "--ref", tmp_path / "ref"]
    (advice,) = re.findall(r"resample it in physical space \((--\S+)\)", refused(capsys, *command))
    assert aide(*command, advice) == 0


def test_evaluation_without_a_prediction_of_each_case(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for folder, cases in (("pred", "a"), ("ref", "ab")):
        for case in cases:
            nifti(tmp_path / folder / f"{case}.nii", block())
    command = ["evaluate", "--pred", tmp_path / "pred", "--ref", tmp_path / "ref"]
    (advice,) = re.findall(r"score the predicted alone \((--\S+)\)", refused(capsys, *command))
    assert aide(*command, advice) == 0


def test_evaluation_of_pictures(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for folder in ("pred", "ref"):
        (tmp_path / folder / "a").mkdir(parents=True)
        for k, picture in enumerate(block().T):
            Image.fromarray(picture).save(tmp_path / folder / "a" / f"{k}.png")
    command = ["evaluate", "--pred", tmp_path / "pred", "--ref", tmp_path / "ref"]
    (option,) = re.findall(r"expected (--\S+) COLUMN,ROW,SLICE in mm", refused(capsys, *command))
    assert aide(*command, option, "1,1,3") == 0


def test_a_datalist_whose_files_lie_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    image = nifti(tmp_path / "elsewhere" / "a.nii", np.arange(8 * 7 * 6.0).reshape(8, 7, 6))
    label = nifti(tmp_path / "elsewhere" / "a_label.nii", block())
    record = {"case": "a", "image": str(image), "label": str(label), "quality": "high"}
    content = {"name": "x", "labels": {"0": "background", "1": "x"}, "modality": {"0": "MR"}, "training": [record]}
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "datalist.json").write_text(json.dumps(content))
    command = ["check", tmp_path / "list" / "datalist.json", "--out", tmp_path / "report"]
    (option,) = set(re.findall(r"name its folder as a root \((--\S+) DIR;", refused(capsys, *command)))
    assert aide(*command, option, tmp_path / "elsewhere") == 0


def test_prediction_of_one_of_several_volumes_and_of_files_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    name = "prostate_uda"
    image, _ = prostate_volume(3, shape=(40, 36, 7))
    voxels = np.clip(image, 0, None).astype("u2")
    common: dict[str, Any] = {"spacing": (0.8, 0.7, 3.3), "names": "{}.dcm"}
    first = write_series(tmp_path / "study", voxels[::-1], tags={"TriggerTime": "1"}, **common)
    common |= {"names": "b{}.dcm", "series_uid": first.series_uid}
    write_series(tmp_path / "study", voxels, tags={"TriggerTime": "2"}, **common)
    write_series(tmp_path / "alone", voxels, **common)
    options: dict[str, Any] = {**BUNDLES[name].model, "run_dir": str(tmp_path)}
    write_undecided_weights(ROOT / name, tmp_path, dataset_dir=str(tmp_path / "alone"), **BUNDLES[name].model)

    def predict(folder: object, mask: str, code: int = 0, **more: Any) -> np.ndarray:
        given = {**options, **more, "dataset_dir": str(folder), "output_dir": str(tmp_path / mask)}
        assert aide("predict", ROOT / name, **given) == code
        return np.asarray(nibabel.load(next((tmp_path / mask).iterdir())).dataobj) if code == 0 else voxels

    expected = predict(tmp_path / "alone", "alone_mask")
    predict(tmp_path / "study", "no_mask", code=2)
    told = capsys.readouterr().err
    places = re.findall(r"- (\S+#\S+): MR", told)
    assert len(places) == 2
    np.testing.assert_array_equal(predict(places[1], "second"), expected)
    np.testing.assert_array_equal(predict(f"{tmp_path / 'study'}#volume=2", "by_number"), expected)

    content = {"name": "x", "labels": {"0": "background"}, "modality": {"0": "MR"}, "training": []}
    content["training"] = [{"case": "a", "image": str(tmp_path / "alone")}]
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "datalist.json").write_text(json.dumps(content))
    capsys.readouterr()
    predict(tmp_path / "list", "no_mask", code=2)
    (advice,) = set(re.findall(r"of a bundle (--roots '\S+')\)", " ".join(capsys.readouterr().err.split())))
    option, value = shlex.split(advice.replace("DIR", str(tmp_path / "alone")))
    mask = predict(tmp_path / "list", "by_root", **{option.removeprefix("--"): json.loads(value)})
    np.testing.assert_array_equal(mask, expected)


def breast_without_times(root: Path) -> None:
    breast_files.write_dicom_study(root / "HPPH/P1", 5, one_series=True, clock=False, temporal_position=True)
    nifti(root / "HPPH/P1/label.nii.gz", breast_files.uptake(5)[1], breast_files.AFFINE)


DOWNLOADS: dict[str, Callable[[Path], Any]] = {
    "chaos": write_chaos,
    "promise12": lambda root: write_case(root, 15),
    "qubiq": lambda root: qubiq_files.write_qubiq(root, "prostate", cases=(4, 2)),
    "breast": write_breast("HPPH"),
    "breast without times": breast_without_times,
}


@pytest.mark.parametrize(
    ("download", "wrong", "change"),
    [
        ("chaos", ["--paper-split", "--modality", "CT"], {"CT": "T1DUAL"}),
        ("promise12", [], {}),
        ("qubiq", ["--rater", "1"], {"TASK": "prostate"}),
        ("qubiq", ["--task", "prostate", "--rater", "majority"], {"DIR": "fused"}),
        ("breast", ["--centre", "HPPH"], {}),
        ("breast without times", ["--times", "0,90"], {"--times": "", "0,90": ""}),
    ],
    ids=["--modality", "--keep-duplicates", "--task", "--fused-dir", "--keep-unlabeled", "--phases"],
)
def test_options_of_a_layout(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    download: str,
    wrong: list[str],
    change: dict[str, str],
) -> None:
    """What ``aide prepare`` advises is typed in place of, or beside, what it has refused."""
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path)
    DOWNLOADS[download](tmp_path / "set")
    command = ["prepare", download.split()[0], "set", "--out", "list.json"]
    (advice,) = re.findall(r"\((--[^;]+); of a bundle --", refused(capsys, *command, *wrong))
    option = advice.split()[0]
    kept = [word for word in wrong if word != option and word not in change]
    assert aide(*command, *kept, *[change.get(word, word) for word in shlex.split(advice)]) == 0


@pytest.mark.parametrize(
    ("bundle", "wrong", "change"),
    [
        ("chaos_liver_ssl", {"source#modality": "CT"}, {}),
        ("qubiq_prostate", {"source#task": None}, {"TASK": "prostate"}),
        ("qubiq_prostate", {"source#rater": "majority"}, {"DIR": "fused"}),
        ("breast_dce_hpph", {"source#keep_unlabeled": False}, {}),
    ],
    ids=["modality", "task", "fused_dir", "keep_unlabeled"],
)
def test_options_of_the_layout_of_a_bundle(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    bundle: str,
    wrong: dict[str, Any],
    change: dict[str, str],
) -> None:
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path)
    BUNDLES[bundle].write(tmp_path / "set")
    options = {**BUNDLES[bundle].model, **BUNDLES[bundle].data, **TRAINING, "dataset_dir": "set", "run_dir": "run"}
    command = ["train", ROOT / bundle, *as_options(options)]
    found = re.findall(r"; of a bundle (--[^);]+?)\)", refused(capsys, *command, *as_options(wrong)))
    (advice,) = [text.split(")")[0].split(" or ")[0] for text in found]
    option, value = shlex.split(advice)
    kept = {key: one for key, one in wrong.items() if f"--{key}" != option}
    assert aide(*command, *as_options(kept), option, change.get(value, value)) == 0


def test_values_with_gaps_of_the_labels_of_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = write_phantoms(tmp_path / "made", cases=4, shape=(32, 30, 5), spacing_mm=(6, 6, 20))
    for name in ("images", "labels"):
        (data / f"{name}Tr").rename(tmp_path / name)
    for file in (tmp_path / "labels").iterdir():
        nifti(file, 4 * np.asarray(nibabel.load(file).dataobj, dtype=np.uint8), nibabel.load(file).affine)
    options = {**UNET, **TRAINING, "dataset_dir": str(tmp_path), "run_dir": str(tmp_path / "run")}
    command = ["train", ROOT / "hippocampus_ssl", *as_options({**options, "labeled": 1, "unlabeled": 2})]
    (advice,) = re.findall(r'name all values in a datalist: aide (.*"4=NAME")', refused(capsys, *command))
    assert aide(*shlex.split(advice)) == 0
    (advice,) = re.findall(
        r"what the labels hold, and its class; of a bundle (--classes '[^']+')", refused(capsys, *command)
    )
    assert aide(*command, *shlex.split(advice)) == 0


def test_a_mask_as_dicom_of_an_image_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    image, _ = prostate_volume(3, shape=(40, 36, 7))
    nifti(tmp_path / "scans" / "a.nii.gz", image)
    options: dict[str, Any] = {**BUNDLES["prostate_uda"].model, "dataset_dir": str(tmp_path / "scans")}
    write_undecided_weights(ROOT / "prostate_uda", tmp_path, **options)
    command = ["predict", ROOT / "prostate_uda", *as_options({**options, "run_dir": str(tmp_path)})]
    told = refused(capsys, *command, "--output_format", "dicom-seg")
    (advice,) = re.findall(r"\((--output_format \w+)\)", told)
    assert aide(*command, *advice.split()) == 0


def test_one_channel_of_several(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    image, _ = prostate_volume(3, shape=(40, 36, 7))
    two = nifti(tmp_path / "scans" / "a.nii.gz", np.stack([image, image[::-1]], axis=-1))
    nifti(tmp_path / "alone" / "a.nii.gz", image[::-1])
    model: dict[str, Any] = BUNDLES["prostate_uda"].model
    write_undecided_weights(ROOT / "prostate_uda", tmp_path, **model, dataset_dir=str(tmp_path / "alone"))
    command = ["predict", ROOT / "prostate_uda", *as_options({**model, "run_dir": str(tmp_path)})]
    told = refused(capsys, *command, "--dataset_dir", tmp_path / "scans")
    (part,) = re.findall(r"a datalist that names FILE(#channel=)K", told)
    content = {"name": "x", "labels": {"0": "background"}, "modality": {"0": "MR"}}
    content |= {"training": [{"case": "a", "image": f"{two}{part}1"}]}
    (tmp_path / "scans" / "datalist.json").write_text(json.dumps(content))
    for folder in ("scans", "alone"):
        assert aide(*command, "--dataset_dir", tmp_path / folder, "--output_dir", tmp_path / f"of_{folder}") == 0
    masks = [nibabel.load(tmp_path / f"of_{folder}" / "a_seg.nii.gz") for folder in ("scans", "alone")]
    np.testing.assert_array_equal(*(np.asarray(mask.dataobj) for mask in masks))
    assert 0.1 < np.asarray(masks[0].dataobj).mean() < 0.9


def test_the_kind_of_an_axis(tmp_path: Path) -> None:
    """A valid header of four axes, which SimpleITK does not read, and the line that it reads instead."""
    from aide_monai.errors import InputError
    from aide_monai.io.volumes import open_volume

    lines = ["NRRD0005", "type: uchar", "dimension: 4", "space dimension: 3", "sizes: 2 3 4 5"]
    lines += [
        "space directions: (1,0,0) (0,1,0) (0,0,2) none",
        "kinds: space space space time",
        "encoding: raw",
        "",
        "",
    ]
    voxels = np.arange(120, dtype=np.uint8)
    file = tmp_path / "a.nrrd"
    file.write_bytes("\n".join(lines).encode() + voxels.tobytes())
    with pytest.raises(InputError, match="axis 4 of kind time without a direction, which no reader here takes") as told:
        open_volume(str(file))
    (line,) = re.findall(r'write the line "(kinds: [^"]+)"', str(told.value))
    file.write_bytes("\n".join([*lines[:6], line, *lines[7:]]).encode() + voxels.tobytes())
    volume = open_volume(str(file))
    assert (volume.shape, volume.channels) == ((2, 3, 4), 5)
    np.testing.assert_array_equal(volume.decode(), voxels.reshape((2, 3, 4, 5), order="F"))


@pytest.mark.parametrize(
    ("affine", "reason"),
    [
        (
            np.diag([-0.001, -0.001, 0.003, 1]),
            "all lengths are 0.001 times as large: one of the two names a",
        ),
        (np.diag([1.0, 1.0, 3.0, 1.0]), "places are mirrored in x and y: one of the two counts them in another"),
        (
            AFFINE + np.array([[0, 0, 1, 0], *[[0] * 4] * 3]),
            "the axes of one alone are at right angles: a tilted",
        ),
        (AFFINE + np.array([[0, 0, 0, 2.5], *[[0] * 4] * 3]), "shifted by 2.5 0 0 mm to the right, front, top"),
    ],
    ids=["unit", "mirrored", "sheared", "shifted"],
)
def test_two_grids_are_refused_with_the_reason_that_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture, affine: np.ndarray, reason: str
) -> None:
    voxels = np.arange(8 * 7 * 6.0).reshape(8, 7, 6)
    nifti(tmp_path / "set" / "images" / "a.nii", voxels)
    nifti(tmp_path / "set" / "labels" / "a.nii", block(), affine)
    assert reason in refused(capsys, "prepare", "folder", tmp_path / "set", "--out", tmp_path / "list.json")
    if reason.startswith("places are mirrored"):  # which is no other grid, but another order of the same places
        affine = affine.copy()
        affine[0, 3] += 50
        nifti(tmp_path / "set" / "labels" / "a.nii", block(), affine)
        reason = ""
    found = refused(capsys, "evaluate", "--pred", tmp_path / "set" / "labels", "--ref", tmp_path / "set" / "images")
    assert reason in found


def test_a_missing_code_is_told_as_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    image = nibabel.Nifti1Image(np.arange(8 * 7 * 6.0).reshape(8, 7, 6), None)
    image.header.set_zooms((1, 1, 3))
    (tmp_path / "set" / "images").mkdir(parents=True)
    nibabel.save(image, tmp_path / "set" / "images" / "a.nii")
    nifti(tmp_path / "set" / "labels" / "a.nii", block())
    found = refused(capsys, "prepare", "folder", tmp_path / "set", "--out", tmp_path / "list.json")
    assert "images/a.nii has no orientation codes (qform and sform 0)" in found
