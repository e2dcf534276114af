"""``aide train --from RUN``: a finished run goes on with more cases and better labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aide_monai.data.datalist import Datalist
from aide_monai.data.sources import find_datalist, write_phantoms
from aide_monai.reports.tables import read_csv
from aide_monai.workflows.labels import list_generations
from tests.bundles.doors import aide, monai_bundle_run, weights

NETWORK: dict[str, Any] = {"slice_size": [32, 32], "network_args#features": [8, 8, 16, 16, 16, 8], "device": "cpu"}
TRUSTED, REVIEWED, CASES = range(4), range(9), 22
THIRD = 2  # epochs


def list_of(data: Path, trusted: Collection[int], training: int, name: str) -> Path:
    """The first cases train, most of them without a label; the last eight judge."""
    found = find_datalist(data / "dataset.json")
    cases = [case if k in trusted else case.hidden() for k, case in enumerate(found.cases[:training])]
    cases += [replace(case, split="test") for case in found.cases[CASES - 8 :]]
    replace(found, cases=cases).save(data / name)
    return data / name


def score(bundle: Path, data: Path, run: Path) -> float:
    assert aide("train", bundle, "--config", "evaluate", dataset_dir=str(data), run_dir=str(run), **NETWORK) == 0
    return float(np.mean([row["dsc"] for row in read_csv(run / "eval" / "per_case.csv") if row["network"] == "mean"]))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("data"), cases=CASES, shape=(32, 32, 6), spacing_mm=(6, 6, 20))


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "phantoms"
    assert aide("new-bundle", folder, "--datalist", list_of(data, TRUSTED, 9, "first.json")) == 0
    return folder


@pytest.fixture(scope="module")
def first(data: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: four cases with labels, and five without, whose labels AIDE has corrected."""
    run = tmp_path_factory.mktemp("runs") / "first"
    words = ("train", bundle, "--dataset-dir", data / "first.json", "--run-dir", run, "--seed", 0)
    assert aide(*words, "--epochs", 12, "--steps-per-epoch", 20, **NETWORK) == 0
    return run


@pytest.fixture(scope="module")
def second(data: Path) -> Path:
    """The five labels of before were reviewed, and two cases without a label are new."""
    return list_of(data, REVIEWED, 11, "second.json")


def options(data: Path, run: Path, epochs: int = THIRD, **others: Any) -> dict[str, Any]:
    budget = {"epochs": epochs, "steps_per_epoch": 10, "seed": 0}
    return {"dataset_dir": str(data), "run_dir": str(run), **budget, **NETWORK, **others}


@pytest.fixture(scope="module")
def warm(bundle: Path, first: Path, second: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "warm"
    assert aide("train", bundle, "--from", first, **options(second, run)) == 0
    return run


def test_five_reviewed_labels_make_a_better_model_in_a_third_of_the_steps(
    data: Path, bundle: Path, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reviewed = list_of(data, REVIEWED, 9, "reviewed.json")
    assert aide("train", bundle, "--from", first, **options(reviewed, tmp_path / "warm")) == 0
    assert aide("train", bundle, **options(reviewed, tmp_path / "scratch", epochs=3 * THIRD)) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "continued from generation" in line]
    assert len(told) == 1
    assert "4 kept (phantom_000, phantom_001, phantom_002 and 1 more); 5 reviewed (phantom_004" in told[0]
    dsc = {name: score(bundle, reviewed, tmp_path / name) for name in ("warm", "scratch")}
    assert dsc["warm"] > dsc["scratch"] + 0.02  # seen: 0.74 and 0.65
    assert dsc["warm"] > score(bundle, reviewed, first) + 0.02  # seen: 0.67


def test_the_history_and_the_labels_of_before_go_on(first: Path, warm: Path) -> None:
    before, after = list_generations(first), list_generations(warm)
    assert [(row["change"], row["epoch"]) for row in after[: len(before)]] == [
        (row["change"], row["epoch"]) for row in before
    ]
    assert after[len(before)]["change"] == "as given, after first"
    assert after[len(before)]["cases"] == 5
    assert not (warm / "pretrained").exists()
    given = Datalist.load(warm / "standardized" / "datalist.json", roots=[second_root(warm), warm.parent])
    made = {case.name for case in given.of_split("training") if case.doubtful}
    assert made == {"phantom_009", "phantom_010"}  # labelled by the networks of before


def second_root(run: Path) -> Path:
    """The folder that the images of a run lie in."""
    content = json.loads((run / "standardized" / "datalist.json").read_text())
    return Path(content["training"][0]["image"]).parents[1]


def test_a_case_without_a_label_begins_with_that_of_before(
    data: Path, bundle: Path, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    monai_bundle_run(bundle, "train", start_from=str(first), **options(data / "first.json", run, epochs=1))
    assert "9 kept" in capsys.readouterr().err
    for name in ("phantom_004", "phantom_008"):
        file = f"standardized/pseudo_labels/{name}.nii.gz"
        assert (run / file).read_bytes() == (first / file).read_bytes()


def test_a_run_that_was_killed_resumes_without_being_told(
    bundle: Path, second: Path, warm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = shutil.copytree(warm, tmp_path / "again")
    capsys.readouterr()
    assert aide("train", bundle, **options(second, again)) == 2
    assert "already holds the labels of a run" in capsys.readouterr().err.replace("\n", " ")
    (again / "checkpoint.pt").unlink()  # killed before its first epoch was saved
    shutil.rmtree(again / "models")
    (again / "epochs.csv").unlink()
    assert aide("train", bundle, "--resume", **options(second, again)) == 0
    one, other = weights(warm), weights(again)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert list_generations(again) == list_generations(warm)


def test_what_cannot_be_continued_is_refused(
    data: Path,
    bundle: Path,
    first: Path,
    second: Path,
    warm: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(run: Path | str, *words: object, at: Path = tmp_path / "run", **others: Any) -> str:
        assert aide("train", bundle, "--from", run, *words, **options(second, at, **others)) == 2
        return " ".join(capsys.readouterr().err.split())

    (tmp_path / "empty").mkdir()
    assert "no labels of a run" in refused(tmp_path / "empty")
    assert "no such folder" in refused(tmp_path / "nowhere")
    (tmp_path / "unfinished").mkdir()
    shutil.copytree(first / "labels", tmp_path / "unfinished" / "labels")
    assert "no weights; expected models/model.pt" in refused(tmp_path / "unfinished")
    assert "the run's own folder; choose a new run folder" in refused(first, at=first)
    assert f"this run began from {first}; resume it without --from" in refused(
        tmp_path / "unfinished", "--resume", at=warm
    )
    classes = {"0": "background", "1": "liver"}
    assert "found the classes 0 background, 1 liver; expected 0 background, 1 organ" in refused(first, labels=classes)
    more = refused(first, **{"network_args#in_channels": 2})
    assert "found images of 2 channels; expected 1, which it was trained with" in more
    assert "found volume_options#fit" in refused(first, **{"volume_options#fit": "crop"})
    assert not (tmp_path / "run" / "continues.json").exists()
    content = json.loads(second.read_text())
    content["modality"] = {"0": "CT"}
    (data / "other.json").write_text(json.dumps(content))
    assert "found the channels CT; expected MRI" in refused(first, dataset_dir=str(data / "other.json"))
    assert not (tmp_path / "run" / "labels").exists()


def test_two_processes_go_on_as_one(bundle: Path, first: Path, second: Path, warm: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert aide("train", bundle, "--from", first, "--processes", 2, **options(second, run, epochs=1)) == 0
    beginning = len(list_generations(first))
    assert list_generations(run)[: beginning + 1] == list_generations(warm)[: beginning + 1]


def test_the_folder_of_aide_run_is_continued_too(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("run", data / "first.json", "--run-dir", run, "--epochs", 2, "--steps", 2, "--device", "cpu")
    assert aide(*words) == 0
    words = ("train", run / "bundle", "--from", run, "--dataset-dir", data / "first.json", "--run-dir", tmp_path / "on")
    assert aide(*words, "--epochs", 1, "--steps-per-epoch", 2, "--device", "cpu") == 0
    changes = [row["change"] for row in list_generations(tmp_path / "on")]
    assert any(change.startswith("as given, after") for change in changes)
