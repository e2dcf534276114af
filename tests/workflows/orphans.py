"""A comparison with one endless job, whose process does not end by the clock; ``test_stopping.py`` kills it."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aide_monai.utils import processes
from aide_monai.workflows.comparison import run


@dataclass
class Endless:
    """What a worker needs of a ``Job``."""

    begun: Path
    budget: Any = field(default_factory=lambda: SimpleNamespace(seed=0))

    def run(self) -> None:
        self.begun.touch()
        while True:
            time.sleep(0.05)


def start_patiently(threads: int, parent: int) -> None:
    processes._GRACE_SECONDS = 1e6
    start(threads, parent)


start = run._start_worker

if __name__ == "__main__":
    from tests.workflows import orphans  # by its name, for the process of the job

    run._start_worker = orphans.start_patiently
    run._Worker(1).start(orphans.Endless(Path(sys.argv[1]))).result()  # type: ignore[arg-type]
