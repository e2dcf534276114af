"""One CSV line per epoch."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events

from aide_monai.errors import InputError
from aide_monai.handlers import ConsistencyRamp, EpochLog


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def engine_with_losses(losses: list[float], *, decollated: bool = False) -> Engine:
    def step(engine: Engine, batch: object) -> Any:
        loss = torch.tensor(losses[(engine.state.iteration - 1) % len(losses)], requires_grad=True)
        output = {"loss": loss, "loss_1": 2 * loss, "logits_1": torch.zeros(1, 2, 2, 2)}
        return [output] if decollated else output

    return Engine(step)


def test_mean_losses_and_metrics_of_each_epoch(tmp_path: Path) -> None:
    engine = engine_with_losses([1.0, 2.0, 6.0, 3.0, 3.0, 3.0])
    ConsistencyRamp(2).attach(engine)

    @engine.on(Events.EPOCH_COMPLETED)
    def set_metrics(engine: Engine) -> None:
        engine.state.metrics["dsc_train"] = 0.25 * engine.state.epoch
        engine.state.metrics["matrix"] = torch.zeros(2, 2)

    path = tmp_path / "new" / "epochs.csv"
    log = EpochLog(path)
    log.attach(engine)
    engine.run(range(3), max_epochs=2)
    expected = [
        {"epoch": 1, "iteration": 3, "loss": 3.0, "loss_1": 6.0, "consistency": 0.0, "dsc_train": 0.25},
        {"epoch": 2, "iteration": 6, "loss": 3.0, "loss_1": 6.0, "consistency": 0.25, "dsc_train": 0.5},
    ]
    assert log.rows == expected
    assert [{key: float(value) for key, value in row.items()} for row in read(path)] == expected
    assert [entry.name for entry in path.parent.iterdir()] == ["epochs.csv"]


def test_the_output_of_an_engine_that_decollates(tmp_path: Path) -> None:
    engine, log = engine_with_losses([1.0, 3.0], decollated=True), EpochLog(tmp_path / "epochs.csv")
    log.attach(engine)
    engine.run(range(2))
    assert log.rows == [{"epoch": 1, "iteration": 2, "loss": 2.0, "loss_1": 4.0}]


def test_a_metric_that_comes_later_has_a_column(tmp_path: Path) -> None:
    engine = engine_with_losses([1.0])

    @engine.on(Events.EPOCH_COMPLETED(once=2))
    def set_metrics(engine: Engine) -> None:
        engine.state.metrics["late"] = 7

    EpochLog(tmp_path / "epochs.csv").attach(engine)
    engine.run([0], max_epochs=2)
    assert [row["late"] for row in read(tmp_path / "epochs.csv")] == ["", "7"]


def run(path: Path, epochs: int, *, after: int = 0, loss: float = 1.0) -> None:
    engine = engine_with_losses([loss])
    EpochLog(path).attach(engine)
    if after:
        engine.load_state_dict({"epoch": after, "max_epochs": epochs, "epoch_length": 1})
    engine.run([0], max_epochs=epochs)


def test_a_resumed_run_continues_the_file(tmp_path: Path) -> None:
    path = tmp_path / "epochs.csv"
    run(path, 3)
    run(path, 5, after=2, loss=9.0)  # killed in epoch 4: its checkpoint is from epoch 2
    assert [(row["epoch"], float(row["loss"])) for row in read(path)] == [
        ("1", 1.0),
        ("2", 1.0),
        ("3", 9.0),
        ("4", 9.0),
        ("5", 9.0),
    ]


def test_a_new_run_starts_the_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "epochs.csv"
    run(path, 3)
    run(path, 1, loss=5.0)
    assert [row["loss"] for row in read(path)] == ["5.0"]


@pytest.mark.parametrize("after", [0, 2])
def test_a_missing_file_is_no_error(tmp_path: Path, after: int) -> None:
    run(tmp_path / "epochs.csv", 3, after=after)
    assert [row["epoch"] for row in read(tmp_path / "epochs.csv")] == [str(n) for n in range(after + 1, 4)]


def log_of(path: Path, epochs: int, *, after: int = 0) -> EpochLog:
    """The log of an engine that runs on after an epoch, with metrics of every kind."""
    engine, log = engine_with_losses([0.1 + 0.2]), EpochLog(path)

    @engine.on(Events.EPOCH_COMPLETED)
    def set_metrics(engine: Engine) -> None:
        engine.state.metrics |= {"small": 1e-17 / 3, "not a number": float("nan"), "count": 12, "flag": True}
        if engine.state.epoch > 1:
            engine.state.metrics["late"] = -0.0

    log.attach(engine)
    if after:
        engine.load_state_dict({"epoch": after, "max_epochs": epochs, "epoch_length": 1})
    engine.run([0], max_epochs=epochs)
    return log


@pytest.mark.parametrize("after", [1, 2, 3])
def test_the_rows_of_a_resumed_run_are_those_of_a_whole_one(tmp_path: Path, after: int) -> None:
    whole = log_of(tmp_path / "whole.csv", 4)
    log_of(tmp_path / "parts.csv", after)
    resumed = log_of(tmp_path / "parts.csv", 4, after=after)
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert repr(resumed.rows) == repr(whole.rows)  # nan differs from itself, its text does not
    assert [type(value) for value in resumed.rows[0].values()] == [int, int, *[float] * 4, int, int]
    assert "late" not in resumed.rows[0]


def test_a_finished_run_that_is_resumed_has_its_rows(tmp_path: Path) -> None:
    """The engine has nothing left to run, so no event tells the log."""
    rows = log_of(tmp_path / "epochs.csv", 3).rows
    engine, log = engine_with_losses([1.0]), EpochLog(tmp_path / "epochs.csv")
    assert log.rows == []
    log = EpochLog(tmp_path / "epochs.csv")
    log.attach(engine)
    engine.load_state_dict({"epoch": 3, "max_epochs": 3, "epoch_length": 1})
    assert repr(log.rows) == repr(rows)


@pytest.mark.parametrize(
    "content",
    [
        "epoch,loss\n1,0.5\n2,half\n",
        "epoch,loss\n1,0.5\n2\n",
        "epoch,loss\n1,0.5,7\n2,1\n",
        "loss\n0.5\n",
        "epoch\n\0\n",
    ],
    ids=["text", "short line", "long line", "no epoch", "binary"],
)
def test_a_damaged_file_is_named_when_it_is_continued(tmp_path: Path, content: str) -> None:
    path = tmp_path / "epochs.csv"
    path.write_text(content)
    with pytest.raises(
        InputError, match=r"epochs\.csv: found a damaged line or column \(.*\); expected one line per epoch"
    ):
        run(path, 3, after=2)
    assert path.read_text() == content
    run(path, 1)  # a new run starts it anew


def test_a_refused_write_leaves_the_lines_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "epochs.csv"
    run(path, 2)
    before = path.read_bytes()

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(InputError, match=r"epochs\.csv: cannot be written \(No space left on device\); expected"):
        run(path, 3, after=2)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["epochs.csv"]


def test_what_a_killed_write_has_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".epochs.csv.tmp").write_text("epoch,lo")
    run(tmp_path / "epochs.csv", 1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["epochs.csv"]
