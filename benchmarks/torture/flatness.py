"""Memory and open files of long work, watched from outside: they stay flat from epoch to epoch and case to case."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.torture import tiny
from benchmarks.torture.forks import Ended, aide
from benchmarks.torture.results import Outcome

EPOCHS = 50
CASES = 500
ALLOWED_MB, ALLOWED_FILES = 48.0, 4
EVERY = 5  # looks of the fork's watch for each one that is noted
PAGE_MB = 4096 / 2**20


@dataclass
class Record:
    """Memory and number of open files of a process, over its time."""

    memory_mb: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    looks: int = 0

    def look(self, process: int) -> None:
        """Note the present numbers of a process; what has just ended is passed over."""
        self.looks += 1
        if self.looks % EVERY:
            return
        try:
            memory = int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE_MB
            files = sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
        except (OSError, IndexError):
            return
        self.memory_mb.append(memory)
        self.files.append(files)

    def growth(self) -> tuple[float, int]:
        """How much more memory (MB) and open files its last fifth takes than the fifth after the first two."""
        count = len(self.files)
        early, late = slice(2 * count // 5, 3 * count // 5), slice(4 * count // 5, count)
        memory = statistics.median(self.memory_mb[late]) - statistics.median(self.memory_mb[early])
        return memory, max(self.files[late]) - max(self.files[early])


def _train(folder: Path, cache: str) -> tuple[list[Any], int]:
    data = tiny.write_data(folder / "data")
    return tiny.train_arguments(data, folder / "run", "--cache", cache, epochs=EPOCHS), EPOCHS


def _cases(folder: Path, command: str) -> tuple[list[Any], int]:
    data = tiny.write_data(folder / "data", cases=CASES)
    if command == "prepare":
        return ["prepare", "decathlon", data, "--out", folder / "datalist.json"], CASES
    if command == "evaluate":
        return ["evaluate", "--pred", data / "labelsTr", "--ref", data / "labelsTr", "--out", folder / "out"], CASES
    few = tiny.write_data(folder / "few")
    for arguments in (
        ["prepare", "decathlon", data, "--out", folder / "datalist.json"],
        tiny.train_arguments(few, folder / "run", epochs=1),
    ):
        ended = aide(arguments, folder / "log.txt")
        assert ended.status == 0, ended.output
    if command == "check":
        return ["check", folder / "datalist.json", "--out", folder / "report", "--root", data], CASES
    return tiny.predict_arguments(data / "imagesTr", folder / "run", folder / "out"), CASES


LONG: dict[str, Callable[[Path], tuple[list[Any], int]]] = {
    "aide train, epochs": lambda folder: _train(folder, "ram"),
    "aide train with the disk cache, epochs": lambda folder: _train(folder, "disk"),
    "aide check, cases": lambda folder: _cases(folder, "check"),
    "aide prepare, cases": lambda folder: _cases(folder, "prepare"),
    "aide predict, cases": lambda folder: _cases(folder, "predict"),
    "aide evaluate, cases": lambda folder: _cases(folder, "evaluate"),
}
GOAL = len(LONG)
PIECE = 1


def run(first: int, last: int, folder: Path) -> Outcome:
    """Watch long work by its numbers."""
    outcome = Outcome()
    for number in range(first, last):
        name = list(LONG)[number]
        place = folder / str(number)
        place.mkdir(parents=True)
        arguments, steps = LONG[name](place)
        record = Record()
        ended = aide(arguments, place / "log.txt", limit_s=3600, watch=record.look)
        memory, files = record.growth()
        outcome.add(
            name,
            _problem(ended, memory, files),
            number=number,
            steps=steps,
            growth_MB=round(memory, 1),
            more_open_files=files,
            peak_MB=round(ended.peak_mb),
        )
    return outcome


def _problem(ended: Ended, memory_mb: float, files: int) -> str:
    if ended.status != 0:
        return ended.problem or ended.output[-300:]
    if memory_mb > ALLOWED_MB:
        return f"takes {memory_mb:.0f} MB more"
    return f"has {files} more files open" if files > ALLOWED_FILES else ""
