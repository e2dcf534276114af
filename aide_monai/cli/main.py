"""The ``aide`` command. Every verb calls one workflow; a user's mistake ends in one sentence and exit code 2."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aide_monai.cli import data as cli_data
from aide_monai.cli.console import console, errors
from aide_monai.errors import InputError, MainProcessError
from aide_monai.reports.text import literal
from aide_monai.utils.processes import Stopped, end_at_signals, end_with_parent, stop_at_signals, stop_behind

app = typer.Typer(
    help="Train segmentation models from few good labels and many doubtful ones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (cli_data.prepare, cli_data.check, cli_data.evaluate):
    app.command()(verb)


@app.callback()
def _aide() -> None:
    """Train segmentation models from few good labels and many doubtful ones."""


@app.command()
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
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    run_dir: Annotated[Path | None, typer.Option(help="New folder for the results.")] = None,
) -> None:
    """Train on few labels, let AIDE correct pseudo-labels, and show what it gains on held-out cases."""
    from aide_monai.reports.tables import scores_table
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
    with _progress_bar() as on_progress:
        result = run_demo(folder, settings, data=data, on_progress=on_progress)
    console.print(scores_table(result.summary).rich("Held-out cases, mean ± standard deviation"))
    console.print(
        f"{result.seconds / 60:.1f} minutes, seed {seed}, profile {profile}. Tables, figures, labels, weights:",
        style="dim",
    )
    console.print(str(result.folder), soft_wrap=True)


@app.command()
def compare(
    config: Annotated[Path, typer.Argument(help="Config of the experiment (JSON or YAML).")],
    data: Annotated[
        Path | None, typer.Option(help="Folder that the config's paths start at. Default: its own.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; continues what is there.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Jobs side by side. Default: one for each core.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    validation: Annotated[
        bool, typer.Option("--validation", help="Score validation cases, to choose settings; no test case is read.")
    ] = False,
    report: Annotated[bool, typer.Option("--report", help="Train nothing: report the jobs that are finished.")] = False,
) -> None:
    """Train methods x settings x seeds under one budget, and show what AIDE gains; resumes where it was stopped."""
    from aide_monai.workflows.comparison.experiment import Experiment
    from aide_monai.workflows.comparison.report import write_report
    from aide_monai.workflows.comparison.run import run_comparison

    experiment = Experiment.load(config)
    folder = out or Path("runs") / config.stem
    with _progress_bar() as on_progress:
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
    console.print(write_report(result))
    state = f"{len(result.jobs) - result.unfinished} of {len(result.jobs)} jobs"
    console.print(f"{state}, {result.seconds / 3600:.2f} hours of training. Report, tables, figures:", style="dim")
    console.print(str(result.folder / "report.html"), soft_wrap=True)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Bundle folder, for example bundles/hippocampus_ssl.")],
    config: Annotated[str, typer.Option(help="Config of the bundle, or several: train,pretrain.")] = "train",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in run_dir.")] = False,
    processes: Annotated[
        int, typer.Option(help="Processes that train as one, with a GPU each where there are any.")
    ] = 1,
) -> None:
    """Train a bundle: the same run as python -m monai.bundle run, with the same overrides.

    A bundle is a program; run only bundles you trust.

    Every further option overrides the value of that name in the config: --dataset_dir DIR --run_dir RUN
    --train#trainer#max_epochs 30.
    """
    from aide_monai.utils.distributed import launched
    from aide_monai.workflows.bundle import parse_overrides, run_bundle
    from aide_monai.workflows.launch import launch

    overrides = parse_overrides(context.args)
    if processes != 1 and not launched():
        arguments = ["train", str(bundle), "--config", config, *["--resume"][:resume], *context.args]
        raise typer.Exit(launch(arguments, processes=processes))
    if resume:
        overrides["resume"] = True
    run_bundle(bundle, config.split(","), overrides)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def predict(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Bundle folder, for example bundles/hippocampus_ssl.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse volumes that are unlike those of the training, before any mask.")
    ] = False,
) -> None:
    """Segment volumes by a trained bundle: a folder of NIfTI, MHD, NRRD or of DICOM studies, one file, or a datalist.

    A bundle is a program; run only bundles you trust.

    Every option overrides a value of the bundle's inference config: --dataset_dir VOLUMES --run_dir RUN --output_dir
    MASKS --output_format dicom-seg.
    """
    from aide_monai.workflows.bundle import parse_overrides, run_bundle

    overrides = parse_overrides(context.args) | ({"strict": True} if strict else {})
    parser = run_bundle(bundle, ["inference"], overrides).parser
    console.print(f"{len(parser.get_parsed_content('dataset'))} masks:", style="dim")
    console.print(str(parser.get_parsed_content("output_dir")), soft_wrap=True)


@app.command()
def labels(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of aide train or aide demo.")],
    show: Annotated[bool, typer.Option("--list", help="List the generations; this is the default.")] = False,
    diff: Annotated[
        tuple[int, int] | None, typer.Option(metavar="G1 G2", help="Labels that differ between two generations.")
    ] = None,
    export: Annotated[
        tuple[int, Path] | None,
        typer.Option(metavar="G DIR", help="Write the labels of a generation as NIfTI on their original grid."),
    ] = None,
    rollback: Annotated[
        int | None, typer.Option(metavar="G", help="Return to a generation; the ones in between stay readable.")
    ] = None,
) -> None:
    """Show how AIDE changed the training labels of a run, export any state of them, or return to it."""
    from aide_monai.reports.label_tables import diff_table, generations_table
    from aide_monai.workflows import labels as workflow

    if show + sum(wish is not None for wish in (diff, export, rollback)) > 1:
        raise InputError("found several of --list, --diff, --export and --rollback; expected one at a time")
    if diff is not None:
        console.print(diff_table(workflow.diff(run_dir, *diff), *diff).rich(str(run_dir)))
    elif export is not None:
        result = workflow.export(run_dir, export[0], folder=export[1])
        for cases, note in ((result.resampled, "resampled"), (result.cropped, "background outside the trained part")):
            if cases:
                console.print(literal(note, "yellow") + literal(f": {', '.join(cases)}"), soft_wrap=True)
        console.print(f"{result.files} labels of generation {export[0]}:", style="dim")
        console.print(str(export[1]), soft_wrap=True)
    elif rollback is not None:
        number = workflow.rollback(run_dir, rollback)
        console.print(
            f"Generation {number} has the labels of generation {rollback}; a run that is resumed trains on them."
        )
    else:
        console.print(generations_table(workflow.list_generations(run_dir)).rich(str(run_dir)))


@app.command("new-bundle")
def new_bundle(
    name: Annotated[Path, typer.Argument(help="New folder; its name becomes the bundle's.")],
    datalist: Annotated[
        Path | None, typer.Option(help="Datalist (JSON) of the data set, see aide prepare and aide check.")
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of the files, unless they lie beside the datalist; may be repeated."),
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Bring a bundle up to date with this version; its parameters stay.")
    ] = False,
) -> None:
    """Write a MONAI bundle for a data set of your own."""
    from aide_monai.workflows.new_bundle import new_bundle as write
    from aide_monai.workflows.new_bundle import refresh_bundle

    if refresh == (datalist is not None):
        raise InputError("expected --datalist for a new bundle, or --refresh for one that is there")
    if refresh:
        refresh_bundle(name)
    elif datalist is not None:
        write(name, datalist, roots=[str(folder) for folder in root or ()])
    console.print(str(name), soft_wrap=True)


@app.command("label-app")
def label_app(
    folder: Annotated[Path, typer.Argument(help="New folder of the app, or one that this command has made.")],
    bundle: Annotated[Path, typer.Option(help="Bundle to serve; its copy in the app is what MONAI Label trains.")],
    weights: Annotated[
        Path | None, typer.Option(help="Trained weights, such as RUN/models/model.pt. Default: the bundle's own.")
    ] = None,
    studies: Annotated[Path, typer.Option(help="Folder of the images, for the command that is printed.")] = Path(
        "STUDIES"
    ),
) -> None:
    """Make an app for a MONAI Label server: it learns from unlabelled images too, and asks for the label that helps."""
    from aide_monai.label_app.create import create_app

    trained = create_app(folder, bundle, weights=weights)
    if not trained:
        console.print("The networks are untrained: label an image, train, then trust predictions.", style="yellow")
    console.print("Start the server in the environment of make label-env:", style="dim")
    command = f"python -m monailabel.main start_server --app {folder} --studies {studies} --host 127.0.0.1"
    console.print(command, soft_wrap=True, highlight=False)


@contextmanager
def _progress_bar() -> Any:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=None)

        def update(stage: str, done: float, total: float) -> None:
            progress.update(task, description=stage, completed=done, total=total)

        yield update


def run(command: Callable[[], Any]) -> int:
    """Call a command and return its exit code.

    2, with the message alone, for a user's mistake or a full disk; 128 and the number of the signal that has stopped
    it, with what to do next.
    """
    try:
        command()
    except (Exception, Stopped) as error:
        from aide_monai.utils.files import refused_by_disk

        stop = stop_behind(error)
        if stop is not None:
            if os.environ.get("RANK", "0") == "0":  # of several processes, which have left each other by now
                errors.print(literal(stop.advice), soft_wrap=True)
            return stop.code
        mistake = error if isinstance(error, InputError) else refused_by_disk(error)
        if mistake is None:
            raise
        if not isinstance(mistake, MainProcessError):
            errors.print(literal("Error:", "bold red") + literal(f" {mistake}"), soft_wrap=True)
        return 2
    return 0


def main() -> None:
    """Entry point of the ``aide`` command."""
    # It tells at every start that a CUDA decoder is absent, which concerns nobody here.
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    # It announces every exception; the sentence or the traceback that follows says the same.
    logging.getLogger("ignite.engine").setLevel(logging.CRITICAL)
    stop_at_signals()
    end_with_parent()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the name of a file may be no UTF-8
    try:
        sys.exit(run(app))
    finally:
        end_at_signals()
