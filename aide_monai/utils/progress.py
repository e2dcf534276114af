"""Progress of long work where there is no terminal: in files, in the logs of SLURM, nohup and CI."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta

from rich.console import Console

_QUIET = "AIDE_QUIET"  # an environment variable, which processes that are started inherit


def is_quiet() -> bool:
    """Whether nobody wants to see progress and hints: ``--quiet``."""
    return bool(os.environ.get(_QUIET))


def set_quiet(quiet: bool) -> None:
    """Say so, for this process and those that it starts."""
    if quiet:
        os.environ[_QUIET] = "1"
    else:
        os.environ.pop(_QUIET, None)


def shows_bars(console: Console) -> bool:
    """Whether bars can move there: on a terminal and in a notebook."""
    return console.is_terminal or console.is_jupyter


class ProgressLines:
    """Tells a line when a stage begins, and for every so many percent of the whole, with the time that is left.

    Args:
        tell: prints a line.
        percent: between two lines of a stage.

    Examples:
        >>> lines = ProgressLines(print)
        >>> lines("reading", 0, 10)
        reading: 0 %
    """

    def __init__(self, tell: Callable[[str], None], percent: float = 5.0) -> None:
        self.tell = tell
        self.percent = percent
        self._begin = time.monotonic()
        self._stage = ""
        self._told = 0.0

    def __call__(self, stage: str, done: float, total: float) -> None:
        """Take note of the stage, what is done of the whole work, and the total."""
        percent = 100 * done / total if total else 0.0
        ended = percent >= 100 > self._told
        if stage == self._stage and percent < self._told + self.percent and not ended:
            return
        self._stage, self._told = stage, percent
        self.tell(f"{stage}: {percent:.0f} %{left(time.monotonic() - self._begin, done, total)}")


def left(seconds: float, done: float, total: float) -> str:
    """How long it has taken and, as far as that tells, how long it will still take; "" at the beginning.

    Examples:
        >>> left(60, 1, 4)
        ', 0:01:00, 0:03:00 left'
    """
    if not done:
        return ""
    rest = seconds / done * (total - done)
    return f", {timedelta(seconds=round(seconds))}, {timedelta(seconds=round(rest))} left"
