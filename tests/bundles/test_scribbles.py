"""Scribbles, which leave nearly all voxels without a verdict, go through every door of the command line."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from aide_monai.data.datalist import Datalist
from aide_monai.losses import IGNORED
from aide_monai.reports.tables import read_csv
from tests.bundles.doors import TRAINING, TWO_EPOCHS, aide, as_options, corrected_then_filled
from tests.bundles.layouts import UNET

NAMES = "1=right ventricle,2=myocardium,3=left ventricle"
PATIENTS = range(1, 5)


@pytest.fixture(scope="module")
def data(aide_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients with scribbles, 4 where there is none, and one with a full label; every second slice is enough."""
    folder = tmp_path_factory.mktemp("scribbles")
    for kind in ("images", "labels", "full"):
        (folder / kind).mkdir()
    for patient in PATIENTS:
        name = f"patient{patient:03d}_frame01.nii.gz"
        label = "scribbles" if patient < max(PATIENTS) else "labels"
        for source, target in (("images", "images"), (label, "labels"), ("labels", "full")):
            volume = nibabel.load(aide_data / "acdc100" / source / name)
            nibabel.save(volume.slicer[60:156, 60:156, ::4], folder / target / name)
    return folder


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "scribbles"
    words = ("prepare", "folder", data, "--label-names", NAMES, "--ignore", "4", "--out", data / "datalist.json")
    assert aide(*words) == 0
    datalist = Datalist.load(data / "datalist.json")
    assert datalist.ignore == 4
    # two scribbles may be wrong, the full label of the last patient judges
    trusted, *doubtful, judge = datalist.cases
    datalist.cases = [trusted, *(replace(case, quality="low") for case in doubtful), replace(judge, split="test")]
    datalist.save(data / "datalist.json")
    assert aide("check", data / "datalist.json", "--out", data / "check") == 0
    assert aide("new-bundle", folder, "--datalist", data / "datalist.json") == 0
    return folder


OPTIONS = {**UNET, **TRAINING, **TWO_EPOCHS, "slice_size": [96, 96]}


@pytest.fixture(scope="module")
def trained(data: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corrected_then_filled(bundle, data, tmp_path_factory.mktemp("runs") / "run", **OPTIONS)


def labels(folder: Path) -> dict[str, np.ndarray]:
    return {file.name: np.asarray(nibabel.load(file).dataobj) for file in sorted(folder.iterdir())}


def test_strokes_are_corrected_and_all_else_is_filled_when_asked(data: Path, trained: Path, tmp_path: Path) -> None:
    given = labels(data / "labels")
    for generation in (0, 1, 2):
        assert aide("labels", trained, "--export", generation, tmp_path / str(generation)) == 0
    first, corrected, filled = (labels(tmp_path / str(generation) / "network_1") for generation in (0, 1, 2))
    assert len(first) == 3
    changed = 0
    for name in first:
        silent = given[name] == 4
        assert silent.mean() > 0.9
        assert np.array_equal(first[name], given[name])
        assert np.array_equal(corrected[name] == 4, silent)
        assert not (filled[name] == 4).any()
        changed += int((corrected[name] != given[name]).sum())
    assert changed > 0
    trusted = min(first)
    assert np.array_equal(filled[trusted][given[trusted] != 4], given[trusted][given[trusted] != 4])


def test_voxels_without_a_verdict_are_told_by_the_check(data: Path, trained: Path) -> None:
    assert "3 labels have voxels without a verdict" in (data / "check" / "report.md").read_text()
    rows = list(csv.DictReader((trained / "epochs.csv").read_text().splitlines()))
    assert [row["corrected"] for row in rows] == ["2", "2"]
    strokes = sum(((drawn != 4) & (drawn != 0)).sum() for drawn in labels(data / "labels").values() if 4 in drawn)
    judged = sum((drawn != 4).sum() for drawn in labels(data / "labels").values() if 4 in drawn)
    assert all(0 < float(row["foreground_ratio"]) <= judged / strokes for row in rows)


def test_masks_are_scored_where_somebody_has_said_something(
    data: Path, bundle: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {key: value for key, value in OPTIONS.items() if key in UNET or key == "slice_size"}
    words = ("predict", bundle, "--dataset-dir", data / "images", "--run-dir", trained)
    assert aide(*words, "--output-dir", tmp_path / "masks", *as_options(model)) == 0
    for mask in (tmp_path / "masks").glob("*.nii.gz"):
        assert IGNORED not in np.asarray(nibabel.load(mask).dataobj)
    reference = data / "labels"
    capsys.readouterr()
    assert aide("evaluate", "--pred", tmp_path / "masks", "--ref", reference, "--ignore", 4, "--json") == 0
    for row in json.loads(capsys.readouterr().out)["cases"]:
        drawn = np.asarray(nibabel.load(reference / f"{row['case']}.nii.gz").dataobj)
        assert row["tp"] + row["fn"] == int((drawn == row["label"]).sum())
        assert row["fp"] <= int((drawn != 4).sum())


def test_the_bundle_scores_its_test_cases(data: Path, bundle: Path, trained: Path) -> None:
    """The scribbles of a training patient as those of a test case."""
    datalist = Datalist.load(data / "datalist.json")
    datalist.cases[2] = replace(datalist.cases[2], quality="high", split="test")
    datalist.save(data / "scored.json")
    model = {key: value for key, value in OPTIONS.items() if key in UNET or key == "slice_size"}
    words = ("train", bundle, "--config", "evaluate", "--dataset-dir", data / "scored.json", "--run-dir", trained)
    shutil.rmtree(trained / "standardized", ignore_errors=True)
    assert aide(*words, **model) == 0
    rows = {(row["case"], row["label"]): row for row in read_csv(trained / "eval" / "per_case.csv")}
    drawn = np.asarray(nibabel.load(data / "labels" / "patient003_frame01.nii.gz").dataobj)
    for label in (1, 2, 3):
        row = rows["patient003_frame01", label]
        assert row["tp"] + row["fn"] == int((drawn == label).sum())
        assert row["fp"] <= int((drawn != 4).sum())
