"""How a process comes to its end: at a signal as by Ctrl-C, and with the process that has started it."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

PARENT = "AIDE_PARENT"
"""Environment variable: number of the process that those it starts shall not outlive; their own do not inherit it."""

_POLL_SECONDS = 1.0
_GRACE_SECONDS = 20.0
_received: list[int] = []
_followed: list[int] = []  # the process that this one ends with, by the environment
_starters: list[int] = []  # the same, of every call of ``end_with``


def launched() -> bool:
    """Whether torchrun, or a launcher that sets the same variables, has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


class Stopped(SystemExit):
    """Somebody has stopped this process: by Ctrl-C (SIGINT), or as SLURM, docker stop and systemd do (SIGTERM).

    It passes through ``except Exception``, tidies up on its way, and ends the process without a traceback.

    Args:
        code: exit code of the process, 128 and the number of the signal, as shells have it.

    Attributes:
        code: the same.
        advice: what to tell about the state of things.

    Examples:
        >>> Stopped(143).advice
        'stopped'
    """

    code: int

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.advice = "stopped"


def stop_at_signals() -> None:
    """From now on, SIGINT and SIGTERM raise ``Stopped`` in the main thread; one that is ignored stays ignored.

    Raises:
        ValueError: outside the main thread.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    if _received and _followed:
        return  # torchrun repeats it, while this process tidies up
    _received.append(number)
    raise Stopped(128 + number)


def end_at_signals() -> None:
    """From now on, with the work done, a signal raises nothing: it ends this process, or waits for its end.

    What Python and libraries still do at exit would tell a ``Stopped`` as a traceback. Processes that end with another
    one are sent SIGTERM again and again, and come to their end by themselves.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_IGN if _followed else signal.SIG_DFL)


def stop_behind(error: BaseException) -> Stopped | None:
    """The ``Stopped`` that an error is about: itself, or a signal that has cut off what now fails, as in a worker."""
    if isinstance(error, Stopped):
        return error
    return Stopped(128 + _received[0]) if _received else None


def end_with(parent: int) -> None:
    """Send this process SIGTERM when the one that has started it is gone, and end it if that does not.

    A thread looks once a second who the parent is, which works on every POSIX system (the kernel's own signal at a
    parent's death is Linux' alone, and comes when the *thread* that has started the process ends).

    Args:
        parent: number of the process that has started this one.
    """

    _starters.append(parent)

    def watch() -> None:
        while not orphaned():
            time.sleep(_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_SECONDS)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def orphaned() -> bool:
    """Whether the process that this one shall end with, see ``end_with``, is gone."""
    return any(os.getppid() != parent for parent in _starters)


def end_with_parent() -> bool:
    """``end_with`` the process that ``PARENT`` names; whether it names another one."""
    parent = int(os.environ.pop(PARENT, os.getpid()))
    if parent != os.getpid():
        _followed.append(parent)
        end_with(parent)
    return bool(_followed)
