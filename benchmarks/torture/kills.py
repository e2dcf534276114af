"""Signals at random moments of a training: what is started again ends with the same bits as what was left alone."""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path
from typing import Any

from benchmarks.torture import tiny
from benchmarks.torture.forks import Ended, aide, fork
from benchmarks.torture.results import Outcome

GOAL = 100
PIECE = 10
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ATTEMPTS = 8
SIDE_BY_SIDE = 5  # every fifth comparison trains in processes of its own


def run(first: int, last: int, folder: Path) -> Outcome:
    """Strike trainings by the numbers of the tries: ``aide train`` the even ones, ``aide compare`` the odd ones."""
    outcome = Outcome()
    data = tiny.write_data(folder / "data")
    whole = {command: _whole(command, data, folder) for command in ("train", "compare")}
    for number in range(first, last):
        command, struck = ("train", "compare")[number % 2], SIGNALS[number // 2 % 3]
        jobs = 2 if command == "compare" and number // 2 % SIDE_BY_SIDE == 0 else 1
        seconds, expected = whole[command]
        problem = _try(number, command, struck, jobs, data, folder / f"try_{number}", seconds, expected)
        title = f"aide {command}{', two jobs side by side' if jobs == 2 else ''}: {struck.name}"
        outcome.add(title, problem, number=number)
    return outcome


def _arguments(command: str, data: Path, run: Path, jobs: int = 1) -> list[Any]:
    if command == "compare":
        return tiny.compare_arguments(data, run, jobs=jobs)
    return tiny.train_arguments(data, run)


def _whole(command: str, data: Path, folder: Path) -> tuple[float, dict[str, str]]:
    """Seconds and end of a training that nobody disturbs."""
    run = folder / f"whole_{command}"
    ended = aide(_arguments(command, data, run), folder / "log.txt")
    assert ended.status == 0, ended.output
    return ended.seconds, read_state(run, folder / "log.txt")


def _try(
    number: int, command: str, struck: signal.Signals, jobs: int, data: Path, run: Path, seconds: float, expected: Any
) -> str:
    rng = random.Random(number)
    longest, log = seconds * (2.5 if jobs > 1 else 1.0), run.with_suffix(".txt")  # processes of its own start anew
    for _ in range(ATTEMPTS):
        shutil.rmtree(run, ignore_errors=True)
        moment = rng.uniform(0.02, 1.0) * longest
        ended = aide(_arguments(command, data, run, jobs), log, strike=(moment, struck))
        if ended.status != 0:
            break
        longest *= 0.7  # it was faster this time
    else:
        return "went on as if there had been no signal"
    if struck == signal.SIGKILL and ended.status != -signal.SIGKILL:
        return f"ended with status {ended.status} before the signal"
    if ended.left:
        return f"{ended.left} processes were left behind"
    if ended.hung:
        return "did not end after the signal"
    again = _again(command, data, run, jobs, log)
    if again.status != 0:
        return f"cannot be continued: {again.problem or again.sentence or again.output[-300:]}"
    return tiny.differences(read_state(run, log), expected)


def _again(command: str, data: Path, run: Path, jobs: int, log: Path) -> Ended:
    """What a user does next: the same command, with --resume as soon as there are labels to resume."""
    arguments = _arguments(command, data, run, jobs)
    if command == "train" and (run / "labels").exists():
        arguments.append("--resume")
    return aide(arguments, log)


def read_state(run: Path, log: Path) -> dict[str, str]:
    """``tiny.state``, read in a process of its own."""
    answer = log.with_name("state.json")
    ended = fork(lambda: answer.write_text(json.dumps(tiny.state(run))), log)
    assert ended.status == 0, ended.output
    return json.loads(answer.read_text())
