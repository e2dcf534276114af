"""What the attacks have shown: counts per group, one line of a file for every piece, so that a stop loses a piece."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Groups = dict[str, dict[str, float]]
"""Group, such as a format, to the name of a number to that number: "tried", "held" and others."""

LARGEST = ("peak (MB)", "longest (s)", "longest of the processor (s)", "growth (MB)", "more open files")
"""Numbers of which the largest counts; all others are added."""


@dataclass
class Outcome:
    """What some tries have shown.

    Attributes:
        groups: see ``Groups``.
        failures: a sentence for each try that did not hold, with its number; never what was fed in.
    """

    groups: Groups = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, group: str, problem: str, *, number: int, tried: int = 1, **figures: float) -> None:
        """Count tries of a group, which held unless there is a problem.

        Args:
            group: its name.
            problem: what went wrong with one of them; or nothing.
            number: of the (first) try.
            tried: how many.
            figures: further numbers; an underscore stands for a blank, and a final unit is put into brackets.
        """
        held = tried - bool(problem)
        total = self.groups.setdefault(group, {})
        _merge(total, {"tried": tried, "held": held, **{_named(name): value for name, value in figures.items()}})
        if problem:
            self.failures.append(f"{group}, try {number}: {problem}")


def total(outcomes: Iterable[Outcome]) -> Outcome:
    """All of them together."""
    result = Outcome()
    for outcome in outcomes:
        for group, numbers in outcome.groups.items():
            _merge(result.groups.setdefault(group, {}), numbers)
        result.failures += outcome.failures
    return result


@dataclass(frozen=True)
class Piece:
    """Tries ``first`` up to but not including ``last`` of a kind, and where they were made."""

    kind: str
    first: int
    last: int
    outcome: Outcome
    date: str
    commit: str
    processor: str
    seconds: float


class Results:
    """A file of pieces, JSON lines.

    Args:
        path: the file; it is made with the first piece.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def pieces(self, kind: str) -> list[Piece]:
        """The pieces of a kind, without those that the same tries made later have replaced."""
        found: dict[tuple[int, int], Piece] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            content = json.loads(line)
            if content["kind"] == kind:
                piece = Piece(**{**content, "outcome": Outcome(**content["outcome"])})
                found.pop((piece.first, piece.last), None)  # in the order in which they were made
                found[piece.first, piece.last] = piece
        return list(found.values())

    def add(self, kind: str, first: int, last: int, outcome: Outcome, seconds: float) -> None:
        """Append a piece."""
        place = {"date": time.strftime("%Y-%m-%d"), "commit": _commit(), "processor": _processor()}
        piece = Piece(kind, first, last, outcome, **place, seconds=round(seconds, 1))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(piece)) + "\n")


def _merge(into: dict[str, Any], numbers: dict[str, float]) -> None:
    for name, value in numbers.items():
        before = into.get(name, 0)
        into[name] = max(before, value) if name in LARGEST else before + value


def _named(name: str) -> str:
    text, _, unit = name.rpartition("_")
    return f"{text.replace('_', ' ')} ({unit})" if unit in ("MB", "s") else name.replace("_", " ")


def _commit() -> str:
    if given := os.environ.get("AIDE_TORTURE_COMMIT"):  # of a copy that is no repository
        return given
    command = ["git", "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
