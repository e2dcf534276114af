"""Real signals to real runs: what they say, what they leave, and who ends with whom."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.errors import InputError
from aide_monai.utils.processes import PARENT
from aide_monai.workflows.bundle import run_bundle
from aide_monai.workflows.comparison.experiment import Experiment
from aide_monai.workflows.comparison.run import run_comparison
from tests.waiting import wait_for
from tests.workflows.run_server import state_of

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "hippocampus_ssl"
LONG = 100_000  # epochs: more than anybody waits for
SHORT = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("data"), cases=3, shape=(16, 16, 4), spacing_mm=(12, 12, 30))


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen]]:
    """Processes that a test has started; none outlives it."""
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def settings(data: Path, run: Path | None, epochs: int) -> dict[str, Any]:
    values = {
        "dataset_dir": str(data),
        "unlabeled": 1,
        "labeled": 1,
        "slice_size": [16, 16],
        "network_args#features": [4, 4, 4, 8, 8, 4],
        "device": "cpu",
        "amp": "off",
        "epochs": 1,
        "train#trainer#max_epochs": epochs,
        "train#lr_scheduler_1#total_iters": LONG,
        "train#lr_scheduler_2#total_iters": LONG,
        "steps_per_epoch": 2,
        "batch_size": 4,
        "options#correction_start": 1,
        "options#update_interval": 1,
        "cache": "disk",
    }
    return values if run is None else values | {"run_dir": str(run)}


def command(*arguments: Any) -> subprocess.Popen:
    """``python -m`` something, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    call = [sys.executable, "-m", *(str(argument) for argument in arguments)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(call, env=environment, preexec_fn=_interruptible, **pipes)


def _interruptible() -> None:
    """Whoever runs the tests in the background of a shell has them inherit that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def options(values: dict[str, Any]) -> list[str]:
    pairs = [(f"--{key}", value if isinstance(value, str) else json.dumps(value)) for key, value in values.items()]
    return [part for pair in pairs for part in pair]


def epochs(run: Path) -> int:
    log = run / "epochs.csv"
    return len(log.read_text().splitlines()) - 1 if log.exists() else 0


def last_line(process: subprocess.Popen) -> str:
    """Of what a process that has ended has said to standard error, without a traceback."""
    _, errors = process.communicate()
    assert "Traceback" not in errors, errors
    return errors.splitlines()[-1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_training_tidies_up_says_where_it_stopped_and_is_resumed_exactly(
    data: Path, tmp_path: Path, started: list[subprocess.Popen], number: int, code: int
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    training = command("aide_monai.cli", "train", BUNDLE, *options(settings(data, run, LONG)))
    started.append(training)
    wait_for(lambda: epochs(run) > 2, alive=lambda: training.poll() is None, what="three epochs")
    assert list((run / "cache").iterdir())
    training.send_signal(number)
    assert training.wait() == code
    stopped = re.fullmatch(r"stopped after epoch (\d+); continue with --resume", last_line(training))
    assert stopped
    assert not list((run / "cache").iterdir())

    end = int(stopped[1]) + 2
    run_bundle(BUNDLE, ["train"], settings(data, run, end) | {"resume": True})
    run_bundle(BUNDLE, ["train"], settings(data, whole, end))
    gc.collect()  # in this process the runs' scratch folders go with the last of their objects
    assert state_of(run) == state_of(whole)


def test_a_training_that_is_stopped_before_its_first_epoch_is_resumed_too(
    data: Path, tmp_path: Path, started: list[subprocess.Popen]
) -> None:
    run = tmp_path / "run"
    training = command("aide_monai.cli", "train", BUNDLE, *options(settings(data, run, SHORT) | {"epochs": LONG}))
    started.append(training)
    wait_for(lambda: epochs(run / "pretrained"), alive=lambda: training.poll() is None, what="pretraining")
    training.terminate()
    assert training.wait() == 143
    assert last_line(training) == "stopped before the first epoch of AIDE was finished; continue with --resume"
    run_bundle(BUNDLE, ["train"], settings(data, run, SHORT) | {"resume": True})
    assert epochs(run) == SHORT


@pytest.mark.parametrize(("parent", "code"), [({}, -signal.SIGTERM), ({PARENT: str(os.getpid())}, 0)])
def test_a_signal_that_comes_after_the_work_is_told_without_a_traceback(parent: dict[str, str], code: int) -> None:
    late = (
        "import atexit, os, signal, sys; from aide_monai.cli.main import main; "
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM)); sys.argv = ['aide', '--help']; main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **parent}
    ended = subprocess.run([sys.executable, "-c", late], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (code, "")


@pytest.mark.parametrize("door", ["aide", "monai.bundle"])
def test_a_second_training_in_one_folder_is_refused_by_name(
    data: Path, tmp_path: Path, started: list[subprocess.Popen], door: str
) -> None:
    """While the first one pretrains, and nothing shows yet that the folder is in use."""
    run = tmp_path / "run"
    values = options(settings(data, run, LONG) | {"epochs": LONG})
    config = BUNDLE / "configs" / "train.json"
    calls: dict[str, list[Any]] = {
        "aide": ["aide_monai.cli", "train", BUNDLE],
        "monai.bundle": ["monai.bundle", "run", "--config_file", config, "--bundle_root", BUNDLE],
    }
    first = command(*calls[door], *values)
    started.append(first)
    wait_for(lambda: epochs(run / "pretrained"), alive=lambda: first.poll() is None, what="pretraining")
    with pytest.raises(InputError, match=r"/run: another run is at work in this folder; expected one at a time"):
        run_bundle(BUNDLE, ["train"], settings(data, run, SHORT))
    assert first.poll() is None
    first.kill()
    first.wait()
    run_bundle(BUNDLE, ["train"], settings(data, run, SHORT))
    assert epochs(run) == SHORT


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_processes_that_train_as_one_end_with_the_one_that_has_started_them(
    data: Path, tmp_path: Path, started: list[subprocess.Popen], end: int
) -> None:
    run = tmp_path / "run"
    call = ["aide_monai.cli", "train", BUNDLE, "--processes", "2", *options(settings(data, run, LONG))]
    training = command(*call)
    started.append(training)
    wait_for(lambda: epochs(run) > 1, alive=lambda: training.poll() is None, what="an epoch and its checkpoint")
    children = psutil.Process(training.pid).children(recursive=True)  # with those that decode files
    assert len(children) >= 2
    training.send_signal(end)
    wait_for(lambda: gone(children), what="the end of all")
    assert training.wait() == (143 if end == signal.SIGTERM else -signal.SIGKILL)
    errors = training.communicate()[1]
    assert "Traceback" not in errors, errors
    found = re.findall(r"^stopped after epoch \d+; continue with --resume$", errors, re.MULTILINE)
    # Without the one that has started them, each may first hear that the other one has ended, or that it is to end
    assert len(found) == 1 if end == signal.SIGTERM else errors.count("continue with --resume") in (1, 2), errors
    assert not list((run / "cache").iterdir())


# The comparison


@pytest.fixture
def comparing(data: Path, tmp_path: Path, started: list[subprocess.Popen]) -> subprocess.Popen:
    """``aide compare`` with two jobs under way, of which the first epoch is done."""
    budget = {"epochs": LONG, "steps_per_epoch": 2, "batch_size": 4, "features": [4, 4, 4, 8, 8, 4], "amp": "off"}
    config = {
        "name": "Phantoms",
        "task": "nll",
        "data": {"root": ".", "slice_size": [16, 16]},
        "split": {"test": 1},
        "settings": [{"name": "noisy", "rate": 1.0, "kinds": ["elastic"], "magnitude_mm": 20}],
        "methods": ["noisy labels", "co-teaching"],
        "seeds": [0],
        "budget": budget,
    }
    file = tmp_path / "experiment.json"
    file.write_text(json.dumps(config))
    call = ["aide_monai.cli", "compare", file, "--data", data, "--out", tmp_path / "out", "--jobs", "2"]
    process = command(*call)
    started.append(process)
    jobs = [tmp_path / "out" / "noisy" / "seed_0" / name for name in ("noisy_labels", "co-teaching")]
    wait_for(lambda: all(epochs(job) for job in jobs), alive=lambda: process.poll() is None, what="two jobs")
    return process


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The processes of its jobs."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=0)[1]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_jobs_of_a_comparison_end_with_it(comparing: subprocess.Popen, end: int) -> None:
    workers = workers_of(comparing)
    assert len(workers) == 2
    comparing.send_signal(end)
    wait_for(lambda: gone(workers), what="the end of the jobs")
    assert comparing.wait() == (143 if end == signal.SIGTERM else -signal.SIGKILL)
    if end == signal.SIGTERM:
        assert last_line(comparing) == "stopped; the same command continues"


def test_a_job_whose_comparison_is_gone_does_not_wait_for_another(
    tmp_path: Path, started: list[subprocess.Popen]
) -> None:
    """Here the process would be patient for ever, so that it ends by itself or not at all."""
    parent = command("tests.workflows.orphans", tmp_path / "begun")
    started.append(parent)
    wait_for((tmp_path / "begun").exists, alive=lambda: parent.poll() is None, what="a job")
    workers = workers_of(parent)
    assert len(workers) == 1
    parent.kill()
    wait_for(lambda: gone(workers), what="the end of the job")


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_that_the_system_ends_is_named(comparing: subprocess.Popen, end: int) -> None:
    workers = workers_of(comparing)
    workers[0].send_signal(end)
    assert comparing.wait() == 2
    assert gone(workers)
    pattern = r"Error: .*/out/noisy/seed_0/(noisy_labels|co-teaching): the process of this job was ended by SIG\w+; .*"
    sentence = last_line(comparing)
    assert re.fullmatch(pattern, sentence)
    assert f"by {signal.Signals(end).name}" in sentence


def test_a_job_that_another_comparison_is_at_is_refused_by_name(comparing: subprocess.Popen, data: Path) -> None:
    file = Path(comparing.args[4])  # type: ignore[index]
    experiment = Experiment.load(file)
    with pytest.raises(InputError, match=r"seed_0/noisy_labels: another run is at work in this folder"):
        run_comparison(experiment, file.parent / "out", data_dir=data, workers=1)
    assert comparing.poll() is None
