"""Commands in forked processes, which need no imports of their own, may be killed, and are watched from outside."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aide_monai.cli import main as cli

for _name in (  # what the commands import when they are called: once here instead of in every fork
    *("monai.bundle", "matplotlib.pyplot", "highdicom", "aide_monai.workflows.check", "aide_monai.workflows.demo"),
    *("aide_monai.workflows.bundle", "aide_monai.workflows.evaluate_folders", "aide_monai.workflows.prepare"),
    *("aide_monai.workflows.new_bundle", "aide_monai.workflows.labels", "aide_monai.workflows.comparison.run"),
    *("aide_monai.workflows.comparison.report", "aide_monai.label_app.create"),
):
    importlib.import_module(_name)
LIMIT_S = 600.0
GRACE_S = 120.0  # workers that are still importing do not hear yet that their parent is gone
POLL_S = 0.02
_DIE_WITH_PARENT, _NEW_MOUNTS = 1, 0x00020000
_RECURSIVE, _PRIVATE = 16384, 1 << 18

Watch = Callable[[int], None]
"""Called with the process's number, again and again while it runs."""


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: exit code, or minus the number of the signal that ended it.
        output: what it has printed.
        seconds: how long it ran.
        peak_mb: largest memory of it or one of its own processes, in MB.
        hung: whether it had to be stopped at the limit of time.
        left: processes of its own that were still there some time after its end.
    """

    status: int
    output: str
    seconds: float
    peak_mb: float
    hung: bool
    left: int

    @property
    def problem(self) -> str:
        """What is wrong with an end that a signal from here has not caused, in one line; or nothing."""
        if self.hung:
            return "hung"
        if self.status < 0:
            return f"died of signal {-self.status}"
        if "Traceback (most recent call last)" in self.output or self.status not in (0, 1, 2):
            return f"status {self.status}: {(self.output.strip().splitlines() or [''])[-1][:300]}"
        return ""

    @property
    def sentence(self) -> str:
        """What the command has said on its refusal, or nothing."""
        return self.output.rpartition("Error: ")[2].strip() if self.status == 2 else ""


def fork(
    work: Callable[[], Any],
    log: Path,
    *,
    limit_s: float = LIMIT_S,
    strike: tuple[float, int] | None = None,
    watch: Watch | None = None,
) -> Ended:
    """Do something in a process of its own, and wait for its end.

    Args:
        work: what is done; a SystemExit gives the status, any other exception 70 and a traceback.
        log: file for what is printed.
        limit_s: seconds after which it is stopped.
        strike: after how many seconds which signal is sent; SIGINT goes to its own processes too, as from a keyboard.
        watch: see ``Watch``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    start = time.monotonic()
    process = os.fork()
    if process == 0:
        _become(work, log)
    hung, end = False, None
    while end is None:
        passed = time.monotonic() - start
        if strike is not None and passed >= strike[0]:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if strike[1] == signal.SIGINT else os.kill)(process, strike[1])
            strike = None
        if passed > limit_s and not hung:
            hung = True
            os.killpg(process, signal.SIGKILL)
        if watch is not None:
            watch(process)
        number, status, usage = os.wait4(process, os.WNOHANG)
        end = (status, usage) if number else None
        if end is None:
            time.sleep(POLL_S)
    seconds = time.monotonic() - start
    code = os.waitstatus_to_exitcode(end[0])
    left = _left(process)
    output = log.read_text(errors="replace")
    return Ended(code, output, seconds, end[1].ru_maxrss / 1024, hung, left)


def aide(arguments: list[Any], log: Path, **options: Any) -> Ended:
    """The ``aide`` command in a process of its own; ``options`` as for ``fork``, and ``before``, called in it first."""
    before = options.pop("before", None)

    def work() -> None:
        if before is not None:
            before()
        sys.argv = ["aide", *map(str, arguments)]
        cli.main()

    return fork(work, log, **options)


def small_disk(folder: Path, size_bytes: int) -> None:
    """Lay a file system of a size over an empty folder; only this process and those that it starts see it.

    Raises:
        OSError: this user may not mount anything.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={size_bytes}".encode()
    if (
        libc.unshare(_NEW_MOUNTS)
        or libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None)
        or libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, options)
    ):
        raise OSError(ctypes.get_errno(), "nothing can be mounted here", str(folder))


def _become(work: Callable[[], Any], log: Path) -> None:
    """What the forked process does; it never returns."""
    code = 70
    try:
        os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        torch.set_num_threads(1)  # a fork has lost those of its parent
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        descriptor = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()  # as at the end of a program of its own
            for stream in (sys.stdout, sys.stderr, sys.__stderr__):
                stream.flush()
        os._exit(code)


def _left(group: int) -> int:
    """Processes of a group that do not end by themselves within the time of grace; they are killed."""
    end = time.monotonic() + GRACE_S
    while members := _members(group):
        if time.monotonic() > end:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            return len(members)
        time.sleep(POLL_S)
    return 0


def _members(group: int) -> list[int]:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return []
    members = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            number = int(entry.name)
            state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                members.append(number)
    return members
