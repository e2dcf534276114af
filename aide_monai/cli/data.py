"""The verbs of the ``aide`` command that look at data and masks: check, plan, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aide_monai.cli.console import console, print_json, shows_progress
from aide_monai.cli.options import AsJSON, Layout, Quiet, Roots, label_names, numbers, spacing_mm
from aide_monai.errors import InputError
from aide_monai.metrics.tolerance import TOLERANCE_MM
from aide_monai.reports.text import literal

_WIDE = 110  # columns of a terminal that all scores fit into

if TYPE_CHECKING:
    from aide_monai.workflows.evaluate_folders import Evaluation


def check(
    data: Annotated[Path, typer.Argument(help="Folder of the data set, or its datalist (JSON).")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report. Default: check/ beside the datalist, or FOLDER_check.")
    ] = None,
    root: Roots = None,
    layout: Layout = None,
    quiet: Quiet = False,
    as_json: AsJSON = False,
) -> None:
    """Find everything that is wrong with a data set: one report, contact sheets, histograms; exit code 1 for errors."""
    from aide_monai.workflows.check import check_data

    beside = data.with_name(f"{data.resolve().name}_check") if data.is_dir() else data.parent / "check"
    folder = out or beside
    result = check_data(data, folder, roots=root or (), layout=layout, progress=shows_progress())
    warnings = len(result.problems) - result.errors
    if as_json:
        problems = [{key: str(value) for key, value in vars(problem).items()} for problem in result.problems]
        print_json({"errors": result.errors, "warnings": warnings, "report": folder, "problems": problems})
    else:
        for problem in result.problems:
            colour = "red" if problem.severity == "error" else "yellow"
            console.print(literal(problem.severity, colour) + literal(f" {problem}"), soft_wrap=True)
        console.print(f"{result.errors} errors, {warnings} warnings. Report and pictures:", style="dim")
        console.print(str(folder), soft_wrap=True)
    if result.errors:
        raise typer.Exit(1)


def plan(
    data: Annotated[Path, typer.Argument(help="Folder of the data set, or its datalist (JSON).")],
    spatial_dims: Annotated[int, typer.Option(help="2: slices; 3: patches of volumes.")] = 2,
    network: Annotated[
        str | None, typer.Option(help="BasicUNet, MultiStreamUNet or SegResNet. Default: as the data ask for.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Voxels of a slice or patch: 96,96,32. Default: from the data and the memory.")
    ] = None,
    memory: Annotated[float, typer.Option(help="GB that a training may take.")] = 8.0,
    root: Roots = None,
    layout: Layout = None,
    out: Annotated[Path | None, typer.Option(help="File (JSON) for the plan.")] = None,
    quiet: Quiet = False,
    as_json: AsJSON = False,
) -> None:
    """Choose network, slice or patch size, spacing and more for a data set, with reasons; nothing is trained."""
    from aide_monai.data.sources import find_datalist
    from aide_monai.utils.files import require_place
    from aide_monai.workflows.network_plan import plan_network

    if out is not None:
        require_place(out)
    voxels = None if size is None else numbers("--size", size)
    datalist = find_datalist(data, roots=root or (), layout=layout)
    chosen = plan_network(datalist, spatial_dims=spatial_dims, network=network, size=voxels, memory_gb=memory)
    if out is not None:
        chosen.save(out)
    if as_json:
        print_json(chosen.content())
    else:
        console.print(chosen.table().rich(datalist.name))


def evaluate(
    pred: Annotated[Path | None, typer.Option(help="Folder of segmentations to score.")] = None,
    ref: Annotated[Path | None, typer.Option(help="Folder of reference segmentations of the same cases.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Label values to score, with names: 1=liver,2=spleen. Default: all.")
    ] = None,
    keep_largest: Annotated[
        bool, typer.Option("--keep-largest", help="Keep the largest component of each label of a prediction.")
    ] = False,
    resample: Annotated[
        bool, typer.Option("--resample", help="Bring predictions from other grids onto the reference's.")
    ] = False,
    subset: Annotated[bool, typer.Option("--subset", help="Leave out references without a prediction.")] = False,
    spacing: Annotated[str | None, typer.Option(help="COLUMN,ROW,SLICE spacing in mm, for PNG slices.")] = None,
    tolerance: Annotated[float, typer.Option(help="Distance in mm that the NSD calls right.")] = TOLERANCE_MM,
    ignore: Annotated[
        int | None, typer.Option(help="Value of voxels without a verdict in the references, which are left out.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of images to draw the worst cases on.")] = None,
    out: Annotated[Path | None, typer.Option(help="New folder for tables and pictures.")] = None,
    compare: Annotated[
        tuple[str, str] | None, typer.Option(help="Two per-case tables, FILE or FILE:METHOD, to test for a difference.")
    ] = None,
    patients: Annotated[
        str | None,
        typer.Option(
            help="With --compare: regular expression for the name of a case; its first group is the patient. Default: "
            "the name without _frame01 and the like, or the column patient of a table."
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJSON = False,
) -> None:
    """Score segmentations: DSC, RAVD, ASSD, MSSD, HD95, NSD per case, with a summary; or compare two such tables.

    Files are NIfTI, MHD, NRRD, DICOM SEG or folders of PNG slices, matched by case.
    """
    if compare is not None:
        if pred or ref:
            raise InputError("found --compare with --pred or --ref; expected one job at a time")
        _compare(*compare, out, patients, as_json=as_json)
    elif pred is None or ref is None:
        raise InputError("nothing to score; expected --pred DIR and --ref DIR, or --compare A.csv B.csv")
    else:
        from aide_monai.workflows.evaluate_folders import EvaluationSettings, evaluate_folders

        settings = EvaluationSettings(
            labels=label_names(labels),
            keep_largest=keep_largest,
            resample=resample,
            subset=subset,
            spacing_mm=spacing_mm(spacing),
            tolerance_mm=tolerance,
            ignore=ignore,
        )
        result = evaluate_folders(pred, ref, settings, out=out, images=images, progress=shows_progress())
        if as_json:
            doubts = {"ignored_labels": result.ignored, "unknown_spacing": result.unknown_spacing}
            print_json({"summary": result.summary, "cases": result.rows, **doubts, "folder": out})
            return
        _tell_scores(pred, result)
        _tell_what_is_doubtful(result)
        if out is not None:
            console.print(str(out / "report.html"), soft_wrap=True)


def _tell_scores(pred: Path, result: Evaluation) -> None:
    from aide_monai.reports.tables import scores_table  # waits for PyTorch: a mistake has been told before

    cases = len({row["case"] for row in result.rows})
    hidden = () if console.width >= _WIDE else ("RAVD (%)", "MSSD (mm)")
    table = scores_table(result.summary)
    if hidden:
        table.notes.append("RAVD and MSSD need a wider terminal; --out DIR and --json have them.")
    console.print(table.rich(f"{pred}: {cases} cases, mean ± standard deviation", without=hidden))


def _tell_what_is_doubtful(result: Evaluation) -> None:
    if result.ignored:
        console.print(f"Label values that were not scored: {', '.join(map(str, result.ignored))}", style="dim")
    if result.unknown_spacing:
        from aide_monai.utils.texts import names_text

        console.print(
            f"{names_text(result.unknown_spacing)}: DICOM SEGs alone, without SpacingBetweenSlices: slices "
            "between two marked ones are unknown, so distances may be off; score against volumes of the whole grid",
            style="yellow",
            soft_wrap=True,
            highlight=False,
        )


def _compare(first: str, second: str, out: Path | None, patients: str | None, *, as_json: bool) -> None:
    from aide_monai.data.sources.folder import patient_expression
    from aide_monai.reports.tables import paired_tests_table
    from aide_monai.utils.files import require_place, write_text
    from aide_monai.workflows.paired_tests import paired_tests, read_method

    if out is not None:
        require_place(out, folder=True)
    options = {} if patients is None else {"patients": patient_expression(patients, "--patients").pattern}
    comparison = paired_tests(read_method(first), read_method(second), **options)
    table = paired_tests_table(comparison)
    if as_json:
        print_json(comparison)
    else:
        console.print(table.rich(f"A: {first}\nB: {second}"))
    if out is not None:
        write_text(out / "comparison.md", table.markdown() + "\n")
