"""What the budget stands for: networks, batches, augmentation, optimisers and learning rates."""

from __future__ import annotations

from typing import Any

import torch
from monai.handlers import LrScheduleHandler
from monai.networks.nets import BasicUNet
from torch import nn
from torch.utils.data import DataLoader

from aide_monai.engines import PrepareAugmented
from aide_monai.inferers import AutocastInferer, place
from aide_monai.losses import PerSampleDiceCELoss
from aide_monai.networks import MeanNetwork, seeded
from aide_monai.stream import SliceDataset, slice_loader
from aide_monai.transforms import CutMix, RandomIntensity, RandomRotateFlip
from aide_monai.workflows.comparison.budget import TrainingSettings


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
