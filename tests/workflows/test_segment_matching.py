"""Segments that files number differently: matched by name, or refused."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.sr.codedict import codes

from aide_monai.cli.main import app, run
from aide_monai.data.checks.datalist import check_datalist
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.folder import folder_datalist
from aide_monai.errors import InputError
from aide_monai.reports.tables import read_csv
from aide_monai.workflows.evaluate_folders import EvaluationSettings, evaluate_folders
from tests.io.segment_files import seg_nrrd
from tests.io.test_segmentations import AFFINE, dicom_seg

LIVER, SPLEEN = codes.SCT.Liver, codes.SCT.Spleen


def drawn(liver: int, spleen: int) -> np.ndarray:
    """(6, 5, 4): twelve voxels of a liver and six of a spleen, under these values."""
    labels = np.zeros((6, 5, 4), dtype=np.uint8)
    labels[1:4, 1:3, 1:3] = liver
    labels[4, 2:5, 1:3] = spleen
    return labels


def scores(evaluation: object) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in evaluation.rows:  # type: ignore[attr-defined]
        found.setdefault(row["label_name"], []).append(row["dsc"])
    return found


def write(folder: Path, case: str, names: tuple[str, str], *, kind: str) -> None:
    """A case whose segments 1 and 2 have these names; the voxels of the liver are always the same."""
    first = names[0].casefold() in ("liver", "leber")
    labels = drawn(1, 2) if first else drawn(2, 1)
    if kind == "dicom":
        dicom_seg(folder / f"{case}.dcm", labels, names=names, kinds=(LIVER, SPLEEN) if first else (SPLEEN, LIVER))
    else:
        suffix = "nhdr" if kind == "detached" else "nrrd"
        seg_nrrd(folder / f"{case}.{suffix}", [labels], [(names[0], 1, 0, ""), (names[1], 2, 0, "")])


@pytest.mark.parametrize("kind", ["dicom", "slicer", "detached"])
def test_segments_are_matched_by_name_across_cases_and_sides(kind: str, tmp_path: Path) -> None:
    write(tmp_path / "ref", "a", ("Liver", "Spleen"), kind=kind)
    write(tmp_path / "pred", "a", ("spleen", "liver"), kind=kind)
    write(tmp_path / "ref", "b", ("Spleen", "Liver"), kind=kind)
    write(tmp_path / "pred", "b", ("Spleen", "LIVER"), kind=kind)
    result = evaluate_folders(tmp_path / "pred", tmp_path / "ref", out=tmp_path / "out")
    assert scores(result) == {"Liver": [1, 1], "Spleen": [1, 1]}
    assert [(row["label"], row["label_name"]) for row in result.rows[:2]] == [(1, "Liver"), (2, "Spleen")]
    asked = EvaluationSettings(labels={7: "liver"})
    assert scores(evaluate_folders(tmp_path / "pred", tmp_path / "ref", asked)) == {"liver": [1, 1]}


def test_segments_of_other_names_are_matched_by_the_meaning_of_their_codes(tmp_path: Path) -> None:
    dicom_seg(tmp_path / "ref" / "a.dcm", drawn(1, 2), names=("Leber", "Milz"), kinds=(LIVER, SPLEEN))
    dicom_seg(tmp_path / "pred" / "a.dcm", drawn(2, 1), names=("Segment_1", "Segment_2"), kinds=(SPLEEN, LIVER))
    assert scores(evaluate_folders(tmp_path / "pred", tmp_path / "ref")) == {"Leber": [1], "Milz": [1]}


def test_values_are_enough_where_all_named_files_agree(tmp_path: Path) -> None:
    write(tmp_path / "ref", "a", ("Liver", "Spleen"), kind="dicom")
    (tmp_path / "pred").mkdir()
    nibabel.save(nibabel.Nifti1Image(drawn(1, 2), AFFINE), tmp_path / "pred" / "a.nii.gz")
    assert scores(evaluate_folders(tmp_path / "pred", tmp_path / "ref")) == {"Liver": [1], "Spleen": [1]}


def test_what_cannot_be_matched_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "ref", "a", ("Liver", "Spleen"), kind="slicer")
    write(tmp_path / "ref", "b", ("Spleen", "Liver"), kind="slicer")
    for case in "ab":
        (tmp_path / "pred").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(drawn(1, 2), np.diag([1, 1, 2, 1])), tmp_path / "pred" / f"{case}.nii.gz")
    with pytest.raises(InputError) as error:
        evaluate_folders(tmp_path / "pred", tmp_path / "ref")
    assert 'value 1 is "Spleen" in' in str(error.value)
    assert '"Liver" in' in str(error.value)
    assert "a.nii.gz does not name its segments" in str(error.value)
    with pytest.raises(InputError, match=r'value 1 is "Liver"; --labels calls it "kidney"'):
        evaluate_folders(tmp_path / "ref", tmp_path / "ref", EvaluationSettings(labels={1: "kidney"}))


def test_other_names_for_the_same_values_are_not_averaged(tmp_path: Path) -> None:
    write(tmp_path / "ref", "a", ("Liver", "Spleen"), kind="slicer")
    write(tmp_path / "pred", "a", ("Liver", "Kidney"), kind="slicer")
    with pytest.raises(InputError, match=r'\(3 "Kidney", 2 "Spleen"\): class indices against stored values, or names'):
        evaluate_folders(tmp_path / "pred", tmp_path / "ref")


def test_class_indices_against_stored_values_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """BraTS stores 0, 1, 2 and 4; a prediction with class indices has 3."""
    for name, values in (("pred", (1, 2, 3)), ("ref", (1, 2, 4))):
        (tmp_path / name).mkdir()
        labels = np.zeros((6, 5, 4), dtype=np.uint8)
        for place, value in enumerate(values):
            labels[2 * place : 2 * place + 2, 1:3, 1:3] = value
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / name / "a.nii.gz")

    def evaluate(*words: str) -> int:
        folders = ["--pred", str(tmp_path / "pred"), "--ref", str(tmp_path / "ref")]
        return run(lambda: app(["evaluate", *folders, *words], standalone_mode=False))

    assert evaluate() == 2
    error = capsys.readouterr().err
    assert "3 is in predictions alone and 4 in references alone: class indices against stored values" in error
    assert evaluate("--labels", "1=necrosis,2=oedema,4=enhancing") == 2
    assert evaluate("--labels", "1=necrosis,2=oedema") == 0
    assert evaluate("--labels", "1=necrosis,2=oedema,3=three,4=four") == 0  # as the message says


def folder_of(tmp_path: Path, *names: tuple[str, str]) -> Path:
    """images/ and labels/ of two cases, the labels with the names of their segments 1 and 2."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for case, pair in zip("ab", names, strict=True):
        image = nibabel.Nifti1Image(rng.normal(size=(6, 5, 4)).astype(np.float32), np.diag([1, 1, 2, 1]))
        nibabel.save(image, tmp_path / "images" / f"{case}.nii.gz")
        write(tmp_path / "labels", case, pair, kind="slicer")
    return tmp_path


def test_names_of_a_folder_come_from_its_files(tmp_path: Path) -> None:
    datalist = folder_datalist(folder_of(tmp_path, ("Liver", "Spleen"), ("liver", "spleen")))
    assert datalist.labels == {0: "background", 1: "Liver", 2: "Spleen"}
    assert not [found for found in check_datalist(datalist) if found.severity == "error"]


def test_files_that_disagree_are_refused_by_preparation_check_and_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder_of(tmp_path, ("Liver", "Spleen"), ("Spleen", "Liver"))
    assert run(lambda: app(["prepare", "folder", str(root), "--out", str(root / "d.json")], standalone_mode=False)) == 2
    error = capsys.readouterr().err
    assert 'value 1 is "Spleen"' in error
    assert '"Liver", as the datalist calls it' in error
    assert not (root / "d.json").exists()
    datalist = folder_datalist(root)
    bare = Datalist("d", {0: "background", 1: "label 1", 2: "label 2"}, datalist.modality, datalist.records)
    texts = [str(found) for found in check_datalist(bare) if found.severity == "error"]
    assert ['value 1 is "Spleen"' in text and '"Liver", as in case "a"' in text for text in texts] == [True, False]


def test_a_datalist_of_other_names_is_refused(tmp_path: Path) -> None:
    datalist = folder_datalist(folder_of(tmp_path, ("Liver", "Spleen"), ("Liver", "Spleen")))
    wrong = Datalist("d", {0: "background", 1: "spleen", 2: "liver"}, datalist.modality, datalist.records)
    assert len([found for found in check_datalist(wrong) if found.severity == "error"]) == 4
    merged = Datalist("d", {0: "background", 1: "organ"}, datalist.modality, datalist.records, {1: 1, 2: 1})
    assert not [found for found in check_datalist(merged) if found.severity == "error"]


def test_values_with_gaps_are_named_as_the_message_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    rng = np.random.default_rng(0)
    for case in "ab":
        image = nibabel.Nifti1Image(rng.normal(size=(6, 5, 4)).astype(np.float32), np.eye(4))
        nibabel.save(image, tmp_path / "images" / f"{case}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(drawn(1, 4), np.eye(4)), tmp_path / "labels" / f"{case}.nii.gz")
    out = tmp_path / "d.json"

    def prepare(*words: str) -> int:
        return run(lambda: app(["prepare", "folder", str(tmp_path), "--out", str(out), *words], standalone_mode=False))

    assert prepare() == 2
    (advice,) = re.findall(r"name all values in a datalist: aide (.*?); a value that means", capsys.readouterr().err)
    assert advice == f'prepare folder {tmp_path} --out {tmp_path}/datalist.json --label-names "1=NAME,4=NAME"'
    assert run(lambda: app(shlex.split(advice), standalone_mode=False)) == 0
    assert Datalist.load(tmp_path / "datalist.json").labels == {0: "background", 1: "NAME", 2: "NAME"}
    assert prepare("--label-names", "1=oedema,4=enhancing") == 0
    datalist = Datalist.load(out)
    assert datalist.labels == {0: "background", 1: "oedema", 2: "enhancing"}
    assert datalist.stored_classes == {0: 0, 1: 1, 4: 2}
    assert prepare("--label-names", "oedema") == 2
    assert "--label-names" in capsys.readouterr().err


def test_detached_headers_through_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Read with their names by prepare, check and evaluate; no door takes their voxels for another file."""

    def aide(*words: object) -> int:
        return run(lambda: app([str(word) for word in words], standalone_mode=False))

    rng = np.random.default_rng(0)
    for case, thickness in (("a", 2), ("b", 3)):
        labels = drawn(1, 2)
        labels[1:4, 1:3, 0] = thickness - 2  # labels that differ
        segments = [("Liver", 1, 0, ""), ("Spleen", 2, 0, "")]
        label = seg_nrrd(tmp_path / "set" / "labels" / f"{case}.nhdr", [labels], segments)
        seg_nrrd(tmp_path / "pred" / f"{case}.nhdr", [labels], segments)
        read = sitk.ReadImage(str(label))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read).T, labels)
        image = sitk.GetImageFromArray(rng.integers(0, 500, labels.T.shape).astype(np.int16))
        image.CopyInformation(read)
        (tmp_path / "set" / "images").mkdir(exist_ok=True)
        sitk.WriteImage(image, str(tmp_path / "set" / "images" / f"{case}.nhdr"))
    listed = tmp_path / "list.json"
    assert aide("prepare", "folder", tmp_path / "set", "--out", listed) == 0
    assert Datalist.load(listed, roots=[tmp_path]).labels == {0: "background", 1: "Liver", 2: "Spleen"}
    assert aide("check", listed, "--root", tmp_path / "set", "--out", tmp_path / "report") == 0
    out = tmp_path / "scores"
    assert aide("evaluate", "--pred", tmp_path / "pred", "--ref", tmp_path / "set" / "labels", "--out", out) == 0
    rows = read_csv(out / "per_case.csv")
    assert [(row["label_name"], row["dsc"]) for row in rows] == [("Liver", 1), ("Spleen", 1)] * 2
    told = capsys.readouterr()
    assert "not used" not in told.out + told.err


def test_numbers_that_nobody_names_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same organs in a SEG that numbers them otherwise than a NIfTI without names does."""
    dicom_seg(tmp_path / "pred" / "a.dcm", drawn(2, 1), names=("Spleen", "Liver"), kinds=(SPLEEN, LIVER))
    (tmp_path / "ref").mkdir()
    nibabel.save(nibabel.Nifti1Image(drawn(1, 2), AFFINE), tmp_path / "ref" / "a.nii.gz")
    result = evaluate_folders(tmp_path / "pred", tmp_path / "ref")
    assert scores(result) == {"Spleen": [0.0], "Liver": [0.0]}
    (line,) = caplog.messages
    assert f"{tmp_path / 'ref' / 'a.nii.gz'}: segments without names, matched by number with those of" in line
    assert '1 for "Spleen", 2 for "Liver"' in line
    caplog.clear()
    settings = EvaluationSettings(labels={1: "liver", 2: "spleen"})
    assert scores(evaluate_folders(tmp_path / "pred", tmp_path / "ref", settings)) == {"liver": [1.0], "spleen": [1.0]}
    assert caplog.messages == []
