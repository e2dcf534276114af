"""The progress bar counts steps and leaves errors alone; without a terminal there are lines."""

from __future__ import annotations

from typing import Any

import pytest
from ignite.engine import Engine, Events

from aide_monai.handlers import TrainingProgress


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr("rich.console.Console.is_terminal", request.param)
    return request.param


@pytest.fixture
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console.Console.is_terminal", True)


def run(*, fail: bool = False, metric: str | None = "dsc_train", name: str = "AIDE") -> Any:
    """The state of the bar after two epochs of three steps."""

    def step(engine: Engine, batch: int) -> None:
        if fail and engine.state.iteration == 4:
            raise RuntimeError("out of memory")

    engine = Engine(step)

    @engine.on(Events.EPOCH_COMPLETED)
    def set_metric(engine: Engine) -> None:
        engine.state.metrics["dsc_train"] = 0.8125

    progress = TrainingProgress(name, metric=metric)
    progress.attach(engine)
    try:
        engine.run(range(3), max_epochs=2)
    finally:
        assert progress._bar.live.is_started is False
    return progress._bar.tasks[0]


@pytest.mark.usefixtures("_terminal")
def test_steps_of_all_epochs_and_the_metric() -> None:
    task = run()
    assert (task.total, task.completed) == (6, 6)
    assert task.description == "AIDE: epoch 2/2, dsc_train 0.812"


@pytest.mark.usefixtures("_terminal")
@pytest.mark.parametrize("metric", [None, "unknown"])
def test_without_a_metric(metric: str | None) -> None:
    assert run(metric=metric).description == "AIDE: epoch 2/2"


@pytest.mark.usefixtures("terminal")
def test_an_error_passes_and_the_bar_stops() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        run(fail=True)


def test_without_a_terminal_a_line_for_each_epoch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("rich.console.Console.is_terminal", False)
    monkeypatch.setattr("aide_monai.handlers.progress.time.monotonic", iter([0.0, 60.0, 120.0]).__next__)
    run()
    assert capsys.readouterr().out.splitlines() == [
        "AIDE: epoch 1/2, dsc_train 0.812, 0:01:00, 0:01:00 left",
        "AIDE: epoch 2/2, dsc_train 0.812, 0:02:00, 0:00:00 left",
    ]
