"""A disk that is full at the moment when a file is opened for writing: in every writer of the product.

Each try has a small file system of its own, where this user may mount one. Something else takes its space when the
writer opens its file: all of it, or all but half of what the file needs. Elsewhere the call itself is refused.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.torture import tiny
from benchmarks.torture.forks import Ended, aide, fork, small_disk
from benchmarks.torture.kills import read_state
from benchmarks.torture.results import Outcome
from tests.data.sources.breast_files import write_centres
from tests.data.sources.qubiq_files import write_qubiq
from tests.io.dicom.dicom_files import write_series

DISK_BYTES = 64 * 2**20
PAGE = 4096
EVOLVING = (".pt", ".json", ".npz", ".csv")  # of which an earlier state may lie there


@dataclass(frozen=True)
class Writer:
    """Something that writes: the command, and the file below its folder whose opening is the moment."""

    name: str
    command: str
    file: str


def _train(data: Path, out: Path, *more: Any) -> list[Any]:
    return tiny.train_arguments(data / "phantoms", out, *more)


COMMANDS: dict[str, Callable[[Path, Path], list[Any]]] = {
    "train": _train,
    "train, disk cache": lambda data, out: _train(data, out, "--cache", "disk"),
    "prepare": lambda data, out: ["prepare", "decathlon", data / "phantoms", "--out", out / "datalist.json"],
    "prepare, fused": lambda data, out: [
        *("prepare", "qubiq", data / "qubiq", "--task", "kidney", "--rater", "majority"),
        *("--fused-dir", out / "fused", "--out", out / "datalist.json"),
    ],
    "prepare, subtraction": lambda data, out: [
        *("prepare", "breast", data / "breast", "--centre", "GPPH", "--phases", "0,1"),
        *("--subtraction-dir", out / "subtraction", "--out", out / "datalist.json"),
    ],
    "check": lambda data, out: ["check", data / "phantoms.json", "--out", out / "check"],
    "predict": lambda data, out: tiny.predict_arguments(
        data / "phantoms" / "imagesTr", data / "run", out / "predictions"
    ),
    "predict, DICOM": lambda data, out: [
        *tiny.predict_arguments(data / "dicom", data / "run", out / "predictions"),
        *("--output_format", "dicom-seg"),
    ],
    "evaluate": lambda data, out: [
        *("evaluate", "--pred", data / "phantoms" / "labelsTr", "--ref", data / "phantoms" / "labelsTr"),
        *("--out", out / "scores"),
    ],
    "evaluate, compare": lambda data, out: [
        *("evaluate", "--compare", data / "per_case.csv", data / "per_case.csv", "--out", out / "scores")
    ],
    "labels, export": lambda data, out: ["labels", data / "run", "--export", 1, out / "labels"],
    "labels, rollback": lambda data, out: ["labels", out / "run", "--rollback", 0],
    "new-bundle": lambda data, out: ["new-bundle", out / "mine", "--datalist", data / "phantoms.json"],
    "label-app": lambda data, out: ["label-app", out / "app", "--bundle", tiny.BUNDLE],
    "compare": lambda data, out: tiny.compare_arguments(data / "phantoms", out / "comparison"),
    "demo": lambda data, out: [
        *("demo", "--data", data / "phantoms", "--labeled", 1, "--unlabeled", 2, "--epochs", 1, "--steps", 1),
        *("--run-dir", out / "demo"),
    ],
}

WRITERS = (
    Writer("label store: journal", "train", r"labels/journal\.jsonl"),
    Writer("label store: labels", "train", r"labels/generation_.*\.npz"),
    Writer("checkpoint", "train", r"checkpoint\.pt"),
    Writer("best weights", "train", r"models/model\.pt"),
    Writer("settings", "train", r"models/model\.json"),
    Writer("epochs.csv", "train", r"epochs\.csv"),
    Writer("given and pseudo-labels", "train", r"standardized/.*\.nii\.gz"),
    Writer("disk cache", "train, disk cache", r"cache/.*"),
    Writer("datalist", "prepare", r"datalist\.json"),
    Writer("prepare: fused masks", "prepare, fused", r"fused/.*\.nii\.gz"),
    Writer("prepare: subtraction images", "prepare, subtraction", r"subtraction/.*\.nii\.gz"),
    Writer("check: report", "check", r"check/report\.md"),
    Writer("check: pictures", "check", r"check/.*\.png"),
    Writer("predict: masks", "predict", r"predictions/.*\.nii\.gz"),
    Writer("predict: DICOM SEG", "predict, DICOM", r"predictions/.*\.dcm"),
    Writer("evaluate: table", "evaluate", r".*per_case\.csv"),
    Writer("evaluate: summary", "evaluate", r".*summary\.md"),
    Writer("evaluate: JSON", "evaluate", r".*evaluation\.json"),
    Writer("evaluate: pictures", "evaluate", r".*\.png"),
    Writer("evaluate --compare", "evaluate, compare", r".*comparison\.md"),
    Writer("labels --export", "labels, export", r".*\.nii\.gz"),
    Writer("labels --rollback", "labels, rollback", r"run/labels/.*"),
    Writer("new-bundle", "new-bundle", r".*/configs/.*\.json"),
    Writer("label-app", "label-app", r"app/.*"),
    Writer("compare: job", "compare", r"comparison/.*job\.json"),
    Writer("compare: checkpoint", "compare", r"comparison/.*checkpoint\.pt"),
    Writer("compare: table", "compare", r"comparison/per_case\.csv"),
    Writer("compare: summary", "compare", r"comparison/summary\.md"),
    Writer("compare: figures", "compare", r"comparison/.*\.png"),
    Writer("compare: report", "compare", r"comparison/report\.html"),
    Writer("demo: tables", "demo", r"demo/.*summary\.md"),
    Writer("demo: settings", "demo", r"demo/settings\.json"),
    Writer("demo: figures", "demo", r"demo/figures/.*\.png"),
)
GOAL = 2 * len(WRITERS)
PIECE = 11


def run(first: int, last: int, folder: Path) -> Outcome:
    """Fill disks by the numbers of the tries: in the first round all space is gone, in the second half a file's."""
    outcome = Outcome()
    data = _write_inputs(folder / "data")
    wholes: dict[str, Path] = {}
    for number in range(first, last):
        writer = WRITERS[number % len(WRITERS)]
        if writer.command not in wholes:
            wholes[writer.command] = _whole(writer.command, data, folder / f"whole_{len(wholes)}")
        place = folder / f"try_{number}"
        verdict = _try(writer, data, place, wholes[writer.command], half=number >= len(WRITERS))
        shutil.rmtree(place, ignore_errors=True)
        outcome.add(writer.name, verdict["problem"], number=number, mounted_disks=verdict["mounted"])
    return outcome


def _write_inputs(data: Path) -> Path:
    """Data sets and a trained run, which all tries read."""
    data.mkdir()
    log = data / "log.txt"
    tiny.write_data(data / "phantoms")

    def write() -> None:
        import nibabel
        import numpy as np

        write_qubiq(data / "qubiq", "kidney")
        write_centres(data / "breast", {"GPPH": 2})
        image = nibabel.load(sorted((data / "phantoms" / "imagesTr").iterdir())[0])
        write_series(data / "dicom" / "a", np.asarray(image.dataobj).astype(np.int16), spacing=(12, 12, 30))

    for ended in (
        fork(write, log),
        aide(["prepare", "decathlon", data / "phantoms", "--out", data / "phantoms.json"], log),
        aide(_train(data, data / "run"), log),
        aide(COMMANDS["evaluate"](data, data), log),
    ):
        assert ended.status == 0, ended.output
    shutil.copy(data / "scores" / "per_case.csv", data)
    return data


def _whole(command: str, data: Path, folder: Path) -> Path:
    """Folder that a command has left which nobody disturbs."""
    out = folder / "out"
    _prepare_out(command, data, out)
    ended = aide(COMMANDS[command](data, out), folder / "log.txt")
    assert ended.status == 0, ended.output
    return out


def _prepare_out(command: str, data: Path, out: Path) -> None:
    out.mkdir(parents=True)
    if command == "labels, rollback":
        shutil.copytree(data / "run", out / "run")


def _try(writer: Writer, data: Path, place: Path, whole: Path, *, half: bool) -> dict[str, Any]:
    """One disk in a process that alone sees it: filled in the first run, with room in the second."""
    disk, answer = place / "disk", place / "answer.json"
    disk.mkdir(parents=True)

    def work() -> None:
        mounted = True
        try:
            small_disk(disk, DISK_BYTES)
        except OSError:
            mounted = False
        problem = _fill_and_go_on(writer, data, disk, whole, half=half, mounted=mounted)
        answer.write_text(json.dumps({"problem": problem, "mounted": mounted}))

    ended = fork(work, place / "log.txt")
    if not answer.exists():
        return {"problem": ended.problem or ended.output[-300:], "mounted": 0}
    return json.loads(answer.read_text())


def _fill_and_go_on(writer: Writer, data: Path, disk: Path, whole: Path, *, half: bool, mounted: bool) -> str:
    out, logs, ballast = disk / "out", disk.parent, disk / "ballast"
    _prepare_out(writer.command, data, out)
    victim = Moment(re.compile(writer.file), out, ballast if mounted else None, whole if half else None)
    arguments = COMMANDS[writer.command](data, out)
    refused = aide(arguments, logs / "refused.txt", before=lambda: sys.addaudithook(victim))
    problem = _problem_of_refusal(refused)
    ballast.unlink(missing_ok=True)
    problem = problem or _half_written(out, whole)
    if problem:
        return problem
    if writer.command.startswith("train") and (out / "labels").exists():
        arguments = [*arguments, "--resume"]
    if writer.command == "demo":
        shutil.rmtree(out / "demo")  # it wants a new folder, and says so
    again = aide(arguments, logs / "again.txt")
    if again.status != 0:
        return f"with room again: {again.problem or again.sentence}"
    log = logs / "state.txt"
    return tiny.differences(read_state(out, log), read_state(whole, log))


class Moment:
    """Audit hook that leaves no space when a file is opened for writing, once.

    Args:
        file: pattern of its path below ``out``.
        out: folder of the command's output.
        ballast: file that takes the space; None refuses the opening itself.
        whole: folder that holds the finished file, of whose size half is left; None leaves nothing.
    """

    def __init__(self, file: re.Pattern[str], out: Path, ballast: Path | None, whole: Path | None) -> None:
        self.file, self.out, self.ballast, self.whole = file, out, ballast, whole
        self.waiting = True

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Called by Python for every event; only an opening matters."""
        if event != "open" or not self.waiting or not isinstance(arguments[0], str | bytes):
            return
        path = os.fsdecode(arguments[0])
        if not path.startswith(f"{self.out}/") or not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        name = path[len(f"{self.out}/") :]
        name = re.sub(r"(^|/)\.([^/]*)\.tmp$", r"\1\2", name)
        if self.file.fullmatch(name) is None:
            return
        self.waiting = False
        if self.ballast is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        disk = os.statvfs(self.out)
        leave = 0
        if self.whole is not None:
            final = self.whole / name
            leave = final.stat().st_size // 2 // PAGE * PAGE if final.is_file() else 0
        with self.ballast.open("wb", buffering=0) as file:
            for _ in range((disk.f_bavail * disk.f_frsize - leave) // PAGE):
                file.write(bytes(PAGE))


def _problem_of_refusal(ended: Ended) -> str:
    if ended.problem:
        return ended.problem
    if ended.status == 0:
        return "went on as if nothing had happened"
    sentence = ended.sentence
    named = re.search(r"/[\w./]+: (found |cannot be written )", sentence) and os.strerror(errno.ENOSPC) in sentence
    return "" if named else f"does not name the file: {sentence[:300]}"


def _half_written(out: Path, whole: Path) -> str:
    """A file that stands there under its own name and is not whole, or an unfinished one that takes space."""
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out)
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            return f"left the unfinished file {name}"
        if path.suffix == ".png":
            try:
                Image.open(path).load()
            except Exception:
                return f"left half a picture, {name}"
        elif path.suffix in EVOLVING:
            try:
                tiny.leaves(path)
            except Exception:
                return f"left half a file, {name}"
        elif (whole / name).is_file() and tiny.leaves(path, root=out) != tiny.leaves(whole / name, root=whole):
            return f"left another content in {name}"
    return ""
