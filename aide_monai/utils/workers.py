"""Work that may kill, hang or fill its process, in processes beside this one, some of it ahead of its use.

A decoder written in C can end the process it runs in. Here a worker ends instead, the job that it had is named, and the
others go on. ``concurrent.futures`` and ``multiprocessing`` break as a whole when a worker dies, start the main module
again in every worker, and pass pickles; a worker here imports what its work needs alone, and gets and gives JSON and
plain arrays.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from aide_monai.errors import InputError, Problem
from aide_monai.utils.processes import end_with

Result = tuple[dict[str, Any], list[npt.NDArray[Any]]]
"""What a job gives: values that JSON has, and arrays of any dtype but object."""

LIMIT_S = 300.0
MOST_PROCESSES = 4
_FEW_JOBS = 8
_IDLE_S = 60.0
_START_S = 300.0
_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
for name in [name for name in sys.modules if name.partition(".")[0] == {package!r}]:
    del sys.modules[name]  # that of an environment, which its start has imported, may be another version
from {module} import serve
serve(*sys.argv[2:])
"""

_idle: list[_Process] = []
os.register_at_fork(after_in_child=_idle.clear)  # a copy of this process must not talk to its workers


def memory_limit() -> int:
    """Bytes that a job may take unless it is told otherwise: half of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class LostError(InputError):
    """A worker has died at a job, or needed too much time or memory for it."""


class Ahead:
    """Results of jobs, in order, worked at by several processes while this one does something with the last one.

    Each process works at one job and holds its result until it is asked for, so that there are never more results than
    processes. Processes are used again by the next ``Ahead``, end after a minute without work, and
    end with this process, whatever ends it.

    Args:
        function: "module:name" of a function from a job to a ``Result``. An ``InputError`` of it is raised by
            ``result``.
        jobs: texts, in the order in which their results will be asked for.
        processes: how many; by default as many as there are processors, at most four, and one for eight jobs.
        limit_s: seconds for which a result is waited for once the job has begun.
        memory_bytes: memory that a job may allocate beside what its process has at the start (on Linux).

    Examples:
        >>> with Ahead("aide_monai.utils.workers:echo", ["a", "b"]) as ahead:
        ...     [ahead.result(job)[0]["job"] for job in ("a", "b")]
        ['a', 'b']
    """

    def __init__(
        self,
        function: str,
        jobs: Sequence[str],
        *,
        processes: int | None = None,
        limit_s: float = LIMIT_S,
        memory_bytes: int | None = None,
    ) -> None:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        useful = min(available, MOST_PROCESSES, -(-len(jobs) // _FEW_JOBS))  # a process costs a second at its start
        self.processes = max(1, min(processes or useful, len(jobs)))
        self.function = function
        self.limit_s = limit_s
        self.memory_bytes = memory_limit() if memory_bytes is None else memory_bytes
        self._jobs = list(jobs)
        self._places: dict[str, list[int]] = {}
        for place, job in enumerate(self._jobs):
            self._places.setdefault(job, []).append(place)
        self._next = 0  # the first job that nobody works at
        self._busy: dict[int, _Process] = {}  # place of a job to who works at it

    def __enter__(self) -> Ahead:
        self._fill()
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._busy.values():
            process.end()
        self._busy.clear()

    def result(self, job: str) -> Result:
        """What a job gives; jobs that stand before it and were not asked for are left out.

        Raises:
            InputError: of the function.
            LostError: it says what has happened, and not to which job.
        """
        place = self._place(job)
        for skipped in [at for at in self._busy if at < place]:
            self._busy.pop(skipped).end()
        process = self._busy.pop(place, None)
        if process is None:
            process = self._started(job)
            self._next = max(self._next, place + 1)
        self._fill()
        try:
            try:
                found = process.receive(self.limit_s)
            except _GoneError:  # it had ended, for want of work, before it saw the job
                process = _Process()
                process.send(self.function, job, self.memory_bytes)
                found = process.receive(self.limit_s)
        except BaseException:
            process.end()
            raise
        _idle.append(process)
        self._fill()
        return _opened(found)

    def _place(self, job: str) -> int:
        """Where a job stands among those not asked for; before all of them when it was not announced."""
        known = [at for at in self._busy if self._jobs[at] == job]
        if known:
            return min(known)
        places = self._places.get(job, [])
        later = bisect_left(places, self._next)
        return places[later] if later < len(places) else -1

    def _fill(self) -> None:
        while self._next < len(self._jobs) and len(self._busy) < self.processes:
            self._busy[self._next] = self._started(self._jobs[self._next])
            self._next += 1

    def _started(self, job: str) -> _Process:
        with contextlib.suppress(IndexError):  # there may be other threads that take the last one
            while True:
                process = _idle.pop()
                if process.send(self.function, job, self.memory_bytes):
                    return process
        process = _Process()
        process.send(self.function, job, self.memory_bytes)
        return process


class _GoneError(RuntimeError):
    """A worker process has ended before it began with a job."""


class _Process:
    """A process that works at one job at a time."""

    def __init__(self) -> None:
        mine, other = socket.socketpair()
        with other:
            arguments = [json.dumps(sys.path), str(other.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(
                # isolated: nothing is imported from the working folder, which may be one of data
                [
                    sys.executable,
                    "-I",
                    "-c",
                    _START.format(module=__name__, package=__name__.partition(".")[0]),
                    *arguments,
                ],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"},
            )
        self._connection = Connection(mine.detach())

    def send(self, function: str, job: str, memory_bytes: int) -> bool:
        """Begin a job; False when the process is gone."""
        try:
            self._connection.send_bytes(json.dumps([function, job, memory_bytes, _here()]).encode())
        except OSError:
            self.end()
            return False
        return True

    def receive(self, limit_s: float) -> Result:
        try:
            if not self._connection.poll(_START_S):
                raise RuntimeError(f"a worker process did not start in {_START_S:g} s")
            self._connection.recv_bytes()
        except (EOFError, OSError):
            raise _GoneError("a worker process ended before it began") from None
        try:
            if not self._connection.poll(limit_s):
                raise LostError(f"a file at which its decoder works for more than {limit_s:g} s")
            values = json.loads(self._connection.recv_bytes())
            return values, [self._array(*layout) for layout in values.pop("arrays")]
        except (EOFError, OSError):
            self.end()
            code = self._process.returncode
            why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            why += ", often too little memory" if code == -signal.SIGKILL else ""
            raise LostError(f"a file at which its decoder died ({why})") from None

    def _array(self, dtype: Any, shape: list[int], order: list[int]) -> npt.NDArray[Any]:
        array = np.empty([shape[axis] for axis in order], _dtype(dtype))
        if array.nbytes:
            self._connection.recv_bytes_into(array.reshape(-1).view(np.uint8).data)
        return array.transpose(np.argsort(order)) if order else array

    def end(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


def _here() -> str:
    """Where relative paths start; "" when that folder is gone."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _dtype(description: Any) -> np.dtype[Any]:
    return np.dtype([(name, kind) for name, kind in description] if isinstance(description, list) else description)


def _opened(found: Result) -> Result:
    """A result as the function gave it, or what it has raised."""
    values, arrays = found
    for text in values.get("warnings", ()):
        warnings.warn(text, stacklevel=3)
    if "refused" in values:
        raise InputError(values["refused"], problems=[Problem(**told) for told in values["problems"]])
    if "lost" in values:
        raise LostError(values["lost"])
    if "failed" in values:
        raise RuntimeError(f"in a worker process:\n{values['failed']}")
    return values["values"], arrays


def echo(job: str) -> Result:
    """A function for examples: the job itself."""
    return {"job": job}, []


def serve(descriptor: str, parent: str) -> None:
    """What a worker does: jobs, one after the other, until nobody asks for more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent tidies up
    end_with(int(parent))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(int(descriptor))
    with contextlib.suppress(EOFError, OSError):
        while connection.poll(_IDLE_S):
            function, job, memory_bytes, folder = json.loads(connection.recv_bytes())
            if folder:
                os.chdir(folder)
            module, _, name = function.partition(":")
            work: Callable[[str], Result] = getattr(importlib.import_module(module), name)
            connection.send_bytes(b"begun")
            with _limited(memory_bytes):
                head, arrays = _done(work, job)
            connection.send_bytes(head)
            for array in arrays:
                if array.nbytes:
                    ordered = np.ascontiguousarray(array.transpose(_memory_order(array)))
                    connection.send_bytes(ordered.reshape(-1).view(np.uint8).data)


def _memory_order(array: npt.NDArray[Any]) -> list[int]:
    """The axes of an array, that of the largest step in memory first."""
    return [int(axis) for axis in np.argsort([-abs(stride) for stride in array.strides], kind="stable")]


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's; of JSON's own kind must all else be."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a job gave {type(value).__name__}, which JSON does not have")


@contextlib.contextmanager
def _limited(memory_bytes: int) -> Iterator[None]:
    """Let allocations fail beyond so many bytes more than the process has now."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[5]) * resource.getpagesize()
    except OSError:  # not Linux, where the limit would not hold either
        yield
        return
    limit = now + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit if before[1] < 0 else min(limit, before[1]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _done(work: Callable[[str], Result], job: str) -> tuple[bytes, list[npt.NDArray[Any]]]:
    """What a job gives, or what has happened, as JSON with the layouts of the arrays; and the arrays."""
    found: dict[str, Any]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            values, arrays = work(job)
            layouts = [
                (array.dtype.descr if array.dtype.names else array.dtype.str, array.shape, _memory_order(array))
                for array in arrays
            ]
            told = [str(one.message) for one in caught if one.category is UserWarning]
            found = {"values": values, "arrays": layouts, "warnings": told}
            return json.dumps(found, default=_plain).encode(), arrays
        except InputError as error:
            found = {"refused": error.title, "problems": [asdict(problem) for problem in error.problems]}
        except MemoryError:
            found = {"lost": "a file that takes more memory than its decoder may have"}
        except Exception:
            found = {"failed": traceback.format_exc()}
    return json.dumps({**found, "arrays": []}).encode(), []
