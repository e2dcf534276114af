"""Forks real training runs from one process that has everything imported, and kills them where it is told to.

``python run_server.py FOLDER`` reads one job (JSON) per line, runs it in a forked process, and answers with one line of
JSON: the exit status (negative: the signal that ended it) and what the job has reported. ``test_resume.py`` says what
for. It is a process of its own so that no threads of other tests are forked along.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import functools
import hashlib
import inspect
import io
import json
import os
import random
import re
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # exact sums; no threads that a fork would lose

import numpy as np
import torch

from aide_monai.cli import main as cli
from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.engines import AIDEOptions, TwoNetworkTrainer
from aide_monai.errors import InputError
from aide_monai.handlers import BestCheckpoint, EpochLog, GlobalLabelCorrection, RunCheckpoint
from aide_monai.labels.history import LabelHistory, _write_label
from aide_monai.labels.store import LabelStore
from aide_monai.stream.preprocessing import load_volumes, volume_transforms
from aide_monai.utils import distributed
from aide_monai.utils.files import write_atomically
from aide_monai.workflows.comparison.budget import TrainingSettings
from aide_monai.workflows.comparison.training import clean_labels, train_aide
from aide_monai.workflows.prepare import prepare_datalist
from tests.workflows.digest import digest

SETTINGS = TrainingSettings(
    epochs=5, steps_per_epoch=3, batch_size=4, learning_rate=1e-2, features=(4, 4, 4, 8, 8, 4), seed=7
)
OPTIONS = AIDEOptions.from_profile("paper", warmup_epochs=3, views=2, update_ratio=0.5, update_interval=1)
# what the kills are aimed at: a function, with all that it calls
SCOPES = {
    "step": (TwoNetworkTrainer, "_iteration"),
    "optimiser": (torch.optim.Adam, "step"),
    "correction": (GlobalLabelCorrection, "__call__"),
    "commit": (LabelStore, "commit"),
    "log": (EpochLog, "_write"),
    "best": (BestCheckpoint, "__call__"),
    "checkpoint": (RunCheckpoint, "_save"),
    "resume": (LabelStore, "_resume"),
}
Volumes = list[dict[str, Any]]


class LineCounter:
    """Counts the lines of Python that run inside a scope, by epoch (0 where it knows none), and may kill the process.

    It counts "own" lines, which are those of this package; "all" lines, those of torch, numpy or zipfile included; and
    "disk" lines, those of the two functions that write files.

    Args:
        scope: key of ``SCOPES``.
        kill: in which "epoch", at which "line", and which lines "count"; or None.
    """

    def __init__(self, scope: str, kill: dict[str, Any] | None = None) -> None:
        self.kill = kill
        self.counts: dict[int, dict[str, int]] = {}
        owner, name = SCOPES[scope]
        function = getattr(owner, name)

        @functools.wraps(function)
        def traced(instance: Any, *arguments: Any, **options: Any) -> Any:
            given = inspect.signature(function).bind(instance, *arguments, **options).arguments
            epoch = given["epoch"] if "epoch" in given else given["engine"].state.epoch if "engine" in given else 0
            if kill is not None and epoch != kill["epoch"]:
                return function(instance, *arguments, **options)
            self._now = self.counts.setdefault(epoch, {"own": 0, "all": 0, "disk": 0})
            before = sys.gettrace()
            sys.settrace(self._enter)
            try:
                return function(instance, *arguments, **options)
            finally:
                sys.settrace(before)

        setattr(owner, name, traced)
        self.restore = lambda: setattr(owner, name, function)

    def _enter(self, frame: Any, event: str, argument: Any) -> Any:
        everything = self.kill is None or self.kill["count"] == "all"
        return self._line if everything or _is_own(frame) else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            self._now["own"] += _is_own(frame)
            self._now["all"] += 1
            self._now["disk"] += frame.f_code in (write_atomically.__code__, _write_label.__code__)
            if self.kill is not None and self._now[self.kill["count"]] == self.kill["line"]:
                os.kill(os.getpid(), getattr(signal, self.kill.get("signal", "SIGKILL")))
        return self._line


def _is_own(frame: Any) -> bool:
    return "/aide_monai/" in frame.f_code.co_filename


def files_below(folder: Path) -> dict[str, str]:
    """The bytes of every file, hashed, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def state_of(run: Path) -> dict[str, str]:
    """Everything that a finished run has left behind, leaf by leaf."""
    history = LabelHistory.load(run / "labels")
    return digest(
        {
            "checkpoint": torch.load(run / "checkpoint.pt", weights_only=True),
            "best": torch.load(run / "models" / "model.pt", weights_only=True),
            "labels": {
                f"{generation}/{network}/{case}": history.read(generation, network, case)
                for generation in range(history.generation + 1)
                for network in (1, 2)
                for case in history.shapes
            },
            "records": history.records,
            "journal": (run / "labels" / "journal.jsonl").read_text(),
            "epochs.csv": (run / "epochs.csv").read_text(),
            "files": sorted(files_below(run)),
        }
    )


def saved_iterations(run: Path) -> list[int]:
    """Iteration of the checkpoint, and of every line of the log."""
    saved = torch.load(run / "checkpoint.pt", weights_only=True)
    with (run / "epochs.csv").open(newline="") as file:
        return [saved["engine"]["iteration"], *(int(row["iteration"]) for row in csv.DictReader(file))]


def train(
    volumes: Volumes,
    run: Path,
    *,
    epochs: int = SETTINGS.epochs,
    on_step: Callable[[], None] | None = None,
    resume: bool | None = None,
) -> dict[str, str]:
    """A whole run, or the rest of one; returns what it returns and, in the main process, leaves behind."""
    # A resumed run must find the state of every generator in its checkpoint, and nowhere else.
    seed = int((run / "checkpoint.pt").exists())
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    mean, store, rows = train_aide(
        volumes,
        replace(SETTINGS, epochs=epochs),
        options=OPTIONS,
        num_classes=2,
        axis=2,
        run_dir=run,
        clean=clean_labels(volumes),
        resume=(run / "labels").exists() if resume is None else resume,
        on_step=on_step,
    )
    current = {f"{n}/{case}": store.label(n, case) for n in (1, 2) for case in store.cases}
    returned = {"weights": mean.state_dict(), "current labels": current, "records": store.records, "rows": rows}
    return digest(returned, "returned") | (state_of(run) if distributed.is_main() else {})


# Jobs: what a forked process does. Each gets the volumes and its line of JSON, and returns its report.


def train_job(volumes: Volumes, job: dict[str, Any]) -> dict[str, Any]:
    """Train, or resume; die at a line of "kill", or live with a limit on the size of files after some steps."""
    steps: list[int] = []

    def on_step() -> None:
        steps.append(1)
        if len(steps) == job.get("limit_after"):
            limit_file_size(1000)

    if "kill" in job:
        LineCounter(job["kill"]["scope"], job["kill"])
    start = time.monotonic()
    state = train(volumes, Path(job["run"]), on_step=on_step)
    return {"state": state, "duration": time.monotonic() - start}


def processes_job(volumes: Volumes, job: dict[str, Any]) -> dict[str, Any]:
    """Two processes that train as one, without a common folder; the one of "rank" stops at a line of "kill"."""
    run = Path(job["run"])
    resume = (run / "labels").exists()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    reports = [run.parent / f"{run.name}_{rank}.json" for rank in (0, 1)]
    children = []
    for rank in (0, 1):
        reports[rank].unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            os.environ |= address | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            place = run if rank == 0 else run.parent / f"{run.name}_other"
            torch.manual_seed(1000 * resume + rank)
            code, content = 1, {}
            try:
                distributed.initialize(timeout_minutes=job.get("timeout_minutes", 0.5))
                if job.get("rank") == rank:
                    LineCounter(job["kill"]["scope"], job["kill"])
                code, content = 0, {"state": train(volumes, place, resume=resume), "files": sorted(files_below(place))}
            except InputError as error:
                code, content = 2, {"message": str(error)}
            except BaseException:
                content = {"message": traceback.format_exc()}
            finally:
                write_atomically(reports[rank], lambda file, content=content: file.write(json.dumps(content).encode()))
                os._exit(code)
        children.append(child)
    watched = sorted((0, 1), key=lambda rank: rank == job.get("rank"))  # one that is only stopped does not end
    statuses = [0, 0]
    for rank in watched:
        if rank == job.get("rank") and job["kill"].get("signal") == "SIGSTOP":
            os.kill(children[rank], signal.SIGKILL)
        statuses[rank] = os.waitstatus_to_exitcode(os.waitpid(children[rank], 0)[1])
    found = [json.loads(path.read_text()) if path.exists() else {} for path in reports]
    return {"statuses": statuses, "processes": found}


def refusal_job(volumes: Volumes, job: dict[str, Any]) -> dict[str, Any]:
    """Let the disk refuse one kind of call after the other, each in a run that resumes and gets that far."""
    run, messages, known = Path(job["run"]), [], set()
    while True:
        reason = job["reasons"][len(messages) % len(job["reasons"])]
        with refused_call(known, reason):
            try:
                state = train(volumes, run)
            except InputError as error:
                messages.append(str(error))
                continue
        assert len(known) == len(messages), "the run has ignored an error of the disk"
        return {"state": state, "messages": messages}


@contextlib.contextmanager
def refused_call(known: set[tuple[str, str]], code: int) -> Iterator[None]:
    """Let the first call fail, of all that need the disk, whose kind is not known yet: what it does, and to what."""
    failed = False
    real = {
        (module, name): getattr(module, name)
        for module, name in ((os, "fsync"), (os, "replace"), (os, "write"), (io, "open"))
    }

    def disturbed(name: str, function: Callable) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal failed
            target = arguments[1 if name == "replace" else 0]
            if name != "open" or arguments[1][0] in "wx" or "+" in arguments[1]:
                if name in ("fsync", "write"):
                    target = os.readlink(f"/proc/self/fd/{target}")
                kind = (name, re.sub(r"\d+", "N", Path(target).name))
                if not failed and kind not in known:
                    known.add(kind)
                    failed = True
                    raise OSError(code, os.strerror(code))
            return function(*arguments, **options)

        return call

    for (module, name), function in real.items():
        setattr(module, name, disturbed(name, function))
    try:
        yield
    finally:
        for (module, name), function in real.items():
            setattr(module, name, function)


def full_disk_job(volumes: Volumes, job: dict[str, Any]) -> dict[str, Any]:
    """Train on a small file system of its own that something else fills up; then make room and resume."""
    parent = Path(job["run"])
    parent.mkdir()
    reason = private_mount("tmpfs", parent, "size=4m")
    if reason:
        return {"skip": reason}
    run, ballast, steps = parent / "run", parent / "ballast", 0

    def fill() -> None:
        nonlocal steps
        steps += 1
        if steps == job["after"]:
            free = os.statvfs(parent).f_bavail * os.statvfs(parent).f_frsize
            ballast.write_bytes(bytes(free - job["leave"]))

    report: dict[str, Any] = {}
    try:
        train(volumes, run, on_step=fill)
    except InputError as error:
        report["message"] = str(error)
    report["free"] = os.statvfs(parent).f_bavail * os.statvfs(parent).f_frsize
    report["iterations"] = saved_iterations(run)
    ballast.unlink()
    return report | {"state": train(volumes, run)}


def read_only_job(volumes: Volumes, job: dict[str, Any]) -> dict[str, Any]:
    """Resume a killed run whose folder is mounted read-only, then writable."""
    run = Path(job["run"])
    reason = private_mount("bind", run) or private_mount("read-only", run)
    if reason:
        return {"skip": reason}
    before, report = files_below(run), {}
    steps: list[int] = []
    try:
        train(volumes, run, on_step=lambda: steps.append(1))
    except InputError as error:
        report["message"] = str(error)
    report |= {"steps": len(steps), "intact": files_below(run) == before}
    reason = private_mount("writable", run)
    assert not reason, reason
    return report | {"state": train(volumes, run)}


def finished_read_only_job(volumes: Volumes, job: dict[str, Any]) -> dict[str, Any]:
    """Resume a finished run that may not be written any more."""
    run = Path(job["run"])
    reason = private_mount("bind", run) or private_mount("read-only", run)
    return {"skip": reason} if reason else {"state": train(volumes, run)}


def command_job(volumes: Volumes, job: dict[str, Any]) -> dict[str, Any]:
    """The ``aide`` command, with a limit on the size of files that stands for a full disk."""
    if job.get("file_size"):
        limit_file_size(job["file_size"])
    errors, output = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        sys.argv = ["aide", *job["arguments"]]
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
    return {"code": code, "stderr": errors.getvalue()}


def state_job(volumes: Volumes, job: dict[str, Any]) -> dict[str, Any]:
    """What a run has left behind."""
    return {"state": state_of(Path(job["run"]))}


def limit_file_size(size: int) -> None:
    """Let every write beyond this many bytes of a file fail with EFBIG (Python ignores the signal)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def private_mount(what: str, folder: Path, options: str = "") -> str:
    """Mount something where this process alone sees it; returns why that is impossible, or nothing."""
    nodev_rdonly, remount, bind, recursive, private = 1, 32, 4096, 16384, 1 << 18
    libc = ctypes.CDLL(None, use_errno=True)
    target, source = str(folder).encode(), str(folder).encode()
    flags = {"tmpfs": 0, "bind": bind, "read-only": bind | remount | nodev_rdonly, "writable": bind | remount}[what]
    failed = what in ("tmpfs", "bind") and (
        libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, recursive | private, None)
    )
    kind = b"tmpfs" if what == "tmpfs" else None
    if failed or libc.mount(source, target, kind, flags, options.encode()):
        return f"cannot mount here: {os.strerror(ctypes.get_errno())}"
    return ""


JOBS: dict[str, Callable[[Volumes, dict[str, Any]], dict[str, Any]]] = {
    "train": train_job,
    "processes": processes_job,
    "refusals": refusal_job,
    "full disk": full_disk_job,
    "read-only": read_only_job,
    "finished, read-only": finished_read_only_job,
    "command": command_job,
    "state": state_job,
}


def run_in_fork(volumes: Volumes, job: dict[str, Any], report: Path) -> dict[str, Any]:
    """Exit status and report of a job; ``seconds`` in the job is when it is killed from outside."""
    report.unlink(missing_ok=True)
    process = os.fork()
    if process == 0:
        code = 1
        try:
            try:
                content, code = JOBS[job["job"]](volumes, job), 0
            except InputError as error:
                content, code = {"message": str(error)}, 2
            except BaseException:
                content = {"message": traceback.format_exc()}
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            write_atomically(report, lambda file: file.write(json.dumps(content).encode()))
        finally:
            os._exit(code)
    if "seconds" in job:
        time.sleep(job["seconds"])
        os.kill(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return {"status": status} | (json.loads(report.read_text()) if report.exists() else {})


def make_volumes(folder: Path) -> Volumes:
    """One phantom with a trusted label and three with the label moved by two pixels, 16 x 16 x 4 voxels."""
    write_phantoms(folder, cases=5, shape=(16, 16, 4), spacing_mm=(12, 12, 30))
    datalist = prepare_datalist(folder, labeled=1, unlabeled=3)
    transform = volume_transforms(keys=["image", "label", "clean_label"], axis=2, slice_size=(16, 16))
    volumes = []
    for volume in load_volumes(datalist.split("training"), transform):
        moved = {} if "label" in volume else {"label": volume["clean_label"].roll(2, dims=1)}
        volumes.append({**volume, **moved, "quality": "low" if moved else "high"})
    return volumes


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever is printed must not mix with the answers
    volumes = make_volumes(folder / "phantoms")
    train(volumes, folder / "first", epochs=1)  # what this run imports, every fork has
    counters = {scope: LineCounter(scope) for scope in SCOPES}
    train(volumes, folder / "counted", epochs=2)
    for counter in counters.values():
        counter.restore()
    print(json.dumps({scope: counter.counts for scope, counter in counters.items()}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(run_in_fork(volumes, json.loads(line), folder / "report.json")), file=answers, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
