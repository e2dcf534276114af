"""The progress of a training: a bar on the terminal, a line for each epoch elsewhere."""

from __future__ import annotations

import time
from typing import Any

from ignite.engine import Engine, Events
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aide_monai.utils import distributed
from aide_monai.utils.progress import is_quiet, left, shows_bars


class TrainingProgress:
    """Shows epoch, steps done, time left and a metric on the terminal; elsewhere a line for each epoch. Attach it last.

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
        self._begin, self._epoch = 0.0, 0

    def attach(self, engine: Engine) -> None:
        """Register the bar with an engine; of many processes the main one shows it."""
        if not distributed.is_main() or is_quiet():
            return
        engine.add_event_handler(Events.STARTED, self._start)
        if not shows_bars(self._bar.console):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._line)
            return
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        for event in (Events.COMPLETED, Events.EXCEPTION_RAISED):
            engine.add_event_handler(event, self._stop)

    def _start(self, engine: Any) -> None:
        state = engine.state
        self._begin, self._epoch = time.monotonic(), state.epoch
        if not shows_bars(self._bar.console):
            return
        self._bar.start()
        self._bar.update(self._task, total=state.max_epochs * state.epoch_length, completed=state.iteration)

    def _step(self, engine: Any) -> None:
        self._bar.update(self._task, description=self._description(engine.state), completed=engine.state.iteration)

    def _line(self, engine: Any) -> None:
        state = engine.state
        done, total = state.epoch - self._epoch, state.max_epochs - self._epoch
        line = self._description(state) + left(time.monotonic() - self._begin, done, total)
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _description(self, state: Any) -> str:
        description = f"{self.name}: epoch {state.epoch}/{state.max_epochs}"
        value = state.metrics.get(self.metric)
        return description if value is None else f"{description}, {self.metric} {value:.3f}"

    def _stop(self, engine: Any, error: Exception | None = None) -> None:
        self._bar.stop()
        if error is not None:
            raise error
