"""The verbs of the ``aide`` command that look after data and masks: prepare, check, evaluate."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aide_monai.cli.console import console
from aide_monai.errors import InputError
from aide_monai.reports.text import literal
from aide_monai.utils.validation import is_text

if TYPE_CHECKING:
    from aide_monai.data.datalist import Datalist
    from aide_monai.workflows.evaluate_folders import Evaluation


def prepare(
    context: typer.Context,
    layout: Annotated[
        str, typer.Argument(help="chaos, nci-isbi, promise12, prostate, qubiq, breast, decathlon or folder.")
    ],
    folders: Annotated[list[Path], typer.Argument(help="Folder of the download; prostate: NCI-ISBI and PROMISE12.")],
    out: Annotated[Path, typer.Option(help="Datalist (JSON) to write.")],
    labeled: Annotated[int | None, typer.Option(help="Training cases that keep their label.")] = None,
    unlabeled: Annotated[int | None, typer.Option(help="Training cases whose label is hidden.")] = None,
    test: Annotated[int | None, typer.Option(help="Cases to hold out; without --labeled of each domain.")] = None,
    fold: Annotated[str | None, typer.Option(help="k/n: hold out part k of n.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    paper_split: Annotated[bool, typer.Option("--paper-split", help="The split of the paper.")] = False,
    modality: Annotated[str | None, typer.Option(help="chaos: T1DUAL, T2SPIR or CT.")] = None,
    organs: Annotated[str | None, typer.Option(help="chaos: liver,right kidney,left kidney,spleen.")] = None,
    task: Annotated[str | None, typer.Option(help="qubiq: folder of the task, such as brain-growth.")] = None,
    subtask: Annotated[int | None, typer.Option(help="qubiq: number of the structure.")] = None,
    rater: Annotated[
        str | None, typer.Option(help="qubiq: number of one rater, majority, mean or staple. Default: each by itself.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="qubiq: fused label of test cases.")] = None,
    fused_dir: Annotated[Path | None, typer.Option(help="qubiq: folder for fused labels.")] = None,
    centre: Annotated[str | None, typer.Option(help="breast: GGH, GPPH or HPPH.")] = None,
    phases: Annotated[str | None, typer.Option(help="breast: numbers of the phases by time, such as 0,1.")] = None,
    times: Annotated[str | None, typer.Option(help="breast: seconds after the first phase, such as 0,90.")] = None,
    keep_unlabeled: Annotated[
        bool, typer.Option("--keep-unlabeled", help="breast: studies without a label too.")
    ] = False,
    subtraction_dir: Annotated[
        Path | None, typer.Option(help="breast: folder for subtraction images, which become modalities.")
    ] = None,
    zones: Annotated[bool, typer.Option("--zones", help="nci-isbi: keep the two zones apart.")] = False,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="promise12: keep the cases that Domain 2 has too.")
    ] = False,
    patient_pattern: Annotated[
        str | None, typer.Option(help="folder: regular expression; its first group names the patient.")
    ] = None,
    label_names: Annotated[
        str | None, typer.Option(help="folder: values that the labels hold, with names: 1=liver,4=tumour.")
    ] = None,
) -> None:
    """Find the cases of a download, check and split them, and write the datalist."""
    from aide_monai.data.split import SplitSettings
    from aide_monai.workflows.prepare import write_datalist

    given = _options_of_layouts(context.params)
    split = SplitSettings(labeled=labeled, unlabeled=unlabeled, test=test, fold=_fold(fold), seed=seed)
    shown = console.is_terminal
    datalist = write_datalist(layout, folders, out, split=split, paper_split=paper_split, progress=shown, **given)
    console.print(literal(f"{datalist.name}: {_counts(datalist)}. Written to:", "dim"))
    console.print(str(out), soft_wrap=True)


def _options_of_layouts(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the command line says for one layout or another, by the names that these have for it."""
    organs, rater, phases, times = (given[name] for name in ("organs", "rater", "phases", "times"))
    as_typed = ("modality", "task", "subtask", "reference", "fused_dir", "centre", "subtraction_dir", "patient_pattern")
    options = {
        **{name: given[name] for name in as_typed},
        "organs": organs and [organ.strip() for organ in organs.split(",")],
        "rater": int(rater) if rater and re.fullmatch("[0-9]{1,9}", rater) else rater,
        "phases": phases and _numbers("--phases", phases, ","),
        "times_s": times and _numbers("--times", times, ","),
        "keep_unlabeled": given["keep_unlabeled"] or None,
        "merge_zones": False if given["zones"] else None,
        "keep_duplicates": given["keep_duplicates"] or None,
        "label_names": _labels(given["label_names"], "--label-names"),
    }
    return {name: value for name, value in options.items() if value is not None}


def _fold(fold: str | None) -> tuple[int, int] | None:
    parts = _numbers("--fold", fold, "/") if fold else None
    if parts is not None and len(parts) != 2:
        raise InputError(f'--fold is "{fold}"; expected part and number of parts, such as 1/5')
    return (parts[0], parts[1]) if parts else None


def _counts(datalist: Datalist) -> str:
    counts = ", ".join(f"{len(datalist.split(name))} {name}" for name in ("training", "validation", "test"))
    labelled = sum(case.label is not None for case in datalist.of_split("training"))
    return f"{counts} cases; {labelled} training cases have a label"


def check(
    datalist: Annotated[Path, typer.Argument(help="Datalist (JSON) of the data set.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report. Default: check/ beside the datalist.")
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of the files, unless they lie beside the datalist; may be repeated."),
    ] = None,
) -> None:
    """Find everything that is wrong with a data set: one report, contact sheets, histograms; exit code 1 for errors."""
    from aide_monai.workflows.check import check_data

    folder = out or datalist.parent / "check"
    result = check_data(datalist, folder, roots=root or (), progress=console.is_terminal)
    for problem in result.problems:
        colour = "red" if problem.severity == "error" else "yellow"
        console.print(literal(problem.severity, colour) + literal(f" {problem}"), soft_wrap=True)
    warnings = len(result.problems) - result.errors
    console.print(f"{result.errors} errors, {warnings} warnings. Report and pictures:", style="dim")
    console.print(str(folder), soft_wrap=True)
    if result.errors:
        raise typer.Exit(1)


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
) -> None:
    """Score segmentations: DSC, RAVD, ASSD, MSSD per case, with a summary; or compare two such tables.

    Files are NIfTI, MHD, NRRD, DICOM SEG or folders of PNG slices, matched by case.
    """
    if compare is not None:
        if pred or ref:
            raise InputError("found --compare with --pred or --ref; expected one job at a time")
        _compare(*compare, out, patients)
    elif pred is None or ref is None:
        raise InputError("nothing to score; expected --pred DIR and --ref DIR, or --compare A.csv B.csv")
    else:
        from aide_monai.reports.tables import scores_table
        from aide_monai.workflows.evaluate_folders import EvaluationSettings, evaluate_folders

        settings = EvaluationSettings(
            labels=_labels(labels),
            keep_largest=keep_largest,
            resample=resample,
            subset=subset,
            spacing_mm=_spacing(spacing),
        )
        result = evaluate_folders(pred, ref, settings, out=out, images=images, progress=console.is_terminal)
        cases = len({row["case"] for row in result.rows})
        title = f"{pred}: {cases} cases, mean ± standard deviation"
        console.print(scores_table(result.summary).rich(title))
        _tell_what_is_doubtful(result)
        if out is not None:
            console.print(str(out), soft_wrap=True)


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


def _compare(first: str, second: str, out: Path | None, patients: str | None) -> None:
    from aide_monai.data.sources.folder import patient_expression
    from aide_monai.reports.tables import paired_tests_table
    from aide_monai.utils.files import require_place, write_text
    from aide_monai.workflows.paired_tests import paired_tests, read_method

    if out is not None:
        require_place(out, folder=True)
    options = {} if patients is None else {"patients": patient_expression(patients, "--patients").pattern}
    comparison = paired_tests(read_method(first), read_method(second), **options)
    table = paired_tests_table(comparison)
    console.print(table.rich(f"A: {first}\nB: {second}"))
    if out is not None:
        write_text(out / "comparison.md", table.markdown() + "\n")


def _numbers(option: str, text: str, separator: str) -> list[int]:
    try:
        return [int(part) for part in text.split(separator)]
    except ValueError:
        raise InputError(f'{option} is "{text}"; expected whole numbers with "{separator}" between them') from None


def _labels(text: str | None, option: str = "--labels") -> dict[int, str] | None:
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    labels = {
        int(value): name.strip()
        for value, _, name in pairs
        if re.fullmatch("[0-9]{1,5}", value.strip()) and is_text(name)
    }
    if len(labels) < len(pairs) or not all(0 < value < 65536 for value in labels):
        raise InputError(f"{option} is {text!r}; expected values from 1 with names, such as 1=liver,2=spleen")
    return labels


def _spacing(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        column, row, between = (float(part) for part in text.split(","))
        if all(0 < step < math.inf for step in (column, row, between)):
            return column, row, between
    except ValueError:
        pass  # the same sentence
    raise InputError(f"--spacing is {text!r}; expected three positive numbers in mm, such as 1.89,1.89,5.5")
