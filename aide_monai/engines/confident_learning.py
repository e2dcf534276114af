"""The confident-learning engine, a rival of AIDE: pixels whose labels are probably wrong are pruned once."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Events
from torch import Tensor

from aide_monai.engines.label_errors import label_errors, noise_joint
from aide_monai.engines.partly_labelled import Labels, PartlyLabelledTrainer
from aide_monai.engines.prepare_batch import Batch
from aide_monai.errors import InputError
from aide_monai.ignored import PARTIAL
from aide_monai.stream.slice_dataset import SliceDataset
from aide_monai.utils.validation import require_choices, require_numbers

RANGES: dict[str, tuple[float, float]] = {"fit_epochs": (1, math.inf)}
"""Smallest and largest value of the options, by name."""
CHOICES = {"prune": ("class", "noise_rate", "both")}
"""Values of the option that is no number, by name."""


def check(options: Mapping[str, Any]) -> None:
    """Refuse values, by name, that the engine does not take."""
    require_numbers(options, RANGES)
    require_choices(options, CHOICES)


class ConfidentLearningTrainer(PartlyLabelledTrainer):
    """Prunes labels by confident learning, then trains two networks on the rest (Northcutt et al., JAIR 2021).

    Up to ``fit_epochs`` the networks are fitted crosswise: each learns the trusted cases and one half of the doubtful
    ones, and then predicts the other half. From these probabilities p(x) of pixels x with given labels y::

        t_j     = mean of p_j(x) over all x with y = j
        C_ij    = number of x with y = i whose largest p_j(x) >= t_j is that of j
        Q_ij    = (C_ij / sum_j C_ij) |y = i| / N
        pruned  = for each i != j, the N Q_ij pixels with y = i and the largest p_j - p_i      ("noise_rate")

    Both networks then go back to their first weights and learn all cases but the pruned pixels, for the rest of the
    epochs. ``engine.state.metrics["pruned"]`` is the pruned share of the doubtful pixels. Labels never change, and
    those of trusted cases are never pruned.

    The paper is for classification with labels that were confused by class. Different from it: a pixel is a sample
    (as others have done for masks); two folds instead of four or more, so that two networks suffice; no weighting of
    classes by ``1 / (1 - share pruned)``, for Dice does not know the pruned pixels; the learning rate goes on as its
    schedule says. Its other rankings, by self-confidence alone or by the confusions themselves, are left out. While it
    prunes, the probabilities of all doubtful pixels are in memory, several times over.

    Args:
        args: as in ``PartlyLabelledTrainer``; the loader must read a ``SliceDataset``.
        fit_epochs: epochs of the crosswise fitting; fewer than all.
        prune: "class", "noise_rate" or "both", see ``label_errors``.
        batch_size: slices per forward pass of the prediction.
        kwargs: as in ``PartlyLabelledTrainer``.

    Raises:
        InputError: if an option is out of range, the loader reads something else, or fewer than two cases are doubtful;
            see ``PartlyLabelledTrainer``.

    Examples:
        >>> from aide_monai import find_datalist, load_volumes, volume_transforms, write_phantoms
        >>> records = find_datalist(write_phantoms("phantoms", cases=2, shape=(32, 32, 4))).records
        >>> volumes = load_volumes([r | {"quality": "low"} for r in records], volume_transforms(axis=2))
        >>> import torch
        >>> from monai.networks.nets import BasicUNet
        >>> from aide_monai import seeded, slice_loader, SliceDataset
        >>> from aide_monai.engines import ConfidentLearningTrainer
        >>> build = lambda: BasicUNet(2, 1, 2, features=(4, 4, 4, 4, 4, 4), norm="batch")
        >>> first, second = seeded(build, 1), seeded(build, 2)
        >>> trainer = ConfidentLearningTrainer(
        ...     "cpu", 2, slice_loader(SliceDataset(volumes), batch_size=4, steps=2, seed=0),
        ...     first, torch.optim.Adam(first.parameters()), second, torch.optim.Adam(second.parameters()),
        ...     fit_epochs=1,
        ... )
        >>> trainer.run()
        >>> 0 <= trainer.state.metrics["pruned"] < 1
        True
    """

    def __init__(
        self, *args: Any, fit_epochs: int = 7, prune: str = "noise_rate", batch_size: int = 32, **kwargs: Any
    ) -> None:
        check({"fit_epochs": fit_epochs, "prune": prune})
        require_numbers({"batch_size": batch_size}, {"batch_size": (1, math.inf)})
        self.fit_epochs = fit_epochs
        self.prune = prune
        self.batch_size = batch_size
        handlers = kwargs.pop("train_handlers", None)
        super().__init__(*args, **kwargs)
        dataset = getattr(self.data_loader, "dataset", None)
        if not isinstance(dataset, SliceDataset):
            raise InputError(f"the loader reads {type(dataset).__name__}; expected that of a SliceDataset")
        self.dataset = dataset
        self.doubtful = [number for number, trusted in enumerate(dataset.high_quality) if not trusted]
        if fit_epochs >= self.state.max_epochs:
            raise InputError(f"fit_epochs is {fit_epochs}; expected fewer than all {self.state.max_epochs} epochs")
        if len(self.doubtful) < 2:
            raise InputError(f"{len(self.doubtful)} cases are doubtful; expected at least two, one for each network")
        self._first = [copy.deepcopy(network.state_dict()) for network in self.networks]
        self.state.pruned = {}  # case number to (S, H, W) bool
        self._state_dict_user_keys.append("pruned")
        self.add_event_handler(Events.EPOCH_COMPLETED, self._end_fitting)
        if handlers is not None:  # after the pruning, so that a checkpoint has it
            self._register_handlers(handlers)

    def hidden(self, batchdata: Batch, labels: Labels, trusted: Tensor) -> tuple[Tensor, Tensor]:
        """Of doubtful cases, those that the other network learns while it is fitted; then the pruned pixels."""
        device, shape = labels[0].device, labels[0].shape
        cases, positions = (batchdata[key].tolist() for key in ("case", "slice"))
        if self.state.epoch <= self.fit_epochs:
            folds = torch.tensor([self._fold(case) for case in cases], device=device)
            folds = folds.view(-1, *[1] * (len(shape) - 1))
            return folds == 1, folds == 0
        pruned = torch.zeros(shape, dtype=torch.bool, device=device)
        for mask, case, position in zip(pruned, cases, positions, strict=True):
            if case in self.state.pruned:
                mask[0] = self.state.pruned[case][position]
        return pruned, pruned

    def compute_losses(
        self, image: Tensor, logits: tuple[Tensor, Tensor], labels: Labels
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Supervised loss of each network; see ``TwoNetworkTrainer.compute_losses``."""
        first, second = (self.supervised(o, y) for o, y in zip(logits, labels, strict=True))
        return first, second, {}

    def _fold(self, case: int) -> int:
        """0 or 1, the network that learns a doubtful case while it is fitted; -1 for a trusted one, which both do."""
        return -1 if self.dataset.high_quality[case] else self.doubtful.index(case) % 2

    def _end_fitting(self) -> None:
        metrics = self.state.metrics
        metrics.setdefault("pruned", 0.0)
        if self.state.epoch != self.fit_epochs:
            return
        self.state.pruned = self._find_errors()
        wrong = torch.cat([mask.flatten() for mask in self.state.pruned.values()])
        metrics["pruned"] = float(wrong.double().mean())
        averages = [self.networks] if self._average is None else [self.networks, self._average.averages]
        for networks in averages:
            for network, first in zip(networks, self._first, strict=True):
                network.load_state_dict(first)
        for optimizer in (self.state.optimizer_1, self.state.optimizer_2):
            optimizer.state.clear()

    def _find_errors(self) -> dict[int, Tensor]:
        """Case number to (S, H, W) bool, of the doubtful cases."""
        for predictor in self.predictors:
            predictor.refresh()
        labels = [next(iter(self.dataset.labels(case).values())) for case in self.doubtful]
        label = torch.cat([part.flatten() for part in labels]).long()
        probability = torch.cat([self._probability(case) for case in self.doubtful])
        wrong, judged = torch.zeros_like(label, dtype=torch.bool), label < PARTIAL
        label, probability = label[judged], probability[judged]
        wrong[judged] = label_errors(label, probability, noise_joint(label, probability), prune=self.prune)
        pieces = wrong.split([part.numel() for part in labels])
        return {case: piece.view(y.shape) for case, piece, y in zip(self.doubtful, pieces, labels, strict=True)}

    def _probability(self, case: int) -> Tensor:
        """(pixels, C) of the network that has not learnt the case."""
        predictor = self.predictors[1 - self._fold(case)]
        parts = self.dataset.slices(case).split(self.batch_size)
        probability = torch.cat([predictor(part.to(self.state.device)).softmax(dim=1).cpu() for part in parts])
        return probability.movedim(1, -1).flatten(0, -2)
