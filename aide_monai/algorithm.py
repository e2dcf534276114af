"""The mathematics of Algorithm 1 as pure functions: filtering, pseudo-labels, loss weights, schedule, correction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from aide_monai.ignored import IGNORED, MOST_PARTIAL, PARTIAL, annotated, as_far_as_known, may_be_special

_PIECE = 2**17  # voxels that are counted at once: in a processor's cache, and never much memory


def has_verdict(label: Tensor) -> Tensor:
    """(B,) bool, which labels (B, ...) have any voxel with a verdict; the others cannot be ranked."""
    return (label != IGNORED).flatten(1).any(dim=1)


def small_loss_mask(loss: Tensor, keep: float, *, strata: Tensor | None = None, judged: Tensor | None = None) -> Tensor:
    """Local label filtering: the samples whose labels are trusted in this batch (Algorithm 1, lines 14-15).

    Args:
        loss: (B,) per-sample losses.
        keep: kept share in 0..1. ``floor(keep * B)`` samples are kept, at least one; ties break by index.
        strata: (B,) bool; samples with True and with False are then ranked among their own kind, ``floor(keep * n)``
            of each kept, at least one.
        judged: (B,) bool, see ``has_verdict``; samples with False come last, whatever their loss: a label without any
            verdict fits every prediction.

    Returns:
        (B,) bool, True for kept samples.
    """
    loss = loss.detach()
    if judged is not None:
        loss = loss.where(judged, math.inf)
    mask = torch.zeros_like(loss, dtype=torch.bool)
    if strata is None:
        return mask.index_fill_(0, loss.sort(stable=True).indices[: kept_number(keep, len(loss))], True)
    for kind in (strata, ~strata):
        members = kind.nonzero()[:, 0]
        order = loss[members].sort(stable=True).indices
        mask.index_fill_(0, members[order[: kept_number(keep, len(members))]], True)
    return mask


def kept_number(keep: float, samples: int) -> int:
    """How many of so many samples ``small_loss_mask`` keeps without ``strata``."""
    return max(1, share(keep, samples))


def share(ratio: float, number: int) -> int:
    """``floor(ratio * number)``, not one less where the product of floats falls short of a whole number."""
    return math.floor(ratio * number + 1e-9)


def average_views(probability: Tensor, visible: Tensor, fallback: Tensor) -> Tensor:
    """Mean of the views' predictions over the views that saw a pixel (Algorithm 1, lines 8-12).

    Args:
        probability: (K, N, C, spatial...) class probabilities, taken back onto the original image.
        visible: (K, N, 1, spatial...) bool, False where a view rotated the pixel out of its field of view.
        fallback: (N, C, spatial...) plain prediction, used where no view saw the pixel.

    Returns:
        (N, C, spatial...) probabilities.
    """
    seen = visible.sum(dim=0)
    total = torch.where(visible, probability, 0.0).sum(dim=0)
    return torch.where(seen > 0, total / seen.clamp(min=1), fallback)


def sharpen(probability: Tensor, temperature: float, kind: str = "power") -> Tensor:
    """Temperature sharpening of class probabilities (Algorithm 1, line 10).

    Args:
        probability: (N, C, spatial...) class probabilities.
        temperature: T > 0; below 1 sharpens.
        kind: "power" is ``p^(1/T)`` renormalised; "softmax" is ``exp(p/T)`` renormalised, as the figure prints it.

    Returns:
        (N, C, spatial...) probabilities that sum to 1 over C.
    """
    if kind == "softmax":
        return (probability / temperature).softmax(dim=1)
    # as logarithms: at low temperatures the powers themselves underflow
    return (probability.clamp(min=0).log() / temperature).softmax(dim=1)


def confidence(pseudo_label: Tensor, kind: str) -> Tensor | None:
    """Weight of each pixel of a pseudo-label in the consistency loss.

    Args:
        pseudo_label: (N, C, spatial...) class probabilities.
        kind: "none"; "entropy" is ``1 - H(p) / log C``; "binary" is ``1 - 4 p0 p1`` (two classes only).

    Returns:
        (N, 1, spatial...) in 0..1, or None for "none".

    Raises:
        ValueError: for "binary" with more than two classes.
    """
    if kind == "none":
        return None
    if kind == "entropy":
        entropy = -torch.special.xlogy(pseudo_label, pseudo_label).sum(dim=1, keepdim=True)
        return 1 - entropy / math.log(pseudo_label.shape[1])
    if pseudo_label.shape[1] != 2:
        raise ValueError(f'confidence="binary" needs 2 classes, found {pseudo_label.shape[1]}; use "entropy"')
    return 1 - 4 * pseudo_label[:, :1] * pseudo_label[:, 1:]


def co_correction_loss(
    segmentation: Tensor,
    kept: Tensor,
    *,
    consistency: Tensor | None = None,
    ramp: float,
    weight: float,
    supervised_floor: float = 0.0,
    of: tuple[int, int] | None = None,
) -> Tensor:
    """Loss of one network, given the selection that the *other* network made (Algorithm 1, lines 16-17).

    ``mean_s L_seg + max(1 - ramp, supervised_floor) * mean_u L_seg + weight * ramp * mean_u L_con`` for the kept
    samples s and the suspicious samples u.

    Args:
        segmentation: (B,) per-sample segmentation losses of this network.
        kept: (B,) bool, the other network's small-loss samples.
        consistency: (U,) consistency losses of the suspicious samples, in batch order; None when ``ramp`` is 0 or
            no sample is suspicious.
        ramp: lambda of this epoch, 0..1.
        weight: w of the consistency term.
        supervised_floor: least weight of the segmentation loss of the suspicious samples, 0 in the paper.
        of: for a share of a larger batch, how many samples are kept and how many are suspicious in the whole; the
            losses of all shares add up to that of the whole.

    Returns:
        Scalar.
    """
    number_kept, number_suspicious = of or (int(kept.sum()), int((~kept).sum()))
    # Sums over masks, because a selection would make a GPU wait until the host knows how many there are.
    loss = segmentation.where(kept, 0).sum() / number_kept
    if number_suspicious == 0:
        return loss
    supervised = max(1 - ramp, supervised_floor)
    if supervised > 0:
        loss = loss + supervised * segmentation.where(~kept, 0).sum() / number_suspicious
    if ramp > 0 and consistency is not None:
        loss = loss + weight * ramp * consistency.sum() / number_suspicious
    return loss


def consistency_ramp(epoch: int, warmup_epochs: int) -> float:
    """Lambda of an epoch (1-based): ``min(((epoch - 1) / warmup_epochs)^2, 1)``; 1 without warm-up (line 21)."""
    if warmup_epochs == 0:
        return 1.0
    return min(((epoch - 1) / warmup_epochs) ** 2, 1.0)


def forget_rate(epoch: int, warmup_epochs: int, maximum: float) -> float:
    """Share of a batch that co-teaching drops in an epoch (1-based): rises linearly from 0 over the warm-up."""
    if warmup_epochs == 0:
        return maximum
    return maximum * min((epoch - 1) / warmup_epochs, 1.0)


def correction_due(epoch: int, *, warmup_epochs: int, interval: int = 10, start: int = 1) -> bool:
    """Update criterion after an epoch (1-based): in the warm-up, then every ``interval`` epochs, from ``start`` on."""
    return epoch >= start and (epoch <= warmup_epochs or epoch % interval == 0)


def worst_units(dice: Tensor, ratio: float) -> Tensor:
    """Units whose labels fit the prediction worst (Algorithm 1, lines 22-23).

    Args:
        dice: (U,) Dice of each unit, 0..1.
        ratio: R; ``floor(R * U)`` units are selected, but one where that is none and R is not 0: with a quota of none
            a correction that is due would do nothing. Ties break by index.

    Returns:
        Int64 indices, worst first.

    Examples:
        >>> worst_units(torch.tensor([0.9, 0.5, 0.7]), 0.25).tolist()
        [1]
    """
    quota = max(share(ratio, len(dice)), 1 if ratio > 0 else 0)
    return dice.sort(stable=True).indices[:quota]


def keeps_foreground(after: int, *, before: int, given: int, least: float) -> bool:
    """Whether a correction leaves enough of a label's foreground.

    Networks that predict next to nothing would otherwise empty the labels, and then agree with them.

    Args:
        after: foreground voxels that the label would have.
        before: those that it has.
        given: those that it had at the beginning.
        least: share of the given ones that a correction has to leave, 0..1; what does not shrink is never refused.

    Examples:
        >>> keeps_foreground(9, before=80, given=100, least=0.1)
        False
        >>> keeps_foreground(10, before=80, given=100, least=0.1)
        True
    """
    return after >= min(before, least * given - 1e-9)


def unit_dice(prediction: Tensor, label: Tensor, *, num_classes: int, unit: str) -> Tensor:
    """Dice of whole cases or of single slices, the mean over the foreground classes.

    A class that is absent from both counts as Dice 1. Voxels that either has as ``IGNORED`` do not count, nor classes
    that the label has not annotated.

    Args:
        prediction: (S, spatial...) integer class indices of one case, slices first.
        label: same shape.
        num_classes: C, background included.
        unit: "case" for one value, "slice" for one value per slice.

    Returns:
        (1,) or (S,) float64.
    """
    counts = confusion(prediction, label, num_classes=num_classes)
    known = annotated_classes(label, prediction, num_classes=num_classes)
    return mean_dice(counts.sum(dim=0, keepdim=True) if unit == "case" else counts, known)


def confusion(prediction: Tensor, label: Tensor, *, num_classes: int) -> Tensor:
    """How often each class was predicted where each class is labelled; pairs with ``IGNORED`` are not counted.

    Where the label is partial background (see ``aide_monai.ignored``) it counts as background, and so does a prediction
    of what was not annotated.

    Args:
        prediction: (S, spatial...) integer class indices.
        label: same shape.
        num_classes: C, background included.

    Returns:
        (S, C, C) int64, prediction first.
    """
    slices, size = prediction.shape[:2]
    in_slice = math.prod(prediction.shape[1:])
    together = max(1, _PIECE // max(1, in_slice))  # of slices, or else rows of one
    rows = max(1, size * _PIECE // max(1, in_slice))
    counts = torch.zeros(slices, num_classes, num_classes, dtype=torch.int64, device=prediction.device)
    for first in range(0, slices, together):
        part = slice(first, first + together)
        for start in range(0, size, rows):
            window = part, slice(start, start + rows)
            counts[part] += _confusion(prediction[window], label[window], num_classes)
    return counts


def _confusion(prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """``confusion`` of a few voxels, of which it takes about 50 bytes each."""
    special = may_be_special(prediction, label)
    prediction, label = prediction.long(), label.long()
    if special and num_classes <= MOST_PARTIAL + 1:
        prediction, label = as_far_as_known(prediction, label)
        label, prediction = as_far_as_known(label, prediction)  # the first of two labels may be partial too
    slices, pairs = len(prediction), len(prediction) * num_classes**2
    pair = prediction * num_classes + label
    offset = torch.arange(slices, device=pair.device) * num_classes**2
    pair = (pair.flatten(1) + offset[:, None]).flatten()
    if special:  # one more bin takes what has no verdict
        pair = pair.masked_fill(((prediction == IGNORED) | (label == IGNORED)).flatten(), pairs)
    return torch.bincount(pair, minlength=pairs + 1)[:pairs].view(slices, num_classes, num_classes)


def annotated_classes(*labels: Tensor, num_classes: int) -> list[int]:
    """The classes that a case has annotated, from its labels, class indices of any shape; see ``annotated``."""
    found: set[int] = set()
    for label in labels:
        for piece in label.reshape(-1).split(_PIECE):
            if bool((piece >= PARTIAL).any()):
                found.update(piece.unique().tolist())
    return annotated(found, num_classes)


def mean_dice(counts: Tensor, classes: Sequence[int] | None = None) -> Tensor:
    """Dice from confusion counts (S, C, C), the mean over the foreground classes, 1 for one absent from both: (S,).

    ``classes`` are those that take part, indices above 0, at least one; None: all.
    """
    counts = counts.double()
    intersection = counts.diagonal(dim1=1, dim2=2)[:, 1:]
    total = (counts.sum(dim=1) + counts.sum(dim=2))[:, 1:]
    dice = torch.where(total > 0, 2 * intersection / total.clamp(min=1), 1.0)
    return (dice if classes is None else dice[:, [index - 1 for index in classes]]).mean(dim=1)
