"""A mistake is told before PyTorch and MONAI are loaded, which takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aide_monai.data.sources.phantom import write_phantoms

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "hippocampus_ssl"
EXPERIMENT = BUNDLE / "experiments" / "ssl.json"
_SHOW = """
import runpy, sys
try:
    runpy.run_module("aide_monai.cli", run_name="__main__")
except SystemExit as end:
    print([end.code, [name for name in ("torch", "monai") if name in sys.modules]])
"""


def loaded(*arguments: object) -> list:
    """Exit code of the command, and which of the two heavy libraries it has loaded."""
    command = [sys.executable, "-c", _SHOW, *map(str, arguments)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    return json.loads(told.splitlines()[-1].replace("'", '"'))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> Path:
    """A folder with a damaged datalist, a damaged config of an experiment, and phantoms that are none."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "datalist.json").write_text('{"name": "liver", "labels": 7}')
    config = json.loads(EXPERIMENT.read_text())
    (folder / "key.json").write_text(json.dumps(config | {"budgets": 1}))
    (folder / "budget.json").write_text(json.dumps(config | {"budget": {"epochs": 0, "steps_per_epoch": 1}}))
    (folder / "method.json").write_text(json.dumps(config | {"methods": {"AIDE": {"updat_ratio": 1}}}))
    (folder / "empty").mkdir()
    data = write_phantoms(folder / "phantoms", cases=2, shape=(8, 8, 3))
    next((data / "labelsTr").iterdir()).unlink()
    return folder


@pytest.mark.parametrize(
    "typed",
    [
        "demo --data nowhere",
        "demo --data phantoms",
        "demo --labeled 0",
        "demo --epochs 0",
        "demo --device nope",
        "compare EXPERIMENT --device nope",
        "train BUNDLE --device nope",
        "train BUNDLE --device cuda:x",
        "train BUNDLE --profile nope",
        "train BUNDLE --amp nope",
        "train BUNDLE --dataset-dir empty",
        "predict BUNDLE --dataset-dir empty",
        "predict BUNDLE --device nope",
        "run nowhere",
        "run phantoms",
        "run phantoms --profile best",
        "audit phantoms",
        "audit nowhere --predictions empty",
        "audit datalist.json --predictions empty",
        "audit datalist.json --predictions empty --map 5",
        "check nowhere",
        "plan nowhere",
        "plan phantoms --spatial-dims 4",
        "check datalist.json",
        "prepare folder nowhere --out new.json",
        "prepare decathlon phantoms --out new.json",
        "train nowhere",
        "train BUNDLE --epoch 2",
        "train BUNDLE --dataset-dir nowhere",
        "train BUNDLE",
        "train BUNDLE --resume",
        "train BUNDLE --config trian",
        "train BUNDLE --epochs 0",
        "train BUNDLE --batch_size -1",
        "predict nowhere",
        "predict BUNDLE",
        "predict BUNDLE --dataset-dir nowhere",
        "predict BUNDLE --output_fromat nifti",
        "evaluate --pred nowhere --ref nowhere",
        "evaluate --compare a.csv b.csv",
        "labels nowhere",
        "labels phantoms",
        "compare nowhere.json",
        "compare key.json",
        "compare budget.json",
        "compare method.json",
        "compare EXPERIMENT --data nowhere",
        "new-bundle new --datalist nowhere.json",
        "new-bundle new --datalist datalist.json",
        "label-app new --bundle nowhere",
        "label-app new --bundle BUNDLE --weights nowhere.pt",
        "nothing",
    ],
)
def test_a_mistake_is_told_without_them(typed: str, faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(faulty)
    known = {"BUNDLE": BUNDLE, "EXPERIMENT": EXPERIMENT}
    assert loaded(*(known.get(word, word) for word in typed.split())) == [2, []]


@pytest.mark.parametrize("typed", ["--help", "--version", "train --help", "prepare chaos --help"])
def test_help_is_shown_without_them(typed: str) -> None:
    assert loaded(*typed.split()) == [0, []]


def test_a_run_loads_them(tmp_path: Path) -> None:
    data = write_phantoms(tmp_path / "data", cases=4, shape=(16, 16, 4))
    sizes = ["--epochs", "1", "--steps", "1", "--labeled", "1", "--unlabeled", "1", "--test", "1"]
    assert loaded("demo", "--data", data, *sizes, "--run-dir", tmp_path / "run") == [0, ["torch", "monai"]]
