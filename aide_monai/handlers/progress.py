"""A progress bar for long training runs."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aide_monai.utils import distributed


class TrainingProgress:
    """Shows epoch, steps done, time left and a metric on the terminal. Attach it last.

    Args:
        name: what is being trained.
        metric: key in ``engine.state.metrics`` that is shown once it is known.
    """

    def __init__(self, name: str = "training", *, metric: str | None = "dsc_train") -> None:
        self.name = name
        self.metric = metric
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task(name, total=None)

    def attach(self, engine: Engine) -> None:
        """Register the bar with an engine; of many processes the main one shows it."""
        if not distributed.is_main():
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        for event in (Events.COMPLETED, Events.EXCEPTION_RAISED):
            engine.add_event_handler(event, self._stop)

    def _start(self, engine: Any) -> None:
        state = engine.state
        self._bar.start()
        self._bar.update(self._task, total=state.max_epochs * state.epoch_length, completed=state.iteration)

    def _step(self, engine: Any) -> None:
        state = engine.state
        description = f"{self.name}: epoch {state.epoch}/{state.max_epochs}"
        value = state.metrics.get(self.metric)
        if value is not None:
            description += f", {self.metric} {value:.3f}"
        self._bar.update(self._task, description=description, completed=state.iteration)

    def _stop(self, engine: Any, error: Exception | None = None) -> None:
        self._bar.stop()
        if error is not None:
            raise error
