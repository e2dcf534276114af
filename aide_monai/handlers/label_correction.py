"""Global label correction after each epoch (Algorithm 1, lines 21-28)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from scipy import ndimage
from torch import Tensor

from aide_monai import distributed
from aide_monai.algorithm import correction_due, mean_dice, worst_units
from aide_monai.data.cache_dataset import AIDECacheDataset
from aide_monai.data.label_store import LabelStore
from aide_monai.data.patch_dataset import PatchDataset
from aide_monai.data.slice_dataset import SliceDataset
from aide_monai.errors import InputError
from aide_monai.inferers import predictors_of
from aide_monai.options import AIDEOptions

Predictions = dict[tuple[int, int], Tensor]
"""By network (0 or 1) and number of the case."""


class GlobalLabelCorrection:
    """Ranks all labels by their agreement with the networks and lets each network replace the other's worst ones.

    After every epoch both networks predict the whole training set in eval mode. ``engine.state.metrics["dsc_train"]``
    becomes the mean Dice between predictions and labels. When the update criterion holds, the units with the smallest
    Dice are replaced: network 1's prediction becomes network 2's label and the other way round; the change is
    committed to the store. High-quality cases never change. In an engine of one network, as MONAI's
    ``SupervisedTrainer``, that network corrects the labels of network 1, which it trains on. Of many processes each
    predicts a share of the cases; all decide alike and replace the same labels.

    The handler also records ``engine.state.metrics["dsc_trusted"]`` (the mean Dice of high-quality cases alone, where
    there are any), "corrected" (units replaced) and, for those who watch for a collapse, "foreground_ratio" (predicted
    over labelled foreground voxels).

    Args:
        dataset: the training stream, of slices, patches or volumes; its ``store`` holds the labels.
        options: options of the algorithm; give the trainer the same ones.
        batch_size: slices or patches per forward pass.
        every_epoch: False predicts only after epochs that are due for a correction; between them the metrics keep
            their values.
    """

    def __init__(
        self,
        dataset: SliceDataset | PatchDataset | AIDECacheDataset,
        *,
        options: AIDEOptions | None = None,
        batch_size: int = 32,
        every_epoch: bool = True,
    ) -> None:
        if dataset.store is None:
            raise ValueError(
                "the data set has no label store; build it with SliceDataset(volumes, store=LabelStore(...))"
            )
        self.options = options or AIDEOptions()
        if self.options.unit not in ("case", dataset.unit):
            raise InputError(
                f'unit is "{self.options.unit}"; expected "case" or "{dataset.unit}", which is what this data set has'
            )
        self.dataset = dataset
        self.store: LabelStore = dataset.store
        self.batch_size = batch_size
        self.every_epoch = every_epoch
        self._num_classes = 2

    def attach(self, engine: Engine) -> None:
        """Register the correction with a ``TwoNetworkTrainer``, or an engine of one network as MONAI's trainers."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Predict, rank, and correct if it is due."""
        options = self.options
        due = correction_due(
            engine.state.epoch,
            warmup_epochs=options.warmup_epochs,
            interval=options.update_interval,
            start=options.correction_start,
        )
        if not due and not self.every_epoch:
            engine.state.metrics["corrected"] = 0
            return
        mine = range(distributed.rank(), len(self.dataset.cases), distributed.world_size())
        predictions = self._predict(engine, mine)
        found: dict[tuple[int, int], Any] = {}
        for part in distributed.gather({key: self._score(key, value) for key, value in predictions.items()}):
            found |= part
        networks = sorted({i for i, _ in found})
        keys = [[(i, number) for number in range(len(self.dataset.cases))] for i in networks]
        epoch, metrics = engine.state.epoch, engine.state.metrics
        metrics["dsc_train"] = float(np.mean([torch.cat([found[key][0] for key in both]).mean() for both in keys]))
        labels = [self.store.label(i + 1, self.dataset.cases[number]) for both in keys for i, number in both]
        labelled = sum(int((label > 0).sum()) for label in labels)
        metrics["foreground_ratio"] = sum(found[key][2] for both in keys for key in both) / max(labelled, 1)
        trusted = [[key for key in both if self.dataset.high_quality[key[1]]] for both in keys]
        quality = metrics["dsc_train"]
        if trusted[0]:
            quality = float(np.mean([torch.cat([found[key][0] for key in both]).mean() for both in trusted]))
            metrics["dsc_trusted"] = quality
        metrics["corrected"] = 0
        if due and quality >= options.correction_dice:
            metrics["corrected"] = self._correct(epoch, predictions, {key: found[key][1] for key in found})
            self.store.commit(epoch)

    @torch.no_grad()
    def _predict(self, engine: Any, numbers: Iterable[int]) -> Predictions:
        """Class indices, as the data set arranges them, of the networks for some cases."""
        predictions: Predictions = {}
        predictors = predictors_of(engine)
        for number in numbers:
            for i, predictor in enumerate(predictors):
                call = partial(_on_device, predictor, engine.state.device)
                prediction, self._num_classes = self.dataset.predict(number, call, self.batch_size)
                predictions[i, number] = self._postprocess(prediction)
        return predictions

    def _score(self, key: tuple[int, int], prediction: Tensor) -> tuple[Tensor, Tensor, int]:
        """Dice of each unit with the label that the network trains on, that which ranks it, and foreground voxels."""
        i, number = key
        case = self.dataset.cases[number]
        dice = ranking = self._dice(number, prediction, self.store.label(i + 1, case))
        if self.options.ranking_reference == "released":
            reference = self.store.initial(case) if i == 0 else self.store.label(1, case)
            ranking = self._dice(number, prediction, reference)
        return dice, ranking, int((prediction > 0).sum())

    def _dice(self, number: int, prediction: Tensor, label: Tensor) -> Tensor:
        arranged = self.dataset.arranged(number, label)
        counts = self.dataset.confusion(number, prediction, arranged, self._num_classes)
        return mean_dice(counts.sum(dim=0, keepdim=True) if self.options.unit == "case" else counts)

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

    def _correct(self, epoch: int, predictions: Predictions, dice: dict[tuple[int, int], Tensor]) -> int:
        """Replace the worst units and return how many were replaced."""
        numbers = [
            number
            for number, high_quality in enumerate(self.dataset.high_quality)
            if self.options.rank_high_quality or not high_quality
        ]
        if not numbers:
            return 0
        units = [(number, position) for number in numbers for position in range(len(dice[0, number]))]
        chosen = []
        networks = sorted({i for i, _ in dice})
        for i in networks:
            values = torch.cat([dice[i, number] for number in numbers])
            for unit in worst_units(values, self.options.update_ratio).tolist():
                number, position = units[unit]
                if not self.dataset.high_quality[number]:
                    chosen.append((i, number, position, float(values[unit])))
        new: dict[tuple[int, int, int], Tensor] = {}
        mine = {
            (i, number, position): self._correction(number, predictions[i, number], position)[0].clone()
            for i, number, position, _ in chosen
            if (i, number) in predictions
        }
        for part in distributed.gather(mine):
            new |= part
        for i, number, position, value in chosen:
            case = self.dataset.cases[number]
            _, index = self._correction(number, self.dataset.arranged(number, self.store.initial(case)), position)
            network = 2 - i if len(networks) == 2 else 1
            self.store.replace(network, case, new[i, number, position], epoch=epoch, dice_before=value, index=index)
        return len(chosen)

    def _correction(self, number: int, prediction: Tensor, position: int) -> tuple[Tensor, Any]:
        return self.dataset.correction(number, prediction, None if self.options.unit == "case" else position)


def _on_device(network: Callable[[Tensor], Tensor], device: torch.device, image: Tensor) -> Tensor:
    return network(image.to(device))
