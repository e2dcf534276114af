"""Global label correction after each epoch (Algorithm 1, lines 21-28)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from statistics import fmean
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from aide_monai.algorithm import annotated_classes, correction_due, keeps_foreground, mean_dice, worst_units
from aide_monai.errors import InputError
from aide_monai.handlers.finite import ADVICE, WatchedNetwork, stop
from aide_monai.ignored import PARTIAL, marked
from aide_monai.inferers import predictors_of
from aide_monai.labels.store import LabelStore
from aide_monai.options import AIDEOptions
from aide_monai.stream.training_set import TrainingSet
from aide_monai.transforms import keep_components
from aide_monai.utils import distributed
from aide_monai.utils.mapped_tensor import MappedTensor, ScratchFolder, current, release_freed_memory

logger = logging.getLogger(__name__)

Key = tuple[int, int]
"""Network (0 or 1) and number of the case."""


class _Score(NamedTuple):
    """How a network's prediction of a case agrees with its label.

    Attributes:
        dice: (units,) with the label that the network trains on; NaN where it has no verdict, as in ``ranking``.
        ranking: (units,) Dice that ranks them.
        predicted: foreground voxels of the prediction, where the label has a verdict.
        labelled: foreground voxels of the label.
        finite: all of the network's logits were numbers.
    """

    dice: list[float]  # no tensors: small ones, kept between large ones, would keep memory from being reused
    ranking: list[float]
    predicted: int
    labelled: int
    finite: bool


class GlobalLabelCorrection:
    """Ranks all labels by their agreement with the networks and lets each network replace the other's worst ones.

    After every epoch both networks predict the whole training set in eval mode. ``engine.state.metrics["dsc_train"]``
    becomes the mean Dice between predictions and labels. When the update criterion holds, the units with the smallest
    Dice are replaced: network 1's prediction becomes network 2's label and the other way round; the change is
    committed to the store. With ``correction_source="mean"`` both are ranked and replaced by what the mean of the two
    networks' probabilities predicts. High-quality cases never change. Voxels without a verdict neither rank nor change;
    with ``fill_ignored`` those of all cases take the predicted class. In an engine of one network, as MONAI's
    ``SupervisedTrainer``, that network corrects the labels of network 1, which it trains on. Of many processes each
    predicts a share of the cases; all decide alike and replace the same labels.

    The handler also records ``engine.state.metrics["dsc_trusted"]`` (the mean Dice of high-quality cases alone, where
    there are any), "corrected" (units replaced), "withheld" (units that are not, because too little of the label's
    foreground would be left, see ``AIDEOptions.correction_foreground``) and, for those who watch for a collapse,
    "foreground_ratio" (predicted over labelled foreground voxels), "foreground_ratio_1" and "foreground_ratio_2" (of
    each network). With ``AIDEOptions.trusted_drop``: "dsc_trusted_best", "sound_generation" (of the labels, when the
    networks last agreed with the trusted ones) and "taken_back" (the epoch after which labels returned to it, or 0).

    Args:
        dataset: the training stream, of slices, patches or volumes; its ``store`` holds the labels.
        options: options of the algorithm; give the trainer the same ones.
        batch_size: slices or patches per forward pass.
        every_epoch: False predicts only after epochs that are due for a correction; between them the metrics keep
            their values.

    Examples:
        >>> from aide_monai import find_datalist, load_volumes, volume_transforms, write_phantoms
        >>> folder = write_phantoms("phantoms", cases=2, shape=(32, 32, 4))
        >>> records = [{**record, "quality": "low"} for record in find_datalist(folder).records]
        >>> volumes = load_volumes(records, volume_transforms(axis=2))
        >>> import torch
        >>> from monai.networks.nets import BasicUNet
        >>> from aide_monai import seeded, slice_loader, SliceDataset
        >>> build = lambda: BasicUNet(2, 1, 2, features=(4, 4, 4, 4, 4, 4), norm="batch")
        >>> first, second = seeded(build, 1), seeded(build, 2)
        >>> from aide_monai import AIDEOptions, AIDETrainer, GlobalLabelCorrection, LabelStore
        >>> options = AIDEOptions(warmup_epochs=1, update_ratio=0.5, correction_foreground=0)
        >>> slices = SliceDataset(volumes, store=LabelStore.from_volumes(volumes))
        >>> trainer = AIDETrainer(
        ...     "cpu", 1, slice_loader(slices, batch_size=4, steps=2, seed=0),
        ...     first, torch.optim.Adam(first.parameters()), second, torch.optim.Adam(second.parameters()),
        ...     options=options, train_handlers=[GlobalLabelCorrection(slices, options=options)],
        ... )
        >>> trainer.run()
        >>> len(slices.store.records)  # one of two cases, for each of two networks
        2
    """

    def __init__(
        self,
        dataset: TrainingSet,
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
        self._annotated: dict[int, list[int]] = {}  # classes by number of the case; labels as given do not change

    def attach(self, engine: Engine) -> None:
        """Register the correction with a ``TwoNetworkTrainer``, or an engine of one network as MONAI's trainers."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Predict, rank, and correct if it is due."""
        options = self.options
        due = (options.update_ratio > 0 or options.fill_ignored) and correction_due(
            engine.state.epoch,
            warmup_epochs=options.warmup_epochs,
            interval=options.update_interval,
            start=options.correction_start,
        )
        if not due and not self.every_epoch:
            engine.state.metrics.update(corrected=0, withheld=0)
            return
        scratch = None if self.store.scratch is None else ScratchFolder(self.store.scratch)
        predictions: dict[Key, Tensor | MappedTensor] = {}
        scores: dict[Key, Any] = {}
        for key, prediction, finite in self._predict(engine):
            scores[key] = tuple(self._score(key, prediction, finite))
            if due and scratch is None:
                predictions[key] = prediction
            elif due and scratch is not None:
                predictions[key] = MappedTensor(scratch.path / "{}_{}".format(*key), prediction)
            if scratch is not None:
                release_freed_memory()
        found: dict[Key, _Score] = {}
        for part in distributed.gather(scores):
            found |= {key: _Score(*score) for key, score in part.items()}
        epoch, metrics = engine.state.epoch, engine.state.metrics
        self._require_finite(epoch, found)
        metrics["dsc_train"] = quality = _mean_dice(found.values())
        metrics["foreground_ratio"] = _foreground_ratio(found.values())
        for network in sorted({i for i, _ in found}):
            mine = [score for (i, _), score in found.items() if i == network]
            metrics[f"foreground_ratio_{network + 1}"] = _foreground_ratio(mine)
        if any(self.dataset.high_quality):
            trusted = [score for (_, number), score in found.items() if self.dataset.high_quality[number]]
            metrics["dsc_trusted"] = quality = _mean_dice(trusted)
        metrics.update(corrected=0, withheld=0)
        if self._sound(engine) and due and quality >= options.correction_dice:
            done, withheld = self._correct(epoch, predictions, {key: found[key].ranking for key in found})
            metrics.update(corrected=done, withheld=len(withheld))
            if options.fill_ignored:
                self._fill(epoch, predictions, {key: found[key].dice for key in found})
            self.store.commit(epoch)
            self._tell(epoch, done, withheld)
        if scratch is not None:
            release_freed_memory()

    def _sound(self, engine: Any) -> bool:
        """Whether the networks still agree with the trusted labels; where they do not, the last labels are undone.

        What it remembers is in the metrics, which come back when a run is resumed.
        """
        drop, metrics = self.options.trusted_drop, engine.state.metrics
        if drop == 1 or not self.options.trusted_share or "dsc_trusted" not in metrics:
            return True
        metrics.setdefault("taken_back", 0)
        best = metrics["dsc_trusted_best"] = max(metrics["dsc_trusted"], metrics.get("dsc_trusted_best", 0.0))
        if metrics["taken_back"]:
            return False
        if metrics["dsc_trusted"] >= best - drop:
            metrics["sound_generation"] = self.store.generation
            return True
        generation = int(metrics["sound_generation"])
        if self.store.generation != generation:
            self.store.take_back(generation, epoch=engine.state.epoch, dice_before=metrics["dsc_trusted"])
            self.store.commit(engine.state.epoch)
            metrics["taken_back"] = engine.state.epoch
            logger.warning(
                "Epoch %d: the Dice with the trusted labels has fallen from %.3f to %.3f since labels were corrected. "
                "They return to %s, and no more are corrected (option trusted_drop).",
                engine.state.epoch,
                best,
                metrics["dsc_trusted"],
                f"those of generation {generation}" if self.store.keeps_generations else "what they were given as",
            )
        return False

    def _predict(self, engine: Any) -> Iterator[tuple[Key, Tensor, bool]]:
        """Class indices, as the data set arranges them, of the networks for this process's cases, one by one.

        And whether the logits of each network were finite.
        """
        calls = [WatchedNetwork(predictor, engine.state.device) for predictor in predictors_of(engine)]
        mean = self.options.correction_source == "mean"
        sources: Sequence[Callable[[Tensor], Tensor]] = [partial(_mean, calls)] if mean else calls
        for number in range(distributed.rank(), len(self.dataset.cases), distributed.world_size()):
            for i, call in enumerate(sources):
                with torch.no_grad():
                    prediction, self._num_classes = self.dataset.predict(number, call, self.batch_size)
                prediction = keep_components(prediction, self.options.largest_component)
                for network in range(len(calls)) if mean else (i,):
                    yield (network, number), prediction, calls[network].was_finite()

    def _require_finite(self, epoch: int, found: Mapping[Key, _Score]) -> None:
        wrong = sorted(key for key, score in found.items() if not score.finite)
        if wrong:
            network, number = wrong[0]
            cases = len({number for _, number in wrong})
            stop(
                f"epoch {epoch}: found predictions of network {network + 1} for case {self.dataset.cases[number]!r} "
                f"that are NaN or infinite ({cases} of {len(self.dataset.cases)} cases); expected numbers. The run has "
                f"stopped; labels and checkpoints are those of the last epoch before. {ADVICE}"
            )

    def _score(self, key: Key, prediction: Tensor, finite: bool) -> _Score:
        i, number = key
        case = self.dataset.cases[number]
        label = self.store.judged(i + 1, case)
        counts = self._counts(number, prediction, label)
        dice = ranking = self._dice(number, counts)
        if self.options.ranking_reference == "released":
            reference = self.store.initial(case) if i == 0 else self.store.judged(1, case)
            ranking = self._dice(number, self._counts(number, prediction, reference))
        return _Score(
            dice.tolist(),
            ranking.tolist(),
            predicted=int(counts[:, 1:].sum()),
            labelled=int(marked(label).sum()),
            finite=finite,
        )

    def _counts(self, number: int, prediction: Tensor, label: Tensor) -> Tensor:
        return self.dataset.confusion(number, prediction, self.dataset.arranged(number, label), self._num_classes)

    def _dice(self, number: int, counts: Tensor) -> Tensor:
        """Of each unit; NaN where its label has no verdict."""
        counts = counts.sum(dim=0, keepdim=True) if self.options.unit == "case" else counts
        if number not in self._annotated:
            initial = self.store.initial(self.dataset.cases[number])
            self._annotated[number] = annotated_classes(initial, num_classes=self._num_classes)
        return mean_dice(counts, self._annotated[number]).masked_fill(~counts.flatten(1).any(dim=1), math.nan)

    def _correct(
        self, epoch: int, predictions: Mapping[Key, Tensor | MappedTensor], dice: Mapping[Key, Sequence[float]]
    ) -> tuple[int, list[str]]:
        """Replace the worst units; how many were, and the case of each that was not, to keep its foreground."""
        numbers = [
            number
            for number, high_quality in enumerate(self.dataset.high_quality)
            if self.options.rank_high_quality or not high_quality
        ]
        if not numbers:
            return 0, []
        units = [
            (number, position)
            for number in numbers
            for position, value in enumerate(dice[0, number])
            if not math.isnan(value)  # the same for both networks
        ]
        networks = sorted({i for i, _ in dice})
        replaced, withheld = 0, []
        for i in networks:
            values = torch.tensor([dice[i, number][position] for number, position in units], dtype=torch.float64)
            for unit in worst_units(values, self.options.update_ratio).tolist():
                number, position = units[unit]
                if not self.dataset.high_quality[number]:
                    place = None if self.options.unit == "case" else position
                    label = self._from_its_process(predictions.get((i, number)), number, place)
                    case = self.dataset.cases[number]
                    given = self.dataset.arranged(number, self.store.initial(case))
                    index = self.dataset.correction(number, given, place)[1]
                    network = 2 - i if len(networks) == 2 else 1
                    dice_before = float(values[unit])
                    if not self._keeps_foreground(network, case, label, index):
                        withheld.append(case)
                        continue
                    self.store.replace(network, case, label, epoch=epoch, dice_before=dice_before, index=index)
                    replaced += 1
        return replaced, withheld

    def _fill(
        self, epoch: int, predictions: Mapping[Key, Tensor | MappedTensor], dice: Mapping[Key, Sequence[float]]
    ) -> None:
        """Give what has no verdict the class that is predicted there, in trusted cases too."""
        networks = sorted({i for i, _ in dice})
        for number, case in enumerate(self.dataset.cases):
            if not bool((self.store.initial(case) >= PARTIAL).any()):
                continue
            for i in networks:
                found = [value for value in dice[i, number] if not math.isnan(value)]
                label = self._from_its_process(predictions.get((i, number)), number, None)
                network = 2 - i if len(networks) == 2 else 1
                self.store.fill(network, case, label, epoch=epoch, dice_before=fmean(found) if found else None)

    def _keeps_foreground(self, network: int, case: str, label: Tensor, index: Any) -> bool:
        store = self.store
        given, before = (store.foreground(case, whole) for whole in (store.initial(case), store.label(network, case)))
        left, right = (store.foreground(case, part, index) for part in (store.label(network, case, index), label))
        after = before - left + right
        return keeps_foreground(after, before=before, given=given, least=self.options.correction_foreground)

    def _tell(self, epoch: int, replaced: int, withheld: Sequence[str]) -> None:
        if withheld:
            cases = list(dict.fromkeys(withheld))
            logger.warning(
                "Epoch %d: %d of %d corrections were not made, because they would have left less than %g %% of the "
                "foreground that a label was given with (cases %s%s; option correction_foreground): the networks find "
                "too little there.",
                epoch,
                len(withheld),
                replaced + len(withheld),
                100 * self.options.correction_foreground,
                ", ".join(cases[:5]),
                f" and {len(cases) - 5} more" if len(cases) > 5 else "",
            )

    def _from_its_process(self, prediction: Tensor | MappedTensor | None, number: int, position: int | None) -> Tensor:
        """The new label of a unit, or of a whole case; of many processes, one has predicted it."""
        mine = None
        if prediction is not None:
            mine = self.dataset.correction(number, current(prediction), position)[0].clone()
        (label,) = [part for part in distributed.gather(mine) if part is not None]
        return label


def _mean_dice(scores: Iterable[_Score]) -> float:
    """Over the units of both networks, which have as many of them; 0 where none has a verdict."""
    found = [value for value in chain.from_iterable(score.dice for score in scores) if not math.isnan(value)]
    return fmean(found) if found else 0.0


def _foreground_ratio(scores: Iterable[_Score]) -> float:
    """Predicted over labelled foreground voxels."""
    scores = list(scores)
    return sum(score.predicted for score in scores) / max(sum(score.labelled for score in scores), 1)


def _mean(networks: Sequence[Callable[[Tensor], Tensor]], image: Tensor) -> Tensor:
    """Mean of the networks' probabilities, the largest of which is what they predict."""
    return torch.stack([network(image).softmax(dim=1) for network in networks]).mean(dim=0)
