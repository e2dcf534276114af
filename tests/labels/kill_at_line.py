"""Runs a function in a forked process and kills the process at a chosen line of Python."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def killed_at(line: int, function: Callable[[], Any], *, files: tuple[str, ...]) -> bool:
    """Whether ``function`` got as far as the ``line``-th line, from 1, that it runs in source files that end so.

    The process is killed before that line runs; a function that has fewer lines runs to its end.
    """
    process = os.fork()
    if process == 0:
        code = 1
        try:
            sys.settrace(_Killer(line, files))
            function()
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status != 0


class _Killer:
    def __init__(self, line: int, files: tuple[str, ...]) -> None:
        self.left = line
        self.files = files

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.endswith(self.files):
            return None
        if event == "line":
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
        return self
