"""Global label correction after each epoch (Algorithm 1, lines 21-28)."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from scipy import ndimage
from torch import Tensor

from aide_monai.algorithm import correction_due, unit_dice, worst_units
from aide_monai.data.label_store import LabelStore
from aide_monai.data.slice_dataset import SliceDataset
from aide_monai.options import AIDEOptions

logger = logging.getLogger(__name__)


class GlobalLabelCorrection:
    """Ranks all labels by their agreement with the networks and lets each network replace the other's worst ones.

    After every epoch both networks predict the whole training set in eval mode. ``engine.state.metrics["dsc_train"]``
    becomes the mean Dice between predictions and labels. When the update criterion holds, the units with the smallest
    Dice are replaced: network 1's prediction becomes network 2's label and the other way round; the change is
    committed to the store. High-quality cases never change.

    The handler also records, for those who watch for a collapse, ``engine.state.metrics["foreground_ratio"]``
    (predicted over labelled foreground voxels) and ``engine.state.metrics["corrected"]`` (units replaced).

    Args:
        dataset: the training stream; its ``store`` holds the labels.
        options: options of the algorithm; give the trainer the same ones.
        batch_size: slices per forward pass.
    """

    def __init__(self, dataset: SliceDataset, *, options: AIDEOptions | None = None, batch_size: int = 32) -> None:
        if dataset.store is None:
            raise ValueError(
                "the data set has no label store; build it with SliceDataset(volumes, store=LabelStore(...))"
            )
        self.dataset = dataset
        self.store: LabelStore = dataset.store
        self.options = options or AIDEOptions()
        self.batch_size = batch_size
        self._num_classes = 2

    def attach(self, engine: Engine) -> None:
        """Register the correction with a ``TwoNetworkTrainer``."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Predict, rank, and correct if it is due."""
        predictions, dice = self._predict_all(engine)
        labels = [self.dataset.labels(number)[f"label_{i + 1}"] for i in (0, 1) for number in range(len(dice[i]))]
        epoch, metrics = engine.state.epoch, engine.state.metrics
        metrics["dsc_train"] = float(np.mean([torch.cat(values).mean() for values in dice]))
        predicted = sum(int((prediction > 0).sum()) for both in predictions for prediction in both)
        metrics["foreground_ratio"] = predicted / max(sum(int((label > 0).sum()) for label in labels), 1)
        metrics["corrected"] = 0
        options = self.options
        due = correction_due(
            epoch,
            warmup_epochs=options.warmup_epochs,
            interval=options.update_interval,
            start=options.correction_start,
        )
        if due:
            metrics["corrected"] = self._correct(epoch, predictions, self._ranking(predictions, dice))
            self.store.commit(epoch)

    @torch.no_grad()
    def _predict_all(self, engine: Any) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """By network and case: predictions (S, H, W) uint8, and their Dice with the label that network trains on."""
        predictions: list[list[Tensor]] = [[], []]
        dice: list[list[Tensor]] = [[], []]
        modes = [network.training for network in engine.networks]
        for network in engine.networks:
            network.eval()
        for number in range(len(self.dataset.cases)):
            chunks = self.dataset.slices(number).split(self.batch_size)
            for i in (0, 1):
                logits = [engine.forward(i + 1, chunk.to(engine.state.device)) for chunk in chunks]
                self._num_classes = logits[0].shape[1]
                prediction = torch.cat([chunk.argmax(dim=1) for chunk in logits]).to("cpu", torch.uint8)
                predictions[i].append(self._postprocess(prediction))
                label = self.dataset.labels(number)[f"label_{i + 1}"]
                dice[i].append(self._dice(predictions[i][-1], label))
        for network, mode in zip(engine.networks, modes, strict=True):
            network.train(mode)
        return predictions, dice

    def _ranking(self, predictions: list[list[Tensor]], dice: list[list[Tensor]]) -> list[list[Tensor]]:
        """Dice that ranks the units; differs from ``dice`` only for the released code's index slip."""
        if self.options.ranking_reference == "own":
            return dice
        ranking: list[list[Tensor]] = [[], []]
        for number, (case, axis) in enumerate(zip(self.dataset.cases, self.dataset.axes, strict=True)):
            for i, reference in enumerate((self.store.initial(case), self.store.label(1, case))):
                ranking[i].append(self._dice(predictions[i][number], reference.movedim(axis, 0)))
        return ranking

    def _dice(self, prediction: Tensor, label: Tensor) -> Tensor:
        return unit_dice(prediction, label, num_classes=self._num_classes, unit=self.options.unit)

    def _postprocess(self, prediction: Tensor) -> Tensor:
        if not self.options.largest_component:
            return prediction
        kept = torch.zeros_like(prediction)
        for index in prediction.unique().tolist():
            if index:
                components, _ = ndimage.label((prediction == index).numpy())
                largest = 1 + np.bincount(components.ravel())[1:].argmax()
                kept[torch.from_numpy(components == largest)] = index
        return kept

    def _correct(self, epoch: int, predictions: list[list[Tensor]], dice: list[list[Tensor]]) -> int:
        """Replace the worst units and return how many were replaced."""
        numbers = [
            number
            for number, high_quality in enumerate(self.dataset.high_quality)
            if self.options.rank_high_quality or not high_quality
        ]
        if not numbers:
            return 0
        units = [(number, position) for number in numbers for position in range(len(dice[0][number]))]
        corrected = 0
        for i in (0, 1):
            values = torch.cat([dice[i][number] for number in numbers])
            for unit in worst_units(values, self.options.update_ratio).tolist():
                number, position = units[unit]
                if self.dataset.high_quality[number]:
                    continue
                self._replace(epoch, 2 - i, number, position, predictions[i][number], float(values[unit]))
                corrected += 1
        return corrected

    def _replace(
        self, epoch: int, network: int, number: int, position: int, prediction: Tensor, dice_before: float
    ) -> None:
        axis = self.dataset.axes[number]
        case = self.dataset.cases[number]
        if self.options.unit == "case":
            label, index = prediction.movedim(0, axis), None
        else:
            label, index = prediction[position], (axis, position)
        self.store.replace(network, case, label, epoch=epoch, dice_before=dice_before, index=index)
