"""``multi_gpu_train.json`` of every bundle, in two real processes, beside the same run in one."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aide_monai.labels.history import LabelHistory
from tests.bundles import processes
from tests.bundles.doors import TRAINING, monai_bundle_run
from tests.bundles.layouts import ALL


@pytest.fixture(scope="module")
def jobs(data_of, tmp_path_factory) -> dict[str, dict]:
    """Overrides by bundle: a short training whose numbers do not blow up rounding errors, see docs/engine.md."""
    small_gradients = {
        f"{part}#eps": 0.001 for part in ("pretrain#optimizer", "train#optimizer_1", "train#optimizer_2")
    }
    schedule = {"options#warmup_epochs": 1, "options#update_interval": 1, "options#correction_start": 1}
    return {
        name: {
            "dataset_dir": str(data_of(name)),
            "run_dir": str(tmp_path_factory.mktemp("runs") / name),
            "amp": "off",
            "options#update_ratio": 1.0,
            "augmentation_mix": 0.0,  # each process mixes its own samples, so that many mix others than one
            "options#correction_foreground": 0.0,  # networks that have just begun find next to nothing
            **TRAINING,
            **schedule,
            **small_gradients,
            **tiny.model,
            **tiny.data,
        }
        for name, tiny in ALL.items()
    }


@pytest.fixture(scope="module")
def seen(jobs, bundle_of, tmp_path_factory) -> list[dict[str, dict]]:
    """What each of two processes has ended with, by bundle; one launch for all, as starting takes most of the time."""
    folder = tmp_path_factory.mktemp("processes")
    jobs = {str(bundle_of(name)): overrides for name, overrides in jobs.items()}
    (folder / "jobs.json").write_text(json.dumps(jobs))
    worker = Path(processes.__file__)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(worker.parents[2]), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, str(worker), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", ALL)
def test_two_processes_train_as_one(name, seen, jobs, bundle_of, tmp_path):
    first, second = (process[str(bundle_of(name))] for process in seen)
    assert first == second
    network_args = json.loads((bundle_of(name) / "configs" / "train.json").read_text())["network_args"]
    assert (first["global"] > 0) == (network_args.get("norm") != "instance")  # which needs no statistics of the batch
    assert first["local"] == 0

    monai_bundle_run(bundle_of(name), "train", **{**jobs[name], "run_dir": str(tmp_path)})
    together, alone = Path(jobs[name]["run_dir"]), tmp_path
    assert (together / "models" / "model.pt").exists()
    records = [LabelHistory.load(folder / "labels").records for folder in (together, alone)]
    replaced = [sorted((record.epoch, record.network, record.case) for record in labels) for labels in records]
    assert replaced[0] == replaced[1]  # in any order: where all are replaced, their Dice may differ by rounding alone
    assert records[0]
    for row, expected in zip(rows(together), rows(alone), strict=True):
        assert row == pytest.approx(expected, abs=2e-3)


def rows(run_dir: Path) -> list[dict[str, float]]:
    with (run_dir / "epochs.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
