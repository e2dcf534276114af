"""``aide labels``: what it prints, and its words for mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from aide_monai.cli import main as cli
from aide_monai.labels import LabelStore


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as their text, whatever terminal the tests run in."""
    monkeypatch.setattr(cli.console, "width", 200)


def aide(*arguments: object) -> int:
    """Exit code of the command, run in this process."""
    try:
        return cli.run(lambda: cli.app([str(a) for a in arguments], standalone_mode=True))
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two cases of 2 x 3 x 1 voxels; one is corrected for both networks after epoch 4."""
    label = torch.tensor([[1, 0, 0], [0, 0, 0]], dtype=torch.uint8).reshape(1, 2, 3, 1)
    meta = {"spatial_shape": (2, 3, 1), "original_affine": np.eye(4)}
    volumes = [
        {"case": case, "quality": "low", "label": MetaTensor(label, affine=torch.eye(4), meta=meta)}
        for case in ("liver [1]", "b")
    ]
    store = LabelStore.from_volumes(volumes, folder=tmp_path / "run" / "labels")
    for network, size in ((1, 1200), (2, 2)):
        new = torch.zeros(6, dtype=torch.uint8)
        new[:size] = 1
        store.replace(network, "liver [1]", new.reshape(2, 3, 1), epoch=4, dice_before=0.125 * network)
    store.commit(4)
    return tmp_path / "run"


def printed(capsys: pytest.CaptureFixture) -> list[str]:
    """Every line, with one space between its words."""
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("option", [["--list"], []])
def test_the_generations_are_listed(run: Path, capsys: pytest.CaptureFixture, option: list[str]) -> None:
    assert aide("labels", run, *option) == 0
    lines = printed(capsys)
    assert "change generation epoch cases changed voxels changed mean Dice before" in lines
    assert "as given 0 0" in lines
    assert "corrected 1 4 1 6 0.188" in lines
    assert "The labels of the last generation are in force." in lines


def test_two_generations_are_compared(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert aide("labels", run, "--diff", 0, 1) == 0
    lines = printed(capsys)
    assert "case networks foreground in 0 foreground in 1 voxels changed Dice of both" in lines
    assert "liver [1] 1 1 6 5 0.286" in lines
    assert "liver [1] 2 1 2 1 0.667" in lines
    assert "2 labels of 1 cases differ, 6 voxels in all." in lines


def test_a_generation_is_exported(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert aide("labels", run, "--export", 1, tmp_path / "out") == 0
    assert ["4 labels of generation 1:", str(tmp_path / "out")] == printed(capsys)
    voxels = nibabel.load(tmp_path / "out" / "network_2" / "liver [1].nii.gz").get_fdata()
    assert voxels.ravel().tolist() == [1, 1, 0, 0, 0, 0]


def test_what_was_cropped_or_resampled_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    label = torch.ones(1, 2, 3, 1, dtype=torch.uint8)
    meta = {"spatial_shape": (9, 9, 1), "original_affine": np.diag([0.5, 0.5, 1, 1])}
    volume = {"case": "a", "label": MetaTensor(label, affine=torch.eye(4), meta=meta)}
    LabelStore.from_volumes([volume], folder=tmp_path / "labels")
    assert aide("labels", tmp_path, "--export", 0, tmp_path / "out") == 0
    assert printed(capsys)[:2] == ["resampled: a", "background outside the trained part: a"]


def test_a_rollback_says_what_comes_next(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert aide("labels", run, "--rollback", 0) == 0
    assert (
        "Generation 2 has the labels of generation 0; a run that is resumed trains on them." in capsys.readouterr().out
    )
    assert aide("labels", run, "--list") == 0
    assert "rolled back to 0 2 0 1" in printed(capsys)
    assert aide("labels", run, "--diff", 0, 2) == 0
    assert "0 labels of 0 cases differ, 0 voxels in all." in printed(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["RUN", "--list", "--rollback", "0"],
            "found several of --list, --diff, --export and --rollback; expected one",
        ),
        (["RUN", "--diff", "0", "1", "--rollback", "0"], "found several of"),
        (["RUN", "--diff", "0", "7"], r"run/labels: there is no generation 7; expected 0\.\.1"),
        (["RUN", "--rollback", "7"], r"there is no generation 7; expected 0\.\.1"),
        (["RUN", "--rollback", "1"], "generation 1 is in force already"),
        (["RUN", "--export", "7", "out"], r"there is no generation 7; expected 0\.\.1"),
        (["RUN", "--export", "0", "RUN"], "is not an empty folder; choose a new one"),
        (["nowhere"], "nowhere: no such folder; expected the folder of a run"),
    ],
)
def test_mistakes_end_in_one_sentence(
    run: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    assert aide("labels", *(str(run) if argument == "RUN" else argument for argument in arguments)) == 2
    text = capsys.readouterr().err
    assert re.fullmatch(rf"Error: .*{message}.*\n", text), text


@pytest.mark.parametrize("arguments", [["--rollback", "first"], ["--diff", "1"], ["--export", "0"], ["--restore", "1"]])
def test_malformed_options_end_with_code_2(run: Path, capsys: pytest.CaptureFixture, arguments: list[str]) -> None:
    assert aide("labels", run, *arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
