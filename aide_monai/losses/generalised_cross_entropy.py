"""A loss between cross-entropy and mean absolute error, for noisy labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aide_monai.ignored import IGNORED
from aide_monai.losses.dice_ce import check_shapes, counted_pixels, mean_of_counted, merge_open


class GeneralisedCrossEntropyLoss(nn.Module):
    """Generalised cross-entropy of each sample of a batch (Zhang and Sabuncu, NeurIPS 2018, eq. 6).

    ``L_q = mean over pixels of (1 - p_y^q) / q`` with the softmax probability ``p_y`` of the labelled class. For q
    towards 0 it is the cross-entropy, which learns fast and learns wrong labels too; for q = 1 it is half the mean
    absolute error, which bears noise and learns slowly. Its gradient is that of the cross-entropy times ``p_y^q``: a
    pixel whose label the network finds unlikely weighs little.

    Left out: the paper's truncated loss, which drops samples whose ``p_y`` is below a threshold and alternates between
    choosing them and training; dropping samples is what ``CoTeachingTrainer`` and ``ConfidentLearningTrainer`` are for.
    No Dice term is added: it has no such bound, and the paper has none.

    Args:
        q: above 0, at most 1; the paper trains with 0.7.
        ignore: label of pixels that are left out, as in ``PerSampleDiceCELoss``.

    Raises:
        ValueError: if q is out of range.

    Examples:
        >>> import torch
        >>> from aide_monai.losses import GeneralisedCrossEntropyLoss
        >>> label = torch.tensor([[[[1]]], [[[0]]]])  # two samples of one pixel
        >>> logits = torch.tensor([0.25, 0.75]).log().view(1, 2, 1, 1).repeat(2, 1, 1, 1)
        >>> GeneralisedCrossEntropyLoss(q=1.0)(logits, label)
        tensor([0.2500, 0.7500])
    """

    def __init__(self, *, q: float = 0.7, ignore: int | None = IGNORED) -> None:
        super().__init__()
        if not 0 < q <= 1:
            raise ValueError(f"q is {q}; expected a number above 0, at most 1")
        self.q = q
        self.ignore = ignore

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of each sample.

        Args:
            logits: (B, C, spatial...) raw network output.
            label: (B, 1, spatial...) integer class indices in 0..C-1, ``ignore``, or partial background, any
                integer dtype.

        Returns:
            (B,) float32 in 0..1/q.

        Raises:
            ValueError: if the shapes do not fit.
        """
        check_shapes(logits, label)
        log_probability, label = merge_open(logits.float().log_softmax(dim=1), label)
        label, counted = counted_pixels(label, self.ignore)
        log_probability = log_probability.gather(1, label)
        # (1 - p^q) / q without the difference of two numbers near 1
        return mean_of_counted(-torch.expm1(self.q * log_probability) / self.q, counted)
