"""Run folders that something has damaged: resuming is refused by name, or ends with the same bits as ever."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from benchmarks.torture import tiny
from benchmarks.torture.forks import Ended, aide
from benchmarks.torture.kills import read_state
from benchmarks.torture.results import Outcome

FILES = {
    "checkpoint": "checkpoint.pt",
    "best weights": "models/model.pt",
    "settings": "models/model.json",
    "log": "epochs.csv",
    "label store: journal": "labels/journal.jsonl",
    "label store: a label": "labels/generation_*/*.npz",
    "pretrained weights": "pretrained/model.pt",
    "datalist": "standardized/datalist.json",
    "pseudo-label": "standardized/pseudo_labels/*.nii.gz",
    "data: an image": "",
}
HALFWAY = 2  # epochs after which the runs were stopped


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(1, max(len(content), 2))]


def _flip(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


def _blank(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return (content[:at] + bytes(512) + content[at + 512 :])[: len(content)]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "cut off": _cut,
    "a bit turned": _flip,
    "a block of zeros": _blank,
    "missing": lambda content, rng: None,
}
GOAL = len(FILES) * len(DAMAGES)
PIECE = 20


def run(first: int, last: int, folder: Path) -> Outcome:
    """Damage one file of a run that was stopped half-way, by the numbers of the tries, and resume it."""
    outcome = Outcome()
    log = folder / "log.txt"
    data = tiny.write_data(folder / "data")
    run_dir = folder / "run"
    _require(aide(tiny.train_arguments(data, run_dir), log))
    expected = read_state(run_dir, log)
    shutil.rmtree(run_dir)
    _stop_halfway(data, run_dir, log)
    kept, kept_data = shutil.move(run_dir, folder / "kept"), shutil.copytree(data, folder / "kept_data")
    for number in range(first, last):
        name, damage = list(FILES)[number % len(FILES)], list(DAMAGES)[number // len(FILES) % len(DAMAGES)]
        for place, source in ((run_dir, kept), (data, kept_data)):
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(source, place)
        rng = random.Random(number)
        victim = rng.choice(sorted(run_dir.glob(FILES[name]) if FILES[name] else data.glob("imagesTr/*.nii.gz")))
        changed = DAMAGES[damage](victim.read_bytes(), rng)
        victim.unlink()
        if changed is not None:
            victim.write_bytes(changed)
        ended = aide(tiny.train_arguments(data, run_dir, "--resume"), log)
        problem = _problem(ended, victim)
        if not problem and ended.status == 0:
            # what a resumed run does not need stays as it is
            own = str(victim.relative_to(run_dir)) if FILES[name] else "none of them"
            found, whole = (
                {leaf: value for leaf, value in leaves.items() if not leaf.startswith(own)}
                for leaves in (read_state(run_dir, log), expected)
            )
            problem = tiny.differences(found, whole)
        refused = ended.status == 2
        outcome.add(
            name, f"{damage}: {problem}" if problem else "", number=number, refused=refused, same_end=not refused
        )
    return outcome


def _stop_halfway(data: Path, run_dir: Path, log: Path) -> None:
    """A run that is killed when its log has so many epochs."""

    def kill(process: int) -> None:
        rows = (run_dir / "epochs.csv").read_text().count("\n") if (run_dir / "epochs.csv").exists() else 0
        if rows > HALFWAY:
            os.kill(process, signal.SIGKILL)

    ended = aide(tiny.train_arguments(data, run_dir), log, watch=kill)
    assert ended.status == -signal.SIGKILL, ended.output


def _require(ended: Ended) -> None:
    assert ended.status == 0, ended.output


def _problem(ended: Ended, victim: Path) -> str:
    """A refusal names the file, or at least its folder."""
    if ended.problem or ended.status == 0:
        return ended.problem
    named = victim.name in ended.sentence or victim.parent.name in ended.sentence
    return "" if named else f"refused without its name: {ended.sentence[:200]}"
