"""Commands end with the next one, and that can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from aide_monai.cli.main import app, run
from aide_monai.data.sources.phantom import write_phantoms

SIZES = "--epochs 1 --steps-per-epoch 1 --labeled 1 --unlabeled 1 --network_args#features [4,4,4,4,4,4]"


def aide(*arguments: object) -> int:
    """Exit code of the command, run in this process."""
    return run(lambda: app([str(a) for a in arguments], prog_name="aide", standalone_mode=False))


def advised(told: str, title: str, **values: object) -> list[str]:
    """The arguments of the command after a title, with values for the names in capitals."""
    (line,) = [line for line in told.splitlines() if line.startswith(f"{title}: aide ")]
    words = shlex.split(line.removeprefix(f"{title}: aide "))
    return [str(values.get(word, word)) for word in words]


def test_from_a_datalist_to_masks(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tmp_path = tmp_path / "scans of May"
    data = write_phantoms(tmp_path / "data", cases=4, shape=(16, 16, 4))
    assert aide("prepare", "decathlon", data, "--out", data / "datalist.json") == 0
    assert aide("new-bundle", tmp_path / "mine", "--datalist", data / "datalist.json") == 0
    training = advised(capsys.readouterr().out, "Train it", RUN=tmp_path / "run")
    assert aide(*training, *SIZES.split()) == 0
    told = capsys.readouterr().out
    assert re.search(r"^Kept epoch 1 of 1, Dice 0\.\d{3} with the current training labels\.$", told, re.MULTILINE)
    scoring = advised(told, "Score the held-out cases")
    assert aide(*scoring) == 0
    assert "| DSC (%) |" in capsys.readouterr().out
    prediction = advised(told, "Segment volumes", VOLUMES=data / "imagesTr", MASKS=tmp_path / "masks")
    assert aide(*prediction) == 0
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 4


def test_a_bundle_that_comes_with_the_package(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert aide("bundle", "copy", "hippocampus_ssl", tmp_path / "mine") == 0
    assert (
        advised(capsys.readouterr().out, "Train it")
        == f"train {tmp_path / 'mine'} --dataset-dir DATA --run-dir RUN".split()
    )
    assert aide("bundle", "copy", "hippocampus_ssl", tmp_path / "mine") == 2
    assert "exists already" in capsys.readouterr().err
    assert aide("bundle", "copy", "hipocampus_ssl", tmp_path / "other") == 2
    assert "did you mean hippocampus_ssl?" in capsys.readouterr().err


def test_the_weights_that_come_with_a_bundle_segment_at_once(tmp_path: Path) -> None:
    data = write_phantoms(tmp_path / "data", cases=2, shape=(40, 48, 6))
    assert aide("bundle", "copy", "hippocampus_ssl", tmp_path / "mine") == 0
    arguments = ("--dataset-dir", data / "imagesTr", "--output-dir", tmp_path / "masks")
    assert aide("predict", tmp_path / "mine", *arguments) == 0
    assert len(list((tmp_path / "masks").glob("*_seg.nii.gz"))) == 2


def test_a_step_before_the_training_makes_nothing_of_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = write_phantoms(tmp_path / "data", cases=4, shape=(16, 16, 4))
    assert aide("bundle", "copy", "hippocampus_ssl", tmp_path / "mine") == 0
    (tmp_path / "mine/configs/evaluate.json").unlink()
    arguments = ("--config", "train,pretrain", "--dataset-dir", data, "--run-dir", tmp_path / "run", *SIZES.split())
    assert aide("train", tmp_path / "mine", *arguments) == 0
    assert [path.name for path in (tmp_path / "run").iterdir() if path.is_dir()] == ["pretrained"]
    told = capsys.readouterr().out
    assert "Kept epoch" not in told
    assert "Score the held-out cases" not in told
