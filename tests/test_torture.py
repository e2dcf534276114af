"""A small part of ``make torture``, as its command does it, and the way from its results to the page."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.torture import page
from benchmarks.torture.forks import fork
from benchmarks.torture.results import Outcome, Results, total
from tests.label.conftest import label_python  # noqa: F401 (a fixture)

ROOT = Path(__file__).parents[1]


def torture(results: Path, kind: str, first: int, last: int, **variables: str) -> list[dict]:
    """Pieces of the tries ``first`` to ``last``; they all have to hold."""
    command = [sys.executable, "-m", "benchmarks.torture", kind, "--no-page", "--results", str(results)]
    command += ["--first", str(first), "--last", str(last)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in results.read_text().splitlines()]


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [("kills", 0, 1), ("full_disks", 15, 16), ("damaged_runs", 4, 5), ("files", 0, 45)],
)
def test_a_few_of_each_hold(tmp_path: Path, kind: str, first: int, last: int) -> None:
    pieces = torture(tmp_path / "results.jsonl", kind, first, last)
    assert sum(group["tried"] for piece in pieces for group in piece["outcome"]["groups"].values()) == last - first


@pytest.mark.label
def test_a_few_hostile_requests(label_python: Path, tmp_path: Path) -> None:  # noqa: F811
    (piece,) = torture(tmp_path / "results.jsonl", "requests", 0, 32, AIDE_LABEL_PYTHON=str(label_python))
    assert {int(group["expressions evaluated"]) for group in piece["outcome"]["groups"].values()} == {0}


def test_a_process_that_dies_hangs_or_grows_is_seen(tmp_path: Path) -> None:
    """The harness itself: an attack that is never seen to succeed would prove nothing."""
    log = tmp_path / "log.txt"
    assert fork(lambda: os.kill(os.getpid(), signal.SIGKILL), log).problem == "died of signal 9"
    assert fork(signal.pause, log, limit_s=0.2).problem == "hung"
    assert fork(lambda: 1 / 0, log).problem.startswith("status 70: ZeroDivisionError")
    assert fork(lambda: sys.exit(2), log).problem == ""
    assert fork(lambda: bytearray(b"x" * 2**29), log).peak_mb > 512


def test_the_page_has_what_was_run_and_says_what_was_not(tmp_path: Path) -> None:
    results, text = Results(tmp_path / "results.jsonl"), tmp_path / "page.md"
    outcome = Outcome()
    outcome.add("train", "", number=0, longest_s=1.5)
    outcome.add("train", "3 leaves differ", number=1, longest_s=0.5)
    results.add("kills", 0, 2, Outcome(), 30)
    results.add("kills", 0, 2, outcome, 60)  # the same tries again replace the first ones
    text.write_text(f"before\n{page.BEGIN}\nwhat stood here\n{page.END}\nafter\n")
    page.write(text, results)
    page.write(text, results)
    content = text.read_text()
    assert content.startswith("before\n")
    assert content.endswith("\nafter\n")
    assert "what stood here" not in content
    assert "1 of 2 held. 98 of 100 have not been run yet. Run on " in content
    assert "| what | tried | held | longest (s) |" in content
    assert "| train | 2 | 1 | 1.5 |" in content
    assert "0 of 0 held. 20,000 of 20,000 have not been run yet." in content
    assert total([outcome, outcome]).groups == {"train": {"tried": 4, "held": 2, "longest (s)": 1.5}}
    assert outcome.failures == ["train, try 1: 3 leaves differ"]
