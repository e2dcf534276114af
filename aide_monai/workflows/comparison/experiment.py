"""A comparison as a config file: data, task, settings, methods, seeds and the one budget they share."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from aide_monai.data.datalist import Datalist
from aide_monai.data.roles import with_roles
from aide_monai.data.sources import find_datalist
from aide_monai.data.sources.layouts import LAYOUTS
from aide_monai.errors import InputError, Problem
from aide_monai.utils.files import JsonObject
from aide_monai.utils.validation import require_texts
from aide_monai.workflows.comparison.budget import TrainingSettings
from aide_monai.workflows.comparison.config import (
    DATA_KEYS,
    GIVEN_LABELS,
    Setting,
    cases_of,
    noise_options,
    precise,
    read_budget,
    read_data,
    read_seeds,
    read_settings,
    read_split,
    read_task,
    require_keys,
    require_noise,
    require_preprocessing,
)
from aide_monai.workflows.comparison.hold_out import HoldOut
from aide_monai.workflows.comparison.methods import Method, read_methods

if TYPE_CHECKING:
    from aide_monai.workflows.comparison.tasks import Task

_ORIGIN = ("root", "layout", "source", "qubiq_task", "qubiq_subtask")
_KEYS = ("name", "task", "data", "split", "cases", "settings", "methods", "tested", "seeds", "budget")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is compared. See ``docs/compare.md`` for the config file.

    Attributes:
        name: title of the report.
        task: "ssl", "uda" or "nll".
        data: "root" (or "domains": name to root), "layout" and "source" (its options), "classes", "merge", "axis",
            "slice_size", "qubiq_task", and further arguments of ``volume_transforms``, by name.
        split: which cases are held out, where they are not named.
        settings: tasks, in the order of the tables; with the names of their cases, if the config has them.
        methods: methods, likewise.
        tested: name of the method that is tested against the others; None where there is none.
        seeds: of weights, shuffling, augmentation, views, and of the choice of labelled cases or label noise.
        budget: what all methods share, without seed and device.
    """

    name: str
    task: str
    data: JsonObject
    split: HoldOut
    settings: tuple[Setting, ...]
    methods: tuple[Method, ...]
    tested: str | None
    seeds: tuple[int, ...]
    budget: TrainingSettings

    @classmethod
    def load(cls, path: str | Path, *, data_dir: str | Path | None = None) -> Experiment:
        """Read a JSON or YAML config.

        Args:
            path: of the config.
            data_dir: folder that its paths start at; what is not in it is told.

        Raises:
            InputError: the file is missing, no JSON or YAML, an entry is unknown, missing or out of range, or data are
                missing.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file; expected the config of an experiment (JSON or YAML)")
        try:
            content = yaml.safe_load(path.read_text()) if path.suffix != ".json" else json.loads(path.read_text())
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            raise InputError(
                f"{path}: not readable as {path.suffix[1:].upper()} ({error}); correct the file"
            ) from error
        try:
            return cls.of(content, data_dir=data_dir)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    @classmethod
    def of(cls, content: Any, *, data_dir: str | Path | None = None) -> Experiment:
        """From the content of a config; ``data_dir`` as in ``load``.

        Raises:
            InputError: as ``load``.
        """
        require_keys("the config", content, _KEYS, required=("name", "task", "data", "budget"))
        require_texts("the config", content)
        task = read_task(content["task"])
        data = read_data(task, content["data"])
        budget = read_budget(content["budget"])
        seeds = read_seeds(content.get("seeds", [0]))
        settings = read_settings(task, content.get("settings"), data, content.get("cases"), seeds)
        if content.get("split") and any("cases" in setting.values for setting in settings):
            raise InputError('found "split" and "cases"; expected one of them, for both say which cases are held out')
        methods, tested = read_methods(task, content.get("methods"), budget, content.get("tested"))
        split = read_split(content.get("split", {}), data)
        if data_dir is not None:
            _require_data(task, data, Path(data_dir))
        # what needs PyTorch comes last: a mistake in the rest is told before it is loaded
        require_preprocessing(data)
        require_noise(settings)
        return cls(
            name=str(content["name"]),
            task=task,
            data=data,
            split=split,
            settings=settings,
            methods=methods,
            tested=tested,
            seeds=seeds,
            budget=precise(budget, content["budget"]),
        )

    @property
    def folds(self) -> tuple[int | None, ...]:
        """The parts of a cross-validation, or None alone."""
        return (None,) if self.split.folds is None else tuple(range(1, self.split.folds + 1))

    def make_task(self, setting: Setting, *, seed: int, fold: int | None, data_dir: Path, folder: Path) -> Task:
        """The cases of one run with their roles.

        Args:
            setting: one of ``settings``.
            seed: one of ``seeds``.
            fold: one of ``folds``.
            data_dir: folder that the paths of the config start at.
            folder: of the run; ``GIVEN_LABELS`` in it gets the fused labels, and is where ``write_labels`` puts
                corrupted ones.

        Raises:
            InputError: the data cannot be used as the config says.
        """
        from aide_monai.workflows.comparison import tasks

        known = {key: value for key, value in self.data.items() if key in DATA_KEYS}
        further = {key: value for key, value in self.data.items() if key not in DATA_KEYS}
        values, raters = setting.values, None
        if self.task == "uda":
            names = (values["source"], values["target"])
            found = {
                name: self._held_out(data_dir, known["domains"][name], fold, self.split.of_domain(name))
                for name in names
            }
            datalist = tasks.domain_adaptation(found, **values)
        elif "cases" in values:
            datalist = with_roles(self._found(data_dir, known["root"]), cases_of(values, seed))
        elif self.task == "ssl":
            whole = self._held_out(data_dir, known["root"], fold, self.split)
            # without a test set, the split would hold out what it does not hide
            test = 0 if self.split.transductive else None
            counts = {"labeled": values["labeled"], "unlabeled": values.get("unlabeled")}
            datalist = tasks.semi_supervised(whole, **counts, test=test, seed=seed)
            if self.split.transductive:
                datalist = tasks.with_hidden_as_test(datalist)
        elif "rater" in values:
            options = {"task": known.get("qubiq_task"), "subtask": known.get("qubiq_subtask", 1)}
            truth, masks = tasks.qubiq_truth(data_dir / known["root"], folder / GIVEN_LABELS, **options)
            datalist = tasks.rated_by(self.split.apply(truth, fold=fold), masks, rater=values["rater"])
            raters = {case: list(files.values()) for case, files in masks.items()}
        else:
            whole = self._held_out(data_dir, known["root"], fold, self.split)
            datalist = tasks.with_label_noise(whole, folder / GIVEN_LABELS, rate=values["rate"], seed=seed)
        shape = {key: known[key] for key in ("classes", "merge", "axis", "slice_size") if key in known}
        return tasks.Task.of(datalist, raters=raters, **shape, **further)

    def write_labels(self, setting: Setting, task: Task, *, seed: int, folder: Path) -> None:
        """Write the corrupted labels of a run, if its setting has any.

        Args:
            setting: one of ``settings``.
            task: what ``make_task`` made of it.
            seed: as there.
            folder: as there.
        """
        if "rate" in setting.values:
            from aide_monai.workflows.comparison.tasks import write_label_noise

            noise = noise_options(setting.values)
            kinds, magnitude_mm = noise["kinds"], noise["magnitude_mm"]
            axis = self.data.get("axis")
            write_label_noise(
                task.datalist, folder / GIVEN_LABELS, kinds=kinds, magnitude_mm=magnitude_mm, seed=seed, axis=axis
            )

    def origin(self, setting: Setting) -> JsonObject:
        """What decides the labels of a run and is not seen in its list of cases: "setting" and "data", as JSON.

        Paths are those of the config; of an absolute one only the last part counts, so that results and data may move.
        """
        values = noise_options(setting.values) if "rate" in setting.values else dict(setting.values)
        values.pop("cases", None)  # those of a run are in its list; other draws may come and go
        data = {key: self.data[key] for key in _ORIGIN if self.data.get(key)}
        if self.task == "uda":  # domains of other settings may come and go
            data["domains"] = {name: self.data["domains"][name] for name in values.values()}
        return {"setting": {k: v for k, v in values.items() if v is not None}, "data": _without_machine(data)}

    def _held_out(self, data_dir: Path, root: str, fold: int | None, split: HoldOut) -> Datalist:
        return split.apply(self._found(data_dir, root), fold=fold)

    def _found(self, data_dir: Path, root: str) -> Datalist:
        layout, options = self.data.get("layout"), self.data.get("source", {})
        if layout is None:
            return find_datalist(data_dir / root, roots=[data_dir])
        return LAYOUTS[layout].source(data_dir / root, **options)


def _require_data(task: str, data: Mapping[str, Any], folder: Path) -> None:
    """Refuse a folder without the data of the config, naming all that is missing."""
    roots = data["domains"].values() if task == "uda" else [data["root"]]
    missing = [
        Problem("no such folder or datalist", place=place)
        for place in (folder / root for root in roots)
        if not place.exists()
    ]
    if missing:
        raise InputError(f"{folder}: the data of the config are not there, see --data", problems=missing)


def _without_machine(content: Any) -> Any:
    """A part of a config, with the last part alone of absolute paths."""
    if isinstance(content, dict):
        return {key: _without_machine(value) for key, value in content.items()}
    return Path(content).name if isinstance(content, str) and os.path.isabs(content) else content
