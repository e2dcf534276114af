"""Runs of several real processes, started by torchrun, beside the same run in one process."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from aide_monai.cli import main as cli
from aide_monai.errors import InputError, MainProcessError
from aide_monai.labels.history import LabelHistory
from aide_monai.utils.processes import PARENT
from aide_monai.workflows.bundle import run_bundle
from aide_monai.workflows.launch import launch

from . import processes

WORKER = Path(processes.__file__)
ROOT = WORKER.parents[2]
BUNDLE = ROOT / "bundles" / "hippocampus_ssl"
RUNS = (
    "even shares",
    "uneven shares",
    "foreground strata",
    "single slices",
    "the released code",
    "patches of volumes",
    "global batch norm",
    "global batch norm, released code",
)
# what a process has for itself, so that the result depends on their number: statistics of a batch, masks of dropout,
# and the samples that a box is pasted from
OTHER_RUNS = ("batch norm", "dropout", "boxes of other samples")


def torchrun(*arguments: Any, number: int = 2, timeout: float = 600) -> subprocess.CompletedProcess:
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
    assert result.returncode != 0
    # torchrun says which process has died, in the last run
    assert "exitcode  : -9" in result.stderr, result.stderr
    assert (folder / "death" / "checkpoint.pt").exists(), result.stderr
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


def test_files_reach_machines_that_do_not_see_them(folder: Path) -> None:
    first, second = (folder / "machines" / str(rank) / "new" for rank in (0, 1))
    assert {path.name for path in second.iterdir()} == {"both", "only main", "stale"}
    for path in first.iterdir():
        assert (second / path.name).read_bytes() == path.read_bytes()


def test_one_history_for_all_processes_of_a_training_inside_the_bundle(folder: Path) -> None:
    said = [torch.load(folder / f"history_{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert said == [[str(folder / "bundle" / "0" / "runs" / "002"), "next"]] * 2


def test_all_processes_stop_when_one_has_a_loss_that_is_no_number(folder: Path) -> None:
    """Network 2 of process 1 was spoiled after step 6, the second of the second epoch."""
    first, second = (torch.load(folder / "number" / f"ended_{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.startswith("InputError: epoch 2, iteration 7: found a loss of network 2 that is NaN or infinite")
    assert second == first.replace("InputError", "MainProcessError", 1)
    saved = torch.load(folder / "number" / "run" / "checkpoint.pt", weights_only=True)
    assert (saved["engine"]["iteration"], saved["generation"]) == (4, 1)  # of one epoch


def test_a_process_that_dies_leaves_the_last_commit(folder: Path) -> None:
    resumed = processes.train(processes.RUNS["even shares"], folder / "death", resume=True)
    assert [len(resumed["ramp"]), resumed["rows"][-1]["epoch"]] == [2, 3]  # after the first epoch, which was complete
    assert {record["epoch"] for record in resumed["records"]} == {1, 2, 3}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="this system does not list threads in /proc")
def test_one_network_and_no_thread_that_outlives_the_run() -> None:
    """A thread of gloo that still worked when Python ended aborted the process."""
    result = torchrun(WORKER.with_name("leaving.py"))
    assert result.returncode == 0, result.stderr
    # three samples in all: the first input is 1 in two of them, the second in one
    assert result.stdout.count("moved [0.6667, 0.3333], same True, threads True []") == 2, result.stdout


def test_an_error_of_the_main_process_reaches_the_others_while_it_lives(tmp_path: Path) -> None:
    result = torchrun(WORKER.with_name("failing.py"), tmp_path)
    assert result.returncode == 0, result.stderr
    alone, bundle = ((tmp_path / f"{name}.txt").read_text() for name in ("alone", "in a bundle"))
    advice = "What was saved before is intact: .*, then continue with --resume"
    failed = r"MainProcessError: the main process of this run has failed \(KeyError: 'key'\); expected it to go on"
    assert re.fullmatch(rf"{failed}\. {advice}", alone)
    assert re.fullmatch(rf"LostProcessError: process 1 has lost another process of this run, .*\. {advice}", bundle)


# The bundle


def arguments(phantoms: Path, run_dir: Path) -> dict[str, Any]:
    """A short training whose numbers do not blow up rounding errors; see the page on the engine."""
    return {
        "dataset_dir": str(phantoms),
        "run_dir": str(run_dir),
        "labeled": 1,
        "unlabeled": 3,
        "slice_size": [32, 32],
        "network_args#features": [4, 4, 4, 8, 8, 4],
        "device": "cpu",
        "amp": "off",
        "epochs": 2,
        "steps_per_epoch": 2,
        "batch_size": 4,
        "options#warmup_epochs": 2,
        "options#correction_start": 1,
        "options#update_ratio": 0.5,
        "options#correction_foreground": 0.0,  # networks that have just begun find nothing
        "pretrain#optimizer#eps": 0.001,
        "train#optimizer_1#eps": 0.001,
        "train#optimizer_2#eps": 0.001,
    }


def as_options(values: dict[str, Any]) -> list[str]:
    pairs = [(f"--{key}", value if isinstance(value, str) else json.dumps(value)) for key, value in values.items()]
    return [part for pair in pairs for part in pair]


def rows(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def records(run_dir: Path) -> list[Any]:
    return LabelHistory.load(run_dir / "labels").records


def test_the_bundle_through_all_its_doors(phantoms: Path, tmp_path: Path) -> None:
    alone, command, monai = tmp_path / "alone", tmp_path / "command", tmp_path / "monai"
    run_bundle(BUNDLE, ["train"], arguments(phantoms, alone))
    options = [str(BUNDLE), "--processes", "2", *as_options(arguments(phantoms, command))]
    aide = [sys.executable, "-m", "aide_monai.cli", "train"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run([*aide, *options], capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    configs = [str(BUNDLE / "configs" / f"{name}.json") for name in ("train", "multi_gpu_train")]
    result = torchrun(
        "-m", "monai.bundle", "run", "--config_file", str(configs), *as_options(arguments(phantoms, monai))
    )
    assert result.returncode == 0, result.stderr

    weights = [torch.load(folder / "models" / "model.pt", weights_only=True) for folder in (command, monai)]
    assert_same(weights[0], weights[1])
    for name in ("epochs.csv", "pretrained/epochs.csv"):
        assert (command / name).read_text() == (monai / name).read_text()
        assert_same(rows(command / name), rows(alone / name), within=1e-3)
    assert records(command) == records(monai) == records(alone)
    assert any(record.voxels_changed for record in records(alone))


def test_what_the_main_process_says_the_others_do_not_repeat(capsys: pytest.CaptureFixture) -> None:
    def refuse(kind: type[InputError]) -> Any:
        raise kind("no space")

    assert [cli.run(lambda kind=kind: refuse(kind)) for kind in (MainProcessError, InputError)] == [2, 2]
    assert capsys.readouterr().err == "Error: no space\n"


def test_a_process_that_a_signal_has_ended_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = ProcessFailure(local_rank=1, pid=7, exitcode=-9, error_file="")

    def fail(arguments: list[str]) -> None:
        assert arguments[:2] == ["--standalone", "--nproc_per_node=4"]
        assert arguments[-2:] == ["train", "bundle"]
        raise ChildFailedError("aide", {3: failure})

    monkeypatch.setattr("torch.distributed.run.main", fail)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(
        InputError, match=r"process 3 of 4 was ended by SIGKILL, and the others were stopped; .*--resume"
    ):
        launch(["train", "bundle"], processes=4)
    failure.exitcode = 2
    assert launch(["train", "bundle"], processes=4) == 2
    assert PARENT not in os.environ  # what this process starts later has nothing to do with it
    with pytest.raises(InputError, match="--processes is 0; expected at least 1"):
        launch([], processes=0)
