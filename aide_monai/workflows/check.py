"""Look at a data set like a strict colleague: all problems in one report, and pictures that show the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aide_monai.data.case import Case
from aide_monai.data.checks.datalist import check_datalist
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources import find_datalist
from aide_monai.errors import Problem
from aide_monai.ignored import IGNORED
from aide_monai.io.grid import through_plane_axis
from aide_monai.io.volumes import Volume
from aide_monai.reports import figures
from aide_monai.reports.table import Table
from aide_monai.reports.text import markdown_text
from aide_monai.utils.files import require_place, write_text

# Iglewicz and Hoaglin's rule: this many robust standard deviations from the median
OUTLIER = 3.5
CASES_PER_SHEET = 24
SPREAD = 192
"""Cases that are drawn; of a larger data set so many at even distances."""
NAMED = 96
"""Cases with warnings that are drawn beside them."""
UNLABELLED = "voxels without a verdict (%)"


@dataclass(frozen=True)
class CheckReport:
    """What was found.

    Attributes:
        problems: all errors, then all warnings, outlier cases among them.
        figures: contact sheets and histograms.
    """

    problems: list[Problem]
    figures: list[Path]

    @property
    def errors(self) -> int:
        """Number of errors; a data set without any can be trained on."""
        return sum(problem.severity == "error" for problem in self.problems)


def check_data(
    datalist: Datalist | str | Path,
    out: str | Path,
    *,
    roots: Iterable[str | Path] = (),
    layout: str | None = None,
    progress: bool = False,
) -> CheckReport:
    """Check every file of a data set and draw what only eyes can judge.

    Args:
        datalist: the cases; or a JSON file, see ``Datalist``, or the folder of a data set, see ``find_datalist``.
        out: folder for ``report.md``, ``contact_sheet_*.png`` (of each case the slice with the largest label and a cut
            across all slices, which shows a reversed stack; of more than 192 cases, so many at even distances and the
            first 96 others with warnings) and ``histograms.png``; files of these names are replaced.
        roots, layout: of a file or folder, see ``find_datalist``.
        progress: show progress bars.

    Raises:
        InputError: if the data set or the datalist itself cannot be read, or ``out`` can be no folder.

    Examples:
        >>> from aide_monai import check_data, find_datalist, write_phantoms
        >>> find_datalist(write_phantoms("phantoms", cases=2, shape=(32, 32, 4))).save("phantoms/datalist.json")
        >>> check_data("phantoms/datalist.json", "report").errors
        0
    """
    left_out: list[Problem] = []
    if isinstance(datalist, Datalist):
        data = datalist
    else:
        data = find_datalist(datalist, roots=roots, layout=layout, left_out=left_out)
        if left_out and not data.cases:
            find_datalist(datalist, roots=roots, layout=layout)  # raises: there is nothing to look at
    out = Path(out)
    require_place(out, folder=True)
    panels: dict[str, list[figures.Overlay]] = {}
    values: dict[str, dict[str, float]] = {}
    measured: set[str] = set()
    spread = {case.name for case in _spread(data.cases)}

    def draw(case: Case, image: Volume, voxels: npt.NDArray[Any], label: npt.NDArray[Any] | None) -> None:
        panels[case.name] = list(_panels(case.name, image, voxels, label))

    def look(case: Case, image: Volume, voxels: npt.NDArray[Any], label: npt.NDArray[Any] | None) -> None:
        if case.name in spread:
            draw(case, image, voxels, label)
        known = {value: name for value, name in data.labels.items() if name in (case.annotated or data.labels.values())}
        measures = _label_measures(image, label, known)
        if (path := case.images[0]) not in measured:  # raters share an image
            measures |= _image_measures(image, voxels)
            measured.add(path)
        for name, value in measures.items():  # rounded: an oblique affine gives 0.7 mm with another last digit each
            values.setdefault(name, {})[case.name] = float(f"{value:.6g}")

    problems = [
        replace(
            found,
            place=f"{datalist}: {found.place}".removesuffix(": "),
            expected=found.expected or "a well-formed case",
            advice=found.advice or "correct the datalist",
        )
        for found in left_out
    ]
    problems += check_datalist(data, progress=progress, visit=look)
    broken = {found.case for found in problems if found.severity == "error"}
    values = {name: {c: v for c, v in column.items() if c not in broken} for name, column in values.items()}
    values = {name: column for name, column in values.items() if column}
    outliers = {name: outlier_cases(column) for name, column in values.items()}
    problems += list(_outlier_problems(values, outliers))
    suspect = {found.case for found in problems} - broken - spread
    if named := [case for case in data.cases if case.name in suspect][:NAMED]:
        check_datalist(replace(data, cases=named), visit=draw)  # once more, for pictures alone
    shown = [case.name for case in data.cases if case.name in panels and case.name not in broken]
    write_text(out / "report.md", _markdown(data, problems, values.get(UNLABELLED, {}), len(shown)))
    title = "Every case" if len(shown) == len(data.cases) else f"{len(shown)} of {len(data.cases)} cases"
    drawn = _draw(out, title, [panels[case] for case in shown], values, outliers)
    return CheckReport(problems, drawn)


def outlier_cases(values: Mapping[str, float]) -> list[str]:
    """Cases whose value lies far from the median, in units of the median absolute deviation.

    With fewer than five cases, or when more than half of them are equal, there is no spread to judge by: none.
    """
    column = np.array(list(values.values()))
    if len(column) < 5:
        return []
    deviation = np.abs(column - np.median(column))
    spread = 1.4826 * float(np.median(deviation))
    if spread == 0:
        return []
    return [case for case, distance in zip(values, deviation, strict=True) if distance > OUTLIER * spread]


def _spread(cases: Sequence[Case]) -> list[Case]:
    """At most ``SPREAD`` of the cases, at even distances."""
    number = min(SPREAD, len(cases))
    return [cases[place * len(cases) // number] for place in range(number)]


def _panels(
    case: str, image: Volume, voxels: npt.NDArray[Any], labels: npt.NDArray[Any] | None
) -> Iterator[figures.Overlay]:
    labels = None if labels is None else np.where(labels == IGNORED, 0, labels)
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    axis = through_plane_axis(image.affine)
    if 1 in voxels.shape:
        axis = voxels.shape.index(1)
    cuts = [("slice", axis), ("cut across", next(i for i in (1, 0, 2) if i != axis))]
    for name, along in cuts if voxels.shape[axis] > 1 else cuts[:1]:
        middle = voxels.shape[along] // 2
        if labels is not None and labels.any():
            others = tuple(i for i in range(3) if i != along)
            middle = int(np.count_nonzero(labels, axis=others).argmax())
        width, height = (spacing[i] for i in range(3) if i != along)
        yield figures.Overlay(
            image=voxels.take(middle, along).T,
            reference=None,
            mask=None if labels is None else labels.take(middle, along).T,
            title=f"{case}\n{name} {middle}",
            aspect=float(height / width),
        )


def _image_measures(image: Volume, voxels: npt.NDArray[Any]) -> dict[str, float]:
    low, median, high = np.percentile(voxels, (1, 50, 99))
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    measures = {"intensity, 1 %": low, "intensity, median": median, "intensity, 99 %": high}
    measures |= {f"spacing {axis} (mm)": step for axis, step in zip("xyz", spacing, strict=True)}
    return {name: float(value) for name, value in measures.items()}


def _label_measures(image: Volume, label: npt.NDArray[Any] | None, names: Mapping[int, str]) -> dict[str, float]:
    if label is None:
        return {}
    millilitres = abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000
    found = {f"{name} (ml)": np.count_nonzero(label == value) * millilitres for value, name in names.items() if value}
    silent = int(np.count_nonzero(label == IGNORED))
    return found | ({UNLABELLED: 100 * silent / label.size} if silent else {})


def _outlier_problems(
    values: Mapping[str, Mapping[str, float]], outliers: Mapping[str, Sequence[str]]
) -> Iterator[Problem]:
    for name, cases in outliers.items():
        column = np.array(list(values[name].values()))
        low, high = np.percentile(column, (25, 75))
        for case in cases:
            found = f"{name}: {values[name][case]:.4g}, far from the others"
            expected = f"about {low:.4g} to {high:.4g}, as half of the cases have"
            yield Problem(found, expected, "look at this case in the contact sheet", "", case, "warning")


def _draw(
    out: Path,
    title: str,
    panels: Sequence[Sequence[figures.Overlay]],
    values: Mapping[str, Mapping[str, float]],
    outliers: Mapping[str, Sequence[str]],
) -> list[Path]:
    for old in out.glob("contact_sheet_*.png"):
        old.unlink()
    drawn = []
    for first in range(0, len(panels), CASES_PER_SHEET):
        drawn.append(out / f"contact_sheet_{1 + first // CASES_PER_SHEET:02d}.png")
        flat = [panel for case in panels[first : first + CASES_PER_SHEET] for panel in case]
        figures.contact_sheet(flat, drawn[-1], title=f"{title}: the largest label, and a cut across the slices")
    varied = {name: column for name, column in values.items() if len(set(column.values())) > 1}
    (out / "histograms.png").unlink(missing_ok=True)
    if varied:
        drawn.append(out / "histograms.png")
        figures.histograms(varied, outliers, drawn[-1])
    return drawn


def _markdown(data: Datalist, problems: Sequence[Problem], silent: Mapping[str, float], shown: int) -> str:
    errors = sum(problem.severity == "error" for problem in problems)
    lines = [
        f"# {markdown_text(data.name)}",
        "",
        f"{len(data.cases)} cases, {errors} errors, {len(problems) - errors} warnings.",
        "",
    ]
    if silent:
        shares = f"{min(silent.values()):.1f} % to {max(silent.values()):.1f} %"
        lines += [f"{len(silent)} labels have voxels without a verdict, {shares} of a label.", ""]
    if len(data.cases) > SPREAD:
        lines += [f"{shown} of them are drawn: some at even distances, and others with warnings.", ""]
    if problems:
        header = ["", "case", "place", "found", "expected", "what to do"]
        cells = [[p.severity, p.case, str(p.place), p.found, p.expected, p.advice] for p in problems]
        lines.append(Table(header, cells, len(header)).markdown())
    return "\n".join(lines) + "\n"
