"""Budget and recipe that all compared methods share: network, batches, augmentation, optimiser, learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from monai.handlers import LrScheduleHandler
from monai.networks.nets import BasicUNet
from torch import nn
from torch.utils.data import DataLoader

from aide_monai.engines import PrepareAugmented
from aide_monai.errors import InputError
from aide_monai.inferers import AMP_DTYPES, AutocastInferer, place
from aide_monai.losses import PerSampleDiceCELoss
from aide_monai.networks import MeanNetwork, seeded
from aide_monai.options import RANGES as AIDE_RANGES
from aide_monai.stream import SliceDataset, slice_loader
from aide_monai.transforms import CutMix, RandomIntensity, RandomRotateFlip, rotate_flip
from aide_monai.utils.validation import ABOVE_0, require_choices, require_numbers

RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, math.inf),
    "steps_per_epoch": (1, math.inf),
    "batch_size": (1, math.inf),
    "learning_rate": ABOVE_0,
    "augmentation_angle": rotate_flip.RANGES["max_angle"],
    "augmentation_zoom": rotate_flip.RANGES["max_zoom"],
    "augmentation_mix": (0.0, 1.0),
    "augmentation_intensity": (0.0, 1.0),
    "networks": (1, 2),
    "average": AIDE_RANGES["average"],
    "trusted_share": AIDE_RANGES["trusted_share"],
    "seed": (0, math.inf),
}
"""What the numbers of a training may be, in ``TrainingSettings`` as in the configs of a bundle."""

_CHOICES = {"norm": ("batch", "instance"), "amp": tuple(AMP_DTYPES), "kept": ("last", "best")}


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
        augmentation_zoom: they also change their size by up to this factor, up or down.
        augmentation_mix: probability with which a box of another slice of the batch, two thirds of each side, is then
            pasted into a slice, labels included (``CutMix``).
        augmentation_intensity: probability of each change of contrast, brightness, sharpness and noise
            (``RandomIntensity``), which AIDE's views do not see.
        networks: how many networks the methods train that need only one. Of 2, from different seeds and on the same
            batches, the mean is the method's model, as it is of AIDE and co-teaching.
        average: decay of a moving average of the weights of every network, which is what predicts and is kept; 0 keeps
            none, and with None AIDE alone has one, by its option ``average``.
        trusted_share: least share of every batch that is drawn from trusted cases, see ``AIDEOptions``; None leaves it
            to the options of each method.
        kept: the "last" epoch is what all methods keep; with "best" AIDE keeps the one with the best Dice with its
            training labels, the others their last.
        amp: "off", "bf16" or "fp16".
        device: where training runs.
        seed: seed of weights, shuffling, augmentation and views.

    Raises:
        InputError: if a setting is out of range or not one of its choices.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int = 8
    learning_rate: float = 1e-3
    features: tuple[int, ...] = (16, 16, 32, 64, 128, 16)
    norm: str = "batch"
    augmentation_angle: float = 15.0
    augmentation_zoom: float = 1.0
    augmentation_mix: float = 0.0
    augmentation_intensity: float = 0.0
    networks: int = 1
    average: float | None = None
    trusted_share: float | None = None
    kept: str = "best"
    amp: str = "off"
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        left = [key for key in ("average", "trusted_share") if vars(self)[key] is None]
        require_numbers(vars(self), {key: limits for key, limits in RANGES.items() if key not in left})
        require_choices(vars(self), _CHOICES)
        features = self.features
        whole = isinstance(features, tuple) and all(isinstance(number, int) and number > 0 for number in features)
        if not whole or len(features) != 6:
            raise InputError(f"features is {features!r}; expected 6 whole numbers, the channels of BasicUNet")

    @property
    def fair(self) -> bool:
        """Whether all methods have two averaged networks, one share of trusted cases, and keep the last epoch."""
        same = self.average is not None and self.trusted_share is not None
        return same and self.networks == 2 and self.kept == "last"


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


def training_loader(dataset: SliceDataset, settings: TrainingSettings, *, trusted_share: float = 0.0) -> DataLoader:
    """Batches of an epoch."""
    return slice_loader(
        dataset,
        batch_size=settings.batch_size,
        steps=settings.steps_per_epoch,
        seed=settings.seed,
        trusted_share=trusted_share,
    )


def _augmentation(settings: TrainingSettings) -> dict[str, Any]:
    """What changes batches, by the names that the engines have for it."""
    turn = RandomRotateFlip(
        max_angle=settings.augmentation_angle, max_zoom=settings.augmentation_zoom, seed=settings.seed
    )
    mix, intensity = settings.augmentation_mix, settings.augmentation_intensity
    return {
        "augment": CutMix(turn, probability=mix),
        "perturb": RandomIntensity(probability=intensity, seed=settings.seed + 3) if intensity else None,
    }


class OneNetwork:
    """What the engines of one network share.

    Args:
        dataset: slices it trains on.
        settings: budget and recipe.
        num_classes: C, background included.
    """

    def __init__(self, dataset: SliceDataset, settings: TrainingSettings, num_classes: int) -> None:
        self.settings = settings
        self.network = _network(dataset, settings, num_classes, 1)
        self.optimizer = _adam(self.network, settings)
        self.scheduler = _decay(self.optimizer, settings)

    def arguments(self, loader: DataLoader) -> dict[str, Any]:
        """Of the engine, by name."""
        loss = PerSampleDiceCELoss()
        return {
            "device": self.settings.device,
            "max_epochs": self.settings.epochs,
            "train_data_loader": loader,
            "network": self.network,
            "optimizer": self.optimizer,
            "inferer": AutocastInferer(self.settings.amp, channels_last=True),
            "loss_function": lambda logits, label: loss(logits, label).mean(),
            "prepare_batch": PrepareAugmented(**_augmentation(self.settings)),
            "decollate": False,
            "optim_set_to_none": True,
        }

    def learning_rate(self) -> LrScheduleHandler:
        """Handler that lowers it."""
        return LrScheduleHandler(self.scheduler, print_lr=False)


class TwoNetworks:
    """What the engines of two networks share.

    Args:
        dataset: slices they train on.
        settings: budget and recipe.
        num_classes: C, background included.
    """

    def __init__(self, dataset: SliceDataset, settings: TrainingSettings, num_classes: int) -> None:
        self.settings = settings
        self.networks = [_network(dataset, settings, num_classes, number) for number in (1, 2)]
        self.mean = MeanNetwork(*self.networks)
        self.optimizers = [_adam(network, settings) for network in self.networks]
        self.schedulers = [_decay(optimizer, settings) for optimizer in self.optimizers]

    def arguments(self, loader: DataLoader) -> dict[str, Any]:
        """Of the engine, by name."""
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


def _network(dataset: SliceDataset, settings: TrainingSettings, num_classes: int, number: int) -> nn.Module:
    """Network 1 or 2 of a run, where it trains."""
    channels = int(dataset[0]["image"].shape[0])
    network = build_network(settings, in_channels=channels, num_classes=num_classes, seed=settings.seed + number)
    return place(network, settings.device, channels_last=True)


def _adam(network: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=settings.learning_rate, amsgrad=True, fused=True)


def _decay(optimizer: torch.optim.Optimizer, settings: TrainingSettings) -> Any:
    return torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=settings.epochs, power=0.9)
