"""Training on a GPU: the same algorithm, in every precision, resumed exactly, through the command line and NCCL."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aide_monai.networks import MeanNetwork
from aide_monai.options import AIDEOptions
from aide_monai.workflows.comparison.budget import TrainingSettings
from aide_monai.workflows.comparison.training import (
    clean_labels,
    train_aide,
    train_co_teaching,
    train_pseudo_label,
    train_supervised,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
Volumes = Sequence[dict[str, Any]]
ROOT = Path(__file__).parents[2]
SETTINGS = TrainingSettings(
    epochs=3, steps_per_epoch=4, batch_size=4, features=(4, 4, 4, 8, 8, 4), augmentation_mix=0.5, seed=7, device="cuda"
)
OPTIONS = AIDEOptions.for_epochs(3, profile="improved")


@pytest.fixture(autouse=True)
def exact_arithmetic() -> Iterator[None]:
    """No TF32, and one algorithm for each convolution."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = before


def train(volumes: Volumes, run_dir: Path, *, device: str = "cuda", amp: str = "off", **options: Any) -> Any:
    settings = replace(SETTINGS, device=device, amp=amp)
    return train_aide(volumes, settings, options=OPTIONS, run_dir=run_dir, **shared(volumes), **options)


def shared(volumes: Volumes) -> dict[str, Any]:
    return {"num_classes": 2, "axis": 2, "clean": clean_labels(volumes)}


def weights(network: MeanNetwork) -> dict[str, torch.Tensor]:
    return {key: value.cpu() for key, value in network.state_dict().items()}


def test_a_gpu_computes_what_a_cpu_computes(moved_labels: Volumes, tmp_path: Path) -> None:
    _, _, there = train(moved_labels, tmp_path / "gpu")
    _, _, here = train(moved_labels, tmp_path / "cpu", device="cpu")
    # rounding grows from step to step
    assert there[0]["loss"] == pytest.approx(here[0]["loss"], rel=1e-3)
    assert there[-1]["loss"] == pytest.approx(here[-1]["loss"], rel=0.05)


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_an_interrupted_run_ends_with_the_same_weights(moved_labels: Volumes, tmp_path: Path, amp: str) -> None:
    whole, store, log = train(moved_labels, tmp_path / "whole", amp=amp)
    left = [2 * SETTINGS.steps_per_epoch + 1]

    def interrupt() -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(moved_labels, tmp_path / "parts", amp=amp, on_step=interrupt)
    again, store_again, _ = train(moved_labels, tmp_path / "parts", amp=amp, resume=True)
    first, second = weights(whole), weights(again)
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    assert store.records == store_again.records
    assert all(math.isfinite(row["loss"]) for row in log)
    assert log[-1]["loss"] < log[0]["loss"]


def test_the_rivals_train_there_too(moved_labels: Volumes, tmp_path: Path) -> None:
    same = shared(moved_labels)
    co_teaching = {"max_forget_rate": 0.5, "warmup_epochs": 2}
    logs = [
        train_supervised(moved_labels, SETTINGS, run_dir=tmp_path / "plain", **same)[-1],
        train_pseudo_label(
            moved_labels, SETTINGS, start=2, interval=1, largest_component="none", run_dir=tmp_path / "pseudo", **same
        )[-1],
        train_co_teaching(moved_labels, SETTINGS, run_dir=tmp_path / "co", **co_teaching, **same)[-1],
    ]
    assert all(math.isfinite(row["loss"]) for log in logs for row in log)


def test_a_comparison_trains_and_scores_there(phantoms: Path, tmp_path: Path) -> None:
    budget = {"epochs": 2, "steps_per_epoch": 2, "features": SETTINGS.features}
    config = {
        "name": "GPU",
        "task": "ssl",
        "data": {"root": ".", "slice_size": [32, 32]},
        "split": {"test": 2},
        "settings": [{"labeled": 1, "unlabeled": 2}],
        "methods": {"labelled only": {}, "AIDE": {"largest_component": "class"}},
        "budget": budget,
    }
    (tmp_path / "gpu.json").write_text(json.dumps(config))
    arguments = ["--data", str(phantoms), "--out", str(tmp_path / "out"), "--device", "cuda", "--jobs", "2"]
    python("-m", "aide_monai.cli", "compare", str(tmp_path / "gpu.json"), *arguments, cwd=tmp_path)
    assert (tmp_path / "out" / "report.html").exists()


def test_a_bundle_trains_with_nccl_and_predicts(phantoms: Path, tmp_path: Path) -> None:
    where = ["--dataset_dir", str(phantoms), "--run_dir", str(tmp_path / "run")]
    bundle = str(ROOT / "bundles" / "hippocampus_ssl")
    counts = {"epochs": 2, "steps_per_epoch": 2, "labeled": 1, "unlabeled": 2, "test": 1}
    small = [word for name, number in counts.items() for word in (f"--{name}", str(number))]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "1", "-m", "aide_monai.cli", "train"]
    python(*launch, bundle, *where, *small, cwd=tmp_path)
    python("-m", "aide_monai.cli", "predict", bundle, *where, cwd=tmp_path)


def python(*arguments: str, cwd: Path) -> None:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
