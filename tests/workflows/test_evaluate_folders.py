"""Folders of segmentations against folders of references."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from aide_monai.errors import InputError
from aide_monai.reports.tables import read_csv
from aide_monai.workflows.evaluate_folders import EvaluationSettings, evaluate_folders

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])
Folder = Callable[[str, dict[str, np.ndarray]], Path]


def block(first: int, last: int, *, value: int = 1) -> np.ndarray:
    """A block of voxels first..last - 1 along x in the middle of a small volume."""
    labels = np.zeros((10, 7, 5), dtype=np.uint8)
    labels[first:last, 2:5, 1:4] = value
    return labels


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    def write(name: str, cases: dict[str, np.ndarray]) -> Path:
        (tmp_path / name).mkdir()
        for case, labels in cases.items():
            nibabel.save(nibabel.Nifti1Image(labels, AFFINE), tmp_path / name / f"{case}.nii.gz")
        return tmp_path / name

    return write


def test_scores_by_hand(folder: Folder) -> None:
    pred = folder("pred", {"a_seg": block(2, 6), "b_seg": block(2, 4)})
    ref = folder("ref", {"a": block(2, 6), "b": block(2, 6)})
    evaluation = evaluate_folders(pred, ref)
    first, second = evaluation.rows
    assert (first["case"], first["label_name"], first["dsc"], first["mssd"]) == ("a", "label 1", 1.0, 0.0)
    assert (second["case"], second["dsc"], second["ravd_signed"]) == ("b", 2 * 18 / (18 + 36), -50.0)
    assert second["mssd"] == 2.0
    assert evaluation.summary[0]["dsc_mean"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert evaluation.ignored == ()


def test_several_labels_and_their_mean(folder: Folder) -> None:
    both = block(1, 4) + block(5, 8, value=3)
    evaluation = evaluate_folders(folder("pred", {"a": block(1, 4)}), folder("ref", {"a": both}))
    assert [(row["label"], row["dsc"]) for row in evaluation.rows] == [(1, 1.0), (3, 0.0)]
    assert evaluation.rows[1]["assd"] == math.inf
    assert [entry["label_name"] for entry in evaluation.summary] == ["label 1", "label 3", "mean of labels"]
    assert evaluation.summary[2]["dsc_mean"] == 50.0


def test_a_label_that_only_another_case_has(folder: Folder) -> None:
    cases = {"a": block(1, 4), "b": block(1, 4, value=2)}
    evaluation = evaluate_folders(folder("pred", cases), folder("ref", cases))
    assert [(row["case"], row["label"], row["dsc"]) for row in evaluation.rows] == [
        ("a", 1, 1.0),
        ("a", 2, 1.0),
        ("b", 1, 1.0),
        ("b", 2, 1.0),
    ]
    assert evaluation.rows[1]["tp"] == 0


def test_named_labels_alone_are_scored_and_the_others_told(folder: Folder) -> None:
    both = block(1, 4, value=63) + block(5, 8, value=126)
    pred, ref = folder("pred", {"a": block(1, 4, value=63)}), folder("ref", {"a": both})
    evaluation = evaluate_folders(pred, ref, EvaluationSettings(labels={63: "liver"}))
    assert [(row["label_name"], row["dsc"]) for row in evaluation.rows] == [("liver", 1.0)]
    assert evaluation.ignored == (126,)
    with pytest.raises(InputError, match=r"labels 64: in no file of .*, which hold 63, 126; expected every label"):
        evaluate_folders(pred, ref, EvaluationSettings(labels={63: "liver", 64: "kidney"}))


def test_labels_without_anything_in_common_are_refused(folder: Folder) -> None:
    pred, ref = folder("pred", {"a": block(1, 4)}), folder("ref", {"a": block(1, 4, value=255)})
    with pytest.raises(InputError, match=r"pred holds the labels 1, .*ref 255; expected labels in common"):
        evaluate_folders(pred, ref)


def test_background_alone_is_refused(folder: Folder) -> None:
    cases = {"a": block(1, 1)}
    with pytest.raises(InputError, match="which hold background alone"):
        evaluate_folders(folder("pred", cases), folder("ref", cases))


def test_the_largest_component_is_kept_6_connected(folder: Folder) -> None:
    spotted = block(2, 6)
    spotted[6, 5, 3] = 1  # touches the block at an edge only
    spotted[9, 0, 0] = 1
    pred, ref = folder("pred", {"a": spotted}), folder("ref", {"a": block(2, 6)})
    assert evaluate_folders(pred, ref).rows[0]["fp"] == 2
    assert evaluate_folders(pred, ref, EvaluationSettings(keep_largest=True)).rows[0]["dsc"] == 1.0


def test_missing_partners_are_all_named(folder: Folder) -> None:
    pred = folder("pred", {"a": block(2, 6), "x": block(2, 6), "y": block(2, 6)})
    ref = folder("ref", {"a": block(2, 6), "z": block(2, 6)})
    with pytest.raises(InputError, match=r'(?s)3 problems.*case "x".*case "y".*no prediction for case "z".*--subset'):
        evaluate_folders(pred, ref)
    with pytest.raises(InputError, match=r"(?s)2 problems"):
        evaluate_folders(pred, ref, EvaluationSettings(subset=True))
    (pred / "x.nii.gz").unlink()
    (pred / "y.nii.gz").unlink()
    assert len(evaluate_folders(pred, ref, EvaluationSettings(subset=True)).rows) == 1


def test_all_unfit_cases_are_named_and_nothing_is_written(folder: Folder, tmp_path: Path) -> None:
    half = block(2, 6).astype(np.float32) / 2
    pred = folder("pred", {"a": block(2, 6)[:-1], "b": half, "c": block(2, 6)})
    ref = folder("ref", {name: block(2, 6) for name in "abc"})
    with pytest.raises(InputError, match=r"(?s)2 problems.*a\.nii\.gz: found shape.*b\.nii\.gz: found values"):
        evaluate_folders(pred, ref, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_written(folder: Folder, tmp_path: Path) -> None:
    names = [f"case{number}" for number in range(5)]
    pred = folder("pred", {name: block(2, 3 + number) for number, name in enumerate(names)} | {"none": block(1, 1)})
    ref = folder("ref", {name: block(2, 8) for name in [*names, "none"]})
    images = folder("images", {name: block(2, 8) * 3 for name in [*names, "none"]})
    out = tmp_path / "out"
    evaluation = evaluate_folders(pred, ref, out=out, images=images)
    assert {file.name for file in out.iterdir()} == {
        "report.html",
        "per_case.csv",
        "evaluation.json",
        "summary.md",
        "scores.png",
        "worst_cases.png",
    }
    assert read_csv(out / "per_case.csv") == evaluation.rows
    content = json.loads((out / "evaluation.json").read_text())
    assert content["labels"] == {"1": "label 1"}
    assert float(content["cases"][-1]["assd"]) == math.inf
    assert "(inf, 1 of 6)" in (out / "summary.md").read_text()
    page = (out / "report.html").read_text()
    assert all(name in page for name in names)
    assert page.count('src="data:image/png') == 2
    width, height = Image.open(out / "worst_cases.png").size
    assert width > 600
    assert height > 600  # three cases
    with pytest.raises(InputError, match="out is not an empty folder"):
        evaluate_folders(pred, ref, out=out)


def test_an_image_that_does_not_fit_is_refused(folder: Folder, tmp_path: Path) -> None:
    cases = {"a": block(2, 6)}
    pred, ref = folder("pred", cases), folder("ref", cases)
    with pytest.raises(InputError, match=r"found shape 9 x 7 x 5 and affine .*expected the grid of .*a\.nii\.gz"):
        evaluate_folders(pred, ref, out=tmp_path / "out", images=folder("images", {"a": block(2, 6)[:-1]}))
    with pytest.raises(InputError, match='no image for case "a"'):
        evaluate_folders(pred, ref, out=tmp_path / "out", images=folder("others", {"b": block(2, 6)}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "dsc", "assd", "mssd", "counts"),
    [
        ("30cases_aide", 0.8312845937043702, 6.1172, 49.0376, (48961, 4545, 15329)),
        ("30cases_supervised", 0.5470987688400596, 16.0911, 75.9656, None),
    ],
)
def test_published_scores_of_a_real_case(
    aide_data: Path, tmp_path: Path, name: str, dsc: float, assd: float, mssd: float, counts: tuple[int, ...] | None
) -> None:
    chaos = aide_data / "chaos"
    (tmp_path / "10").mkdir()
    for file in (chaos / "Train_Sets/MR/10/T1DUAL/Ground").glob("*.png"):
        (tmp_path / "10" / file.name).write_bytes(file.read_bytes())
    settings = EvaluationSettings(labels={63: "liver"}, spacing_mm=(1.89453125, 1.89453125, 5.5))
    with pytest.raises(InputError, match=r"carry no spacing; expected --spacing COLUMN,ROW,SLICE"):
        evaluate_folders(chaos / "reference_predictions" / name, tmp_path)
    (row,) = evaluate_folders(chaos / "reference_predictions" / name, tmp_path, settings).rows
    assert row["dsc"] == dsc
    assert row["assd"] == pytest.approx(assd, abs=5e-4)
    assert row["mssd"] == pytest.approx(mssd, abs=5e-4)
    if counts:
        assert (row["tp"], row["fp"], row["fn"]) == counts


def test_names_that_would_be_a_formula_or_markup(folder: Folder, tmp_path: Path) -> None:
    """A case and a label from data: plain text in every file that a spreadsheet or a browser opens."""
    cases, settings = {"=1+1": block(2, 6)}, EvaluationSettings(labels={1: "<b>@liver</b>"})
    out = tmp_path / "out"
    evaluate_folders(folder("pred", cases), folder("ref", cases), settings, out=out)
    text = (out / "per_case.csv").read_text()
    assert ",'=1+1," in text
    assert [(row["case"], row["label_name"]) for row in read_csv(out / "per_case.csv")] == [("=1+1", "<b>@liver</b>")]
    assert r"| \<b>@liver\</b> |" in (out / "summary.md").read_text()


def test_voxels_without_a_verdict_are_left_out(folder: Folder) -> None:
    reference = block(2, 6)
    reference[5:] = 4  # one of the four blocks of nine voxels, and what lies behind it
    pred = folder("pred", {"a": block(2, 4) + block(7, 9)})
    settings = EvaluationSettings(ignore=4)
    (row,) = evaluate_folders(pred, folder("ref", {"a": reference}), settings).rows
    assert (row["label"], row["tp"], row["fp"], row["fn"]) == (1, 18, 0, 9)
    with pytest.raises(InputError, match="ignore is 4; expected a value above 0 that is not among the labels"):
        EvaluationSettings(ignore=4, labels={4: "liver"})
