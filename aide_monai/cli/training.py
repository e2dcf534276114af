"""The verbs of the ``aide`` command that run a bundle and look at its labels: train, predict, labels."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from aide_monai.cli.console import console, hint, print_json, tell_next
from aide_monai.cli.options import AsJSON, CkptPath, DatasetDir, Device, Quiet, Roots, RunDir
from aide_monai.errors import InputError
from aide_monai.reports.text import literal
from aide_monai.utils.files import read_object
from aide_monai.utils.validation import require_choices

EXPORTS = ("nifti", "nnunet")
"""What ``aide labels --export`` writes."""


def train(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Bundle folder, for example bundles/hippocampus_ssl.")],
    dataset_dir: DatasetDir = None,
    run_dir: RunDir = None,
    labeled: Annotated[int | None, typer.Option(help="Training cases that keep their label.")] = None,
    unlabeled: Annotated[int | None, typer.Option(help="Training cases whose label is hidden.")] = None,
    test: Annotated[int | None, typer.Option(help="Cases to hold out.")] = None,
    profile: Annotated[str | None, typer.Option(help="AIDE's options: improved, paper or original.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of AIDE.")] = None,
    steps_per_epoch: Annotated[int | None, typer.Option(help="Optimiser steps in an epoch.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Slices in a batch.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate at the beginning.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    device: Device = "auto",
    amp: Annotated[str | None, typer.Option(help="Precision: off, bf16 or fp16. Default: what pays here.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Folder for volumes that do not fit into the memory.")] = None,
    start_from: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Earlier run to continue with more cases or better labels."),
    ] = None,
    config: Annotated[str, typer.Option(help="Config of the bundle, or several: train,pretrain.")] = "train",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the run folder.")] = False,
    processes: Annotated[
        int, typer.Option(help="Processes that train as one, with a GPU each where there are any.")
    ] = 1,
    quiet: Quiet = False,
) -> None:
    """Train a bundle: the same run as python -m monai.bundle run, with the same overrides.

    A bundle is a program; run only bundles you trust.

    Options without a default here have that of the bundle. Every further option overrides the value of that name in
    the config: --train#trainer#max_epochs 30.
    """
    from aide_monai.utils.processes import launched
    from aide_monai.workflows.bundle import parse_overrides, run_bundle
    from aide_monai.workflows.launch import launch

    typed = _overrides(context, "bundle", "config", "resume", "processes", "quiet")
    overrides = parse_overrides(context.args) | typed
    if processes != 1 and not launched():
        options = [text for key, value in typed.items() for text in (f"--{key}", str(value))]
        arguments = ["train", str(bundle), "--config", config, *["--resume"][:resume], *options, *context.args]
        raise typer.Exit(launch(arguments, processes=processes))
    if resume:
        overrides["resume"] = True
    parser = run_bundle(bundle, config.split(","), overrides).parser
    if os.environ.get("RANK", "0") == "0" and "train" in config.split(","):  # of several processes the main one
        folder = parser.get_parsed_content("run_dir")
        trainer: Any = parser.ref_resolver.resolved_content.get("train::trainer")
        if trainer is not None:  # a step before it, such as pretrain, has made none
            _tell_best(trainer.state)
        hint(f"Labels, log and weights: {folder}")
        if (again := _known_to(bundle, "evaluate", overrides)) is not None:
            tell_next("Score the held-out cases", "aide", "train", bundle, "--config", "evaluate", *again)
        own = {key: value for key, value in overrides.items() if key not in ("dataset_dir", "run_dir", "resume")}
        words = ("--dataset-dir", "VOLUMES", "--run-dir", folder, "--output-dir", "MASKS")
        tell_next("Segment volumes", "aide", "predict", bundle, *words, *(_known_to(bundle, "inference", own) or []))


def _known_to(bundle: Path, config: str, overrides: Mapping[str, Any]) -> list[str] | None:
    """The overrides of a training that another config of the bundle has too, as they are typed; None without it."""
    from aide_monai.workflows.bundle import id_parts

    file = bundle / "configs" / f"{config}.json"
    if not file.is_file():
        return None
    content = read_object(file, advice="restore the config of the bundle")
    given = {key: value for key, value in overrides.items() if id_parts(key)[0] in content}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in given.items()}
    return [word for key, text in texts.items() for word in (f"--{key}", text)]


def _tell_best(state: Any) -> None:
    """Of a finished trainer: which epoch was kept, and by what."""
    if state.best_metric_epoch > 0:
        validated = "dsc_validation" in state.metrics
        cases = "validation cases" if validated else "current training labels"
        kept = f"Kept epoch {state.best_metric_epoch} of {state.epoch}, Dice {state.best_metric:.3f}"
        console.print(f"{kept} with the {cases}.", highlight=False)


def predict(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Bundle folder, for example bundles/hippocampus_ssl.")],
    dataset_dir: Annotated[
        Path | None, typer.Option(help="Volumes: a folder, a file, DICOM studies, or a datalist. Default: data/ here.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run that has the weights. Default: the bundle.")
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder for the masks. Default: predictions/ in the run folder.")
    ] = None,
    output_format: Annotated[str | None, typer.Option(help="nifti, nnunet or dicom-seg. Default: nifti.")] = None,
    ckpt_path: CkptPath = None,
    device: Device = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse volumes that are unlike those of the training, before any mask.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Segment volumes by a trained bundle: a folder of NIfTI, MHD, NRRD or of DICOM studies, one file, or a datalist.

    A bundle is a program; run only bundles you trust.

    Every further option overrides the value of that name in the bundle's inference config.
    """
    from aide_monai.workflows.bundle import parse_overrides, run_bundle

    typed = _overrides(context, "bundle", "quiet")
    parser = run_bundle(bundle, ["inference"], parse_overrides(context.args) | typed).parser
    console.print(f"{len(parser.get_parsed_content('dataset'))} masks:", style="dim")
    console.print(str(parser.get_parsed_content("output_dir")), soft_wrap=True)


def _overrides(context: typer.Context, *own: str) -> dict[str, Any]:
    """The typed options that override the config, which has them by these names.

    Args:
        context: of the verb.
        own: parameters that are the verb's own. Without a device the bundle takes the best that there is.
    """
    chosen = {key: value for key, value in context.params.items() if key not in own}
    given = {key: value for key, value in chosen.items() if value is not None and value is not False}
    if given["device"] == "auto":
        del given["device"]
    return {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}


def labels(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of aide train, aide run or aide demo.")],
    show: Annotated[bool, typer.Option("--list", help="List the generations; this is the default.")] = False,
    diff: Annotated[
        tuple[int, int] | None, typer.Option(metavar="G1 G2", help="Labels that differ between two generations.")
    ] = None,
    export: Annotated[
        tuple[int, Path] | None,
        typer.Option(metavar="G DIR", help="Write the labels of a generation as NIfTI on their original grid."),
    ] = None,
    form: Annotated[
        str, typer.Option("--as", metavar="FORM", help="With --export: nifti, or nnunet, raw data with the images.")
    ] = EXPORTS[0],
    network: Annotated[int, typer.Option(help="Of --as nnunet: the network, 1 or 2, whose labels it gets.")] = 1,
    root: Roots = None,
    rollback: Annotated[
        int | None, typer.Option(metavar="G", help="Return to a generation; the ones in between stay readable.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Show how AIDE changed the training labels of a run, export any state of them, or return to it."""
    from aide_monai.reports.label_tables import diff_table, generations_table
    from aide_monai.workflows import labels as workflow

    if show + sum(wish is not None for wish in (diff, export, rollback)) > 1:
        raise InputError("found several of --list, --diff, --export and --rollback; expected one at a time")
    require_choices({"--as": form}, {"--as": EXPORTS})
    if form != EXPORTS[0] and export is None:
        raise InputError(f"found --as {form} without --export; expected them together: --export G DIR --as {form}")
    if as_json and (export is not None or rollback is not None):
        raise InputError("found --json with --export or --rollback; expected it with --list or --diff, which show rows")
    if as_json:
        print_json(workflow.list_generations(run_dir) if diff is None else workflow.diff(run_dir, *diff))
    elif diff is not None:
        console.print(diff_table(workflow.diff(run_dir, *diff), *diff).rich(str(run_dir)))
    elif export is not None:
        if form == "nnunet":
            from aide_monai.workflows.nnunet import export_nnunet

            result = export_nnunet(run_dir, export[0], folder=export[1], network=network, roots=root or ())
        else:
            result = workflow.export(run_dir, export[0], folder=export[1])
        for cases, note in ((result.resampled, "resampled"), (result.cropped, "background outside the trained part")):
            if cases:
                console.print(literal(note, "yellow") + literal(f": {', '.join(cases)}"), soft_wrap=True)
        whose = f" of network {network}" if form == "nnunet" else ""
        console.print(f"{result.files} labels of generation {export[0]}{whose}:", style="dim")
        console.print(str(export[1]), soft_wrap=True)
    elif rollback is not None:
        number = workflow.rollback(run_dir, rollback)
        console.print(
            f"Generation {number} has the labels of generation {rollback}; a run that is resumed trains on them."
        )
    else:
        console.print(generations_table(workflow.list_generations(run_dir)).rich(str(run_dir)))
