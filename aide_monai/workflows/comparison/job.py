"""One job of a comparison: train one method on one task, score the held-out cases, and never do it twice."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import aide_monai
from aide_monai.data.case import Case
from aide_monai.data.datalist import Datalist
from aide_monai.engines import RIVALS
from aide_monai.errors import InputError
from aide_monai.handlers import load_weights
from aide_monai.io.ahead import read_apart
from aide_monai.metrics import qubiq_score
from aide_monai.networks import MeanNetwork
from aide_monai.options import AIDEOptions
from aide_monai.reports.tables import Row
from aide_monai.stream.volume_cache import VolumeCache
from aide_monai.utils.files import JsonObject, read_object, write_atomically
from aide_monai.utils.locks import LOCK, locked
from aide_monai.workflows.comparison.budget import TrainingSettings
from aide_monai.workflows.comparison.config import GIVEN_LABELS
from aide_monai.workflows.comparison.methods import STEP_COST, TWO_NETWORKS, Method
from aide_monai.workflows.comparison.networks import build_network
from aide_monai.workflows.comparison.results import read_results, write_results
from aide_monai.workflows.comparison.tasks import Task
from aide_monai.workflows.comparison.training import (
    clean_labels,
    train_aide,
    train_co_teaching,
    train_pseudo_label,
    train_rival,
    train_supervised,
)
from aide_monai.workflows.evaluate import evaluate, network_variants, probabilities
from aide_monai.workflows.pseudo_labels import write_pseudo_labels


@dataclass(frozen=True, kw_only=True)
class Job:
    """One method on one task.

    Attributes:
        method: what is trained.
        task: cases with their roles.
        run_dir: folder of the task; the job's own folder is the method's name in it.
        budget: training settings, with seed and device.
        split: "test" or "validation": which cases are scored.
        columns: what the result table says besides ("setting", "seed", ...).
        origin: what else decides the labels and cases, see ``Experiment.origin``; empty where no config says it.
    """

    method: Method
    task: Task
    run_dir: Path
    budget: TrainingSettings
    split: str = "test"
    columns: tuple[tuple[str, Any], ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the job's files are."""
        return self.run_dir / self.method.folder

    @property
    def settings(self) -> TrainingSettings:
        """The budget as the method takes it."""
        return replace(self.budget, networks=1, average=None) if self.method.raw else self.budget

    @property
    def two_networks(self) -> bool:
        """Whether its model is the mean of two networks, which an interrupted run goes on with."""
        return self.method.engine in TWO_NETWORKS or self.settings.networks == 2

    @property
    def step_cost(self) -> float:
        """What an optimiser step costs, in steps of one network."""
        of_one = self.method.engine not in TWO_NETWORKS
        return STEP_COST[self.method.engine] * (self.settings.networks if of_one else 1)

    @property
    def specification(self) -> JsonObject:
        """All that decides the training, as JSON; which cases are scored afterwards does not."""
        budget = {key: value for key, value in asdict(self.budget).items() if key != "device"}
        task = {
            "cases": [[case.name, case.split, case.quality or ""] for case in self.task.datalist.cases],
            "classes": sorted(self.task.classes.items()),
            "axis": self.task.axis,
            "slice_size": self.task.slice_size,
            "preprocessing": dict(self.task.preprocessing),
        }
        method = {"engine": self.method.engine, **self.method.options}
        content = {"method": method, "budget": budget, "task": task, "run": dict(self.columns), **self.origin}
        normal: JsonObject = json.loads(json.dumps(content))
        return normal

    @property
    def finished(self) -> bool:
        """Whether this very job has been trained and scored.

        Raises:
            InputError: the folder holds another job's results.
        """
        return self._trained and self._scores.is_file()

    @property
    def _trained(self) -> bool:
        return bool(self._state().get("finished"))

    @property
    def _scores(self) -> Path:
        return self.folder / ("per_case.csv" if self.split == "test" else f"per_case_{self.split}.csv")

    def require_own_folder(self) -> None:
        """Refuse a folder that holds another job's results.

        Raises:
            InputError: saying what differs.
        """
        self._state()

    def _state(self) -> JsonObject:
        file = self.folder / "job.json"
        if not file.exists():
            return {}
        advice = f"restore it, or remove {self.folder} to run this job again"
        state = read_object(file, advice=advice)
        specification = state.get("specification")
        if not isinstance(specification, dict) or not isinstance(state.get("seconds"), (int, float)):
            raise InputError(f"{file}: found no specification and seconds, as a job writes them; {advice}")
        changed = self._changed(specification)
        if changed:
            raise InputError(
                f"{self.folder}: holds a run with another {' and '.join(changed)}; choose a new folder for the "
                "results, or remove this one"
            )
        return state

    def _changed(self, stored: JsonObject) -> list[str]:
        """Parts of the specification that differ, of those that the run has.

        Options that are newer than the run were then at the paper's, which was the default.
        """
        uniform = {"trusted_share": 0.0}
        options = {
            "aide": asdict(AIDEOptions.from_profile("paper")),
            "clean": {"raw": False},
            "noisy": {"raw": False} | uniform,
            "pseudo_label": uniform | {"largest_component": "none"},
            "co_teaching": uniform,
        }
        budget = asdict(TrainingSettings(epochs=1, steps_per_epoch=1))
        defaults = {"method": options.get(self.method.engine, {}), "budget": budget}
        defaults["budget"].pop("device")
        earlier = json.loads(json.dumps(defaults))
        now = self.specification
        changed = [k for k in now if k in stored and now[k] != (earlier[k] | stored[k] if k in earlier else stored[k])]
        # scores of validation cases once had the name of those of test cases
        return changed + ["split"][: stored.get("split") == "validation"]

    def rows(self) -> list[Row]:
        """Per-case scores of a finished job."""
        return read_results(self._scores)

    def seconds(self) -> float:
        """How long a finished job took; of a run that was killed, the epochs that it had finished."""
        return float(self._state()["seconds"])

    def epochs_done(self) -> int:
        """Epochs that the log of the job has."""
        log = self.folder / "epochs.csv"
        return max(0, len(log.read_text().splitlines()) - 1) if log.exists() else 0

    def run(self, *, on_step: Callable[[], None] | None = None) -> None:
        """Train and score, unless that is done; an interrupted run of two networks continues.

        The job's folder gets ``epochs.csv``, ``models/model.pt``, ``labels/`` where labels change, ``per_case.csv``
        (of validation cases ``per_case_validation.csv``), and ``job.json``, written last. What is trained is scored on
        the cases of the other split without another training.

        Args:
            on_step: called after every optimiser step.

        Raises:
            InputError: as ``finished``; another run is at work in the job's folder; or the data cannot be used.
        """
        if not self.finished:
            with locked(self.folder):
                self._run(on_step)

    def _run(self, on_step: Callable[[], None] | None) -> None:
        if self.finished:  # by the run that has just let go of the folder
            return
        if self._trained:
            write_results(self._scores, self._score(self.load_network()))
            return
        state = self._state()
        start = time.monotonic() - state.get("seconds", 0.0)
        resume = bool(state) and self.two_networks
        if not resume:
            self._clear()
        self._save(finished=False, seconds=state.get("seconds", 0.0))
        volumes = self._training_volumes()
        network = self._train(volumes, resume, self._timed(start, on_step))
        del volumes
        write_results(self._scores, self._score(network))
        if self.method.engine == "labelled":
            self._standardize(network)
        self._save(finished=True, seconds=time.monotonic() - start)

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()

    def _timed(self, start: float, on_step: Callable[[], None] | None) -> Callable[[], None]:
        """``on_step``, which also saves after the steps of each epoch how long the job has taken so far."""
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1
            if on_step is not None:
                on_step()
            if steps % self.budget.steps_per_epoch == 0:
                self._save(finished=False, seconds=time.monotonic() - start)

        return step

    def load_network(self) -> nn.Module:
        """The trained model of a finished job."""
        channels = len(self.task.datalist.modality)
        networks = [
            build_network(self.budget, in_channels=channels, num_classes=len(self.task.labels), seed=0) for _ in (1, 2)
        ]
        model = MeanNetwork(*networks) if self.two_networks else networks[0]
        return load_weights(model, self.folder / "models" / "model.pt")

    def training_cases(self) -> list[Case]:
        """The cases that the method trains on, with the labels that it is given."""
        engine = self.method.engine
        if engine == "labelled":
            return [case for case in self.task.datalist.of_split("training") if case.trusted]
        if engine == "clean":
            cases = self.task.datalist.of_split("training")
            known = [replace(case, label=case.clean_label or case.label, quality="high") for case in cases]
            target = any(case.domain for case in cases)  # of two domains, the target alone
            hidden = [case for case in known if case.clean_label is not None]
            return hidden if target else [case for case in known if case.label is not None]
        return self._standardized().of_split("training")

    def _standardized(self) -> Datalist:
        if all(case.label is not None for case in self.task.datalist.of_split("training")):
            return self.task.datalist
        folder = self.run_dir / GIVEN_LABELS
        if not (folder / "datalist.json").is_file():
            raise InputError(
                f'method "{self.method.name}": {folder} is missing, the labels that the network of the trusted cases '
                f"gave to the others; remove that method's folder from {self.run_dir} as well, and both are made again"
            )
        return Datalist.load(folder / "datalist.json", roots=[folder, *self.task.datalist.folders])

    def _training_volumes(self) -> VolumeCache:
        cases = self.training_cases()
        if not cases:
            raise InputError(f'method "{self.method.name}": no training case has the label that it needs; leave it out')
        return self.task.training_volumes(cases, clean=self.method.engine != "clean")

    def _train(self, volumes: VolumeCache, resume: bool, on_step: Callable[[], None]) -> nn.Module:
        method, budget = self.method, self.settings
        options = {key: value for key, value in method.options.items() if key != "raw"}
        shared: dict[str, Any] = {
            "num_classes": len(self.task.labels),
            "axis": self.task.axis,
            "run_dir": self.folder,
            "on_step": on_step,
        }
        studied = shared | {"clean": clean_labels(volumes)}
        if method.engine == "aide":
            return train_aide(volumes, budget, options=AIDEOptions(**options), resume=resume, **studied)[0]
        if method.engine == "co_teaching":
            return train_co_teaching(volumes, budget, resume=resume, **options, **studied)[0]
        if method.engine in RIVALS:
            return train_rival(volumes, budget, engine=method.engine, resume=resume, **options, **studied)[0]
        if method.engine == "pseudo_label":
            return train_pseudo_label(volumes, budget, resume=resume, **options, **studied)[0]
        if method.engine == "noisy":
            return train_supervised(volumes, budget, resume=resume, **options, **studied)[0]
        if method.engine == "labelled":
            # A model that shares its start with the one that learns from its labels would favour them.
            budget = replace(budget, seed=budget.seed + 100)
        return train_supervised(volumes, budget, resume=resume, **shared)[0]

    def _score(self, network: nn.Module) -> list[Row]:
        volumes = self.task.test_volumes(self.split)
        if not volumes:
            raise InputError(f"no {self.split} case is held out; set split.{self.split} in the config")
        shared: dict[str, Any] = {
            "method": self.method.name,
            "axis": self.task.axis,
            "slice_size": self.task.slice_size,
            "device": self.budget.device,
        }
        scores = self._qubiq_scores(network, volumes) if self.task.raters else {}
        found = evaluate(network, volumes, labels=self.task.labels, keep_largest=True, **shared)
        trained_on = [case.trusted for case in self.training_cases()]
        columns = {**dict(self.columns), "train_hqa": sum(trained_on), "train_lqa": len(trained_on) - sum(trained_on)}
        patients = {case.name: case.patient or case.name for case in self.task.datalist.cases}
        return [
            {
                **columns,
                "patient": patients[row["case"]],
                "qubiq": None if row["pp"] else scores.get((row["network"], row["case"])),
                **row,
            }
            for row in found
        ]

    def _qubiq_scores(self, network: nn.Module, volumes: VolumeCache) -> dict[tuple[str, str], float]:
        """QUBIQ score by network and case, from the probability of the one structure."""
        scores = {}
        for name, variant in network_variants(network).items():
            for volume in volumes:
                masks = [read_apart([file]).voxels > 0.5 for file in self.task.raters[volume["case"]]]
                probability = probabilities(
                    variant,
                    volume["image"],
                    transform=volumes.transform,
                    axis=self.task.axis,
                    slice_size=self.task.slice_size,
                    device=self.budget.device,
                )[1]
                stacked = np.stack(masks).reshape(len(masks), *probability.shape)
                scores[name, volume["case"]] = qubiq_score(probability.numpy(), stacked.astype(np.uint8))
        return scores

    def _standardize(self, network: nn.Module) -> None:
        task = self.task
        write_pseudo_labels(
            network,
            task.datalist,
            self.run_dir / GIVEN_LABELS,
            axis=task.axis,
            slice_size=task.slice_size,
            classes=task.classes,
            device=self.budget.device,
            **task.preprocessing,
        )

    def _save(self, *, finished: bool, seconds: float) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "finished": finished,
            "seconds": round(seconds, 1),
            "version": aide_monai.__version__,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "specification": self.specification,
        }
        text = json.dumps(content, indent=1).encode()
        write_atomically(self.folder / "job.json", lambda file: file.write(text))
