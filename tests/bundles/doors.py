"""The two doors of a bundle, ``python -m monai.bundle run`` and ``aide``, without a new process for each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import torch
from monai.bundle import ConfigParser

from aide_monai.cli.main import app, run
from aide_monai.io.location import as_paths, open_location

ROOT = Path(__file__).parents[2] / "bundles"
TRAINING = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "seed": 0}


def config_files(bundle: Path, *configs: str) -> list[str]:
    """Config files of a bundle, later ones refine earlier ones."""
    return [str(bundle / "configs" / f"{config}.json") for config in configs]


def monai_bundle_run(bundle: Path, *configs: str, **overrides: Any) -> None:
    """What ``python -m monai.bundle run --config_file CONFIGS --KEY VALUE`` calls."""
    monai.bundle.run(config_file=config_files(bundle, *configs), **overrides)


def aide(*arguments: object, **overrides: Any) -> int:
    """Exit code of the command."""
    words = [str(argument) for argument in arguments] + as_options(overrides)
    return run(lambda: app(words, standalone_mode=False))


def as_options(values: Mapping[str, Any]) -> list[str]:
    """Overrides as a user types them."""
    pairs = [(f"--{key}", value if isinstance(value, str) else json.dumps(value)) for key, value in values.items()]
    return [part for pair in pairs for part in pair]


TWO_EPOCHS = {
    "epochs": 2,
    "options#warmup_epochs": 2,
    "options#correction_foreground": 0.0,
    **{f"train#lr_scheduler_{network}#total_iters": 2 for network in (1, 2)},
}


def corrected_then_filled(bundle: Path, data: Path, run_dir: Path, **options: Any) -> Path:
    """Two epochs with a correction after each; the second, of a run that is resumed, fills what has no verdict."""
    words = ("train", bundle, "--dataset-dir", data / "datalist.json", "--run-dir", run_dir)
    assert aide(*words, **options, **{"train#trainer#max_epochs": 1}) == 0
    assert aide(*words, "--resume", **options, **{"options#fill_ignored": True}) == 0
    return run_dir


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "models" / "model.pt", weights_only=True)


def parsed(bundle: Path, *configs: str, **overrides: Any) -> ConfigParser:
    """Configs, later ones refine earlier ones, with overrides; parts of them can be asked for."""
    parser = ConfigParser()
    parser.read_config(config_files(bundle, *configs))
    for key, value in overrides.items():
        parser[key] = value
    return parser


def image_grids(bundle: Path, **overrides: Any) -> dict[str, tuple[tuple[int, ...], np.ndarray]]:
    """Shape (x, y, z) and affine of every image that an inference segments, by case, from the files' headers."""
    records = parsed(bundle, "inference", **overrides).get_parsed_content("dataset").data
    headers = {record["case"]: open_location(as_paths(record["image"])[0]) for record in records}
    return {case: (header.shape, header.affine) for case, header in headers.items()}


@torch.no_grad()
def write_undecided_weights(bundle: Path, run_dir: Path, *, index: int = 1, **inference: Any) -> None:
    """Weights of untrained networks that mark about half of the first volume to be segmented, so that masks differ.

    Args:
        bundle: the bundle.
        run_dir: run folder, which gets ``models/model.pt``.
        index: the class that is marked; 1 competes with the background alone, others with all classes.
        inference: overrides of the inference config.
    """
    parser = parsed(bundle, "inference", **inference)
    network = parser.get_parsed_content("network_def").eval()
    image = parser.get_parsed_content("dataset")[0]["image"].as_tensor()
    slices = image.movedim(1 + parser["slice_axis"], 0)
    for single in (network.network_1, network.network_2):
        last = [module for module in single.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        logits = single(slices)
        others = [0] if index == 1 else [other for other in range(logits.shape[1]) if other != index]
        last.bias[index] -= (logits[:, index] - logits[:, others].amax(dim=1)).median()
    (run_dir / "models").mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), run_dir / "models" / "model.pt")
