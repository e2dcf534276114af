"""Training with one budget for every method: plain supervised training, pseudo-label, co-teaching, rivals and AIDE."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from aide_monai.engines import (
    AIDEOptions,
    AIDETrainer,
    CoTeachingTrainer,
    PseudoLabels,
    PseudoLabelTrainer,
    SideBySideTrainer,
    TwoNetworkTrainer,
    rival,
)
from aide_monai.engines.weight_average import WeightAverage
from aide_monai.handlers import (
    BestCheckpoint,
    CollapseWarning,
    Disagreement,
    EpochLog,
    FiniteLosses,
    GlobalLabelCorrection,
    LabelQuality,
    Memorisation,
    RunCheckpoint,
    load_weights,
)
from aide_monai.labels import LabelStore
from aide_monai.networks import MeanNetwork
from aide_monai.reports.tables import Row
from aide_monai.stream import SliceDataset
from aide_monai.stream.training_set import Volume
from aide_monai.utils import distributed
from aide_monai.workflows.comparison.budget import TrainingSettings
from aide_monai.workflows.comparison.networks import OneNetwork, TwoNetworks, training_loader


def train_supervised(
    volumes: Sequence[Volume],
    settings: TrainingSettings,
    *,
    num_classes: int,
    axis: int,
    run_dir: Path,
    trusted_share: float = 0.0,
    clean: Mapping[str, Tensor] | None = None,
    resume: bool = False,
    on_step: Callable[[], None] | None = None,
) -> tuple[nn.Module, list[Row]]:
    """Train on the labels as they are: one network (MONAI's ``SupervisedTrainer``) or two (``SideBySideTrainer``).

    Args:
        volumes: preprocessed volumes with "image" and "label".
        settings: budget and recipe; its ``networks`` says how many.
        num_classes: C, background included.
        axis: slice axis of the volumes.
        run_dir: gets ``epochs.csv`` and ``models/model.pt``, of two networks also ``checkpoint.pt``.
        trusted_share: as in ``AIDEOptions``.
        clean: as in ``train_aide``.
        resume: continue the run of two networks in ``run_dir`` after its last finished epoch.
        on_step: called after every optimiser step.

    Returns:
        The network, or both as one, with the weights of the last epoch, and the rows of ``epochs.csv``.

    Raises:
        InputError: if ``run_dir`` holds a run of two networks and ``resume`` is off.
    """
    dataset = SliceDataset(volumes, axis=axis)
    loader = training_loader(dataset, settings, trusted_share=trusted_share)
    studied = _memorisation(dataset, clean, num_classes)
    if settings.networks == 2:
        pair = TwoNetworks(dataset, settings, num_classes)
        return _train_pair(SideBySideTrainer, pair, loader, run_dir, studied, resume=resume, on_step=on_step)
    single = OneNetwork(dataset, settings, num_classes)
    log = EpochLog(run_dir / "epochs.csv")
    trainer = SupervisedTrainer(
        **single.arguments(loader),
        train_handlers=[
            *([WeightAverage([single.network], settings.average)] if settings.average else []),
            FiniteLosses(),
            *_step_callback(on_step),
            single.learning_rate(),
            *studied,
            log,
            BestCheckpoint(run_dir / "models" / "model.pt", single.network, metric=None),
        ],
    )
    trainer.run()
    return single.network, log.rows


def train_pseudo_label(
    volumes: Sequence[Volume],
    settings: TrainingSettings,
    *,
    start: int,
    interval: int,
    largest_component: str,
    trusted_share: float = 0.0,
    num_classes: int,
    axis: int,
    run_dir: Path,
    clean: Mapping[str, Tensor] | None = None,
    resume: bool = False,
    on_step: Callable[[], None] | None = None,
) -> tuple[nn.Module, LabelStore, list[Row]]:
    """Train one network or two that replace the low-quality labels by their own predictions (``PseudoLabels``).

    Args:
        volumes: as in ``train_aide``.
        settings: budget and recipe; its ``networks`` says how many.
        start: first epoch after which labels may be replaced.
        interval: from then on they are, after every epoch that is a multiple of this.
        largest_component: what predictions keep before they become labels, as in ``AIDEOptions``.
        trusted_share: as in ``AIDEOptions``.
        num_classes: C, background included.
        axis: slice axis of the volumes.
        run_dir: gets ``epochs.csv``, ``labels/`` and ``models/model.pt`` (last epoch).
        clean: as in ``train_aide``.
        resume: as in ``train_supervised``.
        on_step: called after every optimiser step.

    Returns:
        The network, or both as one, with the weights of the last epoch, the label store, and the rows of
        ``epochs.csv``.

    Raises:
        InputError: as ``train_supervised``.
    """
    store = LabelStore.from_volumes(volumes, folder=run_dir / "labels", resume=resume)
    dataset = SliceDataset(volumes, store=store, axis=axis)
    loader = training_loader(dataset, settings, trusted_share=trusted_share)
    schedule: dict[str, Any] = {"start": start, "interval": interval, "largest_component": largest_component}
    studied = [
        *([LabelQuality(store, clean, num_classes=num_classes)] if clean else []),
        *_memorisation(dataset, clean, num_classes),
    ]
    if settings.networks == 2:
        pair = TwoNetworks(dataset, settings, num_classes)
        handlers = [PseudoLabels(dataset, **schedule), *studied]
        mean, rows = _train_pair(
            SideBySideTrainer, pair, loader, run_dir, handlers, store=store, resume=resume, on_step=on_step
        )
        return mean, store, rows
    single = OneNetwork(dataset, settings, num_classes)
    log = EpochLog(run_dir / "epochs.csv")
    trainer = PseudoLabelTrainer(
        **single.arguments(loader),
        dataset=dataset,
        **schedule,
        average=settings.average or 0.0,
        train_handlers=[
            *_step_callback(on_step),
            single.learning_rate(),
            *studied,
            log,
            BestCheckpoint(run_dir / "models" / "model.pt", single.network, metric=None),
        ],
    )
    trainer.run()
    return single.network, store, log.rows


def train_co_teaching(
    volumes: Sequence[Volume],
    settings: TrainingSettings,
    *,
    max_forget_rate: float,
    warmup_epochs: int,
    trusted_share: float = 0.0,
    num_classes: int,
    axis: int,
    run_dir: Path,
    clean: Mapping[str, Tensor] | None = None,
    resume: bool = False,
    on_step: Callable[[], None] | None = None,
) -> tuple[MeanNetwork, list[Row]]:
    """Train two networks on each other's small-loss samples (``CoTeachingTrainer``); labels stay as given.

    Args:
        volumes: preprocessed volumes with "image" and "label".
        settings: budget and recipe.
        max_forget_rate: share of a batch that is dropped after the warm-up.
        warmup_epochs: epochs until then.
        trusted_share: as in ``AIDEOptions``.
        num_classes: C, background included.
        axis: slice axis of the volumes.
        run_dir: gets ``epochs.csv``, ``checkpoint.pt`` and ``models/model.pt`` (last epoch).
        clean: as in ``train_aide``.
        resume: continue the run in ``run_dir`` after its last finished epoch.
        on_step: called after every optimiser step.

    Returns:
        Both networks with the weights of the last epoch, and the rows of ``epochs.csv``.

    Raises:
        InputError: if ``run_dir`` holds a run and ``resume`` is off.
    """
    dataset = SliceDataset(volumes, axis=axis)
    loader = training_loader(dataset, settings, trusted_share=trusted_share)
    forgetting: dict[str, Any] = {"max_forget_rate": max_forget_rate, "warmup_epochs": warmup_epochs}
    return _train_pair(
        partial(CoTeachingTrainer, **forgetting),
        TwoNetworks(dataset, settings, num_classes),
        loader,
        run_dir,
        _memorisation(dataset, clean, num_classes),
        resume=resume,
        on_step=on_step,
    )


def train_rival(
    volumes: Sequence[Volume],
    settings: TrainingSettings,
    *,
    engine: str,
    trusted_share: float = 0.0,
    num_classes: int,
    axis: int,
    run_dir: Path,
    clean: Mapping[str, Tensor] | None = None,
    resume: bool = False,
    on_step: Callable[[], None] | None = None,
    **options: Any,
) -> tuple[MeanNetwork, list[Row]]:
    """Train two networks with one of ``engines.RIVALS``; labels stay as given.

    Args:
        volumes: preprocessed volumes with "image" and "label".
        settings: budget and recipe; a method with teachers has them also where it keeps no averages.
        engine: name of the rival.
        trusted_share: as in ``AIDEOptions``.
        num_classes: C, background included.
        axis: slice axis of the volumes.
        run_dir: gets ``epochs.csv``, ``checkpoint.pt`` and ``models/model.pt`` (last epoch).
        clean: as in ``train_aide``.
        resume: continue the run in ``run_dir`` after its last finished epoch.
        on_step: called after every optimiser step.
        options: of the rival; others are fitted to the number of epochs.

    Returns:
        Both networks with the weights of the last epoch, and the rows of ``epochs.csv``.

    Raises:
        InputError: if ``run_dir`` holds a run and ``resume`` is off, or an option is unknown or out of range.
    """
    dataset = SliceDataset(volumes, axis=axis)
    return _train_pair(
        rival(engine, settings.epochs, seed=settings.seed + 2, **options),
        TwoNetworks(dataset, settings, num_classes),
        training_loader(dataset, settings, trusted_share=trusted_share),
        run_dir,
        _memorisation(dataset, clean, num_classes),
        resume=resume,
        on_step=on_step,
    )


def train_aide(
    volumes: Sequence[Volume],
    settings: TrainingSettings,
    *,
    options: AIDEOptions,
    num_classes: int,
    axis: int,
    run_dir: Path,
    clean: Mapping[str, Tensor] | None = None,
    resume: bool = False,
    on_step: Callable[[], None] | None = None,
) -> tuple[MeanNetwork, LabelStore, list[Row]]:
    """Train two networks with AIDE, in as many processes as have been started together.

    Args:
        volumes: preprocessed volumes with "image", "label", "case" and "quality".
        settings: budget and recipe.
        options: options of the algorithm.
        num_classes: C, background included.
        axis: slice axis of the volumes.
        run_dir: gets ``epochs.csv``, ``labels/``, ``checkpoint.pt`` and ``models/model.pt`` (last epoch, or that
            with the best mean Dice with the training labels: ``settings.kept``).
        clean: case to clean label (X, Y, Z), to log the quality of the current labels and what the network has
            memorised; nothing trains on it.
        resume: continue the run in ``run_dir`` after its last finished epoch.
        on_step: called after every optimiser step.

    Returns:
        Both networks with the weights that are kept, the label store, and the rows of ``epochs.csv``.

    Raises:
        InputError: if ``run_dir`` holds a run and ``resume`` is off.
    """
    store = LabelStore.from_volumes(volumes, folder=run_dir / "labels", resume=resume)
    dataset = SliceDataset(volumes, store=store, axis=axis)
    pair = TwoNetworks(dataset, settings, num_classes)
    log = EpochLog(run_dir / "epochs.csv")
    weights = run_dir / "models" / "model.pt"
    trainer = AIDETrainer(
        **pair.arguments(training_loader(dataset, settings, trusted_share=options.trusted_share)),
        options=options,
        seed=settings.seed + 2,
        train_handlers=[
            *_step_callback(on_step),
            *pair.learning_rates(),
            GlobalLabelCorrection(dataset, options=options),
            Disagreement(),
            CollapseWarning(),
            *([LabelQuality(store, clean, num_classes=num_classes)] if clean else []),
            *_memorisation(dataset, clean, num_classes),
            log,
            BestCheckpoint(weights, pair.mean, metric="dsc_train" if settings.kept == "best" else None),
            _checkpoint(run_dir, pair.schedulers, store=store, resume=resume),
        ],
    )
    trainer.run()
    distributed.on_main(lambda: load_weights(pair.mean, weights) and None)
    distributed.copy_from_main(pair.mean)
    return pair.mean, store, log.rows


def _train_pair(
    engine: Callable[..., TwoNetworkTrainer],
    pair: TwoNetworks,
    loader: DataLoader,
    run_dir: Path,
    handlers: Sequence[Any],
    *,
    store: LabelStore | None = None,
    resume: bool,
    on_step: Callable[[], None] | None,
) -> tuple[MeanNetwork, list[Row]]:
    """Train both networks with an engine that needs no more than them, and keep the last epoch."""
    log = EpochLog(run_dir / "epochs.csv")
    weights = run_dir / "models" / "model.pt"
    trainer = engine(
        **pair.arguments(loader),
        **({"average": pair.settings.average} if pair.settings.average else {}),
        train_handlers=[
            *_step_callback(on_step),
            *pair.learning_rates(),
            Disagreement(),
            *handlers,
            log,
            BestCheckpoint(weights, pair.mean, metric=None),
            _checkpoint(run_dir, pair.schedulers, store=store, resume=resume),
        ],
    )
    trainer.run()
    load_weights(pair.mean, weights)
    return pair.mean, log.rows


def clean_labels(volumes: Sequence[Volume]) -> dict[str, Tensor]:
    """Case to clean label (X, Y, Z) uint8 of the low-quality volumes that have one."""
    return {v["case"]: v["clean_label"].as_tensor()[0] for v in volumes if "clean_label" in v and v["quality"] == "low"}


def _checkpoint(
    run_dir: Path, schedulers: Sequence[Any], *, store: LabelStore | None = None, resume: bool
) -> RunCheckpoint:
    named = {f"scheduler_{number}": scheduler for number, scheduler in enumerate(schedulers, start=1)}
    return RunCheckpoint(run_dir / "checkpoint.pt", store=store, schedulers=named, resume=resume)


def _memorisation(dataset: SliceDataset, clean: Mapping[str, Tensor] | None, num_classes: int) -> list[Memorisation]:
    return [Memorisation(dataset, clean, num_classes=num_classes)] if clean else []


class _StepCallback:
    """Calls a function after every optimiser step."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: self.function())


def _step_callback(function: Callable[[], None] | None) -> list[_StepCallback]:
    return [] if function is None else [_StepCallback(function)]
