"""Which labels of a data set are likely wrong, by predictions that never saw them: a ranked report with proposals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import Progress

from aide_monai.data.case import Case
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources import find_datalist
from aide_monai.errors import InputError, Problem
from aide_monai.ignored import IGNORED
from aide_monai.io.grid import through_plane_axis
from aide_monai.reports.table import Table
from aide_monai.utils.files import new_folder, require_place, require_unused, write_text
from aide_monai.utils.validation import require_numbers

if TYPE_CHECKING:
    from aide_monai.audit import CaseAudit, Examined, Ranking
    from aide_monai.audit.rank import Labelled
    from aide_monai.data.predictions import Prediction
    from aide_monai.io.volumes import Volume
    from aide_monai.reports.audit_page import Shown

MOST_DRAWN = 40
"""Cases that the report shows; the tables have all."""

PROPOSALS = "proposals"

_NOTES = [
    "Score: probability that the label is wrong, learned from mistakes that were made on purpose in these labels. It "
    "holds for predictions of models that were not trained on the labels they judge.",
    "Volume: what the predictions contradict.",
]


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """How labels are judged.

    Attributes:
        layout: key of ``LAYOUTS``, for a folder that does not show what it is.
        roots: further folders that the files of a datalist may lie in.
        classes: what predictions call a class, a value of masks or the name of a file for a structure, to the class's
            name or index in the data set. None: masks have the values of the labels.
        resample: bring masks on other grids onto the labels'.
        expected: share of the labels that is expected to be wrong.
        seed: of the mistakes that are made on purpose.
    """

    layout: str | None = None
    roots: tuple[str | Path, ...] = ()
    classes: Mapping[str, str] | None = None
    resample: bool = False
    expected: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InputError for a share out of range."""
        require_numbers({"expected": self.expected}, {"expected": (0.001, 0.9)})


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        folder: with ``report.html``, ``cases.csv``, ``regions.csv``, ``audit.json`` and ``proposals/``.
        ranking: all cases, most suspicious first.
        table: of the cases, for a terminal.
    """

    folder: Path
    ranking: Ranking
    table: Table


def audit_data(
    data: str | Path,
    predictions: Sequence[str | Path],
    out: str | Path,
    settings: AuditSettings | None = None,
    *,
    progress: bool = False,
) -> Audit:
    """Rank the labels of a data set by how likely they are wrong, and propose others; nothing of it is changed.

    Args:
        data: a datalist, or a folder, see ``find_datalist``; every case with a label is judged.
        predictions: a folder for each model, see ``find_predictions``. Its model must not have been trained on the
            labels that it judges: predict each fold by the model of the others.
        out: new folder of the report.
        settings: see ``AuditSettings``.
        progress: show a progress bar.

    Raises:
        InputError: one report of all that is wrong with data and predictions; then nothing is written.

    Examples:
        >>> from aide_monai.workflows import audit_data
        >>> audit_data("DATA", ["PREDICTIONS"], "AUDIT").ranking.cases[0].kind  # doctest: +SKIP
    """
    from aide_monai.data.predictions import find_predictions

    settings = settings or AuditSettings()
    require_place(out, folder=True)
    require_unused(out, "the audit")
    datalist = find_datalist(data, roots=settings.roots, layout=settings.layout)
    if datalist.soft_labels:
        raise InputError(f"{datalist.name}: soft labels; expected one class for every voxel")
    cases = [case for case in datalist.cases if case.label is not None]
    structures, values = _classes(settings.classes, datalist)
    models = [find_predictions(folder, structures) for folder in predictions]
    _require_partners(cases, models, predictions)
    from aide_monai.audit import ranking  # waits for PyTorch: a mistake has been told before

    problems: list[Problem] = []
    with new_folder(out) as folder, Progress(disable=not progress) as bar:
        task = bar.add_task("judging labels", total=len(cases))
        reader = _Reader(datalist, models, values, settings.resample)

        def volumes() -> Iterator[Labelled]:
            for case in cases:
                try:
                    yield reader.read(case)
                except InputError as error:
                    problems.extend(error.at("", case=case.name).problems)
                bar.advance(task)

        page = _Page(folder, datalist, {case.name: case for case in cases}, reader)
        found = ranking(
            volumes(), number=len(cases), expected=settings.expected, seed=settings.seed, on_examined=page.keep
        )
        if problems:
            raise InputError(f"{data}: labels that cannot be judged", problems=problems)
        table = page.write(found, predictions, settings)
    return Audit(Path(out), found, table)


def _classes(given: Mapping[str, str] | None, datalist: Datalist) -> tuple[dict[str, int] | None, dict[int, int]]:
    """Names of structures' files to class indices, or None, and values of masks to class indices."""
    stored = {value: index for value, index in datalist.stored_classes.items() if index != IGNORED}
    if not given:
        return None, dict(stored) | {index: index for index in datalist.labels if index not in stored}
    names = {name: index for index, name in datalist.labels.items()}
    found: dict[str, int] = {}
    for theirs, ours in given.items():
        index = names.get(ours, int(ours) if ours.isdecimal() else -1)
        if index not in datalist.labels:
            known = ", ".join(f"{index} {name}" for index, name in datalist.labels.items())
            raise InputError(f"--map {theirs}={ours}: no such class; expected one of {known}")
        found[theirs] = index
    if all(theirs.isdecimal() for theirs in found):
        return None, {0: 0} | {int(theirs): index for theirs, index in found.items()}
    return found, {0: 0, 1: 1}


def _require_partners(
    cases: Sequence[Case], models: Sequence[Mapping[str, Prediction]], folders: Sequence[str | Path]
) -> None:
    problems = [
        Problem(f'no prediction for case "{case.name}"', advice="add it, or leave the case out", place=folder)
        for folder, model in zip(folders, models, strict=True)
        for case in cases
        if case.name not in model
    ]
    if not cases:
        problems.append(Problem("no labels", "at least one case with a label"))
    if problems:
        raise InputError("labels that cannot be judged", problems=problems)


class _Reader:
    """Reads labels with their predictions, and images to draw them on."""

    def __init__(
        self,
        datalist: Datalist,
        models: Sequence[Mapping[str, Prediction]],
        values: Mapping[int, int],
        resample: bool,
    ) -> None:
        self.datalist = datalist
        self.models = models
        self.values = values
        self.resample = resample
        self.volumes: dict[str, Volume] = {}  # headers of the labels

    def read(self, case: Case) -> Labelled:
        """The label and the mean of all models.

        Raises:
            InputError: naming what is wrong with either.
        """
        from aide_monai.audit.rank import as_volume, volume_problem
        from aide_monai.data.checks.voxels import label_problems
        from aide_monai.data.predictions import read_prediction
        from aide_monai.io.ahead import open_apart

        path = str(case.label)
        try:
            volume = open_apart(path)
        except InputError as error:
            raise error.at(path, advice="replace the file, or leave the case out") from error
        problems, label = label_problems(volume.decode(), case.name, path, self.datalist, case.annotated)
        if label is None:
            raise InputError(problems=problems)
        found = []
        axis = through_plane_axis(volume.affine)
        number = len(self.datalist.labels)
        looked_for = [index for index, name in self.datalist.labels.items() if name in (case.annotated or ())]
        for model in self.models:
            shares = read_prediction(
                model[case.name],
                volume.grid,
                classes=self.values,
                number=number,
                resample=self.resample,
            )
            if problem := volume_problem(label, shares):
                raise InputError(problem.found, expected=problem.expected, advice=problem.advice).at(
                    model[case.name].place
                )
            steps = volume.grid.spacing_mm
            found.append(as_volume(case.name, label, shares, steps, axis, number, looked_for or None))
        self.volumes[case.name] = volume
        return replace(found[0], shares=np.mean([one.shares for one in found], axis=0)) if len(found) > 1 else found[0]


class _Page:
    """Keeps what the report needs of each case, and writes it."""

    def __init__(self, folder: Path, datalist: Datalist, cases: Mapping[str, Case], reader: _Reader) -> None:
        self.folder = folder
        self.datalist = datalist
        self.cases = cases
        self.reader = reader

    def keep(self, labelled: Labelled, examined: Examined) -> None:
        """Write the proposal for a label that is contradicted somewhere."""
        from aide_monai.io.nifti import write_nifti

        if examined.regions:
            volume = self.reader.volumes[labelled.case]
            stored = {index: value for value, index in self.datalist.stored_classes.items()}
            table = np.zeros(256, dtype=np.uint16 if max(stored.values()) > 255 else np.uint8)
            table[list(stored)] = list(stored.values())
            file = self.folder / PROPOSALS / f"{labelled.case}.nii.gz"
            proposal = np.where(labelled.silent, IGNORED, examined.proposal)
            write_nifti(file, table[proposal], volume.affine, volume.place)

    def write(self, found: Ranking, predictions: Sequence[str | Path], settings: AuditSettings) -> Table:
        """Tables, JSON and the page; returns the table of the cases."""
        from aide_monai.reports.audit_page import write_audit_page

        cases, regions = self._cases_table(found), self._regions_table(found)
        (self.folder / "cases.csv").write_bytes(cases.csv())
        (self.folder / "regions.csv").write_bytes(regions.csv())
        content = {
            "name": self.datalist.name,
            "labels": {str(index): name for index, name in self.datalist.labels.items()},
            "predictions": [str(folder) for folder in predictions],
            "expected": settings.expected,
            "calibration_error": None if np.isnan(found.calibration.error) else found.calibration.error,
            "cases": [self._entry(verdict) for verdict in found.cases],
        }
        write_text(self.folder / "audit.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        shown = [self._shown(verdict) for verdict in found.cases[:MOST_DRAWN]]
        text = [
            f"{len(found.cases)} labels, judged by {', '.join(map(str, predictions))}.",
            _calibrated(found),
            f"The {len(shown)} most suspicious are drawn; cases.csv and regions.csv have all.",
        ]
        write_audit_page(
            self.folder / "report.html", f"Audit of {self.datalist.name}", [t for t in text if t], cases, shown
        )
        return cases

    def _entry(self, verdict: CaseAudit) -> dict[str, Any]:
        case = self.cases[verdict.case]
        proposal = self.folder / PROPOSALS / f"{verdict.case}.nii.gz"
        return {
            "case": verdict.case,
            "patient": case.patient,
            "score": verdict.score,
            "kind": verdict.kind,
            "image": list(case.images),
            "label": case.label,
            "proposal": f"{PROPOSALS}/{proposal.name}" if proposal.exists() else None,
            "regions": [
                {"score": score, **asdict(region), "place_mm": self._place(verdict.case, region.centre)}
                for region, score in verdict.regions
            ],
            "slices": [{"slice": number, "score": score} for number, score in verdict.slices],
            "measures": dict(verdict.measures),
        }

    def _place(self, case: str, centre: Sequence[int]) -> list[float]:
        place = self.reader.volumes[case].affine @ [*centre, 1]
        return [round(float(value), 2) for value in place[:3]]

    def _cases_table(self, found: Ranking) -> Table:
        header = ["case", "patient", "suspicion", "score", "regions", "volume (mL)", "worst slice"]
        lines = [
            [
                verdict.case,
                self.cases[verdict.case].patient or "",
                verdict.kind,
                f"{verdict.score:.2f}",
                str(len(verdict.regions)),
                f"{sum(region.volume_ml for region, _ in verdict.regions):.3g}",
                str(verdict.slices[0][0]) if verdict.slices else "",
            ]
            for verdict in found.cases
        ]
        return Table(header, lines, 3, _NOTES)

    def _regions_table(self, found: Ranking) -> Table:
        header = ["case", "suspicion", "class", "score", "volume (mL)", "x (mm)", "y (mm)", "z (mm)", "i", "j", "k"]
        lines = [
            [
                verdict.case,
                region.kind,
                self.datalist.labels[region.label],
                f"{score:.2f}",
                f"{region.volume_ml:.3g}",
                *(f"{value:.1f}" for value in self._place(verdict.case, region.centre)),
                *map(str, region.centre),
            ]
            for verdict in found.cases
            for region, score in verdict.regions
        ]
        return Table(header, lines, 3)

    def _shown(self, verdict: CaseAudit) -> Shown:
        from aide_monai.io.ahead import open_apart
        from aide_monai.reports.audit_page import Shown

        case = self.cases[verdict.case]
        image = open_apart(case.images[0]).decode()[..., 0]
        labelled = self.reader.read(case)
        proposal = self.folder / PROPOSALS / f"{case.name}.nii.gz"
        other = labelled.label
        if proposal.exists():
            voxels = open_apart(str(proposal)).decode()[..., 0]
            other = np.zeros_like(labelled.label)
            for value, index in self.datalist.stored_classes.items():
                other[voxels == value] = 0 if index == IGNORED else index
        middle = image.shape[labelled.axis] // 2
        return Shown(
            case=case.name,
            patient=case.patient or "",
            kind=verdict.kind,
            score=verdict.score,
            classes=sorted({self.datalist.labels[region.label] for region, _ in verdict.regions}),
            regions=[
                (region.kind, self.datalist.labels[region.label], score, region.volume_ml, region.centre)
                for region, score in verdict.regions
            ],
            image=np.moveaxis(image, labelled.axis, 0),
            label=np.moveaxis(labelled.label, labelled.axis, 0),
            proposal=np.moveaxis(other, labelled.axis, 0),
            start=verdict.slices[0][0] if verdict.slices else middle,
            spacing_mm=tuple(s for axis, s in enumerate(labelled.spacing_mm) if axis != labelled.axis),
        )


def _calibrated(found: Ranking) -> str:
    if np.isnan(found.calibration.error):
        return "Too few labels to check the scores: take them as an order."
    return (
        "Scores were checked on halves of the data: they miss the true share of wrong labels by "
        f"{found.calibration.error:.2f} on average, where mistakes are like those that were made on purpose."
    )
