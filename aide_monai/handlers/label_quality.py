"""Quality of the current labels when clean ones are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from aide_monai.algorithm import unit_dice
from aide_monai.labels.store import LabelStore


class LabelQuality:
    """Logs the mean Dice of both networks' current labels with clean labels, per epoch.

    For studies only: the clean labels judge the corrections, nothing trains on them. Attach it after
    ``GlobalLabelCorrection``. ``engine.state.metrics`` gets "label_quality_1" and "label_quality_2", 0..1.

    Args:
        store: the current labels.
        clean: case to clean label, integers, shaped like the label in the store.
        num_classes: C, background included.
    """

    def __init__(self, store: LabelStore, clean: Mapping[str, Tensor], *, num_classes: int) -> None:
        self.store = store
        self.clean = clean
        self.num_classes = num_classes

    def attach(self, engine: Engine) -> None:
        """Register the handler with an engine."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Log the quality of the labels after this epoch."""
        for network in (1, 2):
            current = {case: self.store.label(network, case) for case in self.clean}
            engine.state.metrics[f"label_quality_{network}"] = self.of(current)

    def of(self, labels: Mapping[str, Tensor]) -> float:
        """Mean Dice of some labels, by case, with the clean ones."""
        dice = [
            unit_dice(labels[case], clean, num_classes=self.num_classes, unit="case")
            for case, clean in self.clean.items()
        ]
        return float(torch.cat(dice).mean())
