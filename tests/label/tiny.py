"""Bundles made small enough to train in a second."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch

from aide_monai.label_app.create import initial_network

BUNDLES = Path(__file__).parents[2] / "bundles"


def tiny_bundle(
    name: str | Path,
    target: Path,
    *,
    features: Sequence[int] = (4, 4, 4, 8, 8, 4),
    **values: object,
) -> Path:
    """A copy of a bundle for slices of 32 x 32 pixels and a network of a few channels, with initial weights.

    Args:
        name: name of the bundle, or its folder.
        target: folder of the copy.
        features: channels of the network, encoder to decoder.
        values: further top-level values of its configs, as far as a config has them.
    """
    shutil.copytree(BUNDLES / name, target, ignore=shutil.ignore_patterns("*.pt", "model.json", "runs", "eval"))
    warmup = values.pop("warmup", None)
    values = {"slice_size": [32, 32], "steps_per_epoch": 2, "batch_size": 4, "epochs": 1, "device": "cpu", **values}
    for path in (target / "configs").glob("*.json"):
        content = json.loads(path.read_text())
        content |= {key: value for key, value in values.items() if key in content}
        if warmup is not None and "options" in content:
            content["options"]["warmup_epochs"] = warmup
        if "network_args" in content:
            content["network_args"]["features"] = list(features)
        path.write_text(json.dumps(content, indent=4))
    torch.save(initial_network(target).state_dict(), target / "models" / "model.pt")
    return target


def write_mask(path: Path, image: Path, *, value: float = 1) -> np.ndarray:
    """A box as the label of an image; the voxels."""
    reference = nibabel.load(image)
    mask = np.zeros(reference.shape[:3])
    mask[8:20, 9:21, 1:4] = value
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), reference.affine), path)
    return mask
