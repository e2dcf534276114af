"""The verbs of the ``aide`` command that train methods side by side and report what they gain: run, demo, compare."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aide_monai.cli.console import command_line, console, print_json, progress_bar, tell_next
from aide_monai.cli.options import AsJSON, Device, Layout, Profile, Quiet, Seed
from aide_monai.errors import InputError
from aide_monai.utils.processes import Stopped
from aide_monai.utils.validation import require_device_name

if TYPE_CHECKING:
    from aide_monai.workflows.run import RunResult


def run(
    data: Annotated[Path, typer.Argument(help="Folder of the data set, or its datalist (JSON).")],
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder for the results; that of an earlier run continues it.")
    ] = None,
    doubtful: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Cases whose labels may be wrong, such as 'site2_*'."),
    ] = None,
    labeled: Annotated[
        int | None, typer.Option(help="Cases that keep their label, the others' are hidden: are so few enough?")
    ] = None,
    test: Annotated[
        int | None, typer.Option(help="Patients that judge. Default: as the data say, or a quarter.")
    ] = None,
    layout: Layout = None,
    profile: Profile = "improved",
    epochs: Annotated[int, typer.Option(help="Epochs for every network.")] = 40,
    steps: Annotated[int, typer.Option(help="Optimiser steps per epoch for every network.")] = 40,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJSON = False,
) -> None:
    """From a folder to a model and its proof: check, plan, train plainly and with AIDE, score, one HTML report."""
    from aide_monai.workflows.run import RunSettings, run_folder

    settings = RunSettings(
        layout=layout,
        doubtful=doubtful,
        labeled=labeled,
        test=test,
        profile=profile,
        epochs=epochs,
        steps_per_epoch=steps,
        seed=seed,
        device=device,
    )
    folder = run_dir or Path("runs") / time.strftime("run-%Y%m%d-%H%M%S")
    _run(lambda on_progress: run_folder(data, folder, settings, on_progress=on_progress), folder, as_json=as_json)


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with dataset.json (nnU-Net, Decathlon) or images/ and labels/. Default: synthetic phantoms."
        ),
    ] = None,
    labeled: Annotated[
        int | None, typer.Option(help="Training cases that keep their label. Default: 3 phantoms, or one case.")
    ] = None,
    unlabeled: Annotated[
        int | None, typer.Option(help="Training cases whose label is hidden. Default: all left over.")
    ] = None,
    test: Annotated[
        int | None, typer.Option(help="Patients that judge. Default: 12 phantoms, or as the data say, or a quarter.")
    ] = None,
    classes: Annotated[bool, typer.Option("--classes", help="Keep the label's classes apart.")] = False,
    profile: Profile = "improved",
    epochs: Annotated[int, typer.Option(help="Epochs for every network.")] = 12,
    steps: Annotated[int, typer.Option(help="Optimiser steps per epoch for every network.")] = 40,
    seed: Seed = 0,
    device: Device = "auto",
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder for the results; that of an earlier demo continues it.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJSON = False,
) -> None:
    """Hide most labels of phantoms, or of your data, and show what AIDE gains on held-out cases."""
    from aide_monai.workflows.demo import demo_settings, run_demo

    settings = demo_settings(
        phantoms=data is None,
        labeled=labeled,
        unlabeled=unlabeled,
        test=test,
        keep_classes=classes,
        profile=profile,
        epochs=epochs,
        steps_per_epoch=steps,
        seed=seed,
        device=device,
    )
    folder = run_dir or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    _run(lambda told: run_demo(folder, settings, data=data, on_progress=told), folder, as_json=as_json)


def _run(run: Callable[[Callable[[str, float, float], None]], RunResult], folder: Path, *, as_json: bool) -> None:
    """Call a run with its progress, and tell what it has found and what to type next."""
    with progress_bar(silent=as_json) as on_progress:
        try:
            result = run(on_progress)
        except Stopped as stop:
            stop.advice = f"stopped; the same command with --run-dir {command_line(folder)} continues"
            raise
    if as_json:
        told = {"summary": result.summary, "verdicts": result.verdicts, "cases": result.rows}
        print_json({**told, "folder": result.folder, "bundle": result.bundle})
        return
    console.print(result.plan.table().rich("Plan"))
    console.print(result.table)
    for verdict in result.verdicts:
        console.print(verdict, soft_wrap=True, highlight=False)
    console.print(f"{result.seconds / 60:.1f} minutes; every method keeps its last epoch. Report:", style="dim")
    console.print(str(result.folder / "report.html"), soft_wrap=True)
    tell_next("Segment volumes", "aide", "predict", result.bundle, "--dataset-dir", "VOLUMES", "--output-dir", "MASKS")


def compare(
    config: Annotated[Path, typer.Argument(help="Config of the experiment (JSON or YAML).")],
    data: Annotated[
        Path | None, typer.Option(help="Folder that the config's paths start at. Default: its own.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; continues what is there.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Jobs side by side. Default: one for each core.")] = None,
    device: Device = "auto",
    validation: Annotated[
        bool, typer.Option("--validation", help="Score validation cases, to choose settings; no test case is read.")
    ] = False,
    report: Annotated[bool, typer.Option("--report", help="Train nothing: report the jobs that are finished.")] = False,
    quiet: Quiet = False,
    as_json: AsJSON = False,
) -> None:
    """Train methods x settings x seeds under one budget, and show what AIDE gains; resumes where it was stopped."""
    from aide_monai.workflows.comparison.experiment import Experiment

    require_device_name(device)
    experiment = Experiment.load(config, data_dir=data or config.parent)
    from aide_monai.workflows.comparison.report import write_report  # waits for PyTorch: a mistake has been told before
    from aide_monai.workflows.comparison.run import run_comparison

    folder = out or Path("runs") / config.stem
    with progress_bar(silent=as_json) as on_progress:
        try:
            result = run_comparison(
                experiment,
                folder,
                data_dir=data or config.parent,
                workers=jobs,
                device=device,
                split="validation" if validation else "test",
                train=not report,
                on_progress=on_progress,
            )
        except Stopped as stop:
            stop.advice = "stopped; the same command continues"
            raise
    if not result.rows:
        raise InputError(f"{folder}: no job is finished yet; run the command without --report")
    told = write_report(result)
    if as_json:
        finished = len(result.jobs) - result.unfinished
        print_json({"finished": finished, "jobs": len(result.jobs), "cases": result.rows, "folder": result.folder})
        return
    console.print(told)
    state = f"{len(result.jobs) - result.unfinished} of {len(result.jobs)} jobs"
    console.print(f"{state}, {result.seconds / 3600:.2f} hours of training. Report, tables, figures:", style="dim")
    console.print(str(result.folder / "report.html"), soft_wrap=True)
