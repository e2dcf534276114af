"""The cross-pseudo-supervision engine, a rival of AIDE: networks that learn each other's present predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from aide_monai.engines.partly_labelled import PartlyLabelledTrainer
from aide_monai.ignored import IGNORED
from aide_monai.utils.validation import require_numbers

RANGES: dict[str, tuple[float, float]] = {"weight": (0.0, math.inf)}
"""Smallest and largest value of the options, by name."""


def check(options: Mapping[str, Any]) -> None:
    """Refuse values, by name, that the engine does not take."""
    require_numbers(options, RANGES)


def cross_pseudo_loss(logits: Tensor, other: Tensor, labelled: Tensor) -> Tensor:
    """Cross-entropy with the classes that another network predicts, on labelled and other pixels with one weight each.

    Args:
        logits: (B, C, spatial...) of the network that learns.
        other: (B, C, spatial...) of the network that it learns from; carries no gradient.
        labelled: (B, 1, spatial...) bool, pixels with a trusted label.

    Returns:
        Scalar: the mean over the labelled pixels plus that over the others, 0 for what there is none of.
    """
    loss = F.cross_entropy(logits, other.detach().argmax(dim=1), reduction="none")[:, None]
    parts = (loss.where(pixels, 0).sum() / pixels.sum().clamp(min=1) for pixels in (labelled, ~labelled))
    return sum(parts, start=loss.new_zeros(()))


class CrossPseudoTrainer(PartlyLabelledTrainer):
    """Trains two networks by cross pseudo supervision (CPS; Chen, Yuan, Zeng and Wang, CVPR 2021).

    Two networks of one architecture start from different seeds and see the same images. Each learns the trusted labels,
    and on all images the hard label maps ``Y_1 = argmax f_1(x)`` and ``Y_2 = argmax f_2(x)`` of the *other* one, as
    they are in this very step, without a gradient through them::

        L_1 = L_seg(f_1(x), y) + W (L_cps on labelled pixels + L_cps on all others),  L_cps = CE(f_1(x), Y_2)
        L_2 = L_seg(f_2(x), y) + W (L_cps on labelled pixels + L_cps on all others),  L_cps = CE(f_2(x), Y_1)

    The paper is for semantic segmentation with few labels: the second opinion keeps a network from learning its own
    errors, and hard labels make it sure of itself. Left out: the paper's variant in which images are mixed by CutMix
    *after* both networks predicted them; with ``augment=CutMix(...)`` networks predict the mixed image. L_seg
    is that of all methods here (eq. 1), where the paper has cross-entropy alone.

    Args:
        args: as in ``PartlyLabelledTrainer``.
        weight: W; the paper has 1.5, from the first step on.
        kwargs: as in ``PartlyLabelledTrainer``.

    Raises:
        InputError: if the weight is out of range; see ``PartlyLabelledTrainer``.

    Examples:
        >>> from aide_monai import find_datalist, load_volumes, volume_transforms, write_phantoms
        >>> folder = write_phantoms("phantoms", cases=2, shape=(32, 32, 4))
        >>> volumes = load_volumes(find_datalist(folder).records, volume_transforms(axis=2))
        >>> import torch
        >>> from monai.networks.nets import BasicUNet
        >>> from aide_monai import seeded, slice_loader, SliceDataset
        >>> from aide_monai.engines import CrossPseudoTrainer
        >>> build = lambda: BasicUNet(2, 1, 2, features=(4, 4, 4, 4, 4, 4), norm="batch")
        >>> first, second = seeded(build, 1), seeded(build, 2)
        >>> trainer = CrossPseudoTrainer(
        ...     "cpu", 1, slice_loader(SliceDataset(volumes), batch_size=4, steps=2, seed=0),
        ...     first, torch.optim.Adam(first.parameters()), second, torch.optim.Adam(second.parameters()),
        ... )
        >>> trainer.run()
        >>> trainer.state.iteration
        2
    """

    def __init__(self, *args: Any, weight: float = 1.5, **kwargs: Any) -> None:
        check({"weight": weight})
        self.weight = weight
        super().__init__(*args, **kwargs)

    def compute_losses(
        self, image: Tensor, logits: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Supervised loss and cross pseudo loss of each network; see ``TwoNetworkTrainer.compute_losses``."""
        losses = [
            self.supervised(own, label) + self.weight * cross_pseudo_loss(own, other, label != IGNORED)
            for own, other, label in zip(logits, reversed(logits), labels, strict=True)
        ]
        return losses[0], losses[1], {}
