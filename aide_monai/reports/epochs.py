"""The log of a training run, as ``EpochLog`` writes it."""

from __future__ import annotations

import csv
from pathlib import Path


def read_epochs(path: str | Path) -> list[dict[str, float]]:
    """One dictionary per epoch; values that an epoch lacks are absent."""
    with Path(path).open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value != ""} for row in csv.DictReader(file)]
