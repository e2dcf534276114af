"""The demo through the command line, on tiny data."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from aide_monai.cli.main import app, run
from aide_monai.workflows.comparison.results import read_results
from aide_monai.workflows.demo import demo_settings, run_demo

METHODS = ["labelled only", "two networks, nothing corrected", "AIDE", "clean labels"]
FIGURES = {"label_correction", "label_quality", "learning_curves", "memorisation", "per_case_dsc", "predictions"}


def demo(*arguments) -> int:
    command = ["demo", *(str(a) for a in arguments), "--epochs", "1", "--steps", "2"]
    return run(lambda: app(command, standalone_mode=False))


def two_classes(source: Path, folder: Path) -> Path:
    """The phantoms with the organ's lower half as a second class."""
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
        for path in sorted((source / kind).iterdir()):
            image = nibabel.load(path)
            voxels = np.asarray(image.dataobj).copy()
            if kind == "labelsTr":
                voxels[:, 16:] *= 2
            nibabel.save(nibabel.Nifti1Image(voxels, image.affine), folder / kind / path.name)
    content = json.loads((source / "dataset.json").read_text())
    content["labels"] = {"0": "background", "1": "front", "2": "back"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_the_demo_leaves_everything_it_promises(phantoms, tmp_path, capsys):
    folder = tmp_path / "run"
    assert demo("--data", phantoms, "--labeled", 1, "--unlabeled", 3, "--run-dir", folder) == 0
    printed = capsys.readouterr().out
    assert "AIDE has a DSC of" in printed
    assert str(folder / "report.html") in printed.replace("\n", "")
    jobs = folder / "all_cases" / "seed_0"
    assert {path.stem for path in (folder / "figures" / "all_cases").glob("*.png")} == FIGURES
    assert "| clean labels |" in (folder / "summary.md").read_text()

    rows = read_results(folder / "per_case.csv")
    assert list(dict.fromkeys(row["method"] for row in rows)) == METHODS
    assert {row["network"] for row in rows} == {"mean", "network_1", "network_2"}  # of every method: they are fair
    datalist = json.loads((folder / "datalist.json").read_text())
    held_out = {record["case"] for record in datalist["test"]}
    assert {row["case"] for row in rows} == held_out
    assert not held_out & {record["case"] for record in datalist["training"]}
    assert sum("label" in record for record in datalist["training"]) == 1
    assert all("clean_label" in record for record in datalist["training"] if "label" not in record)
    torch.load(jobs / "AIDE" / "models" / "model.pt", weights_only=True)
    assert (jobs / "AIDE" / "labels" / "journal.jsonl").exists()

    steps = {method: next(jobs.glob(f"{method[:8]}*/epochs.csv".replace(" ", "_"))).read_text() for method in METHODS}
    assert all(text.splitlines()[-1].startswith("1,2,") for text in steps.values())  # the same number of steps


def test_classes_are_kept_apart_when_asked(phantoms, tmp_path):
    data = two_classes(phantoms, tmp_path / "data")
    assert demo("--data", data, "--unlabeled", 3, "--classes", "--run-dir", tmp_path / "apart") == 0
    assert demo("--data", data, "--unlabeled", 3, "--run-dir", tmp_path / "merged") == 0
    names = {
        run: {row["label_name"] for row in read_results(tmp_path / run / "per_case.csv")} for run in ("apart", "merged")
    }
    assert names == {"apart": {"front", "back"}, "merged": {"front + back"}}
    masks = tmp_path / "masks"
    command = ["predict", tmp_path / "merged" / "bundle", "--dataset-dir", data / "imagesTr", "--output-dir", masks]
    assert run(lambda: app([str(word) for word in command], standalone_mode=False)) == 0
    assert {int(v) for path in masks.glob("*.nii.gz") for v in np.unique(nibabel.load(path).dataobj)} <= {0, 1}


def test_without_data_it_makes_its_own_phantoms(tmp_path):
    done = []
    settings = demo_settings(unlabeled=2, test=2, epochs=1, steps_per_epoch=1)
    result = run_demo(
        tmp_path / "run", settings, on_progress=lambda stage, now, total: done.append((stage, now, total))
    )
    assert len(list((tmp_path / "run" / "data" / "imagesTr").iterdir())) == 40
    assert {row["case"] for row in result.rows} == {record["case"] for record in _test_records(tmp_path / "run")}
    assert done[-1][1] == pytest.approx(done[-1][2])  # the bar ends at 100 %
    assert [now for _, now, _ in done] == sorted(now for _, now, _ in done)
    assert {"all cases AIDE", "all cases clean labels"} <= {stage for stage, _, _ in done}


def _test_records(folder: Path) -> list[dict]:
    return json.loads((folder / "datalist.json").read_text())["test"]


def test_real_volumes(aide_data, tmp_path):
    data = aide_data / "msd_hippocampus"
    assert demo("--data", data, "--labeled", 1, "--unlabeled", 2, "--test", 2, "--run-dir", tmp_path / "run") == 0
    rows = read_results(tmp_path / "run" / "per_case.csv")
    assert {row["label_name"] for row in rows} == {"Anterior + Posterior"}
