"""Runs in real processes that are killed, or that a disk refuses to write, and the exact same end after a resume."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.torture.tiny import train_arguments

SIGKILLED = -9
SERVER = Path(__file__).with_name("run_server.py")
# where a kill is aimed at: inside which function, and at which of the lines that run there: those of this package, all,
# or those of the functions that write files
AIMS = [
    ("step", "own"),
    ("step", "all"),
    ("optimiser", "all"),
    ("optimiser", "all"),
    ("correction", "own"),
    ("correction", "all"),
    ("commit", "own"),
    ("commit", "all"),
    ("commit", "disk"),
    ("commit", "disk"),
    ("log", "disk"),
    ("log", "all"),
    ("best", "disk"),
    ("checkpoint", "all"),
    ("checkpoint", "disk"),
    ("checkpoint", "disk"),
]
KILLS_PER_RUN = 4


class Server:
    """The process that forks the runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "stderr.txt").open("w"),
            text=True,
            env={**os.environ, "PYTHONPATH": str(SERVER.parents[2]), "OMP_NUM_THREADS": "1"},
        )
        self.counts: dict[str, dict[str, dict[str, int]]] = self._answer()

    def run(self, job: str, **values: Any) -> dict[str, Any]:
        """Status and report of one job."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"job": job, **values}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def train(self, run: Path, **values: Any) -> dict[str, Any]:
        """Start a run, or resume it."""
        return self.run("train", run=str(run), **values)

    def lines(self, scope: str, epoch: int, count: str) -> int:
        """How many lines of a scope run in an epoch; the optimiser knows no epoch (0), and counts two of them."""
        return self.counts[scope][str(min(epoch, 2))][count]

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (self.folder / "stderr.txt").read_text()
        return json.loads(line)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    assert server.process.stdin is not None
    server.process.stdin.close()
    assert server.process.wait(30) == 0


@pytest.fixture(scope="module")
def whole(server: Server) -> dict[str, Any]:
    """Report of the run that nobody has interrupted."""
    report = server.train(server.folder / "whole")
    assert report["status"] == 0, report
    return report


def assert_same_end(report: dict[str, Any], whole: dict[str, Any]) -> None:
    """Bit by bit: weights, optimisers, generators, labels, records, journal, log, best weights, names of files."""
    assert report["status"] == 0, report["message"]
    assert report["state"].keys() == whole["state"].keys()
    assert [name for name, leaf in report["state"].items() if leaf != whole["state"][name]] == []


def test_the_comparison_covers_all_that_must_be_the_same(server: Server, whole: dict[str, Any], tmp_path: Path) -> None:
    names = whole["state"].keys()
    for start in (
        "/checkpoint/engine/network_1/",
        "/checkpoint/engine/optimizer_2/state/0/exp_avg",
        "/checkpoint/schedulers/scheduler_1/",
        "/checkpoint/generators/views",
        "/checkpoint/torch",
        "/best/network_2.",
        "/labels/5/2/",
        "/journal",
        "/epochs.csv",
        "/files/",
        "returned/weights/",
        "returned/records/0",
        "returned/rows/4/loss",
    ):
        assert any(name.startswith(start) for name in names), start
    lines = [json.loads(line) for line in eval(whole["state"]["/journal"]).splitlines()[1:]]
    assert [line["epoch"] for line in lines if "generation" in line] == [0, 1, 2, 3, 4, 5]
    assert {line["epoch"] for line in lines if "network" in line} == {1, 2, 3, 4, 5}
    assert "Infinity" not in whole["state"]["/epochs.csv"]
    assert_same_end(server.train(tmp_path / "again"), whole)


def traces_of_a_kill(run: Path) -> set[str]:
    """What shows that a run was killed at a moment when its files were not consistent."""
    journal, log = run / "labels" / "journal.jsonl", run / "epochs.csv"
    generations = journal.read_text().count('{"generation": ') if journal.exists() else 0
    epochs = len(log.read_text().splitlines()) - 1 if log.exists() else 0
    found = {
        "unfinished file": any(path.stat().st_size for path in run.rglob("*.tmp")),
        "labels without a commit": len(list(run.glob("labels/generation_*"))) > generations,
        "a commit without a line of the log": generations - 1 > epochs,
    }
    return {name for name, is_so in found.items() if is_so}


def test_killed_at_random_lines_and_resumed(server: Server, whole: dict[str, Any], tmp_path: Path) -> None:
    rng = random.Random(20)
    aims, traces = rng.sample(AIMS, len(AIMS)), set()
    for first in range(0, len(aims), KILLS_PER_RUN):
        run = tmp_path / f"run_{first}"
        for number, (scope, count) in enumerate(aims[first : first + KILLS_PER_RUN], start=1):
            epoch = 0 if scope == "optimiser" else number
            line = rng.randint(1, server.lines(scope, epoch, count))
            kill = {"scope": scope, "epoch": epoch, "count": count, "line": line}
            assert server.train(run, kill=kill)["status"] == SIGKILLED, kill
            print(kill, traces_of_a_kill(run))
            traces |= traces_of_a_kill(run)
        assert_same_end(server.train(run), whole)
    assert len(traces) == 3, traces


def test_killed_at_random_times_and_resumed(server: Server, whole: dict[str, Any], tmp_path: Path) -> None:
    """From outside, whatever the process does at that moment."""
    rng = random.Random(4)
    for _ in range(KILLS_PER_RUN):
        seconds = rng.uniform(0.02, 0.15) * whole["duration"]
        assert server.train(tmp_path / "run", seconds=seconds)["status"] == SIGKILLED
    assert_same_end(server.train(tmp_path / "run"), whole)


def test_killed_while_it_resumes(server: Server, whole: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    kill = {"scope": "checkpoint", "epoch": 2, "count": "own", "line": 3}  # the labels of this epoch are committed
    assert server.train(run, kill=kill)["status"] == SIGKILLED
    for line in (3, 50, 120):
        kill = {"scope": "resume", "epoch": 0, "count": "own", "line": line}
        assert server.train(run, kill=kill)["status"] == SIGKILLED
    assert_same_end(server.train(run), whole)


def test_a_finished_run_that_is_resumed_stays_as_it_is(server: Server, whole: dict[str, Any]) -> None:
    assert_same_end(server.train(server.folder / "whole"), whole)


# Many processes


@pytest.fixture(scope="module")
def together(server: Server) -> dict[str, Any]:
    """Report of two processes that nobody has interrupted."""
    report = server.run("processes", run=str(server.folder / "together"))
    assert report["statuses"] == [0, 0], report
    return report


def assert_same_end_together(report: dict[str, Any], together: dict[str, Any]) -> None:
    assert report["statuses"] == [0, 0], report
    for rank in (0, 1):
        found, expected = report["processes"][rank], together["processes"][rank]
        assert [name for name, leaf in expected["state"].items() if found["state"].get(name) != leaf] == [], rank
        assert found["state"].keys() == expected["state"].keys()
        assert found["files"] == expected["files"]


def test_both_processes_have_everything_and_one_of_them_has_the_files(together: dict[str, Any]) -> None:
    first, second = together["processes"]
    returned = {name: leaf for name, leaf in first["state"].items() if name.startswith("returned/")}
    assert second["state"] == returned
    assert second["files"] == []
    assert "checkpoint.pt" in first["files"]


def test_a_process_is_killed_at_a_random_line_and_all_are_resumed(
    server: Server, together: dict[str, Any], tmp_path: Path
) -> None:
    rng = random.Random(5)
    aims = [(0, "step"), (1, "step"), (1, "optimiser"), (1, "correction"), (0, "commit")]
    aims += [(1, "commit"), (0, "checkpoint"), (1, "checkpoint")]
    for number, (rank, scope) in enumerate(rng.sample(aims, len(aims))):
        epoch = 1 + number % 4  # a run that is resumed is killed further on
        count = "all" if scope == "optimiser" else "own"
        epoch = 0 if scope == "optimiser" else epoch
        run = tmp_path / f"run_{number // 4}"
        line = rng.randint(1, server.lines(scope, epoch, count) // 2)
        kill = {"scope": scope, "epoch": epoch, "count": count, "line": line}
        report = server.run("processes", run=str(run), rank=rank, kill=kill)
        assert report["statuses"][rank] == SIGKILLED, (kill, report)
        assert report["statuses"][1 - rank] == 2, (kill, report)
        message = report["processes"][1 - rank]["message"]
        assert re.fullmatch(rf"process {1 - rank} has lost another process of this run, .*--resume", message), message
    for number in (0, 1):
        assert_same_end_together(server.run("processes", run=str(tmp_path / f"run_{number}")), together)


def test_a_process_that_does_not_answer_ends_the_run(server: Server, together: dict[str, Any], tmp_path: Path) -> None:
    """Stopped, not ended: the other one gives up after the time that it was given."""
    kill = {"scope": "step", "epoch": 3, "count": "own", "line": 20, "signal": "SIGSTOP"}
    report = server.run("processes", run=str(tmp_path / "run"), rank=1, kill=kill, timeout_minutes=0.03)
    assert report["statuses"] == [2, SIGKILLED]
    assert "does not answer" in report["processes"][0]["message"]
    assert_same_end_together(server.run("processes", run=str(tmp_path / "run")), together)


# The disk


def assert_is_one_sentence(message: str, reason: int, file: str) -> None:
    pattern = (
        rf"[^\n]*/{file}: cannot be written \({os.strerror(reason)}\); expected a folder with free space that may be "
        r"written\. What was saved before is intact: make room or allow writing, then continue .*--resume\)"
    )
    assert re.fullmatch(pattern, message), message


def test_every_call_that_needs_the_disk_may_fail(server: Server, whole: dict[str, Any], tmp_path: Path) -> None:
    """Opening, synchronising, renaming, appending: each is refused once for each file, and the run is resumed."""
    reasons = (errno.ENOSPC, errno.EROFS, errno.EACCES)
    report = server.run("refusals", run=str(tmp_path / "run"), reasons=reasons)
    assert_same_end(report, whole)
    for number, message in enumerate(report["messages"]):
        assert_is_one_sentence(message, reasons[number % len(reasons)], r"[\w./]+")
    refused = {Path(message.partition(":")[0]).name for message in report["messages"]}
    assert refused >= {"epochs.csv", "model.pt", "checkpoint.pt", "journal.jsonl", "generation_0000"}
    assert any(name.endswith("_network_1.npz") for name in refused)


def test_a_file_that_is_cut_off_while_it_is_written(server: Server, whole: dict[str, Any], tmp_path: Path) -> None:
    report = server.train(tmp_path / "run", limit_after=7)
    assert report["status"] == 2
    assert_is_one_sentence(report["message"], errno.EFBIG, r"labels/journal\.jsonl")
    assert_same_end(server.train(tmp_path / "run"), whole)


@pytest.mark.parametrize(
    ("leave", "file"),
    [(0, r"labels/generation_0003/\d+_network_[12]\.npz"), (40960, r"models/model\.pt"), (250_000, r"checkpoint\.pt")],
    ids=["label", "best weights", "checkpoint"],
)
def test_a_full_disk(server: Server, whole: dict[str, Any], tmp_path: Path, leave: int, file: str) -> None:
    """A real one: a file system of 4 MB that something else fills up in the third epoch."""
    report = server.run("full disk", run=str(tmp_path / "disk"), after=7, leave=leave)
    if "skip" in report:
        pytest.skip(report["skip"])
    assert_is_one_sentence(report["message"], errno.ENOSPC, file)
    assert report["free"] >= leave - 32768  # nothing unfinished is left behind that takes up space
    assert report["iterations"][:3] == [6, 3, 6]
    assert_same_end(report, whole)


def test_a_read_only_folder(server: Server, whole: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    kill = {"scope": "step", "epoch": 3, "count": "own", "line": 1}
    assert server.train(run, kill=kill)["status"] == SIGKILLED
    report = server.run("read-only", run=str(run))
    if "skip" in report:
        pytest.skip(report["skip"])
    assert_is_one_sentence(report["message"], errno.EROFS, r"checkpoint\.pt")
    assert report["steps"] == 0  # before any work that would be lost
    assert report["intact"]
    assert_same_end(report, whole)


def test_a_finished_run_in_a_read_only_folder_can_be_looked_at(server: Server, whole: dict[str, Any]) -> None:
    report = server.run("finished, read-only", run=str(server.folder / "whole"))
    if "skip" in report:
        pytest.skip(report["skip"])
    assert_same_end(report, whole)


# The command


def arguments_of_train(server: Server, run: Path, *more: str) -> list[str]:
    return [str(part) for part in train_arguments(server.folder / "phantoms", run, *more, epochs=2)]


def only_error(report: dict[str, Any]) -> str:
    """The sentence that a command has ended with, after warnings at most."""
    assert report["code"] == 2, report
    *before, last = report["stderr"].splitlines()
    # what a training has to say of networks that have just begun has no level where no logging is set up
    assert all(" WARNING " in line or line.startswith("Epoch ") for line in before), before
    assert last.startswith("Error: ")
    return last.removeprefix("Error: ")


def test_aide_train_on_a_full_disk(server: Server, tmp_path: Path) -> None:
    failed, whole = tmp_path / "failed", tmp_path / "whole"
    report = server.run("command", arguments=arguments_of_train(server, failed), file_size=200_000)
    assert_is_one_sentence(only_error(report), errno.EFBIG, r"failed/checkpoint\.pt")
    assert server.run("command", arguments=arguments_of_train(server, failed, "--resume"))["code"] == 0
    assert server.run("command", arguments=arguments_of_train(server, whole))["code"] == 0
    assert server.run("state", run=str(failed)) == server.run("state", run=str(whole))


def test_aide_demo_on_a_full_disk(server: Server, tmp_path: Path) -> None:
    options = [
        "--labeled",
        "1",
        "--unlabeled",
        "2",
        "--epochs",
        "1",
        "--steps",
        "1",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    arguments = ["demo", "--data", str(server.folder / "phantoms"), *options]
    report = server.run("command", arguments=arguments, file_size=8_000_000)
    assert_is_one_sentence(only_error(report), errno.EFBIG, r"labelled_only/checkpoint\.pt")
    small = server.run("command", arguments=[*arguments[:-1], str(tmp_path / "other")], file_size=500)
    assert_is_one_sentence(only_error(small), errno.EFBIG, r"other/check/contact_sheet_01\.png")
