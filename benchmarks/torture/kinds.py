"""The kinds of attacks, and how many tries each is meant to withstand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.torture import damaged_runs, files, flatness, full_disks, kills, requests, studies
from benchmarks.torture.results import Outcome


@dataclass(frozen=True)
class Kind:
    """A kind of attack.

    Attributes:
        title: heading of its table.
        goal: number of tries.
        piece: tries of a piece.
        run: makes the tries from a number up to but not including another, in an empty folder.
    """

    title: str
    goal: int
    piece: int
    run: Callable[[int, int, Path], Outcome]


KINDS = {
    "kills": Kind("Kills and signals", kills.GOAL, kills.PIECE, kills.run),
    "full_disks": Kind("Full disks", full_disks.GOAL, full_disks.PIECE, full_disks.run),
    "damaged_runs": Kind("Damaged run folders", damaged_runs.GOAL, damaged_runs.PIECE, damaged_runs.run),
    "files": Kind("Mutated files", files.GOAL, files.PIECE, files.run),
    "requests": Kind("Hostile requests", requests.GOAL, requests.PIECE, requests.run),
    "flatness": Kind("Memory and open files", flatness.GOAL, flatness.PIECE, flatness.run),
    "studies": Kind("Many images on a server", studies.GOAL, studies.PIECE, studies.run),
}
