"""Runs of several real processes, started by torchrun, beside the same run in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from . import processes

WORKER = Path(processes.__file__)
ROOT = WORKER.parents[2]
RUNS = ("even shares", "uneven shares", "foreground strata", "single slices", "the released code")
# what a process has for itself, so that the result depends on their number: statistics of a batch, and masks of dropout
OTHER_RUNS = ("batch norm", "dropout")


def torchrun(*arguments: Any, number: int = 2, timeout: float = 300) -> subprocess.CompletedProcess:
    """Start processes that find each other on a free port."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", number, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, env=environment, timeout=timeout
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have left of every run."""
    folder = tmp_path_factory.mktemp("processes")
    result = torchrun(WORKER, folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def launched(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """By run, what each of two processes has seen."""
    return {
        name: [torch.load(folder / f"{name}_{rank}.pt", weights_only=True) for rank in (0, 1)]
        for name in processes.RUNS
    }


def assert_same(found: Any, expected: Any, where: str = "", *, within: float = 0.0) -> None:
    """Equal through containers: tensors and floats ``within`` a difference, all else exactly."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}/{key}", within=within)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            assert_same(found[number], value, f"{where}/{number}", within=within)
    elif isinstance(expected, torch.Tensor) and expected.is_floating_point():
        assert float((found - expected).abs().max()) <= within, where
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, float):
        assert abs(found - expected) <= within, where
    else:
        assert found == expected, where


@pytest.mark.parametrize("name", [*RUNS, *OTHER_RUNS])
def test_all_processes_do_and_end_with_the_same(launched: dict[str, Any], name: str) -> None:
    first, second = ({key: value for key, value in seen.items() if key != "random"} for seen in launched[name])
    assert_same(first, second)
    assert any(record["voxels_changed"] for record in first["records"])


@pytest.mark.parametrize("name", RUNS)
def test_they_do_what_one_process_does(launched: dict[str, Any], name: str, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = processes.train(processes.RUNS[name], tmp_path)
    torch.set_num_threads(threads)
    found = launched[name][0]
    for exact in ("kept", "records", "labels", "ramp", "dsc_train"):
        assert_same(found[exact], alone[exact], exact)
    assert_same(found["losses"], alone["losses"], "losses", within=1e-5)
    assert_same(found["weights"], alone["weights"], "weights", within=1e-3)
    assert_same(found["rows"], alone["rows"], "rows", within=1e-5)
    assert {record["network"] for record in found["records"]} == {1, 2}
    assert found["ramp"] == [0, 0.25, 1]


def test_the_shares_are_what_they_are_meant_to_be(launched: dict[str, Any]) -> None:
    assert launched["even shares"][0]["share"][:4] == [(2, 2)] * 3 + [(1, 1)]
    assert launched["uneven shares"][0]["share"][:2] == [(6, 7), (0, 1)]


def test_dropout_differs_from_process_to_process(launched: dict[str, Any]) -> None:
    first, second = (seen["random"] for seen in launched["dropout"])
    assert not torch.equal(first, second)


def test_only_the_main_process_writes(folder: Path) -> None:
    """Each was given a folder of its own, as on two machines that share none."""
    for name in processes.RUNS:
        names = {path.name for path in (folder / name / "0").iterdir()}
        assert names == {"labels", "epochs.csv", "model.pt", "checkpoint.pt"}
        assert not list((folder / name / "1").iterdir())
