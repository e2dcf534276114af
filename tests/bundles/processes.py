"""Started by torchrun: each bundle trains once in all processes; what they have ended with is left for the test."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from monai.bundle import ConfigWorkflow

from aide_monai.networks.global_batch_norm import GlobalBatchNorm
from aide_monai.utils import distributed
from tests.bundles.doors import config_files


def train(bundle: Path, overrides: dict[str, object]) -> dict[str, object]:
    """Train a bundle by ``train.json`` and ``multi_gpu_train.json``; what there is to compare."""
    # the processes stay together for the next bundle
    overrides = {**overrides, "finalize": []}
    workflow = ConfigWorkflow(config_files(bundle, "train", "multi_gpu_train"), **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    networks = [workflow.parser.get_parsed_content(key) for key in ("network_def", "pretrain#network")]
    layers = [type(layer) for network in networks for layer in network.modules()]
    return {
        "sums": [sum(float(value.double().sum()) for value in network.state_dict().values()) for network in networks],
        "global": sum(issubclass(layer, GlobalBatchNorm) for layer in layers),
        "local": sum(layer.__name__.startswith("BatchNorm") for layer in layers),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.initialize(timeout_minutes=1)
    folder = Path(sys.argv[1])
    jobs = json.loads((folder / "jobs.json").read_text())
    seen = {bundle: train(Path(bundle), overrides) for bundle, overrides in jobs.items()}
    (folder / f"{distributed.rank()}.json").write_text(json.dumps(seen))
    distributed.finalize()
