"""Trainings of a few seconds through the front door, and all that they leave behind, to be compared bit for bit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import torch

from aide_monai.data.sources.phantom import write_phantoms
from benchmarks.torture.forks import fork
from tests.workflows.digest import digest

BUNDLE = Path(__file__).parents[2] / "bundles" / "hippocampus_ssl"
EPOCHS = 4
AIDE = {"warmup_epochs": 3, "correction_start": 1, "update_interval": 1, "update_ratio": 0.5, "views": 1}
EXPERIMENT: dict[str, Any] = {
    "name": "phantoms",
    "task": "ssl",
    "data": {"root": ".", "slice_size": [16, 16]},
    "split": {"test": 2},
    "settings": [{"labeled": 1, "unlabeled": 2}],
    "methods": {"labelled only": {}, "noisy labels": {}, "AIDE": AIDE},
    "seeds": [0],
    "budget": {
        "epochs": EPOCHS,
        "steps_per_epoch": 8,
        "batch_size": 4,
        "learning_rate": 0.01,
        "features": [4, 4, 4, 8, 8, 4],
        "amp": "off",
    },
}
_DRAWN = (".png", ".html", ".log")
_TIMES = ("seconds", "created")


def write_data(folder: Path, *, cases: int = 5) -> Path:
    """Phantoms of 16 x 16 x 4 voxels in the Decathlon layout, and ``experiment.json``; returns the folder."""

    def write() -> None:
        write_phantoms(folder, cases=cases, shape=(16, 16, 4), spacing_mm=(12, 12, 30))
        (folder / "experiment.json").write_text(json.dumps(EXPERIMENT))

    ended = fork(write, folder.with_name(f"{folder.name}.log"))
    assert not ended.problem, ended.output
    return folder


def train_arguments(data: Path, run: Path, *more: Any, epochs: int = EPOCHS) -> list[Any]:
    """Arguments of ``aide train``: one labelled case and two others."""
    options = {
        "dataset_dir": data,
        "run_dir": run,
        "labeled": 1,
        "unlabeled": 2,
        "slice_size": "[16, 16]",
        "network_args#features": "[4, 4, 4, 8, 8, 4]",
        "device": "cpu",
        "amp": "off",
        "epochs": epochs,
        "steps_per_epoch": 8,
        "batch_size": 4,
        "learning_rate": 0.01,
        "options#warmup_epochs": 3,
        "options#correction_start": 1,
        "options#update_interval": 1,
        "options#update_ratio": 0.5,
    }
    return ["train", BUNDLE, *(part for key, value in options.items() for part in (f"--{key}", value)), *more]


def predict_arguments(images: Path, run: Path, masks: Path) -> list[Any]:
    """Arguments of ``aide predict`` with the weights of a tiny training."""
    values = {"dataset_dir": images, "run_dir": run, "output_dir": masks, "slice_size": "[16, 16]", "device": "cpu"}
    values |= {"network_args#features": "[4, 4, 4, 8, 8, 4]"}
    return ["predict", BUNDLE, *(part for key, value in values.items() for part in (f"--{key}", value))]


def compare_arguments(data: Path, out: Path, *, jobs: int = 1) -> list[Any]:
    """Arguments of ``aide compare``: three methods, the last one AIDE."""
    return ["compare", data / "experiment.json", "--out", out, "--jobs", jobs]


def state(folder: Path) -> dict[str, str]:
    """Every leaf of every file below a folder, by its path; pictures and times of day are left out.

    Weights, optimisers, generators and labels are compared by dtype, shape and bytes.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and path.suffix not in _DRAWN:
            try:
                found |= leaves(path, name, root=folder)
            except Exception as error:
                found[name] = f"unreadable: {type(error).__name__}"
    return found


def differences(found: dict[str, str], expected: dict[str, str]) -> str:
    """Which leaves differ, in one line; or nothing."""
    names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return f"{len(names)} leaves differ: {', '.join(names[:4])}" if names else ""


def leaves(path: Path, name: str = "", *, root: Path | None = None) -> dict[str, str]:
    """What a file says, leaf by leaf, without times of day, identifiers of DICOM, and the place of its ``root``.

    Raises:
        Exception: of whatever reads it, if it is damaged.
    """
    return digest(_content(path, root), name)


def _content(path: Path, root: Path | None) -> Any:
    if path.suffix == ".dcm":
        return torch.from_numpy(pydicom.dcmread(path).pixel_array)
    if path.suffix == ".md":
        return path.read_text().replace(str(root), "")
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text()))
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    if path.name.endswith(".nii.gz"):
        image = nibabel.load(path)
        return [image.affine.tolist(), torch.from_numpy(np.ascontiguousarray(image.dataobj))]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _timeless(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _timeless(value) for key, value in content.items() if key not in _TIMES}
    return [_timeless(value) for value in content] if isinstance(content, list) else content
