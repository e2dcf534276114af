"""Methods x settings x seeds under one budget: run what is missing, side by side, and report."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from monai.utils import set_determinism

from aide_monai.errors import InputError
from aide_monai.inferers import choose_device
from aide_monai.reports.tables import Row
from aide_monai.utils.processes import Stopped, end_with, orphaned, stop_at_signals
from aide_monai.utils.texts import names_text
from aide_monai.workflows.comparison.experiment import Experiment
from aide_monai.workflows.comparison.job import Job
from aide_monai.workflows.comparison.results import write_results

OnProgress = Callable[[str, float, float], None]
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Comparison:
    """Where the results are, and what they say.

    Attributes:
        folder: holds ``per_case.csv``, and a folder per setting and seed with one per method.
        experiment: what was compared.
        jobs: all jobs, finished or not, in the order of the tables.
        rows: per-case scores of the finished jobs, see ``reports.results``.
        seconds: time that the finished jobs took, summed.
    """

    folder: Path
    experiment: Experiment
    jobs: tuple[Job, ...]
    rows: list[Row]
    seconds: float

    @property
    def unfinished(self) -> int:
        """Number of jobs that have not run yet."""
        return sum(not job.finished for job in self.jobs)


def run_comparison(
    experiment: Experiment,
    folder: str | Path,
    *,
    data_dir: str | Path,
    workers: int | None = None,
    device: str = "auto",
    split: str = "test",
    train: bool = True,
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Run all jobs that are not finished, and collect the results of all that are.

    Every method of a setting and seed gets the same cases, budget, augmentation and loss. Test labels are read for
    scoring, after training. A job that was interrupted starts again; one of two networks continues after its last
    epoch.

    Args:
        experiment: what is compared.
        folder: for the results; that of an earlier call of the same experiment is continued.
        data_dir: folder that the paths of the config start at.
        workers: jobs side by side, each with its share of the cores; None: one for each core, one on a GPU.
        device: where networks run; "auto" is the first GPU, or the processor where there is none.
        split: "test", or "validation" to choose settings by: then no test case is looked at.
        train: run jobs; else collect what is there.
        on_progress: called as ``(stage, done, total)`` in units of plain optimiser steps.

    Raises:
        InputError: the data cannot be used as the config says, ``folder`` holds other results, or there is no such
            device.
    """
    if split not in ("test", "validation"):
        raise InputError(f"split is {split!r}; expected test or validation")
    if workers is not None and workers < 1:
        raise InputError(f"jobs is {workers}; expected at least 1")
    device = choose_device(device)
    folder = Path(folder).absolute()
    jobs = list_jobs(experiment, folder, data_dir=Path(data_dir).absolute(), device=device, split=split)
    if train:
        cores = len(os.sched_getaffinity(0))
        waiting = sum(not job.finished for job in jobs)
        workers = min(workers or (cores if device == "cpu" else 1), max(waiting, 1))
        progress = _Progress(jobs, on_progress)
        if workers == 1:
            run_in_turn(jobs, progress.step)
        else:
            _run_side_by_side(jobs, workers, max(1, cores // workers), progress)
    finished = [job for job in jobs if job.finished]
    rows = [row for job in finished for row in job.rows()]
    if rows:
        write_results(folder / "per_case.csv", rows)
    return Comparison(folder, experiment, tuple(jobs), rows, sum(job.seconds() for job in finished))


def list_jobs(experiment: Experiment, folder: Path, *, data_dir: Path, device: str, split: str) -> list[Job]:
    """All jobs: seed by seed, so that an unfinished comparison has all settings of the first seeds.

    Writes the fused or corrupted labels that the tasks need, the corrupted ones when no folder holds other results.

    Raises:
        InputError: as ``run_comparison``.
    """
    jobs: list[Job] = []
    tasks = []
    for seed, setting, fold in product(experiment.seeds, experiment.settings, experiment.folds):
        run_dir = folder / setting.folder / (f"seed_{seed}" + ("" if fold is None else f"_fold_{fold}"))
        task = experiment.make_task(setting, seed=seed, fold=fold, data_dir=data_dir, folder=run_dir)
        tasks.append((setting, task, seed, run_dir))
        run = Job(
            method=experiment.methods[0],
            task=task,
            run_dir=run_dir,
            budget=replace(experiment.budget, seed=seed, device=device),
            split=split,
            columns=(("setting", setting.name), ("seed", seed), ("fold", fold)),
            origin=experiment.origin(setting),
        )
        jobs += [replace(run, method=method) for method in experiment.methods]
        _require_labeller(jobs[-len(experiment.methods) :])
        _require_clean_labels(jobs[-len(experiment.methods) :])
    for job in jobs:
        job.require_own_folder()
    for setting, task, seed, run_dir in tasks:
        experiment.write_labels(setting, task, seed=seed, folder=run_dir)
    return jobs


def run_in_turn(jobs: Sequence[Job], on_step: Callable[[Job], None]) -> None:
    """Run jobs in this process, those that label cases for others first.

    Args:
        jobs: any jobs; finished ones are passed over.
        on_step: called after every optimiser step.
    """
    for job in sorted(jobs, key=lambda job: job.method.engine != "labelled"):
        if not job.finished:
            set_determinism(job.budget.seed)
            job.run(on_step=lambda job=job: on_step(job))  # type: ignore[misc]


def _require_labeller(jobs: Sequence[Job]) -> None:
    """Cases without a label get one from the model of the labelled ones, so that method is needed."""
    cases = jobs[0].task.datalist.of_split("training")
    engines = {job.method.engine for job in jobs}
    if any(case.label is None for case in cases) and "labelled" not in engines and engines - {"clean"}:
        raise InputError(
            'there are cases without a label and no method that labels them; add "labelled only" (or "source only") to '
            '"methods"'
        )


def _require_clean_labels(jobs: Sequence[Job]) -> None:
    """The bound of what correction can reach has the true label of every training case."""
    cases = jobs[0].task.datalist.of_split("training")
    unknown = [case.name for case in cases if not case.trusted and case.clean_label is None]
    bounds = [job.method.name for job in jobs if job.method.engine == "clean"]
    if bounds and unknown:
        raise InputError(
            f'method "{bounds[0]}": {len(unknown)} of {len(cases)} training cases have no true label '
            f"({names_text(unknown)}); expected one of each, for this method is the bound of the others: "
            'leave it out of "methods", or these cases out of the data'
        )


def _run_side_by_side(jobs: Sequence[Job], workers: int, threads: int, progress: _Progress) -> None:
    """Run jobs in processes; a job starts when the one that labels its cases is done."""
    waiting = [job for job in jobs if not job.finished]
    labellers = {job.run_dir: job for job in waiting if job.method.engine == "labelled"}
    running: dict[Future[None], tuple[Job, _Worker]] = {}
    free = [_Worker(threads) for _ in range(workers)]
    try:
        while waiting or running:
            for job in _ready(waiting, labellers, len(free)):
                waiting.remove(job)
                worker = free.pop()
                running[worker.start(job)] = job, worker
            done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                job, worker = running[future]
                worker.finish(job, future)
                free.append(worker)
                del running[future]
                if labellers.get(job.run_dir) is job:
                    del labellers[job.run_dir]
            progress.poll([job for job, _ in running.values()])
    finally:
        busy = [worker for _, worker in running.values()]
        for worker in busy:
            worker.stop()
        for worker in (*busy, *free):
            worker.close()


class _Worker:
    """A process that runs one job after the other, so that it is known which job it was at when it died."""

    def __init__(self, threads: int) -> None:
        # A process that imports the package anew: a fork of a process with threads may hang. Its jobs reach it through
        # a pipe, not by its command line, which all users of the machine can read.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(
            1, mp_context=context, initializer=_start_worker, initargs=(threads, os.getpid())
        )
        self._process: BaseProcess | None = None

    def start(self, job: Job) -> Future[None]:
        future = self._pool.submit(_run_job, job)
        (self._process,) = self._pool._processes.values()
        return future

    def finish(self, job: Job, future: Future[None]) -> None:
        """Raise what has gone wrong with a job.

        Raises:
            InputError: naming the job, if the process was ended from outside or for lack of memory.
        """
        try:
            future.result()
        except (BrokenProcessPool, Stopped) as error:
            assert self._process is not None
            number = error.code - 128 if isinstance(error, Stopped) else self._exit_signal()
            by = f"by {signal.Signals(number).name}" if number > 0 else f"with exit code {-number}"
            raise InputError(
                f"{job.folder}: the process of this job was ended {by}; expected it to come to its end. What was saved "
                "before is intact: find out who has ended it (often, too little memory: take fewer --jobs), then give "
                "the same command again, which continues"
            ) from error

    def _exit_signal(self) -> int:
        """The signal that has ended the process, or its exit code, negative."""
        assert self._process is not None
        self._process.join()
        return -(self._process.exitcode or 0)

    def stop(self) -> None:
        """Let the process stop the job that it is at."""
        if self._process is not None:
            self._process.terminate()

    def close(self) -> None:
        """Wait for the end of the process."""
        self._pool.shutdown(cancel_futures=True)


def _ready(waiting: Sequence[Job], labellers: dict[Path, Job], places: int) -> Iterator[Job]:
    ready = [job for job in waiting if job.run_dir not in labellers or job.method.engine in ("labelled", "clean")]
    yield from ready[:places]


def _start_worker(threads: int, parent: int) -> None:
    stop_at_signals()
    end_with(parent)
    torch.set_num_threads(threads)


def _run_job(job: Job) -> None:
    set_determinism(job.budget.seed)
    try:
        job.run()
    except Stopped as stop:
        if orphaned():  # nobody takes the result, and the pool would wait for another job
            os._exit(stop.code)
        raise


class _Progress:
    """Counts plain optimiser steps of all jobs and tells whoever listens."""

    def __init__(self, jobs: Sequence[Job], listener: OnProgress | None) -> None:
        self.listener = listener
        self.jobs = jobs
        self.total = sum(self._cost(job) for job in jobs)
        self.done = sum(self._cost(job) for job in jobs if job.finished)

    @staticmethod
    def _cost(job: Job, epochs: int | None = None) -> float:
        epochs = job.budget.epochs if epochs is None else epochs
        return job.step_cost * epochs * job.budget.steps_per_epoch

    def step(self, job: Job) -> None:
        """One optimiser step of a job in this process."""
        self.done += job.step_cost
        self._tell([job])

    def poll(self, running: Sequence[Job]) -> None:
        """Read from the logs how far the jobs in other processes are."""
        if self.listener is not None:
            self.done = sum(self._cost(job, min(job.epochs_done(), job.budget.epochs)) for job in self.jobs)
            self._tell(running)

    def _tell(self, running: Sequence[Job]) -> None:
        if self.listener is not None:
            names = ", ".join(f"{dict(job.columns).get('setting', '')} {job.method.name}".strip() for job in running)
            self.listener(names or "collecting the results", self.done, self.total)
