"""The kinds of attacks, and how many tries each is meant to withstand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.torture import files, full_disks, kills
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
    "files": Kind("Mutated files", files.GOAL, files.PIECE, files.run),
}
