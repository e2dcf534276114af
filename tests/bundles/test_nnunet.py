"""nnU-Net's raw data folder goes through every door of the command line: trained on, segmented, scored, compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from aide_monai.data.datalist import Datalist
from aide_monai.reports.tables import read_csv
from tests.bundles.doors import TRAINING, aide, as_options
from tests.bundles.layouts import UNET
from tests.data.sources.nnunet_files import write_nnunet

TINY = ("--epochs", "1", "--steps", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight cases of two channels: one without a label, two to judge by."""
    return write_nnunet(tmp_path_factory.mktemp("nnUNet_raw") / "Dataset007_Phantoms", cases=8, test=3)


@pytest.fixture(scope="module")
def bundle(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "phantoms"
    out = folder.parent / "datalist.json"
    assert aide("prepare", "nnunet", raw, "--out", out) == 0
    assert aide("new-bundle", folder, "--datalist", out, "--root", raw) == 0
    return folder


@pytest.fixture(scope="module")
def trained(raw: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    assert aide("train", bundle, "--dataset-dir", raw, "--run-dir", run, **UNET, **TRAINING) == 0
    return run


def test_a_fold_is_an_option_of_a_bundle(raw: Path, bundle: Path, tmp_path: Path) -> None:
    data = shutil.copytree(raw, tmp_path / "data")
    fold = {"train": ["phantom_003", "phantom_004"], "val": ["phantom_005"]}
    (data / "splits_final.json").write_text(json.dumps([fold]))
    options = {**UNET, **TRAINING, "layout": "nnunet", "source#split_fold": 0}
    assert aide("train", bundle, "--dataset-dir", data, "--run-dir", tmp_path / "run", **options) == 0
    trained_on = Datalist.load(tmp_path / "run" / "standardized" / "datalist.json", roots=[data, tmp_path / "run"])
    assert [case.name for case in trained_on.of_split("training") if case.trusted] == fold["train"]
    assert "phantom_005" in [case.name for case in trained_on.of_split("test")]


def test_masks_pair_with_the_labels_of_the_folder(raw: Path, bundle: Path, trained: Path, tmp_path: Path) -> None:
    for side, cases in (("Tr", 4), ("Ts", 2)):
        masks, scores = tmp_path / f"masks{side}", tmp_path / f"scores{side}"
        words = ("predict", bundle, "--dataset-dir", raw / f"images{side}", "--run-dir", trained)
        assert aide(*words, "--output-dir", masks, "--output-format", "nnunet", *as_options(UNET)) == 0
        assert len(list(masks.iterdir())) == cases + 1
        for mask in masks.iterdir():  # nobody can score those without a label
            if not (raw / f"labels{side}" / mask.name).exists():
                mask.unlink()
        assert aide("evaluate", "--pred", masks, "--ref", raw / f"labels{side}", "--out", scores) == 0
        assert len({row["case"] for row in read_csv(scores / "per_case.csv")}) == cases


def test_methods_are_compared_on_the_folder(raw: Path, tmp_path: Path) -> None:
    assert aide("demo", "--data", raw, "--run-dir", tmp_path / "demo", *TINY) == 0
    config = json.loads((tmp_path / "demo" / "experiment.json").read_text())
    assert config["cases"]["test"] == ["phantom_001", "phantom_002"]
    out = tmp_path / "again"
    assert aide("compare", tmp_path / "demo" / "experiment.json", "--data", raw, "--out", out) == 0
    assert aide("run", raw, "--run-dir", tmp_path / "run", *TINY) == 0
    assert aide("check", raw, "--layout", "nnunet", "--out", tmp_path / "check") == 0
