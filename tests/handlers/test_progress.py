"""The progress bar counts steps and leaves errors alone."""

from __future__ import annotations

from typing import Any

import pytest
from ignite.engine import Engine, Events

from aide_monai.handlers import TrainingProgress


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


def test_steps_of_all_epochs_and_the_metric() -> None:
    task = run()
    assert (task.total, task.completed) == (6, 6)
    assert task.description == "AIDE: epoch 2/2, dsc_train 0.812"


@pytest.mark.parametrize("metric", [None, "unknown"])
def test_without_a_metric(metric: str | None) -> None:
    assert run(metric=metric).description == "AIDE: epoch 2/2"


def test_an_error_passes_and_the_bar_stops() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        run(fail=True)
