"""Waiting for what another process does: for a state of things, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

LIMIT_SECONDS = 900  # for anything; it tells a test that hangs from a machine that is busy
T = TypeVar("T")


def wait_for(state: Callable[[], T], *, alive: Callable[[], bool] = lambda: True, what: str = "") -> T:
    """The first value of ``state`` that is true.

    Args:
        state: asked again and again.
        alive: whether it can still become true; asked before, so that a process may do it and end.
        what: for the message of a failure.
    """
    end = time.monotonic() + LIMIT_SECONDS
    while True:
        possible = alive() and time.monotonic() < end
        found = state()
        if found:
            return found
        assert possible, f"this did not come about: {what or state}"
        time.sleep(0.05)
