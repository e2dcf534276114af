"""From the results of a comparison to its tables, figures and page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table as RichTable

from aide_monai.handlers.epoch_log import read_epochs
from aide_monai.reports.html import Section, write_page
from aide_monai.reports.tables import Row
from aide_monai.utils.files import write_text
from aide_monai.workflows.comparison import figures as pictures
from aide_monai.workflows.comparison.config import labelled_number
from aide_monai.workflows.comparison.differences import differences, patient_values, reported
from aide_monai.workflows.comparison.methods import Method
from aide_monai.workflows.comparison.pictures import draw_figures
from aide_monai.workflows.comparison.run import Comparison
from aide_monai.workflows.comparison.tables import (
    Bounds,
    differences_table,
    stars,
    summarize_comparison,
    summary_table,
)

_Row = Mapping[str, Any]
_OF_SINGLE_NETWORKS = "gap closure between single networks"
# of the terminal, which they do not fit
_LEFT_OUT = ("train HQA", "train LQA", "PP", "RAVD (%)", "MSSD (mm)", "NSD (%)", _OF_SINGLE_NETWORKS)


@dataclass(frozen=True)
class Findings:
    """What a comparison says.

    Attributes:
        summary: one row per setting and method, see ``summarize_comparison``.
        tests: of the tested method against the others, see ``differences``.
    """

    summary: list[Row]
    tests: list[Row]

    @classmethod
    def of(cls, result: Comparison) -> Findings:
        """Those of the finished jobs of a comparison."""
        tested = result.experiment.tested
        summary = summarize_comparison(result.rows, closures=_closures(result))
        return cls(summary, differences(result.rows, tested) if tested else [])


def write_report(result: Comparison, findings: Findings | None = None, *, first: Sequence[Section] = ()) -> RichTable:
    """Write ``summary.md``, ``tests.md``, ``figures/`` and ``report.html`` into the folder of a comparison.

    Args:
        result: a comparison with finished jobs; what is not finished yet is said in the report.
        findings: what it says, where that is known already.
        first: what the page begins with.

    Returns:
        The summary without post-processing, for the terminal.
    """
    folder, tested = result.folder, result.experiment.tested
    findings = findings or Findings.of(result)
    summary, tests = findings.summary, findings.tests
    shared: dict[str, Any] = {"tested": tested, "closures": _closures(result)}
    table = summary_table(summary, tests, **shared)
    write_text(folder / "summary.md", table.markdown() + "\n")
    sections = [*first, Section("Summary", _state(result), table)]
    sections.append(Section("Figures", pictures=_figures(result, summary, tests)))
    if tests:
        detail = differences_table(tests, tested=str(tested))
        write_text(folder / "tests.md", detail.markdown() + "\n")
        sections.append(Section(f"{tested} against the others", table=detail))
    sections += _runs(result)
    sections.append(Section("What was run", code=json.dumps(_description(result), indent=2)))
    write_page(folder / "report.html", result.experiment.name, sections)
    plain = [entry for entry in summary if not entry["pp"]]
    shown = replace(summary_table(plain, tests, **shared), notes=["All columns are in summary.md and report.html."])
    return shown.rich(result.experiment.name, without=_LEFT_OUT)


def _closures(result: Comparison) -> dict[str, Bounds]:
    """Which methods are 0 and 1 of a gap closure; with a fair budget, between single networks too, as once."""

    def bounds(kinds: Callable[[Method], bool]) -> Bounds | None:
        methods = [method for method in result.experiment.methods if kinds(method)]
        named = [next((m.name for m in methods if m.engine == engine), None) for engine in ("noisy", "clean")]
        return None if None in named else (str(named[0]), str(named[1]))

    if not result.experiment.budget.fair:
        found = {"gap closure": bounds(lambda method: True)}
    else:
        found = {
            "gap closure": bounds(lambda method: not method.raw),
            _OF_SINGLE_NETWORKS: bounds(lambda method: method.raw),
        }
    return {name: both for name, both in found.items() if both is not None}


def _figures(result: Comparison, summary: Sequence[_Row], tests: Sequence[_Row]) -> list[tuple[Path, str]]:
    folder, tested = result.folder / "figures", result.experiment.tested
    plain = [row for row in reported(result.rows) if not row["pp"]]
    qubiq = all(row["qubiq"] is not None for row in plain)
    key, unit = ("qubiq", "QUBIQ score") if qubiq else ("dsc", "DSC")
    values: dict[str, dict[str, list[_Row]]] = {}
    for row in plain:
        values.setdefault(row["setting"], {}).setdefault(row["method"], []).append(row)
    boxes = {
        setting: {method: list(patient_values(mine, key).values()) for method, mine in methods.items()}
        for setting, methods in values.items()
    }
    p_values = pictures.significance(tests, metric=key)
    marks = {setting: {m: stars(p) for m, p in found.items()} for setting, found in p_values.items()}
    drawn = [
        (folder / "scores.png", f"{unit} of held-out patients (mean over cases and seeds), marks against {tested}")
    ]
    pictures.marked_boxplots(boxes, marks, drawn[0][0], reference=tested or "", unit=unit)
    transfers = _transfers(result, summary)
    if transfers:
        drawn.append((folder / "transfer.png", f"From source to target, without and with {tested}"))
        pictures.transfer_heatmaps(transfers, drawn[-1][0])
    points = _efficiency(result, summary)
    if points:
        drawn.append((folder / "annotation_efficiency.png", "Labelled cases against DSC"))
        pictures.efficiency_curve(points, drawn[-1][0])
    memory, quality = _curves(result)
    if memory:
        drawn.append((folder / "memorisation.png", "Do networks fit the clean labels, or the given ones?"))
        pictures.memorisation_curves(memory, drawn[-1][0])
    if quality:
        drawn.append((folder / "label_quality.png", "Quality of the labels that change while training"))
        pictures.label_quality_curves(quality, drawn[-1][0])
    return drawn


def _transfers(result: Comparison, summary: Sequence[_Row]) -> dict[str, dict[tuple[str, str], float]]:
    """Maps of the methods that have finished a transfer, in domain adaptation."""
    if result.experiment.task != "uda":
        return {}
    pairs = {s.name: (s.values["source"], s.values["target"]) for s in result.experiment.settings}
    maps: dict[str, dict[tuple[str, str], float]] = {}
    for method in result.experiment.methods:
        if method.name == result.experiment.tested or (method.engine in ("labelled", "noisy") and not method.raw):
            for entry in summary:
                if entry["method"] == method.name and not entry["pp"]:
                    maps.setdefault(method.name, {})[pairs[entry["setting"]]] = entry["dsc_mean"]
    return maps


def _efficiency(result: Comparison, summary: Sequence[_Row]) -> dict[str, list[tuple[float, float, float]]]:
    """Points of the curve, when there are several numbers of labelled cases."""
    if result.experiment.task != "ssl":
        return {}
    labelled = {setting.name: labelled_number(setting.values) for setting in result.experiment.settings}
    points: dict[str, list[tuple[float, float, float]]] = {}
    for entry in summary:
        if not entry["pp"]:
            point = (labelled[entry["setting"]], entry["dsc_mean"], entry["dsc_std"])
            points.setdefault(entry["method"], []).append(point)
    return points if len({x for line in points.values() for x, *_ in line}) > 1 else {}


def _curves(result: Comparison) -> tuple[dict[str, Any], dict[str, Any]]:
    """Per setting and method, means over the runs: (fit to clean, fit to given) and label quality, per epoch."""
    memory: dict[str, dict[str, Any]] = {}
    quality: dict[str, dict[str, Any]] = {}
    groups: dict[tuple[str, str], list[list[dict[str, float]]]] = {}
    for job in result.jobs:
        if job.finished:
            log = read_epochs(job.folder / "epochs.csv")
            groups.setdefault((str(dict(job.columns)["setting"]), job.method.name), []).append(log)
    for (setting, method), logs in groups.items():
        if all("fit_clean" in row for log in logs for row in log):
            clean, given = (
                np.mean([[row[k] for row in log] for log in logs], axis=0) for k in ("fit_clean", "fit_given")
            )
            memory.setdefault(setting, {})[method] = (clean.tolist(), given.tolist())
        if all("label_quality_1" in row and "corrected" in row for log in logs for row in log):
            # the second label of a method with one network stays as given
            keys = ("label_quality_1", "label_quality_2") if "disagreement" in logs[0][0] else ("label_quality_1",)
            line = np.mean([[np.mean([row[k] for k in keys]) for row in log] for log in logs], axis=0)
            quality.setdefault(setting, {})[method] = line.tolist()
    return memory, quality


def _runs(result: Comparison) -> list[Section]:
    """Pictures of the first seed (and fold) of each setting."""
    sections = []
    for setting in result.experiment.settings:
        jobs = [job for job in result.jobs if dict(job.columns)["setting"] == setting.name and job.finished]
        jobs = [job for job in jobs if job.run_dir == jobs[0].run_dir]
        if jobs:
            drawn = draw_figures(result.folder / "figures" / setting.folder, jobs, tested=result.experiment.tested)
            captions = [(file, f"{setting.name}: {file.stem.replace('_', ' ')}") for file in drawn]
            sections.append(Section(f"{setting.name}: the run of {jobs[0].run_dir.name}", pictures=captions))
    return sections


def _state(result: Comparison) -> list[str]:
    budget = result.experiment.budget
    lines = [
        f"{len(result.jobs) - result.unfinished} of {len(result.jobs)} jobs are finished; they took "
        f"{result.seconds / 3600:.2f} hours in all.",
        f"One budget for all methods: {budget.epochs} epochs of {budget.steps_per_epoch} optimiser steps, "
        f"{budget.batch_size} slices each; the same data, augmentation, loss and seeds. Scored are "
        f"{result.jobs[0].split} cases that no training or choice of weights has seen.",
    ]
    if not budget.fair:
        lines.append(
            "The methods differ in more than what they are named for: AIDE alone may have averaged weights, a share of "
            "trusted cases or its best epoch, and others one network. A fair budget says networks, average, "
            "trusted_share and kept; see docs/compare.md."
        )
    if result.unfinished:
        lines.append("Some jobs have not run yet: call the same command again to run them.")
    return lines


def _description(result: Comparison) -> dict[str, Any]:
    experiment = result.experiment
    return {
        "task": experiment.task,
        "data": experiment.data,
        "split": asdict(experiment.split),
        "settings": [setting.values for setting in experiment.settings],
        "tested": experiment.tested,
        "methods": {method.name: {"engine": method.engine, **method.options} for method in experiment.methods},
        "seeds": list(experiment.seeds),
        "budget": {k: v for k, v in asdict(experiment.budget).items() if k not in ("seed", "device")},
    }
