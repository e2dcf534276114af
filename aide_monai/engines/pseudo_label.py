"""The pseudo-label engine, a rival of AIDE: one network that trains on its own predictions."""

from __future__ import annotations

import math
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.inferers import Inferer
from torch import nn

from aide_monai.algorithm import correction_due, unit_dice
from aide_monai.errors import InputError
from aide_monai.stream.slice_dataset import SliceDataset
from aide_monai.transforms import COMPONENTS, keep_components
from aide_monai.utils import distributed
from aide_monai.utils.validation import require_choices, require_numbers

SCHEDULE_RANGES: dict[str, tuple[float, float]] = {"start": (1, math.inf), "interval": (1, math.inf)}
"""Smallest and largest value of the options, by name."""
CHOICES = {"largest_component": COMPONENTS}
"""Values of the option that is no number, by name."""


class PseudoLabelTrainer(SupervisedTrainer):
    """MONAI's ``SupervisedTrainer`` that replaces low-quality labels by its own current predictions (Lee, 2013).

    After the epochs of the schedule the network predicts every low-quality case in eval mode, and the predictions
    become its labels: all at once, without any ranking. The label store records it; label 2 of the store stays as
    given. ``engine.state.metrics["corrected"]`` is the number of cases replaced after an epoch.

    Args:
        device: where training runs.
        max_epochs: number of epochs.
        train_data_loader: batches of ``dataset``; ``prepare_batch`` must take "label_1".
        network: (B, M, H, W) to logits (B, C, H, W).
        dataset: the training stream; its ``store`` holds the labels.
        start: first epoch after which labels may be replaced.
        interval: from then on they are, after every epoch that is a multiple of this.
        largest_component: what predictions keep before they become labels, as in ``AIDEOptions``.
        batch_size: slices per forward pass of the prediction.
        kwargs: as in ``SupervisedTrainer`` (optimizer, loss_function, inferer, train_handlers, ...).

    Raises:
        InputError: if the data set has no store, a number is out of range, or there are many processes.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Any,
        network: nn.Module,
        *,
        dataset: SliceDataset,
        start: int = 10,
        interval: int = 10,
        largest_component: str = "none",
        batch_size: int = 32,
        train_handlers: Any = None,
        inferer: Inferer | None = None,
        **kwargs: Any,
    ) -> None:
        if distributed.world_size() > 1:
            raise InputError(
                f"this baseline was started in {distributed.world_size()} processes; expected one: start it without "
                "torchrun"
            )
        if dataset.store is None:
            raise InputError("dataset has no label store; build it with SliceDataset(volumes, store=LabelStore(...))")
        numbers = {"start": start, "interval": interval, "batch_size": batch_size}
        require_numbers(numbers, SCHEDULE_RANGES | {"batch_size": (1, math.inf)})
        require_choices({"largest_component": largest_component}, CHOICES)
        self.dataset = dataset
        self.store = dataset.store
        self.start = start
        self.interval = interval
        self.largest_component = largest_component
        self.batch_size = batch_size
        super().__init__(
            device=torch.device(device),
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            inferer=inferer,
            **kwargs,
        )
        # Before the handlers, so that they see the new labels.
        self.add_event_handler(Events.EPOCH_COMPLETED, self._relabel)
        if train_handlers is not None:
            self._register_handlers(train_handlers)

    def _relabel(self) -> None:
        epoch = self.state.epoch
        self.state.metrics["corrected"] = 0
        if not correction_due(epoch, warmup_epochs=0, interval=self.interval, start=self.start):
            return
        self.network.eval()
        for number, (case, trusted) in enumerate(zip(self.dataset.cases, self.dataset.high_quality, strict=True)):
            if not trusted:
                self._replace(number, case, epoch)
        self.network.train()
        self.store.commit(epoch)

    @torch.no_grad()
    def _replace(self, number: int, case: str, epoch: int) -> None:
        logits = torch.cat(
            [
                self.inferer(chunk.to(self.state.device), self.network).cpu()
                for chunk in self.dataset.slices(number).split(self.batch_size)
            ]
        )
        prediction = logits.argmax(dim=1).to(torch.uint8)
        prediction = keep_components(prediction, self.largest_component)
        current = self.dataset.labels(number)["label_1"]
        dice = unit_dice(prediction, current, num_classes=logits.shape[1], unit="case")
        label = prediction.movedim(0, self.dataset.axes[number])
        self.store.replace(1, case, label, epoch=epoch, dice_before=float(dice))
        self.state.metrics["corrected"] += 1
