"""What a network has learned from noisy labels: the structure, or their mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from aide_monai.algorithm import unit_dice
from aide_monai.handlers.finite import WatchedNetwork
from aide_monai.inferers import predictors_of
from aide_monai.stream.training_set import TrainingSet


class Memorisation:
    """Logs how well predictions fit the given and the clean labels of some training cases, per epoch.

    A network that generalises fits the clean labels better than the noisy ones it was given; one that memorises fits
    the given ones ever better and the clean ones ever worse (the paper's Supplementary Fig. 11). For studies only: the
    clean labels judge, nothing trains on them. ``engine.state.metrics`` gets "fit_given" and "fit_clean", the mean
    Dice in 0..1 (of both networks where there are two).

    Args:
        dataset: the training stream; "given" are its labels when the handler is made.
        clean: case to clean label (spatial...); the first ``cases`` of those in the stream are looked at.
        num_classes: C, background included.
        cases: how many cases are predicted after every epoch.
        batch_size: samples per forward pass.
    """

    def __init__(
        self,
        dataset: TrainingSet,
        clean: Mapping[str, Tensor],
        *,
        num_classes: int,
        cases: int = 6,
        batch_size: int = 32,
    ) -> None:
        self.dataset = dataset
        self.num_classes = num_classes
        self.batch_size = batch_size
        numbers = [number for number, case in enumerate(dataset.cases) if case in clean][:cases]
        self.clean = {number: dataset.arranged(number, clean[dataset.cases[number]]) for number in numbers}
        self.given = {number: self._given(number) for number in numbers}

    def _given(self, number: int) -> Tensor:
        store = self.dataset.store
        if store is None:
            return self.dataset.labels(number)["label"].clone()
        return self.dataset.arranged(number, store.initial(self.dataset.cases[number]))

    def attach(self, engine: Engine) -> None:
        """Register the handler with a ``TwoNetworkTrainer`` or a trainer of one network."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Any) -> None:
        """Predict the cases and log both fits."""
        fits: dict[str, list[Tensor]] = {"fit_given": [], "fit_clean": []}
        for predictor in predictors_of(engine):
            network = WatchedNetwork(predictor, engine.state.device)
            for number in self.clean:
                prediction, _ = self.dataset.predict(number, network, self.batch_size)
                for key, labels in (("fit_given", self.given), ("fit_clean", self.clean)):
                    dice = unit_dice(prediction, labels[number], num_classes=self.num_classes, unit="case")
                    fits[key].append(dice)
        for key, values in fits.items():
            if values:
                engine.state.metrics[key] = float(torch.cat(values).mean())
