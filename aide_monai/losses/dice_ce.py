"""Segmentation loss of AIDE, one value per sample so that samples can be ranked."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from aide_monai.ignored import IGNORED, MOST_PARTIAL, is_partial, leaves_open, may_be_special


class PerSampleDiceCELoss(nn.Module):
    """Dice plus cross-entropy for each sample of a batch (eq. 1).

    ``L_seg = L_Dice + alpha * L_CE``. The Dice term uses the softmax foreground with ``smooth`` in numerator and
    denominator and, for more than two classes, is the mean over the foreground classes. The cross-entropy is averaged
    over pixels.

    Args:
        alpha: weight of the cross-entropy.
        smooth: constant that keeps the Dice term finite for empty masks (the paper's epsilon).
        ignore: label of pixels that both terms leave out, with no gradient; a sample of such pixels alone has a loss of
            0. None: all pixels have a class.

    Raises:
        ValueError: if a parameter is out of range.
    """

    def __init__(self, *, alpha: float = 1.0, smooth: float = 1.0, ignore: int | None = IGNORED) -> None:
        super().__init__()
        if alpha < 0:
            raise ValueError(f"alpha is {alpha}; expected a weight of at least 0")
        if smooth <= 0:
            raise ValueError(f"smooth is {smooth}; expected a value above 0")
        self.alpha = alpha
        self.smooth = smooth
        self.ignore = ignore

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of each sample.

        Args:
            logits: (B, C, spatial...) raw network output, C >= 2, class 0 is the background.
            label: (B, 1, spatial...) integer class indices in 0..C-1, ``ignore``, or partial background (see
                ``merge_open``), any integer dtype.

        Returns:
            (B,) float32, at least 0.

        Raises:
            ValueError: if the shapes do not fit.
        """
        check_shapes(logits, label)
        log_probability, label = merge_open(logits.float().log_softmax(dim=1), label)
        label, counted = counted_pixels(label, self.ignore)
        cross_entropy = -mean_of_counted(log_probability.gather(1, label), counted)

        classes = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, *[1] * (logits.ndim - 2))
        target = (label == classes).flatten(2)
        foreground = log_probability[:, 1:].exp().flatten(2)
        if counted is not None:
            target, foreground = target & counted.flatten(2), foreground.where(counted.flatten(2), 0)
        intersection = (foreground * target).sum(dim=2)
        total = foreground.sum(dim=2) + target.sum(dim=2)
        dice = 1 - (2 * intersection + self.smooth) / (total + self.smooth)
        return dice.mean(dim=1) + self.alpha * cross_entropy


def merge_open(log_probability: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Count classes that were not annotated as background, where the label says background (the marginal loss).

    Shi, Xiao, Chen and Zhou, "Marginal loss and exclusion loss for partially supervised multi-organ segmentation",
    Medical Image Analysis 70 (2021): the probability of the merged class is the sum of those of its parts. So it costs
    nothing to find there what nobody looked for, and what it always does to find what is known to be absent.

    Args:
        log_probability: (B, C, spatial...).
        label: (B, 1, spatial...) with partial background, see ``aide_monai.ignored``.

    Returns:
        The same with probabilities that are merged at such pixels, whose label is 0.
    """
    classes = log_probability.shape[1]
    if classes > MOST_PARTIAL + 1 or not may_be_special(label):
        return log_probability, label
    label = label.long()
    index = torch.arange(1, classes, device=label.device).view(1, -1, *[1] * (label.ndim - 2))
    open_ = leaves_open(label, index)
    first, others = log_probability[:, :1], log_probability[:, 1:]
    parts = torch.cat([first, others.masked_fill(~open_, -math.inf)], dim=1)
    merged = torch.cat([parts.logsumexp(dim=1, keepdim=True), others.masked_fill(open_, -math.inf)], dim=1)
    return merged, label.masked_fill(is_partial(label), 0)


def counted_pixels(label: Tensor, ignore: int | None) -> tuple[Tensor, Tensor | None]:
    """Label as int64, 0 where it is ignored, and where it counts (B, 1, spatial...) bool; None: everywhere."""
    if ignore is None:
        return label.long(), None
    counted = label != ignore
    return label.long().where(counted, 0), counted


def mean_of_counted(values: Tensor, counted: Tensor | None) -> Tensor:
    """Mean of (B, 1, spatial...) over the pixels of each sample that count, 0 where none does: (B,)."""
    if counted is None:
        return values.flatten(1).mean(dim=1)
    total = values.where(counted, 0).flatten(1).sum(dim=1)
    return total / counted.flatten(1).sum(dim=1).clamp(min=1)


def check_shapes(logits: Tensor, label: Tensor) -> None:
    """Refuse a label that does not fit the logits."""
    expected = (logits.shape[0], 1, *logits.shape[2:])
    if logits.ndim < 3 or logits.shape[1] < 2:
        raise ValueError(f"logits have shape {tuple(logits.shape)}; expected (B, C, spatial...) with C >= 2")
    if tuple(label.shape) != expected:
        raise ValueError(f"label has shape {tuple(label.shape)}; expected {expected} for logits {tuple(logits.shape)}")
