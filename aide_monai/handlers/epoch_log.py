"""One line per epoch in a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import Tensor

from aide_monai.errors import InputError
from aide_monai.reports.tables import Row
from aide_monai.reports.text import csv_bytes
from aide_monai.utils import distributed
from aide_monai.utils.files import remove_unfinished, write_atomically


class EpochLog:
    """Writes the mean losses and all metrics of each epoch to a CSV file. Attach it after what it should record.

    The losses and lambda become ``engine.state.metrics`` too ("loss", "loss_1", "loss_2", "consistency"). So MONAI's
    ``TensorBoardStatsHandler`` and ``MLFlowHandler`` log whatever the CSV file has, if they are attached after it.

    All lines are ``engine.state.epoch_rows`` too, which ``RunCheckpoint`` saves: so the file of a run that is resumed
    comes back whatever has become of it.

    Of many processes the main one writes, and losses are averaged over all.

    Args:
        path: CSV file; created with its folder. Without ``epoch_rows`` an existing file is continued, and its lines of
            later epochs than the one the engine resumes from are dropped.

    Raises:
        InputError: when the engine runs, if the file to continue is damaged, or cannot be written; then the lines of
            the epochs before are intact.

    Examples:
        >>> import torch
        >>> from ignite.engine import Engine
        >>> from aide_monai import EpochLog
        >>> engine = Engine(lambda engine, batch: {"loss": torch.tensor(float(batch))})
        >>> EpochLog("epochs.csv").attach(engine)
        >>> _ = engine.run([1, 2, 3], max_epochs=2)
        >>> engine.state.metrics["loss"]
        2.0
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._engine: Any = None
        self._rows: list[Row] | None = None
        self._sums: dict[str, Tensor] = {}
        self._batches = 0

    @property
    def rows(self) -> list[Row]:
        """One dictionary per finished epoch, numbers as numbers, those of a resumed run's earlier epochs included."""
        if self._rows is None:
            self._rows = [] if self._engine is None else self._read(self._engine.state)
        return self._rows

    def attach(self, engine: Engine) -> None:
        """Register the log with an engine whose output has "loss" entries."""
        self._engine = engine
        if distributed.is_main():
            remove_unfinished(self.path)
        engine.add_event_handler(Events.STARTED, self._continue)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _continue(self, engine: Any) -> None:
        self._rows = self._read(engine.state)
        self._sums, self._batches = {}, 0
        if self._rows and not distributed.on_main(self.path.exists):
            self._write_file(self._rows)

    def _read(self, state: Any) -> list[Row]:
        """The lines up to the epoch of the engine: its own, else those that the main process finds in the file."""
        known = getattr(state, "epoch_rows", None)
        if known is not None:
            return [row for row in known if row["epoch"] <= state.epoch]
        return distributed.on_main(lambda: self._read_file(state.epoch))

    def _read_file(self, epoch: int) -> list[Row]:
        if epoch == 0 or not self.path.exists():
            return []
        try:
            with self.path.open(newline="") as file:
                rows = [
                    {key: _number(value) for key, value in line.items() if value != ""} for line in csv.DictReader(file)
                ]
            return [row for row in rows if row["epoch"] <= epoch]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
            raise InputError(
                f"{self.path}: found a damaged line or column ({error!r}); expected one line per epoch as this log "
                "writes it: restore the file, or remove it to continue with a new one"
            ) from error

    def _add(self, engine: Any) -> None:
        output = engine.state.output
        output = output[0] if isinstance(output, list) else output
        for key in ("loss", "loss_1", "loss_2"):
            if key in output:
                self._sums[key] = self._sums.get(key, 0.0) + output[key].detach()
        self._batches += 1

    def _write(self, engine: Any) -> None:
        state = engine.state
        row: Row = {"epoch": state.epoch, "iteration": state.iteration}
        row |= {key: self._mean(total) for key, total in self._sums.items()}
        if hasattr(state, "consistency"):
            row["consistency"] = state.consistency
        state.metrics.update({key: row[key] for key in row if key not in ("epoch", "iteration")})
        metrics = {key: value for key, value in state.metrics.items() if isinstance(value, (int, float))}
        # Not numpy's own numbers, which a checkpoint would not take
        row |= {key: float(value) if isinstance(value, float) else int(value) for key, value in metrics.items()}
        self._sums, self._batches = {}, 0
        rows = [*self.rows, row]
        self._write_file(rows)
        self._rows = state.epoch_rows = rows

    def _write_file(self, rows: list[Row]) -> None:
        content = csv_bytes(list(dict.fromkeys(key for row in rows for key in row)), rows)
        distributed.on_main(lambda: write_atomically(self.path, lambda file: file.write(content)))

    def _mean(self, total: Tensor) -> float:
        everywhere = distributed.total(total) / distributed.world_size() if distributed.world_size() > 1 else total
        return float(everywhere) / self._batches


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def read_epochs(path: str | Path) -> list[dict[str, float]]:
    """One dictionary per epoch; values that an epoch lacks are absent.

    Raises:
        InputError: if the file is missing or damaged.
    """
    try:
        with Path(path).open(newline="") as file:
            return [{key: float(value) for key, value in row.items() if value != ""} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise InputError(
            f"{path}: not a readable log ({error}); expected one line per epoch: restore it, or remove its folder to "
            "train again"
        ) from error
