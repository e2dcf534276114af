"""What the data cost: the first pass, later epochs, the share of a training step, and memory.

The CHAOS cases in DIR are copied until there are as many slices as asked for, two DICOM files and a PNG label each.
Compared are alternating repeats, medians and their ratios: (1) the first pass, in which volumes are read, checked,
normalised and cached, with pydicom decoding the same files and doing nothing else; (2) a slice of a later epoch with
one that is read from its files; (3) the time to make a batch with an AIDE step on it; (4) the memory of a process that
has read N and 10 N cases, gone through all their slices, and corrected labels.

    python benchmarks/data_stream.py DIR/chaos --slices 1000 --repeats 5
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from monai.networks.nets import BasicUNet
from PIL import Image

from aide_monai.engines import AIDEOptions, AIDETrainer
from aide_monai.handlers import GlobalLabelCorrection
from aide_monai.io.dicom.header import _read_slices
from aide_monai.labels import LabelStore
from aide_monai.stream import SliceDataset, slice_loader
from aide_monai.stream.preprocessing import load_volumes, volume_transforms
from aide_monai.stream.volume_cache import VolumeCache

CLASSES = {63: 1, 126: 2, 189: 3, 252: 4}
MODALITIES = ("InPhase", "OutPhase")


def main() -> None:
    """Print all tables, or in a process of its own the memory that one number of cases takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chaos", type=Path, help="folder with Train_Sets/MR")
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-cases", type=int, default=6, help="N of N and 10 N cases")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.measure:
        _measure(args.chaos, **json.loads(args.measure))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        records = replicate(args.chaos, root / "cases", slices=args.slices)
        first_pass(records, args.repeats)
        later_epochs(records, root, args.repeats)
        training_share(records, root)
        memory(args.chaos, args.memory_cases)


def replicate(chaos: Path, folder: Path, *, slices: int = 0, cases: int = 0) -> list[dict[str, Any]]:
    """Copies of the MR cases, as records, until there are so many slices or cases."""
    sources = sorted(path for path in (chaos / "Train_Sets" / "MR").iterdir() if (path / "T1DUAL" / "Ground").is_dir())
    records: list[dict[str, Any]] = []
    done = 0
    while done < slices or len(records) < cases:
        source = sources[len(records) % len(sources)] / "T1DUAL"
        case = folder / f"{len(records):05d}"
        shutil.copytree(source, case)
        images = [str(case / "DICOM_anon" / name) for name in MODALITIES]
        records.append({"case": case.name, "image": images, "label": str(case / "Ground"), "quality": "low"})
        done += len(list((case / "Ground").glob("*.png")))
    return records


def files_of(record: dict[str, Any]) -> list[list[Path]]:
    """DICOM files of each modality, and the PNG files, in the order of their names."""
    return [sorted(path for path in Path(place).iterdir()) for place in (*record["image"], record["label"])]


def transform(*keys: str) -> Any:
    """The pipeline of a CHAOS training."""
    return volume_transforms(keys=keys, classes=CLASSES, axis=2, slice_size=(256, 256))


def alternate(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each function; one call each, over and over, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            _read_slices.cache_clear()
            gc.collect()
            start = time.perf_counter()
            result = function()
            if repeat:
                times[name].append(time.perf_counter() - start)
            del result
    return {name: statistics.median(values) for name, values in times.items()}


def table(title: str, medians: dict[str, float], unit: float, of: dict[str, str]) -> None:
    """One line per function: median in ms per unit of work, and the ratio to the function it is compared with."""
    print(f"\n{title}")
    for name, value in medians.items():
        ratio = f"   {value / medians[of[name]]:8.3f} x {of[name]}" if name in of else ""
        print(f"  {name:42} {1000 * value / unit:9.4f} ms{ratio}")


def first_pass(records: list[dict[str, Any]], repeats: int) -> None:
    """(1)"""
    files = [files_of(record) for record in records]
    slices = sum(len(labels) for *_, labels in files)

    def pydicom_alone() -> None:
        for *series, _ in files:
            for one in series:
                for file in one:
                    pydicom.dcmread(file).pixel_array  # noqa: B018 - decodes

    def pydicom_and_png() -> None:
        pydicom_alone()
        for *_, labels in files:
            for file in labels:
                np.asarray(Image.open(file))

    images, both = transform("image"), transform("image", "label")
    medians = alternate(
        {
            "pydicom": pydicom_alone,
            "images, cache ram": lambda: load_volumes(records, images),
            "images, cache disk": lambda: load_volumes(records, images, cache="disk"),
            "pydicom and PNG": pydicom_and_png,
            "images and labels, cache ram": lambda: load_volumes(records, both),
            "images and labels, cache disk": lambda: load_volumes(records, both, cache="disk"),
        },
        repeats,
    )
    of = {name: "pydicom" for name in medians if name.startswith("images,")}
    of |= {name: "pydicom and PNG" for name in medians if "labels" in name}
    title = f"First pass, per slice of two modalities ({len(records)} cases, {slices} slices)"
    table(title, medians, slices, of)
    print(f"  images and labels, cache ram, against pydicom without PNG: {_ratio(medians, 'images and labels')}")


def _ratio(medians: dict[str, float], start: str) -> str:
    return f"{medians[start + ', cache ram'] / medians['pydicom']:.3f}"


def stream(records: list[dict[str, Any]], cache: str, root: Path) -> tuple[VolumeCache, SliceDataset]:
    """The stream of a training run; on disk, the labels are in files too."""
    scratch = root / "scratch" if cache == "disk" else None
    volumes = load_volumes(records, transform("image", "label"), cache=cache, folder=scratch)
    return volumes, SliceDataset(volumes, store=LabelStore.from_volumes(volumes, scratch=scratch))


def later_epochs(records: list[dict[str, Any]], root: Path, repeats: int) -> None:
    """(2)"""
    streams = {cache: stream(records, cache, root) for cache in ("ram", "disk")}
    count = len(streams["ram"][1])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    table_of = np.zeros(256, dtype=np.uint8)
    table_of[list(CLASSES)] = list(CLASSES.values())
    places = [place for record in records for place in zip(*files_of(record), strict=True)]

    def from_files() -> None:
        for index in order:
            first, second, png = places[index]
            image = np.stack([pydicom.dcmread(file).pixel_array for file in (first, second)]).astype(np.float32)
            mean, deviation = image.mean(axis=(1, 2), keepdims=True), image.std(axis=(1, 2), keepdims=True)
            torch.from_numpy((image - mean) / deviation)
            torch.from_numpy(table_of[np.asarray(Image.open(png))])

    def from_stream(dataset: SliceDataset) -> None:
        for index in order:
            dataset[index]

    functions: dict[str, Callable[[], None]] = {"read from files": from_files}
    for cache, (_, dataset) in streams.items():
        functions[f"stream, cache {cache}"] = lambda dataset=dataset: from_stream(dataset)
    medians = alternate(functions, repeats)
    table("Later epochs, per slice in random order", medians, count, {})
    for name in list(medians)[1:]:
        print(f"  {name}: {medians['read from files'] / medians[name]:.1f} times faster than reading from files")
    stored = sum(
        s.voxels.numel() * s.voxels.dtype.itemsize for s in map(_image_of(streams["ram"][0]), range(len(records)))
    )
    print(f"  images in the cache: {stored / 2**20:.0f} MiB, as float32 {stored * 2 / 2**20:.0f} MiB")


def _image_of(volumes: VolumeCache) -> Callable[[int], Any]:
    return lambda number: volumes.stored(number)["image"]


def training_share(records: list[dict[str, Any]], root: Path, steps: int = 6, batch: int = 8) -> None:
    """(3)"""
    print(f"\nShare of a training step (batch of {batch}, BasicUNet of 16 to 128 channels, one thread)")
    for cache in ("ram", "disk"):
        volumes, dataset = stream(records[:4], cache, root)
        networks = [BasicUNet(2, 2, 5, features=(16, 16, 32, 64, 128, 16), norm="batch") for _ in (1, 2)]
        optimizers = [torch.optim.Adam(network.parameters(), amsgrad=True) for network in networks]
        trainer = AIDETrainer(
            "cpu", 1, [], networks[0], optimizers[0], networks[1], optimizers[1], options=AIDEOptions()
        )
        trainer.state.consistency = 1.0
        loader = iter(slice_loader(dataset, batch_size=batch, steps=steps + 1, seed=0))
        waits, trains = [], []
        for step in range(steps + 1):
            start = time.perf_counter()
            data = next(loader)
            middle = time.perf_counter()
            trainer._iteration(trainer, data)
            if step:
                waits.append(middle - start)
                trains.append(time.perf_counter() - middle)
        wait, train = statistics.median(waits), statistics.median(trains)
        share = 100 * wait / (wait + train)
        print(f"  cache {cache:5} batch {1000 * wait:7.2f} ms   step {1000 * train:8.1f} ms   share {share:.2f} %")
        del volumes, dataset, loader


def memory(chaos: Path, cases: int) -> None:
    """(4)"""
    print(f"\nMemory after the first pass, one epoch and a label correction, {cases} and {10 * cases} cases")
    for cache in ("ram", "disk"):
        found = {}
        for number in (cases, 10 * cases):
            question = json.dumps({"cache": cache, "cases": number})
            command = [sys.executable, __file__, str(chaos), "--measure", question]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[number] = json.loads(answer.splitlines()[-1])
        few, many = found[cases], found[10 * cases]
        for key in few:
            change = 100 * (many[key] / few[key] - 1)
            print(f"  cache {cache:5} {key:26} {few[key]:8.0f} MiB  {many[key]:8.0f} MiB   {change:+6.1f} %")


def _measure(chaos: Path, *, cache: str, cases: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        records = replicate(chaos, Path(folder) / "cases", cases=cases)
        volumes, dataset = stream(records, cache, Path(folder))
        for index in range(len(dataset)):
            dataset[index]
        networks = [torch.nn.Conv2d(2, 5, 1) for _ in (1, 2)]
        optimizers = [torch.optim.Adam(network.parameters()) for network in networks]
        trainer = AIDETrainer("cpu", 1, [], networks[0], optimizers[0], networks[1], optimizers[1])
        trainer.state.epoch = 1
        GlobalLabelCorrection(dataset)(trainer)
        assert trainer.state.metrics["corrected"] > 0
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        now, peak = (int(status[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
        print(json.dumps({"resident": now, "resident at its peak": peak}))
        del volumes, dataset


if __name__ == "__main__":
    main()
