"""The pseudo-label engine, a rival of AIDE: networks that train on their own predictions."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.inferers import Inferer
from torch import Tensor, nn

from aide_monai.algorithm import correction_due, keeps_foreground, unit_dice
from aide_monai.engines.weight_average import WeightAverage
from aide_monai.errors import InputError
from aide_monai.handlers.finite import ADVICE, FiniteLosses, WatchedNetwork, stop
from aide_monai.inferers import predictors_of
from aide_monai.options import PSEUDO_LABEL_RANGES, AIDEOptions
from aide_monai.stream.training_set import TrainingSet
from aide_monai.transforms import COMPONENTS, keep_components
from aide_monai.utils import distributed
from aide_monai.utils.validation import require_choices, require_numbers

logger = logging.getLogger(__name__)
CHOICES = {"largest_component": COMPONENTS}
"""Values of the option that is no number, by name."""


Predict = Callable[[Tensor], Tensor]


class PseudoLabels:
    """Replaces low-quality labels by the current predictions of the networks that train on them (Lee, 2013).

    After the epochs of the schedule each network predicts every low-quality case, and the predictions become its
    labels: all at once, without any ranking; voxels without a verdict stay so. Network i of a ``TwoNetworkTrainer`` has
    label i of the store. The store records it. ``engine.state.metrics["corrected"]`` is the number of labels replaced
    after an epoch, "withheld" that of the labels that are not, because the prediction has less than
    ``AIDEOptions.correction_foreground`` of the foreground that the label was given with.

    Args:
        dataset: the training stream; its ``store`` holds the labels.
        start: first epoch after which labels may be replaced.
        interval: from then on they are, after every epoch that is a multiple of this.
        largest_component: what predictions keep before they become labels, as in ``AIDEOptions``.
        batch_size: samples per forward pass of the prediction.

    Raises:
        InputError: if the data set has no store or a number is out of range; while training, if a prediction is NaN or
            infinite.

    Examples:
        >>> from aide_monai import find_datalist, LabelStore, load_volumes, SliceDataset, volume_transforms
        >>> from aide_monai import write_phantoms
        >>> folder = write_phantoms("phantoms", cases=2, shape=(32, 32, 4))
        >>> volumes = load_volumes(find_datalist(folder).records, volume_transforms(axis=2))
        >>> from aide_monai.engines import PseudoLabels
        >>> PseudoLabels(SliceDataset(volumes, store=LabelStore.from_volumes(volumes)), start=2, interval=1).interval
        1
    """

    def __init__(
        self,
        dataset: TrainingSet,
        *,
        start: int = 10,
        interval: int = 10,
        largest_component: str = "none",
        batch_size: int = 32,
    ) -> None:
        if dataset.store is None:
            raise InputError("dataset has no label store; build it with SliceDataset(volumes, store=LabelStore(...))")
        numbers = {"start": start, "interval": interval, "batch_size": batch_size}
        require_numbers(numbers, PSEUDO_LABEL_RANGES | {"batch_size": (1, math.inf)})
        require_choices({"largest_component": largest_component}, CHOICES)
        self.dataset = dataset
        self.store = dataset.store
        self.start = start
        self.interval = interval
        self.largest_component = largest_component
        self.batch_size = batch_size

    def attach(self, engine: Engine) -> None:
        """Register the handler; attach it before those that are to see the new labels."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Replace labels, if they are due."""
        self.replace(engine, lambda: predictors_of(engine))

    def replace(self, engine: Any, predictors: Callable[[], Sequence[Predict]]) -> None:
        """Replace labels, if they are due; ``predictors`` gives one for each network, (B, M, spatial...) to logits."""
        epoch, metrics = engine.state.epoch, engine.state.metrics
        metrics.update(corrected=0, withheld=0)
        if not correction_due(epoch, warmup_epochs=0, interval=self.interval, start=self.start):
            return
        doubtful = [number for number, trusted in enumerate(self.dataset.high_quality) if not trusted]
        predictions = {  # all, before any label changes
            (network, number): self._predict(engine, network, number, predict)
            for network, predict in enumerate(predictors(), start=1)
            for number in doubtful
        }
        for (network, number), (prediction, dice) in predictions.items():
            case = self.dataset.cases[number]
            label, _ = self.dataset.correction(number, prediction, None)
            if self._keeps_foreground(network, case, label):
                self.store.replace(network, case, label, epoch=epoch, dice_before=dice)
                metrics["corrected"] += 1
            else:
                metrics["withheld"] += 1
        self.store.commit(epoch)
        if metrics["withheld"]:
            logger.warning(
                "Epoch %d: %d of %d labels were not replaced, because less than %g %% of the foreground that they were "
                "given with would have been left: the network finds too little there.",
                epoch,
                metrics["withheld"],
                len(predictions),
                100 * AIDEOptions.correction_foreground,
            )

    def _keeps_foreground(self, network: int, case: str, label: Tensor) -> bool:
        labels = label, self.store.label(network, case), self.store.initial(case)
        after, before, given = (self.store.foreground(case, voxels) for voxels in labels)
        return keeps_foreground(after, before=before, given=given, least=AIDEOptions.correction_foreground)

    @torch.no_grad()
    def _predict(self, engine: Any, network: int, number: int, predict: Predict) -> tuple[Tensor, float]:
        """Prediction of a case, as the stream arranges it, and its Dice with the current label."""
        watched = WatchedNetwork(predict, engine.state.device)
        prediction, num_classes = self.dataset.predict(number, watched, self.batch_size)
        if not watched.was_finite():
            stop(
                f"epoch {engine.state.epoch}: found predictions of the network for case {self.dataset.cases[number]!r} "
                f"that are NaN or infinite; expected numbers. The run has stopped; no label was changed. {ADVICE}"
            )
        prediction = keep_components(prediction, self.largest_component)
        current = self.dataset.arranged(number, self.store.judged(network, self.dataset.cases[number]))
        return prediction, float(unit_dice(prediction, current, num_classes=num_classes, unit="case"))


class PseudoLabelTrainer(SupervisedTrainer):
    """MONAI's ``SupervisedTrainer`` that replaces low-quality labels by its own current predictions (Lee, 2013).

    ``PseudoLabels`` does it, of one network; label 2 of the store stays as given. A loss or prediction that is NaN or
    infinite stops the run. Two networks that do so are a ``SideBySideTrainer`` with ``PseudoLabels`` as its handler.

    Args:
        device: where training runs.
        max_epochs: number of epochs.
        train_data_loader: batches of ``dataset``; ``prepare_batch`` must take "label_1".
        network: (B, M, spatial...) to logits (B, C, spatial...).
        dataset: the training stream; its ``store`` holds the labels.
        start: first epoch after which labels may be replaced.
        interval: from then on they are, after every epoch that is a multiple of this.
        largest_component: what predictions keep before they become labels, as in ``AIDEOptions``.
        batch_size: samples per forward pass of the prediction.
        average: decay of a moving average of the weights, as in ``TwoNetworkTrainer``.
        kwargs: as in ``SupervisedTrainer`` (optimizer, loss_function, inferer, train_handlers, ...).

    Raises:
        InputError: if the data set has no store, a number is out of range, or there are many processes.

    Examples:
        >>> from aide_monai import find_datalist, load_volumes, volume_transforms, write_phantoms
        >>> folder = write_phantoms("phantoms", cases=2, shape=(32, 32, 4))
        >>> volumes = load_volumes(find_datalist(folder).records, volume_transforms(axis=2))
        >>> import torch
        >>> from monai.networks.nets import BasicUNet
        >>> from aide_monai import seeded, slice_loader, SliceDataset
        >>> build = lambda: BasicUNet(2, 1, 2, features=(4, 4, 4, 4, 4, 4), norm="batch")
        >>> network = seeded(build, 1)
        >>> from monai.losses import DiceCELoss
        >>> from aide_monai import LabelStore, PseudoLabelTrainer
        >>> slices = SliceDataset(volumes, store=LabelStore.from_volumes(volumes))
        >>> trainer = PseudoLabelTrainer(
        ...     "cpu", 1, slice_loader(slices, batch_size=4, steps=2, seed=0), network, dataset=slices,
        ...     optimizer=torch.optim.Adam(network.parameters()),
        ...     loss_function=DiceCELoss(to_onehot_y=True, softmax=True),
        ...     prepare_batch=lambda batch, *_, **__: (batch["image"], batch["label_1"]),
        ... )
        >>> trainer.run()
        >>> trainer.state.iteration
        2
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Any,
        network: nn.Module,
        *,
        dataset: TrainingSet,
        start: int = 10,
        interval: int = 10,
        largest_component: str = "none",
        batch_size: int = 32,
        average: float = 0.0,
        train_handlers: Any = None,
        inferer: Inferer | None = None,
        **kwargs: Any,
    ) -> None:
        if distributed.world_size() > 1:
            raise InputError(
                f"this baseline was started in {distributed.world_size()} processes; expected one: start it without "
                "torchrun"
            )
        self.labels = PseudoLabels(
            dataset, start=start, interval=interval, largest_component=largest_component, batch_size=batch_size
        )
        super().__init__(
            device=torch.device(device),
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            inferer=inferer,
            **kwargs,
        )
        FiniteLosses().attach(self)
        if average > 0:
            WeightAverage([self.network], average).attach(self)
        # Before the handlers, so that they see the new labels.
        self.add_event_handler(Events.EPOCH_COMPLETED, self._relabel)
        if train_handlers is not None:
            self._register_handlers(train_handlers)

    def _relabel(self) -> None:
        self.network.eval()
        self.labels.replace(self, lambda: [lambda image: self.inferer(image, self.network)])
        self.network.train()
