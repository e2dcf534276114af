"""From a folder of volumes to a model and its proof: check, plan, train plainly and with AIDE, score, report."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aide_monai.data.datalist import Datalist
from aide_monai.data.roles import with_roles
from aide_monai.data.sources import find_datalist
from aide_monai.errors import InputError
from aide_monai.ignored import IGNORED
from aide_monai.options import PROFILES
from aide_monai.reports.table import Table
from aide_monai.utils.files import JsonObject, read_object, require_place, write_text
from aide_monai.utils.validation import require_choices, require_device_name
from aide_monai.workflows.comparison.budget import TrainingSettings
from aide_monai.workflows.comparison.methods import CONTROL
from aide_monai.workflows.plan import Plan, plan_roles

if TYPE_CHECKING:
    from aide_monai.reports.tables import Row
    from aide_monai.workflows.comparison.job import Job
    from aide_monai.workflows.comparison.report import Findings

LABELLED, AIDE, CLEAN = "labelled only", "AIDE", "clean labels"
CONFIG = "experiment.json"
_LOOKED_AT = 10  # trusted labels
_ANGLE = 15.0  # degrees
_OURS = {"data", "check"}  # what may lie in a run folder before its config does
OnProgress = Callable[[str, float, float], None]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What may be asked of a run; the rest is found out.

    Attributes:
        layout: key of ``LAYOUTS`` of one folder, for a folder that does not show what it is; None recognises it.
        doubtful: pattern of names whose labels may be wrong, see ``plan_roles``.
        labeled: trusted cases that keep their label, to try how few are enough; None: all.
        unlabeled: cases without a label that are used; None: all.
        test: patients that judge; None: see ``plan_roles``.
        merge: all structures become one class.
        profile: AIDE's options, see ``AIDEOptions``.
        epochs: of every network.
        steps_per_epoch: optimiser steps of every network.
        batch_size: slices in a step.
        learning_rate: at the beginning.
        seed: of everything random.
        device: where networks run; "auto" is the first GPU, or the processor where there is none.
    """

    layout: str | None = None
    doubtful: str | None = None
    labeled: int | None = None
    unlabeled: int | None = None
    test: int | None = None
    merge: bool = False
    profile: str = "improved"
    epochs: int = 40
    steps_per_epoch: int = 40
    batch_size: int = 8
    learning_rate: float = 2e-3
    seed: int = 0
    device: str = "auto"

    def budget(self, *, trusted_share: float) -> JsonObject:
        """What all methods share, as the config of an experiment has it: two averaged networks and the last epoch."""
        return {
            "epochs": self.epochs,
            "steps_per_epoch": self.steps_per_epoch,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "networks": 2,
            "augmentation_angle": _ANGLE,
            "average": 0.98,
            "trusted_share": trusted_share,
            "kept": "last",
        }


@dataclass(frozen=True)
class RunResult:
    """Where the results are, and what they say.

    Attributes:
        folder: the run folder; ``report.html`` is in it.
        bundle: with the model of AIDE, for ``aide predict``.
        plan: who was learned from, corrected and held out.
        rows: per-case scores of every method.
        summary: one row per method, see ``summarize_comparison``.
        verdicts: what AIDE is worth against each other method, in a sentence each.
        table: the summary for a terminal.
        seconds: that training and scoring took.
    """

    folder: Path
    bundle: Path
    plan: Plan
    rows: list[Row]
    summary: list[Row]
    verdicts: list[str]
    table: Any
    seconds: float


def run_folder(
    data: str | Path, folder: str | Path, settings: RunSettings | None = None, *, on_progress: OnProgress | None = None
) -> RunResult:
    """Check a data set, plan its use, train the baselines and AIDE under one budget, and show what AIDE is worth.

    Args:
        data: a datalist, or a folder, see ``find_datalist``.
        folder: of the run; one with an earlier call of the same settings is continued. It gets ``report.html``,
            ``check/``, ``plan.md``, the config (``aide compare`` runs it again), tables, figures, all models, and
            ``bundle/`` with that of AIDE.
        settings: what is asked, see ``RunSettings``.
        on_progress: called as ``(stage, done, total)`` in units of plain optimiser steps.

    Raises:
        InputError: one report of all problems of the data; nothing to correct, to learn from or to judge by; the
            folder holds another run; or there is no such device.

    Examples:
        >>> from aide_monai.workflows import run_folder
        >>> run_folder("DATA", "RUN").verdicts  # a few minutes on two cores  # doctest: +SKIP
    """
    data, folder, settings = Path(data).absolute(), Path(folder).absolute(), settings or RunSettings()
    TrainingSettings(**settings.budget(trusted_share=0.0), seed=settings.seed)  # a number out of range is told first
    require_choices({"profile": settings.profile}, {"profile": tuple(PROFILES)})
    require_device_name(settings.device)
    require_place(folder, folder=True)
    _require_own(folder)
    found = find_datalist(data, layout=settings.layout)
    plan = plan_roles(
        found,
        doubtful=settings.doubtful,
        labeled=settings.labeled,
        unlabeled=settings.unlabeled,
        test=settings.test,
        seed=settings.seed,
    )
    _require_same(folder / CONFIG, _asked(plan, settings))
    # what needs PyTorch comes last: a mistake in the rest is told before it is loaded
    from aide_monai.workflows.check import check_data
    from aide_monai.workflows.comparison.experiment import Experiment
    from aide_monai.workflows.comparison.report import Findings, write_report
    from aide_monai.workflows.comparison.run import run_comparison

    tell = on_progress or (lambda stage, done, total: None)
    tell("checking every file", 0, 1)
    checked = check_data(found, folder / "check")
    if checked.errors:
        shutil.rmtree(folder / "check")
        if not any(folder.iterdir()):
            folder.rmdir()  # where nothing can be done, nothing is left behind
        wrong = [problem for problem in checked.problems if problem.severity == "error"]
        raise InputError(f"{data}: the data cannot be used; aide check shows pictures of the rest", problems=wrong)
    used = _merged(with_roles(found, plan.roles)) if settings.merge else with_roles(found, plan.roles)
    config = _config(data, used, plan, settings)
    _require_same(folder / CONFIG, config)
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    write_text(folder / "plan.md", plan.table().markdown() + "\n")
    used.save(folder / "datalist.json")
    experiment = Experiment.of(config)
    result = run_comparison(
        experiment,
        folder,
        data_dir=data if data.is_dir() else data.parent,
        workers=1,
        device=settings.device,
        on_progress=on_progress,
    )
    findings = Findings.of(result)
    verdicts = _verdicts(findings)
    (aide,) = (job for job in result.jobs if job.method.name == AIDE)
    bundle = _write_bundle(folder / "bundle", aide, used)
    kept = config["methods"][AIDE].get("largest_component")
    table = write_report(result, findings, first=_sections(plan, kept, checked, verdicts))
    return RunResult(folder, bundle, plan, result.rows, findings.summary, verdicts, table, result.seconds)


def _merged(datalist: Datalist) -> Datalist:
    """All structures as one class, called by all of their names."""
    names = [name for index, name in sorted(datalist.labels.items()) if index]
    classes = {stored: min(index, 1) for stored, index in datalist.stored_classes.items() if index != IGNORED}
    return replace(datalist, labels={0: "background", 1: " + ".join(names)}, classes=classes)


def _asked(plan: Plan, settings: RunSettings) -> JsonObject:
    """What of the config is known without a look at the files."""
    roles = {role: list(names) for role, names in plan.roles.items()}
    budget = settings.budget(trusted_share=0.5 if roles["labeled"] else 0.0)
    return {"cases": roles, "seeds": [settings.seed], "budget": budget}


def _config(data: Path, used: Datalist, plan: Plan, settings: RunSettings) -> JsonObject:
    """The run as a comparison, which ``aide compare`` can repeat and vary."""
    from aide_monai.stream.preprocessing import slice_geometry

    axis, size = slice_geometry(used.records, multiple=32)  # as ``new_bundle`` has it
    options: JsonObject = {}
    if settings.profile == "improved":
        # views that turn further than the augmentation of the training show networks what they have never seen
        options = {"largest_component": _pieces(used), "max_angle": _ANGLE}
        if not plan.roles["doubtful"]:
            # one network has labelled all cases: labels of one kind, and soon worse than what two networks predict
            options |= {"update_ratio": 1.0, "correction_start": math.ceil(settings.epochs / 4), "update_interval": 1}
    methods: JsonObject = {LABELLED: {}} if plan.roles["labeled"] else {}
    methods |= {CONTROL: {}, AIDE: {"profile": settings.profile, **options}}
    if all(case.trusted or case.clean_label for case in used.of_split("training")):
        methods |= {CLEAN: {}}  # labels were hidden here: how good it could get is known
    place = {"root": "." if data.is_dir() else data.name, "axis": axis, "slice_size": list(size)}
    place |= {"merge": True} if settings.merge else {}
    return {
        "name": used.name,
        "task": "ssl",
        "data": place | ({} if settings.layout is None else {"layout": settings.layout}),
        "settings": [{"name": "all cases"}],
        "methods": methods,
        "tested": AIDE,
        **_asked(plan, settings),
    }


def _pieces(used: Datalist) -> str:
    """What the trusted labels say of the structures, as ``largest_component`` has it: whether all of them together are
    of one piece ("foreground"), each is for itself ("class"), or neither is ("none"). Specks of 1 % do not count."""
    import torch

    from aide_monai.io.ahead import read_apart
    from aide_monai.transforms.largest_components import keep_components

    left = ["foreground", "class"]
    for case in [case for case in used.of_split("training") if case.trusted][:_LOOKED_AT]:
        voxels = read_apart([str(case.label)]).voxels
        labels = torch.zeros(voxels.shape[:3], dtype=torch.uint8)
        for stored, index in used.stored_classes.items():
            labels[torch.from_numpy(np.isclose(voxels.reshape(labels.shape), stored))] = index
        labels[labels == IGNORED] = 0
        least = 0.99 * int((labels > 0).sum())
        left = [kept for kept in left if int((keep_components(labels, kept) > 0).sum()) >= least]
    return left[0] if left and any(case.trusted for case in used.of_split("training")) else "none"


def _require_own(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier run, or data within it."""
    strange = {path.name for path in folder.iterdir()} - _OURS if folder.is_dir() else set()
    if strange and not (folder / CONFIG).exists():
        raise InputError(
            f"{folder}: holds files of something else ({', '.join(sorted(strange)[:3])}); choose a new folder "
            "(--run-dir)"
        )


def _require_same(file: Path, config: JsonObject) -> None:
    if not file.exists():
        return
    earlier = read_object(file, advice="restore it, or choose another run folder")
    changed = [key for key in config if json.loads(json.dumps(config[key])) != earlier.get(key)]
    if changed:
        raise InputError(
            f"{file.parent}: holds a run with another {' and '.join(changed)}; choose a new folder (--run-dir), or "
            "give the settings of that run to continue it"
        )


def _verdicts(findings: Findings) -> list[str]:
    """What AIDE is worth against each other method, in mean DSC without post-processing."""
    dsc = {entry["method"]: entry["dsc_mean"] for entry in findings.summary if not entry["pp"]}
    tests = {test["method"]: test for test in findings.tests if test["metric"] == "dsc" and not test["pp"]}
    sentences = []
    for method in dsc:
        if method != AIDE:
            gain = f"AIDE has a DSC of {dsc[AIDE]:.1f} %, {method} {dsc[method]:.1f} %: "
            gain += f"{dsc[AIDE] - dsc[method]:+.1f} points"
            if test := tests.get(method):
                gain += f" (95 % interval {100 * test['low']:+.1f} to {100 * test['high']:+.1f}, "
                gain += f"{test['patients']} patients, one seed)."
            else:
                gain += " (one patient: no interval)."
            sentences.append(gain)
    return sentences


def _write_bundle(folder: Path, job: Job, used: Datalist) -> Path:
    """A bundle with the trained networks of AIDE, unless it is there."""
    from aide_monai.handlers.settings import save_settings
    from aide_monai.stream.trained_on import TrainedOn
    from aide_monai.workflows.bundle import model_settings
    from aide_monai.workflows.new_bundle import new_bundle

    if folder.exists():
        shutil.rmtree(folder)
    new_bundle(folder, folder.parent / "datalist.json", roots=used.folders)
    weights = folder / "models" / "model.pt"
    shutil.copyfile(job.folder / "models" / "model.pt", weights)
    seen = TrainedOn.of(job.task.training_volumes(job.training_cases()), modality=used.modality)
    save_settings(weights, model_settings(folder) | seen.as_settings())
    return folder


_PIECES = {
    "foreground": "all structures together are of one piece, so AIDE's corrections keep the largest component",
    "class": "each structure is of one piece, so AIDE's corrections keep the largest component of each",
    "none": "structures come in several pieces, so AIDE's corrections keep them all",
}


def _sections(plan: Plan, kept: str | None, checked: Any, verdicts: Sequence[str]) -> list[Any]:
    from aide_monai.reports.html import Section

    warnings = [[problem.case, problem.found, problem.expected] for problem in checked.problems]
    judged = "were drawn for this run" if plan.drawn else "are those that the data set holds out"
    plan_text = [
        f"The cases that judge {judged}. No method has seen them, and all keep their last epoch.",
    ]
    if kept is not None:
        plan_text.append(f"In the trusted labels {_PIECES[kept]}. The rows with PP keep it in every method's masks.")
    sections = [Section("What AIDE is worth here", verdicts), Section("Plan", plan_text, plan.table())]
    if warnings:
        sections.append(Section("Warnings of the check", table=Table(["case", "found", "expected"], warnings, 3)))
    return sections
