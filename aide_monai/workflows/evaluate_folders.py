"""Score a folder of segmentations against a folder of references."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

import aide_monai
from aide_monai.errors import InputError, Problem
from aide_monai.io.ahead import segmentations_ahead
from aide_monai.io.segmentations import Segmentation, find_segmentations, on_one_grid, read_segmentation
from aide_monai.io.volumes import listed
from aide_monai.metrics.tolerance import TOLERANCE_MM, check_tolerance
from aide_monai.utils.files import new_folder, require_place, require_unused, write_text
from aide_monai.utils.texts import as_json
from aide_monai.workflows.segment_matching import Numbering, one_numbering

if TYPE_CHECKING:
    from aide_monai.reports.tables import Row

Labels = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How segmentations are scored.

    Attributes:
        labels: label value to name; other values count as background. None: every value that occurs.
        keep_largest: keep the largest component of each label of a prediction, 6-connected.
        resample: bring predictions from another grid onto the reference's instead of refusing them.
        subset: score the cases that have a prediction, instead of refusing references without one.
        spacing_mm: (column, row, slice) spacing of PNG slices, which carry none.
        tolerance_mm: of the NSD, see ``segmentation_scores``.
        ignore: value of voxels without a verdict in the references, which are left out, see ``class_scores``.
    """

    labels: Mapping[int, str] | None = None
    keep_largest: bool = False
    resample: bool = False
    subset: bool = False
    spacing_mm: tuple[float, float, float] | None = None
    tolerance_mm: float = TOLERANCE_MM
    ignore: int | None = None

    def __post_init__(self) -> None:
        """Raises InputError for a tolerance that is none, and for a value that is to be scored and left out."""
        check_tolerance(self.tolerance_mm)
        if self.ignore is not None and (self.ignore <= 0 or self.ignore in (self.labels or {})):
            raise InputError(f"ignore is {self.ignore}; expected a value above 0 that is not among the labels to score")


@dataclass(frozen=True)
class Evaluation:
    """Scores of a folder.

    Attributes:
        rows: per case and label, see ``reports.tables.COLUMNS``.
        summary: see ``reports.tables.summarize_labels``.
        ignored: label values that occur and are not scored.
        unknown_spacing: cases of DICOM SEG alone that do not say how far slices are apart, see ``Segmentation``.
    """

    rows: list[Row]
    summary: list[Row]
    ignored: tuple[int, ...]
    unknown_spacing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    case: str
    prediction: Segmentation
    reference: Segmentation
    spacing: tuple[float, ...]


@dataclass(frozen=True)
class _Scored:
    """Scores by label value, and the foreground values of prediction and reference."""

    by_label: dict[int, Row]
    values: tuple[set[int], set[int]]
    spacing_known: bool


def evaluate_folders(
    predictions: str | Path,
    references: str | Path,
    settings: EvaluationSettings | None = None,
    *,
    out: str | Path | None = None,
    images: str | Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """Score every prediction against the reference of the same case: DSC, RAVD, ASSD, MSSD, HD95 and NSD.

    Cases are read by other processes and scored side by side, one per processor, so as many volumes are in memory at
    a time. A file at which a decoder dies is a problem like any other.

    Args:
        predictions: folder, see ``find_segmentations``.
        references: folder, likewise.
        settings: see ``EvaluationSettings``.
        out: new folder for ``report.html``, which has all that follows in one page, ``per_case.csv``,
            ``evaluation.json``, ``summary.md``, ``scores.png`` and ``worst_cases.png``; None writes nothing.
        images: folder of NIfTI, MHD or NRRD images by case, to draw the worst cases on; None draws them on black.
        progress: show a progress bar.

    Raises:
        InputError: one report of all cases that cannot be scored, or a used ``out``; then nothing is written.
    """
    settings = settings or EvaluationSettings()
    if out is not None:
        require_place(out, folder=True)
        require_unused(out, "the results")
    files = _matched(find_segmentations(predictions), find_segmentations(references), settings)
    numbering = one_numbering([both[i] for i in (1, 0) for both in files.values()], settings.labels)
    pairs, problems = _scores(files, settings, numbering, progress=progress)
    if problems:
        raise InputError(f"{predictions}: cases that cannot be scored", problems=problems)
    labels, ignored = _labels(pairs.values(), settings, numbering, predictions, references)
    method = Path(os.path.abspath(predictions)).name
    rows = [
        {
            "method": method,
            "network": "single",
            "case": case,
            "label": value,
            "label_name": name,
            **scored.by_label.get(value, _nothing(settings.tolerance_mm)),
        }
        for case, scored in pairs.items()
        for value, name in labels.items()
    ]
    unknown = tuple(case for case, scored in pairs.items() if not scored.spacing_known)
    from aide_monai.reports.tables import summarize_labels

    evaluation = Evaluation(rows, summarize_labels(rows), ignored, unknown)
    if out is not None:
        worst = _worst_cases(rows)
        both = {case: [_renumbered(read_segmentation(file), numbering) for file in files[case]] for case in worst}
        shown = [_pair(case, *both[case], settings=settings) for case in worst]
        with new_folder(out) as folder:
            _write(folder, evaluation, settings, shown, _images(images, worst), labels, predictions, references)
    return evaluation


def _scores(
    files: Mapping[str, tuple[Path, Path]], settings: EvaluationSettings, numbering: Numbering, *, progress: bool
) -> tuple[dict[str, _Scored], list[Problem]]:
    """Scores by case, and what is wrong with the others: read ahead by other processes, scored in threads."""
    pairs: dict[str, _Scored] = {}
    problems: list[Problem] = []
    waiting: deque[tuple[str, Future[_Scored]]] = deque()
    side_by_side = os.cpu_count() or 1
    with (
        Progress(disable=not progress) as bar,
        segmentations_ahead([file for both in files.values() for file in both]) as read,
        ThreadPoolExecutor(side_by_side) as pool,
    ):
        task = bar.add_task("scoring", total=len(files))

        def finish(most: int) -> None:
            """Take results, in order, until at most so many are waited for."""
            while len(waiting) > most:
                case, future = waiting.popleft()
                try:
                    pairs[case] = future.result()
                except InputError as error:
                    problems.extend(error.problems)
                bar.advance(task)

        for case, (prediction, reference) in files.items():
            future: Future[_Scored] = Future()
            try:
                both = _renumbered(read(prediction), numbering), _renumbered(read(reference), numbering)
                future = pool.submit(_score, case, *both, settings)
            except InputError as error:
                future.set_exception(error)
            waiting.append((case, future))
            finish(side_by_side - 1)
        finish(0)
    return pairs, problems


def _matched(
    predictions: dict[str, Path], references: dict[str, Path], settings: EvaluationSettings
) -> dict[str, tuple[Path, Path]]:
    problems = [
        Problem(f'no reference for case "{case}"', advice="add it, or remove the prediction", place=predictions[case])
        for case in sorted(predictions.keys() - references.keys())
    ]
    if not settings.subset:
        problems += [
            Problem(
                f'no prediction for case "{case}"',
                advice="add it, or score the predicted alone (--subset)",
                place=references[case],
            )
            for case in sorted(references.keys() - predictions.keys())
        ]
    if problems:
        raise InputError("cases without a partner of the same name", problems=problems)
    return {case: (predictions[case], references[case]) for case in sorted(predictions)}


def _pair(case: str, prediction: Segmentation, reference: Segmentation, *, settings: EvaluationSettings) -> Pair:
    both = on_one_grid(prediction, reference, resample=settings.resample)
    grid = both[1].grid
    spacing = settings.spacing_mm if grid is None else grid.spacing_mm
    if spacing is None:
        raise InputError(
            "pictures, which carry no spacing",
            expected="--spacing COLUMN,ROW,SLICE in mm (the slice spacing from the slices' positions)",
            place=reference.file,
        )
    if settings.keep_largest:
        import torch

        from aide_monai.transforms import largest_components

        found = both[0].labels
        scored = [value for value in settings.labels or () if value] or None
        kept = largest_components(torch.from_numpy(found.astype(np.int32)), scored)
        both = Segmentation(**{**vars(both[0]), "labels": kept.numpy().astype(found.dtype)}), both[1]
    return Pair(case, *_judged(*both, settings.ignore), spacing)


def _judged(prediction: Segmentation, reference: Segmentation, ignore: int | None) -> tuple[Segmentation, Segmentation]:
    """Both, background where the reference has no verdict."""
    if ignore is None:
        return prediction, reference
    silent = reference.labels == ignore

    def left(one: Segmentation) -> Segmentation:
        labels = np.where(silent, 0, one.labels).astype(one.labels.dtype)
        return replace(one, labels=labels, values=tuple(np.unique(labels).tolist()))

    return left(prediction), left(reference)


def _score(case: str, prediction: Segmentation, reference: Segmentation, settings: EvaluationSettings) -> _Scored:
    from aide_monai.metrics import class_scores  # only who has segmentations waits for it

    pair = _pair(case, prediction, reference, settings=settings)
    values = set(pair.prediction.values) - {0}, set(pair.reference.values) - {0}
    scored = sorted(settings.labels or values[0] | values[1])
    # other values count as background
    index = np.zeros(65536, dtype=np.uint8 if len(scored) < 256 else np.uint16)
    index[scored] = np.arange(1, len(scored) + 1)
    grid = pair.reference.grid
    scores = class_scores(
        index[pair.prediction.labels],
        index[pair.reference.labels],
        num_classes=len(scored) + 1,
        spacing_mm=pair.spacing if grid is None else grid.steps_mm,
        tolerance_mm=settings.tolerance_mm,
    )
    by_label = {value: asdict(scores[number]) for number, value in enumerate(scored, start=1)}
    return _Scored(by_label, values, pair.reference.spacing_known)


def _renumbered(segmentation: Segmentation, numbering: Numbering) -> Segmentation:
    """A segmentation with the values that its segments have in all files."""
    changes = numbering.changes.get(segmentation.file)
    if changes is None:
        return segmentation
    table = np.arange(65536, dtype=np.uint16)
    table[list(changes)] = list(changes.values())
    values = tuple(sorted(int(table[value]) for value in segmentation.values))
    return replace(segmentation, labels=table[segmentation.labels], values=values)


def _nothing(tolerance_mm: float) -> Row:
    """Scores of a label that a case has neither in its prediction nor in its reference."""
    from aide_monai.metrics import segmentation_scores

    mask = np.zeros((1, 1), dtype=np.bool_)
    return asdict(segmentation_scores(mask, mask, spacing_mm=(1, 1), tolerance_mm=tolerance_mm))


def _labels(
    pairs: Collection[_Scored],
    settings: EvaluationSettings,
    numbering: Numbering,
    predictions: str | Path,
    references: str | Path,
) -> tuple[dict[int, str], tuple[int, ...]]:
    """The labels to score, by value, and the values that occur beside them."""
    predicted, true = (set().union(*(scored.values[i] for scored in pairs)) for i in (0, 1))
    found = sorted(predicted | true)
    labels = settings.labels or {value: numbering.names.get(value, f"label {value}") for value in found}
    only = sorted(predicted - true), sorted(true - predicted)
    asked = [value for value in only[1] if value in labels]
    if only[0] and asked and not (settings.labels and set(only[0]) <= set(settings.labels)):
        called = [f'{value} "{numbering.names[value]}"' for value in (*only[0], *only[1]) if value in numbering.names]
        names = f" ({', '.join(called)})" if called else ""
        raise InputError(
            f"{predictions} holds the labels {listed(sorted(predicted))}, {references} {listed(sorted(true))}; "
            f"expected labels in common, but {listed(only[0])} is in predictions alone and {listed(only[1])} in "
            f"references alone{names}: class indices against stored values, or names that differ? Write both alike, or "
            "name all of these values by --labels to score them as they are"
        )
    absent = [value for value in labels if value not in found]
    if absent or not labels:
        raise InputError(
            f"labels {listed(absent) or 'to score'}: in no file of {predictions} and {references}, which hold "
            f"{listed(found) or 'background alone'}; expected every label in some case"
        )
    return dict(labels), tuple(value for value in found if value not in labels)


def _worst_cases(rows: Sequence[Mapping[str, Any]], number: int = 3) -> list[str]:
    """The cases with the smallest mean DSC, worst first."""
    dsc: dict[str, list[float]] = {}
    for row in rows:
        dsc.setdefault(row["case"], []).append(row["dsc"])
    return sorted(dsc, key=lambda case: float(np.mean(dsc[case])))[:number]


def _images(folder: str | Path | None, cases: Sequence[str]) -> dict[str, Path]:
    if folder is None:
        return {}
    found = find_segmentations(folder)
    missing = [case for case in cases if case not in found]
    if missing:
        raise InputError(
            f'no image for case "{missing[0]}"', expected="one of the same name for every case", place=folder
        )
    return {case: found[case] for case in cases}


def _write(
    out: Path,
    evaluation: Evaluation,
    settings: EvaluationSettings,
    pairs: Sequence[Pair],
    images: Mapping[str, Path],
    labels: Mapping[int, str],
    predictions: str | Path,
    references: str | Path,
) -> None:
    from aide_monai.reports import figures, tables
    from aide_monai.reports.html import Section, write_page
    from aide_monai.workflows.case_panels import case_panels

    panels = [list(case_panels(pair, images.get(pair.case), sorted(labels), evaluation.rows)) for pair in pairs]
    figures.metric_boxplots(evaluation.rows, out / "scores.png")
    figures.overlays(
        panels,
        out / "worst_cases.png",
        title="The worst cases: the largest slice, the most missed, the most too much",
        legend=("reference", "prediction"),
    )
    write_text(out / "summary.md", tables.markdown_table(evaluation.summary) + "\n")
    content = {
        "version": aide_monai.__version__,
        "predictions": str(predictions),
        "references": str(references),
        **asdict(settings),
        "labels": {str(value): name for value, name in labels.items()},
        "ignored_labels": list(evaluation.ignored),
        "summary": evaluation.summary,
        "cases": evaluation.rows,
    }
    write_text(out / "evaluation.json", json.dumps(as_json(content), indent=2, allow_nan=False) + "\n")
    tables.write_csv(out / "per_case.csv", evaluation.rows)
    asked = {key: content[key] for key in ("version", "predictions", "references", *asdict(settings), "ignored_labels")}
    sections = [
        Section("Scores", table=tables.scores_table(evaluation.summary), pictures=[(out / "scores.png", "Every case")]),
        Section("Worst cases", pictures=[(out / "worst_cases.png", "reference green, prediction orange")]),
        Section("Every case", table=tables.cases_table(evaluation.rows)),
        Section("What was scored", code=json.dumps(as_json(asked), indent=2)),
    ]
    write_page(out / "report.html", f"Segmentations of {Path(os.path.abspath(predictions)).name}", sections)
