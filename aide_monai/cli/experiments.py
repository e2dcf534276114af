"""The verbs of the ``aide`` command that train methods side by side and report what they gain: demo, compare."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from aide_monai.cli.console import console, print_json, progress_bar
from aide_monai.cli.options import AsJSON, Device, Seed
from aide_monai.errors import InputError
from aide_monai.utils.processes import Stopped


def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with dataset.json (Decathlon) or images/ and labels/. Default: synthetic phantoms."),
    ] = None,
    labeled: Annotated[int, typer.Option(help="Training cases that keep their label.")] = 1,
    unlabeled: Annotated[
        int | None, typer.Option(help="Training cases whose label is hidden. Default: 15 phantoms, else all left over.")
    ] = None,
    test: Annotated[int | None, typer.Option(help="Held-out cases. Default: all left over.")] = None,
    classes: Annotated[bool, typer.Option("--classes", help="Keep the label's classes apart.")] = False,
    profile: Annotated[str, typer.Option(help="AIDE's options: improved, paper or original.")] = "improved",
    epochs: Annotated[int, typer.Option(help="Epochs for every network.")] = 12,
    steps: Annotated[int, typer.Option(help="Optimiser steps per epoch for every network.")] = 40,
    seed: Seed = 0,
    device: Device = "auto",
    run_dir: Annotated[Path | None, typer.Option(help="New folder for the results.")] = None,
    as_json: AsJSON = False,
) -> None:
    """Train on few labels, let AIDE correct pseudo-labels, and show what it gains on held-out cases."""
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
    with progress_bar(silent=as_json) as on_progress:
        result = run_demo(folder, settings, data=data, on_progress=on_progress)
    if as_json:
        print_json({"summary": result.summary, "cases": result.rows, "folder": result.folder})
        return
    from aide_monai.reports.tables import scores_table  # waits for PyTorch: a mistake has been told before

    console.print(scores_table(result.summary).rich("Held-out cases, mean ± standard deviation"))
    console.print(
        f"{result.seconds / 60:.1f} minutes, seed {seed}, profile {profile}. Tables, figures, labels, weights:",
        style="dim",
    )
    console.print(str(result.folder), soft_wrap=True)


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
    as_json: AsJSON = False,
) -> None:
    """Train methods x settings x seeds under one budget, and show what AIDE gains; resumes where it was stopped."""
    from aide_monai.workflows.comparison.experiment import Experiment

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
