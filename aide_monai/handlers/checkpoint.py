"""Checkpoints: the best weights for use, and the whole state for a resume."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import nn

from aide_monai.errors import InputError
from aide_monai.handlers.collapse import collapsed
from aide_monai.handlers.finite import not_finite, require_finite
from aide_monai.handlers.settings import save_settings
from aide_monai.labels.store import LabelStore
from aide_monai.utils import distributed
from aide_monai.utils.files import remove_unfinished, require_writable, write_atomically

_LENGTHS = ("total_iters", "T_max", "total_steps")  # what torch's schedules that have an end call it


def save_atomically(state: Any, path: str | Path) -> None:
    """``torch.save`` that leaves either the old file or the whole new one.

    Raises:
        InputError: if the disk is full or read-only; the old file is intact.
    """
    write_atomically(path, lambda file: torch.save(state, file))


def load_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """Load a state dict into ``network`` and return it.

    Raises:
        InputError: if the file is missing, is not a state dict, belongs to another network, or has weights that are NaN
            or infinite.
    """
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError as error:
        raise InputError(f"{path}: there are no weights here; train the model first") from error
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: not the weights of this network ({reason}); use the file of its own run") from error
    require_finite(network, str(path))
    return network


def saved_epoch(path: str | Path) -> int:
    """The epoch that the checkpoint of a run continues after; 0 if there is none that can be read."""
    try:
        engine = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["engine"]
        return int(engine["iteration"]) // int(engine["epoch_length"])
    except Exception:  # what is wrong with it, a resume tells
        return 0


class BestCheckpoint:
    """Saves a module's weights whenever a metric of the epoch reaches a new best.

    Without a metric the weights are saved in the last epoch, before a ``RunCheckpoint`` that is attached later calls it
    done, and when a run ends early. So a finished run always leaves a file, and with no metric only a finished one
    does. The best value and its epoch are ``engine.state.best_metric`` and ``best_metric_epoch``.

    An epoch in which a network predicts next to nothing (``collapsed``) may have the best "dsc_train", since labels may
    have become as empty, and nothing where nothing is labelled counts as right. So it never takes the place of an epoch
    that is not collapsed, and gives way to any such. The labels of a validation do not change: its metrics are taken as
    they are.

    Args:
        path: file for the plain state dict (loads with ``weights_only=True``).
        network: the deployed module.
        metric: key in ``engine.state.metrics``, larger is better; None saves the last epoch.
        settings: what the network's input depends on, saved with the weights, see ``require_settings``; None saves
            none.

    Examples:
        >>> import torch
        >>> from ignite.engine import Engine, Events
        >>> from aide_monai import BestCheckpoint
        >>> network = torch.nn.Linear(2, 1)
        >>> engine = Engine(lambda engine, batch: None)
        >>> engine.state.best_metric = engine.state.best_metric_epoch = -1  # as MONAI's engines begin
        >>> @engine.on(Events.EPOCH_COMPLETED)
        ... def score(engine):
        ...     engine.state.metrics["dsc_train"] = 1 / engine.state.epoch  # the first epoch is the best one
        >>> BestCheckpoint("model.pt", network).attach(engine)
        >>> _ = engine.run([0], max_epochs=3)
        >>> engine.state.best_metric, sorted(torch.load("model.pt", weights_only=True))
        (1.0, ['bias', 'weight'])
    """

    def __init__(
        self,
        path: str | Path,
        network: nn.Module,
        *,
        metric: str | None = "dsc_train",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.network = network
        self.metric = metric
        self.settings = settings

    def attach(self, engine: Engine) -> None:
        """Register the handler; attach it after the one that sets the metric."""
        if distributed.is_main():
            remove_unfinished(self.path)
        if self.metric is None:
            last = Events.EPOCH_COMPLETED(event_filter=lambda engine, epoch: epoch == engine.state.max_epochs)
            engine.add_event_handler(last, self)
            engine.add_event_handler(Events.COMPLETED, self)
        else:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Save, if this epoch is the best so far or there is no metric.

        Raises:
            InputError: as ``save_atomically``, or if weights are NaN or infinite; the old file is intact.
        """
        state = engine.state
        if self.metric is not None:
            value, low = state.metrics[self.metric], self.metric == "dsc_train" and bool(collapsed(state.metrics))
            if state.best_metric_epoch != -1:
                best_low = getattr(state, "best_collapsed", False)
                better = value > state.best_metric or math.isnan(state.best_metric)
                if not (better if low == best_low else best_low):
                    return
            state.best_metric, state.best_metric_epoch, state.best_collapsed = value, state.epoch, low
        distributed.on_main(lambda: self._save(state.epoch))

    def _save(self, epoch: int) -> None:
        require_finite(self.network, f"epoch {epoch}, {self.path}")
        save_atomically(self.network.state_dict(), self.path)
        if self.settings is not None:
            save_settings(self.path, self.settings)


class RunCheckpoint:
    """Saves everything a ``TwoNetworkTrainer`` needs to continue after the last finished epoch. Attach it last.

    That is the engine's ``state_dict``, its ``generators`` (if it has any), the global random states, metrics, best
    metric, lines of the log, schedulers, and the generation of the label store. A run that cannot be saved does not
    start: the folder is tried before the first epoch. Of many processes the main one reads and writes the file; it
    holds the random states of all.

    Args:
        path: checkpoint file.
        store: label store whose committed generation belongs to the checkpoint.
        schedulers: learning-rate schedulers by name.
        resume: continue from ``path`` when the handler is attached.

    Raises:
        InputError: if ``path`` exists and ``resume`` is off, or the checkpoint cannot be read or has a learning-rate
            schedule of another length or weights that are NaN or infinite; while training, if it cannot be written, or
            would hold such weights, which leaves the one of the epoch before.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        store: LabelStore | None = None,
        schedulers: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        self.path = Path(path)
        self.store = store
        self.schedulers = dict(schedulers or {})
        self.resume = resume
        distributed.on_main(self._require_unused)

    def _require_unused(self) -> None:
        if self.path.exists() and not self.resume:
            raise InputError(f"{self.path} belongs to an earlier run; choose a new run folder or pass --resume")

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer and, when resuming, restore its state."""
        if self.resume:
            if distributed.is_main():
                remove_unfinished(self.path)
            # Killed between the commit of the labels and the checkpoint, the epoch is repeated from its start.
            generation = self._load(engine) if distributed.on_main(self.path.exists) else None
            if self.store is not None:
                self.store.resume_from(self.store.beginning if generation is None else generation)
        engine.add_event_handler(Events.STARTED, lambda _: distributed.on_main(lambda: require_writable(self.path)))
        # What an iterator draws when it is exhausted would come before the next epoch, but after the checkpoint.
        engine.add_event_handler(Events.EPOCH_STARTED, lambda engine: engine.set_data(engine.state.dataloader))
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _save(self, engine: Any) -> None:
        state = engine.state
        distributed.on_main(lambda: self._require_finite(engine))
        randoms = distributed.gather(_random_state(state.device))
        content = {
            "engine": engine.state_dict(),
            "best": (float(state.best_metric), int(state.best_metric_epoch)),
            "best_collapsed": bool(getattr(state, "best_collapsed", False)),
            # one that is not computed in every epoch stays in the log until it is computed again
            "metrics": {
                name: float(value) if isinstance(value, float) else value  # not numpy's own floats
                for name, value in state.metrics.items()
                if isinstance(value, (int, float))
            },
            "epoch_rows": getattr(state, "epoch_rows", None),
            "generation": None if self.store is None else self.store.generation,
            "generators": {name: generator.get_state() for name, generator in _generators(engine).items()},
            "schedulers": {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()},
            **randoms[0],
            "other_processes": randoms[1:],
        }
        distributed.on_main(lambda: save_atomically(content, self.path))

    def _require_finite(self, engine: Any) -> None:
        for name, network in _networks(engine).items():
            require_finite(network, f"epoch {engine.state.epoch}, {self.path}, {name}")

    def _load(self, engine: Any) -> int:
        """Restore all state but the labels, and return their generation."""
        try:
            content = distributed.on_main(lambda: torch.from_numpy(np.fromfile(self.path, dtype=np.uint8)))
            saved = torch.load(
                io.BytesIO(content.numpy().tobytes()), map_location=engine.state.device, weights_only=True
            )
            for name, scheduler in self.schedulers.items():
                _require_same_length(scheduler.state_dict(), saved["schedulers"][name])
            engine.load_state_dict(saved["engine"])
            for name, network in _networks(engine).items():
                if not_finite(network) is not None:
                    raise ValueError(f"weights of {name} are NaN or infinite")
            engine.state.best_metric, engine.state.best_metric_epoch = saved["best"]
            engine.state.best_collapsed = saved.get("best_collapsed", False)
            engine.state.metrics.update(saved.get("metrics", {}))
            engine.state.epoch_rows = saved.get("epoch_rows")
            for name, generator in _generators(engine).items():
                generator.set_state(saved["generators"][name].cpu())
            for name, scheduler in self.schedulers.items():
                scheduler.load_state_dict(saved["schedulers"][name])
            randoms = [saved, *saved.get("other_processes", [])]
            if distributed.rank() < len(randoms):  # with more processes than before, the new ones stay as seeded
                _set_random_state(randoms[distributed.rank()], engine.state.device)
            generation = saved["generation"]
            if self.store is None:
                return 0
            last = self.store.generation
            if not isinstance(generation, int) or not 0 <= generation <= last:
                raise ValueError(f"it belongs to generation {generation} of the labels, and they end with {last}")
            return generation
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"{self.path}: cannot resume from this checkpoint ({reason}); start a new run") from error


def _require_same_length(schedule: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """A schedule that is restored ends where it ended before, most often at a learning rate of 0."""
    for length in _LENGTHS:
        if schedule.get(length) != saved.get(length):
            raise ValueError(
                f"its learning rate is scheduled for {saved.get(length)} epochs, and that of this run for "
                f"{schedule.get(length)}; expected the same number"
            )


def _random_state(device: torch.device) -> dict[str, Any]:
    """The global random states of this process."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    state = {
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "python": random.getstate(),
    }
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def _set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"].cpu())
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


def _networks(engine: Any) -> dict[str, nn.Module]:
    """What the engine's state holds of networks, averages included, by name."""
    return {name: value for name, value in vars(engine.state).items() if isinstance(value, nn.Module)}


def _generators(engine: Any) -> dict[str, torch.Generator]:
    return getattr(engine, "generators", {})
