"""Training with one budget for every method: plain supervised training, pseudo-label, co-teaching, and AIDE."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.networks.nets import BasicUNet
from torch import Tensor, nn
from torch.utils.data import DataLoader

from aide_monai import distributed
from aide_monai.data import LabelStore, SliceDataset, slice_loader
from aide_monai.engines import AIDEOptions, AIDETrainer, CoTeachingTrainer, PrepareAugmented, PseudoLabelTrainer
from aide_monai.handlers import (
    BestCheckpoint,
    CollapseWarning,
    Disagreement,
    EpochLog,
    GlobalLabelCorrection,
    LabelQuality,
    Memorisation,
    RunCheckpoint,
    load_weights,
)
from aide_monai.inferers import AutocastInferer, place
from aide_monai.losses import PerSampleDiceCELoss
from aide_monai.networks import MeanNetwork, seeded
from aide_monai.transforms import CutMix, RandomIntensity, RandomRotateFlip


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Budget and recipe that all compared methods share.

    Attributes:
        epochs: number of epochs.
        steps_per_epoch: optimiser steps per epoch and network.
        batch_size: slices per step.
        learning_rate: initial rate of Adam (amsgrad), decaying polynomially (power 0.9) to 0.
        features: channels of ``BasicUNet``, encoder to decoder.
        norm: its normalisation, "batch" or "instance".
        augmentation_angle: training slices are rotated in +-this many degrees and mirrored at random.
        augmentation_mix: probability with which a box of another slice of the batch, two thirds of each side, is then
            pasted into a slice, labels included (``CutMix``).
        augmentation_zoom: they also change their size by up to this factor, up or down.
        augmentation_intensity: probability of each change of contrast, brightness, sharpness and noise
            (``RandomIntensity``), which AIDE's views do not see.
        amp: "off", "bf16" or "fp16".
        device: where training runs.
        seed: seed of weights, shuffling, augmentation and views.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int = 8
    learning_rate: float = 1e-3
    features: tuple[int, ...] = (16, 16, 32, 64, 128, 16)
    norm: str = "batch"
    augmentation_angle: float = 15.0
    augmentation_mix: float = 0.0
    augmentation_zoom: float = 1.0
    augmentation_intensity: float = 0.0
    amp: str = "off"
    device: str = "cpu"
    seed: int = 0


def build_network(settings: TrainingSettings, *, in_channels: int, num_classes: int, seed: int) -> nn.Module:
    """A 2D ``BasicUNet``, initialised from ``seed`` without touching the global generator."""
    return seeded(
        lambda: BasicUNet(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=num_classes,
            features=settings.features,
            act="relu",
            norm=settings.norm,
        ),
        seed,
    )


def train_supervised(
    volumes: Sequence[dict[str, Any]],
    settings: TrainingSettings,
    *,
    num_classes: int,
    axis: int,
    run_dir: Path,
    clean: Mapping[str, Tensor] | None = None,
    on_step: Callable[[], None] | None = None,
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Train one network on the labels as they are (MONAI's ``SupervisedTrainer``).

    Args:
        volumes: preprocessed volumes with "image" and "label".
        settings: budget and recipe.
        num_classes: C, background included.
        axis: slice axis of the volumes.
        run_dir: gets ``epochs.csv`` and ``models/model.pt``.
        clean: as in ``train_aide``.
        on_step: called after every optimiser step.

    Returns:
        The network with the weights of the last epoch, and the rows of ``epochs.csv``.
    """
    dataset = SliceDataset(volumes, axis=axis)
    network = _network(dataset, settings, num_classes, 1)
    optimizer = _adam(network, settings)
    log = EpochLog(run_dir / "epochs.csv")
    trainer = SupervisedTrainer(
        device=settings.device,
        max_epochs=settings.epochs,
        train_data_loader=_loader(dataset, settings),
        network=network,
        optimizer=optimizer,
        train_handlers=[
            *_step_callback(on_step),
            LrScheduleHandler(_decay(optimizer, settings), print_lr=False),
            *_memorisation(dataset, clean, num_classes),
            log,
            BestCheckpoint(run_dir / "models" / "model.pt", network, metric=None),
        ],
        **_supervision(settings),
    )
    trainer.run()
    return network, log.rows


def train_pseudo_label(
    volumes: Sequence[dict[str, Any]],
    settings: TrainingSettings,
    *,
    start: int,
    interval: int,
    num_classes: int,
    axis: int,
    run_dir: Path,
    clean: Mapping[str, Tensor] | None = None,
    on_step: Callable[[], None] | None = None,
) -> tuple[nn.Module, LabelStore, list[dict[str, Any]]]:
    """Train one network that replaces the low-quality labels by its own predictions (``PseudoLabelTrainer``).

    Args:
        volumes: as in ``train_aide``.
        settings: budget and recipe.
        start: first epoch after which labels are replaced.
        interval: from then on after every epoch that is a multiple of this.
        num_classes: C, background included.
        axis: slice axis of the volumes.
        run_dir: gets ``epochs.csv``, ``labels/`` and ``models/model.pt`` (last epoch).
        clean: as in ``train_aide``.
        on_step: called after every optimiser step.

    Returns:
        The network with the weights of the last epoch, the label store, and the rows of ``epochs.csv``.
    """
    store = LabelStore.from_volumes(volumes, folder=run_dir / "labels")
    dataset = SliceDataset(volumes, store=store, axis=axis)
    network = _network(dataset, settings, num_classes, 1)
    optimizer = _adam(network, settings)
    log = EpochLog(run_dir / "epochs.csv")
    trainer = PseudoLabelTrainer(
        settings.device,
        settings.epochs,
        _loader(dataset, settings),
        network,
        dataset=dataset,
        start=start,
        interval=interval,
        optimizer=optimizer,
        train_handlers=[
            *_step_callback(on_step),
            LrScheduleHandler(_decay(optimizer, settings), print_lr=False),
            *([LabelQuality(store, clean, num_classes=num_classes)] if clean else []),
            *_memorisation(dataset, clean, num_classes),
            log,
            BestCheckpoint(run_dir / "models" / "model.pt", network, metric=None),
        ],
        **_supervision(settings),
    )
    trainer.run()
    return network, store, log.rows


def train_co_teaching(
    volumes: Sequence[dict[str, Any]],
    settings: TrainingSettings,
    *,
    max_forget_rate: float,
    warmup_epochs: int,
    num_classes: int,
    axis: int,
    run_dir: Path,
    clean: Mapping[str, Tensor] | None = None,
    resume: bool = False,
    on_step: Callable[[], None] | None = None,
) -> tuple[MeanNetwork, list[dict[str, Any]]]:
    """Train two networks on each other's small-loss samples (``CoTeachingTrainer``); labels stay as given.

    Args:
        volumes: preprocessed volumes with "image" and "label".
        settings: budget and recipe.
        max_forget_rate: share of a batch that is dropped after the warm-up.
        warmup_epochs: epochs until then.
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
    pair = _TwoNetworks(dataset, settings, num_classes)
    log = EpochLog(run_dir / "epochs.csv")
    weights = run_dir / "models" / "model.pt"
    trainer = CoTeachingTrainer(
        **pair.arguments(_loader(dataset, settings)),
        max_forget_rate=max_forget_rate,
        warmup_epochs=warmup_epochs,
        train_handlers=[
            *_step_callback(on_step),
            *pair.learning_rates(),
            Disagreement(),
            *_memorisation(dataset, clean, num_classes),
            log,
            BestCheckpoint(weights, pair.mean, metric=None),
            _checkpoint(run_dir, pair.schedulers, resume=resume),
        ],
    )
    trainer.run()
    load_weights(pair.mean, weights)
    return pair.mean, log.rows


def train_aide(
    volumes: Sequence[dict[str, Any]],
    settings: TrainingSettings,
    *,
    options: AIDEOptions,
    num_classes: int,
    axis: int,
    run_dir: Path,
    clean: Mapping[str, Tensor] | None = None,
    resume: bool = False,
    on_step: Callable[[], None] | None = None,
) -> tuple[MeanNetwork, LabelStore, list[dict[str, Any]]]:
    """Train two networks with AIDE, in as many processes as have been started together.

    Args:
        volumes: preprocessed volumes with "image", "label", "case" and "quality".
        settings: budget and recipe.
        options: options of the algorithm.
        num_classes: C, background included.
        axis: slice axis of the volumes.
        run_dir: gets ``epochs.csv``, ``labels/``, ``checkpoint.pt`` and ``models/model.pt`` (best mean Dice with the
            training labels).
        clean: case to clean label (X, Y, Z), to log the quality of the current labels and what the network has
            memorised; nothing trains on it.
        resume: continue the run in ``run_dir`` after its last finished epoch.
        on_step: called after every optimiser step.

    Returns:
        Both networks with the best weights, the label store, and the rows of ``epochs.csv``.

    Raises:
        InputError: if ``run_dir`` holds a run and ``resume`` is off.
    """
    store = LabelStore.from_volumes(volumes, folder=run_dir / "labels", resume=resume)
    dataset = SliceDataset(volumes, store=store, axis=axis)
    pair = _TwoNetworks(dataset, settings, num_classes)
    log = EpochLog(run_dir / "epochs.csv")
    weights = run_dir / "models" / "model.pt"
    trainer = AIDETrainer(
        **pair.arguments(_loader(dataset, settings, trusted_share=options.trusted_share)),
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
            BestCheckpoint(weights, pair.mean),
            _checkpoint(run_dir, pair.schedulers, store=store, resume=resume),
        ],
    )
    trainer.run()
    distributed.on_main(lambda: load_weights(pair.mean, weights) and None)
    distributed.copy_from_main(pair.mean)
    return pair.mean, store, log.rows


def clean_labels(volumes: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Case to clean label (X, Y, Z) uint8 of the low-quality volumes that have one."""
    return {v["case"]: v["clean_label"].as_tensor()[0] for v in volumes if "clean_label" in v and v["quality"] == "low"}


def _loader(dataset: SliceDataset, settings: TrainingSettings, *, trusted_share: float = 0.0) -> DataLoader:
    return slice_loader(
        dataset,
        batch_size=settings.batch_size,
        steps=settings.steps_per_epoch,
        seed=settings.seed,
        trusted_share=trusted_share,
    )


def _network(dataset: SliceDataset, settings: TrainingSettings, num_classes: int, number: int) -> nn.Module:
    """Network 1 or 2 of a run, where it trains."""
    channels = int(dataset[0]["image"].shape[0])
    network = build_network(settings, in_channels=channels, num_classes=num_classes, seed=settings.seed + number)
    return place(network, settings.device, channels_last=True)


def _augmentation(settings: TrainingSettings) -> dict[str, Any]:
    """What changes batches, as the engines name it."""
    turn = RandomRotateFlip(
        max_angle=settings.augmentation_angle, max_zoom=settings.augmentation_zoom, seed=settings.seed
    )
    mix, intensity = settings.augmentation_mix, settings.augmentation_intensity
    return {
        "augment": CutMix(turn, probability=mix) if mix > 0 else turn,
        "perturb": RandomIntensity(probability=intensity, seed=settings.seed + 3) if intensity > 0 else None,
    }


class _TwoNetworks:
    """What the engines of two networks share."""

    def __init__(self, dataset: SliceDataset, settings: TrainingSettings, num_classes: int) -> None:
        self.settings = settings
        self.networks = [_network(dataset, settings, num_classes, number) for number in (1, 2)]
        self.mean = MeanNetwork(*self.networks)
        self.optimizers = [_adam(network, settings) for network in self.networks]
        self.schedulers = [_decay(optimizer, settings) for optimizer in self.optimizers]

    def arguments(self, loader: DataLoader) -> dict[str, Any]:
        """Of the engine."""
        return {
            "device": self.settings.device,
            "max_epochs": self.settings.epochs,
            "train_data_loader": loader,
            "network_1": self.networks[0],
            "optimizer_1": self.optimizers[0],
            "network_2": self.networks[1],
            "optimizer_2": self.optimizers[1],
            **_augmentation(self.settings),
            "amp": self.settings.amp,
            "channels_last": True,
        }

    def learning_rates(self) -> list[LrScheduleHandler]:
        """Handlers that lower them."""
        return [LrScheduleHandler(scheduler, print_lr=False) for scheduler in self.schedulers]


def _supervision(settings: TrainingSettings) -> dict[str, Any]:
    """What the engines of one network share."""
    loss = PerSampleDiceCELoss()
    return {
        "inferer": AutocastInferer(settings.amp, channels_last=True),
        "loss_function": lambda logits, label: loss(logits, label).mean(),
        "prepare_batch": PrepareAugmented(**_augmentation(settings)),
        "decollate": False,
        "optim_set_to_none": True,
    }


def _checkpoint(
    run_dir: Path, schedulers: Sequence[Any], *, store: LabelStore | None = None, resume: bool
) -> RunCheckpoint:
    named = {f"scheduler_{number}": scheduler for number, scheduler in enumerate(schedulers, start=1)}
    return RunCheckpoint(run_dir / "checkpoint.pt", store=store, schedulers=named, resume=resume)


def _memorisation(dataset: SliceDataset, clean: Mapping[str, Tensor] | None, num_classes: int) -> list[Memorisation]:
    return [Memorisation(dataset, clean, num_classes=num_classes)] if clean else []


def _adam(network: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=settings.learning_rate, amsgrad=True, fused=True)


def _decay(optimizer: torch.optim.Optimizer, settings: TrainingSettings) -> Any:
    return torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=settings.epochs, power=0.9)


class _StepCallback:
    """Calls a function after every optimiser step."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: self.function())


def _step_callback(function: Callable[[], None] | None) -> list[_StepCallback]:
    return [] if function is None else [_StepCallback(function)]
