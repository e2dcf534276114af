"""``aide run``: from a folder to a model and its proof, through the command line, on tiny data."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from aide_monai.cli.main import app, run
from aide_monai.data.sources.folder import folder_datalist
from aide_monai.reports.tables import read_csv
from aide_monai.workflows.comparison.results import read_results
from aide_monai.workflows.run import _pieces

TINY = ("--epochs", "3", "--steps", "8")


def aide(*arguments: object) -> int:
    return run(lambda: app([str(a) for a in arguments], standalone_mode=False))


@pytest.fixture(scope="module")
def few_labels(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/, labels/ and unlabeled/: four labelled cases, and the others without a label."""
    folder = tmp_path_factory.mktemp("hospital") / "livers"
    for kind in ("images", "labels", "unlabeled"):
        (folder / kind).mkdir(parents=True)
    for number, image in enumerate(sorted((phantoms / "imagesTr").iterdir())):
        shutil.copy(image, folder / ("images" if number < 4 else "unlabeled"))
        if number < 4:
            shutil.copy(phantoms / "labelsTr" / image.name, folder / "labels")
    return folder


@pytest.fixture(scope="module")
def finished(few_labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert aide("run", few_labels, "--run-dir", folder, *TINY) == 0
    return folder


def test_everything_is_found_out(finished: Path) -> None:
    config = json.loads((finished / "experiment.json").read_text())
    assert {role: len(names) for role, names in config["cases"].items()} == {
        "labeled": 2,
        "doubtful": 0,
        "unlabeled": 2,
        "validation": 0,
        "test": 2,
    }
    assert list(config["methods"]) == ["labelled only", "two networks, nothing corrected", "AIDE"]
    rows = read_results(finished / "per_case.csv")
    assert {row["case"] for row in rows} == set(config["cases"]["test"])
    assert {row["method"] for row in rows} == set(config["methods"])


def test_one_page_tells_it_and_needs_nothing_outside_itself(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings[:2] == ["What AIDE is worth here", "Plan"]
    assert "What was run" in headings
    for picture in ("learning curves", "label correction", "predictions", "per case dsc"):
        assert f"all cases: {picture}" in page
    assert "AIDE has a DSC of" in page
    assert "labels that are trusted: learned from, never changed" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_the_model_segments_at_once(finished: Path, few_labels: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    assert aide("predict", finished / "bundle", "--dataset-dir", few_labels / "unlabeled", "--output-dir", masks) == 0
    assert sorted(path.name for path in masks.glob("*.nii.gz")) == sorted(
        path.name.replace(".nii.gz", "_seg.nii.gz") for path in (few_labels / "unlabeled").iterdir()
    )


def test_the_masks_of_the_bundle_are_those_that_were_scored(finished: Path, few_labels: Path, tmp_path: Path) -> None:
    """The bundle brings volumes to the networks as the run did."""
    held_out = json.loads((finished / "experiment.json").read_text())["cases"]["test"]
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for case in held_out:
            shutil.copy(few_labels / kind / f"{case}.nii.gz", tmp_path / kind)
    masks = tmp_path / "masks"
    assert aide("predict", finished / "bundle", "--dataset-dir", tmp_path / "images", "--output-dir", masks) == 0
    assert aide("evaluate", "--pred", masks, "--ref", tmp_path / "labels", "--out", tmp_path / "scores") == 0
    scored = {row["case"]: row["dsc"] for row in read_csv(tmp_path / "scores" / "per_case.csv")}
    mine = {
        row["case"]: row["dsc"]
        for row in read_results(finished / "per_case.csv")
        if (row["method"], row["network"], bool(row["pp"])) == ("AIDE", "mean", False)
    }
    assert scored == pytest.approx(mine, abs=0.01)


def test_it_continues_and_refuses_another_run(
    finished: Path, few_labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "all_cases" / "seed_0" / "AIDE" / "models" / "model.pt").stat().st_mtime_ns
    assert aide("run", few_labels, "--run-dir", finished, *TINY) == 0
    assert (finished / "all_cases" / "seed_0" / "AIDE" / "models" / "model.pt").stat().st_mtime_ns == before
    printed = capsys.readouterr().out
    assert "Segment volumes: aide predict" in printed
    assert "labels that are trusted" in printed
    assert aide("run", few_labels, "--run-dir", finished, "--epochs", "4", "--steps", "8") == 2
    assert "holds a run with another budget; choose a new folder (--run-dir)" in capsys.readouterr().err


def test_the_same_comparison_can_be_repeated_by_its_config(finished: Path, few_labels: Path, tmp_path: Path) -> None:
    assert aide("compare", finished / "experiment.json", "--data", few_labels, "--out", tmp_path / "again") == 0
    assert read_results(tmp_path / "again" / "per_case.csv") == read_results(finished / "per_case.csv")


def test_doubtful_labels_are_corrected(few_labels: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(few_labels, data)
    shutil.rmtree(data / "unlabeled")
    folder = tmp_path / "run"
    assert aide("run", data, "--run-dir", folder, "--doubtful", "phantom_00[01]", "--test", 1, *TINY) == 0
    config = json.loads((folder / "experiment.json").read_text())
    assert config["cases"]["doubtful"] == ["phantom_000", "phantom_001"]
    assert len(config["cases"]["labeled"]) == 1
    datalist = json.loads((folder / "datalist.json").read_text())
    assert [record["quality"] for record in datalist["training"]] == ["high", "low", "low"]


def test_the_paper_is_run_as_printed(few_labels: Path, tmp_path: Path) -> None:
    """What was tuned here is not the paper's; the budget is that of all methods."""
    folder = tmp_path / "run"
    assert aide("run", few_labels, "--run-dir", folder, "--profile", "paper", "--epochs", 1, "--steps", 1) == 0
    assert json.loads((folder / "experiment.json").read_text())["methods"]["AIDE"] == {"profile": "paper"}
    assert "keep the largest component" not in (folder / "report.html").read_text()


def test_all_problems_of_the_data_are_in_one_report(
    few_labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(few_labels, data)
    (data / "images" / "phantom_000.nii.gz").write_bytes(b"no image")
    (data / "unlabeled" / "phantom_004.nii.gz").write_bytes(b"")
    folder = tmp_path / "run"
    assert aide("run", data, "--run-dir", folder, *TINY) == 2
    told = capsys.readouterr().err
    assert "phantom_000" in told
    assert "phantom_004" in told
    assert not folder.exists()


def test_an_option_out_of_range_is_told(few_labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, value, message in (
        ("--epochs", 0, "epochs is 0"),
        ("--profile", "best", "profile is 'best'; expected one of improved, paper, original"),
        ("--layout", "nothing", "layout is 'nothing'; expected one of"),
        ("--labeled", 9, "--labeled is 9; expected 0 to 2"),
    ):
        assert aide("run", few_labels, "--run-dir", tmp_path / "run", option, value) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("apart", "speck", "kept"),
    [(False, False, "foreground"), (True, False, "class"), (False, True, "none")],
    ids=["one piece", "two structures apart", "a structure in two pieces"],
)
def test_the_trusted_labels_say_whether_structures_are_of_one_piece(
    tmp_path: Path, apart: bool, speck: bool, kept: str
) -> None:
    labels = np.zeros((16, 16, 4), dtype=np.uint8)
    labels[2:6, 2:6, 1:3] = 5
    labels[8 if apart else 6 : 10, 2:6, 1:3] = 7
    if speck:
        labels[12:14, 12:14, 1] = 7
    for kind, voxels in (("images", labels * 10.0), ("labels", labels)):
        (tmp_path / kind).mkdir()
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / kind / "a.nii.gz")
    assert _pieces(folder_datalist(tmp_path, label_names={5: "front", 7: "back"})) == kept
    doubtful = folder_datalist(tmp_path, label_names={5: "front", 7: "back"})
    doubtful.cases = [replace(case, quality="low") for case in doubtful.cases]
    assert _pieces(doubtful) == "none"  # nobody knows
