"""What a data set costs as it grows: time of `aide check`, and of a datalist of many records.

    python -m benchmarks.data_scale [--volumes 250 1000] [--records 10000 100000] [--repeats 3]

Volumes are about the size of a hippocampus, each with a label of its own, written for the purpose. Both sizes are
measured in turn, and medians are told: where the cost is linear, the time per record is the same for both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import nibabel
import numpy as np

from aide_monai.data.case import Case
from aide_monai.data.datalist import Datalist

Thing = TypeVar("Thing")
SHAPE = (35, 50, 35)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, nargs="*", default=[250, 1000], help="sizes for aide check")
    parser.add_argument("--records", type=int, nargs="*", default=[10_000, 100_000], help="sizes for datalists")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print("| what | records | seconds | records a second |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lists = {size: datalist(folder, size) for size in args.records}
        report("a datalist: validate, save, load", lists, lambda data: round_trip(data, folder), args.repeats)
        cases = [write_case(folder, number) for number in range(max(args.volumes, default=0))]
        files = {size: saved(folder, cases[:size]) for size in args.volumes}
        report("`aide check`, start-up included", files, lambda file: check(file, folder / "report"), args.repeats)


def report(what: str, things: dict[int, Thing], work: Callable[[Thing], object], repeats: int) -> None:
    """Do some work with things of several sizes in turn, and print a line for each."""
    seconds: dict[int, list[float]] = {size: [] for size in things}
    for _ in range(repeats):
        for size, thing in things.items():
            start = time.perf_counter()
            work(thing)
            seconds[size].append(time.perf_counter() - start)
    for size, runs in seconds.items():
        middle = statistics.median(runs)
        print(f"| {what} | {size} | {middle:.2f} | {size / middle:.0f} |", flush=True)


def datalist(folder: Path, size: int) -> Datalist:
    """A datalist whose files need not be there."""
    cases = [
        Case(
            name=f"case_{number:06d}",
            image=str(folder / "images" / f"case_{number:06d}.nii.gz"),
            label=str(folder / "labels" / f"case_{number:06d}.nii.gz"),
            quality="high" if number % 2 else "low",
            patient=f"patient_{number // 2:06d}",
            domain="one",
        )
        for number in range(size)
    ]
    return Datalist("many", {0: "background", 1: "object"}, {0: "MR"}, cases)


def round_trip(data: Datalist, folder: Path) -> None:
    """Validate, save and load it."""
    Datalist(data.name, data.labels, data.modality, data.cases).save(folder / "many.json")
    assert len(Datalist.load(folder / "many.json").cases) == len(data.cases)


def write_case(folder: Path, number: int) -> Case:
    """An object on a ground of soft noise, no two alike."""
    random = np.random.default_rng(number)
    coarse = random.normal(size=tuple(-(-size // 5) for size in SHAPE))
    image = np.kron(coarse, np.ones((5, 5, 5)))[: SHAPE[0], : SHAPE[1], : SHAPE[2]] + random.normal(size=SHAPE) / 5
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    middle, radius = random.uniform(15, 20, size=3), random.uniform(7, 10)
    label = (np.linalg.norm(places - middle, axis=-1) < radius).astype(np.uint8)
    paths = []
    for kind, voxels in (("images", (100 * image + 200 * label).astype(np.int16)), ("labels", label)):
        path = folder / kind / f"case_{number:05d}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
        paths.append(str(path))
    return Case(name=f"case_{number:05d}", image=paths[0], label=paths[1], quality="high")


def saved(folder: Path, cases: Sequence[Case]) -> Path:
    """A datalist of these cases on disk."""
    file = folder / f"{len(cases)}.json"
    Datalist("small volumes", {0: "background", 1: "object"}, {0: "MR"}, list(cases)).save(file)
    return file


def check(file: Path, out: Path) -> None:
    """``aide check`` as a user calls it."""
    command = [sys.executable, "-m", "aide_monai.cli", "check", str(file), "--out", str(out), "--quiet"]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
