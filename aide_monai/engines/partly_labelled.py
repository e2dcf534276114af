"""Engine base for two networks on images of which many pixels have no label to learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Events
from torch import Tensor

from aide_monai.algorithm import has_verdict
from aide_monai.engines.prepare_batch import Batch
from aide_monai.engines.two_network import TwoNetworkTrainer
from aide_monai.errors import InputError
from aide_monai.ignored import IGNORED
from aide_monai.losses import PerSampleDiceCELoss
from aide_monai.utils import distributed
from aide_monai.utils.validation import require_numbers

Loss = Callable[[Tensor, Tensor], Tensor]
Labels = tuple[Tensor, Tensor]
Extra = dict[str, Any]


def require_teacher(average: float) -> None:
    """Refuse the decay of a moving average of the weights that is none, or keeps none."""
    require_numbers({"average": average}, {"average": (math.ulp(0.0), 1 - 1e-6)})


class PartlyLabelledTrainer(TwoNetworkTrainer):
    """``TwoNetworkTrainer`` that hides labels from its losses; subclasses say what is learnt of such pixels.

    By default those of doubtful cases are hidden, whatever labels these have: semi-supervised training from trusted
    cases ("high_quality" in the batch) and from the images of the others. A hidden pixel has the label ``IGNORED``, as
    one without a verdict has, and one that augmentation brought in from outside the image. Labels move with
    ``augment``, so that a trusted box that ``CutMix`` pastes into a doubtful image stays trusted, and the other way
    round.

    It runs in one process.

    Args:
        args: device, max_epochs, train_data_loader, network_1, optimizer_1, network_2, optimizer_2, as in
            ``TwoNetworkTrainer``.
        loss_function: per-sample segmentation loss, (logits, label) to (B,), that leaves out pixels with the label
            ``IGNORED``; eq. 1 by default.
        kwargs: as in ``TwoNetworkTrainer``.

    Raises:
        InputError: if there are many processes; while training, if an epoch has no sample with a label.
    """

    def __init__(self, *args: Any, loss_function: Loss | None = None, **kwargs: Any) -> None:
        if distributed.world_size() > 1:
            raise InputError(
                f"this rival of AIDE was started in {distributed.world_size()} processes; expected one: start it "
                "without torchrun"
            )
        self.segmentation_loss = loss_function or PerSampleDiceCELoss()
        self._labelled: Tensor | int = 0  # samples of the epoch with a label
        super().__init__(*args, **kwargs)
        self.add_event_handler(Events.EPOCH_STARTED, self._begin_count)
        self.add_event_handler(Events.EPOCH_COMPLETED, self._require_labelled)

    def hidden(self, batchdata: Batch, labels: Labels, trusted: Tensor) -> tuple[Tensor, Tensor]:
        """Where the labels of both networks are hidden, bool of a shape that fits them, (B, 1, spatial...).

        Args:
            batchdata: as loaded.
            labels: of both networks, (B, 1, spatial...) integers.
            trusted: (B,) bool.
        """
        doubtful = ~trusted.view(-1, *[1] * (labels[0].ndim - 1))
        return doubtful, doubtful

    def supervised(self, logits: Tensor, label: Tensor) -> Tensor:
        """Scalar: mean loss of the samples of which at least a pixel has a label; 0 if there is none."""
        known = has_verdict(label)
        return self.segmentation_loss(logits, label).where(known, 0).sum() / known.sum().clamp(min=1)

    def forward_and_losses(self, image: Tensor, labels: Labels) -> tuple[Labels, Sequence[Tensor], Extra]:
        """As ``TwoNetworkTrainer``, with labels in which what is hidden is ``IGNORED``; see ``learn``."""
        first, second = (torch.where(label < 0, ~label, IGNORED) for label in labels)
        self._labelled = self._labelled + ((first != IGNORED) | (second != IGNORED)).flatten(1).any(dim=1).sum()
        logits, losses, extra = self.learn(image, (first, second))
        return logits, losses, {"label_1": first, "label_2": second, **extra}

    def learn(self, image: Tensor, labels: Labels) -> tuple[Labels, Sequence[Tensor], Extra]:
        """What ``forward_and_losses`` returns, which calls this; by default by ``compute_losses``."""
        return super().forward_and_losses(image, labels)

    def _prepare(self, batchdata: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Labels become negative, so that 0, with which augmentation fills up, means that there is none."""
        image, *labels, trusted = super()._prepare(batchdata)
        if trusted is None:
            raise InputError(
                f'the batch has keys {sorted(batchdata)}; expected "high_quality", which says what is trusted'
            )
        self.trusted = trusted
        hidden = self.hidden(batchdata, (labels[0], labels[1]), trusted)
        moved = [(~label.to(torch.int16)).masked_fill(h, 0) for label, h in zip(labels, hidden, strict=True)]
        return image, moved[0], moved[1], trusted

    def _begin_count(self) -> None:
        self._labelled = 0

    def _require_labelled(self) -> None:
        if not self._labelled:
            raise InputError(
                f"epoch {self.state.epoch}: found no sample with a label to learn from in any batch; expected trusted "
                'cases ("quality": "high"), and a trusted_share that draws them'
            )
