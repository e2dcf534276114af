"""Stand-ins for decoders that die or hang at files of certain names; others are read as ever."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aide_monai.io import ahead
from aide_monai.utils import workers
from aide_monai.utils.workers import Result


@contextmanager
def deadly_decoders(monkeypatch: Any, *kinds: str) -> Iterator[None]:
    """Within the block, these of "VOLUME", "LABELS" and "IMAGE" are read by the functions below."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    for kind in kinds:
        monkeypatch.setattr(ahead, kind, f"deadly_decoders:{getattr(ahead, kind).rpartition(':')[2]}")
    end_idle_workers()  # they do not know the path yet
    yield
    end_idle_workers()


def end_idle_workers() -> None:
    while workers._idle:
        workers._idle.pop().end()


def read_volume(path: str) -> Result:
    _meet(path)
    return ahead.read_volume(path)


def read_labels(path: str) -> Result:
    _meet(path)
    return ahead.read_labels(path)


def read_image(job: str) -> Result:
    _meet(job)
    return ahead.read_image(job)


def _meet(path: str) -> None:
    if "deadly" in path:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "endless" in path:
        time.sleep(600)
