"""Which labels are probably wrong: the mathematics of confident learning as pure functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def noise_joint(label: Tensor, probability: Tensor) -> Tensor:
    """Estimated joint distribution of given and true labels (Northcutt, Jiang and Chuang, JAIR 2021, eq. 1 to 3).

    A pixel counts for the true class j if its probability of j reaches the mean of that of the pixels labelled j; of
    several such classes, for the most probable one. Counts are scaled so that each given class has its true size.

    Args:
        label: (N,) given classes 0..C-1.
        probability: (N, C) of a network that has not learnt these labels.

    Returns:
        (C, C) float64, given class first, sum 1.

    Examples:
        >>> import torch
        >>> probability = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8]])
        >>> noise_joint(torch.tensor([0, 0, 0, 1]), probability).tolist()  # pixel 2 is sure to be of class 1
        [[0.5, 0.25], [0.0, 0.25]]
    """
    classes = probability.shape[1]
    sizes = torch.bincount(label, minlength=classes).double()
    own = torch.zeros_like(sizes).index_add_(0, label, probability.gather(1, label[:, None])[:, 0].double())
    threshold = torch.where(sizes > 0, own / sizes, math.inf)  # mean probability of j where j is given
    sure = torch.where(probability >= threshold, probability, -1.0)
    certainty, likely = sure.max(dim=1)
    pair = (label * classes + likely)[certainty >= 0]
    counts = torch.bincount(pair, minlength=classes**2).view(classes, classes).double()
    total = counts.sum(dim=1, keepdim=True)
    shares = torch.where(total > 0, counts / total.clamp(min=1), torch.eye(classes, dtype=torch.float64))
    return shares * sizes[:, None] / len(label)


def label_errors(label: Tensor, probability: Tensor, joint: Tensor, *, prune: str = "noise_rate") -> Tensor:
    """Which labels are to be pruned: as many as the joint says, the least likely ones (same paper, section 3.2).

    Args:
        label: (N,) given classes 0..C-1.
        probability: (N, C) as in ``noise_joint``.
        joint: (C, C) what that returned.
        prune: "class" prunes of each given class i the share that is truly another one, by the smallest probability of
            i; "noise_rate" prunes for each pair i, j the share of it, by the largest excess of j over i; "both" prunes
            what both do.

    Returns:
        (N,) bool. Ties break by index.
    """
    found = {kind: torch.zeros_like(label, dtype=torch.bool) for kind in ("class", "noise_rate")}
    for given in range(len(joint)):
        here = (label == given).nonzero()[:, 0]
        own = probability[here, given]

        def mark(kind: str, merit: Tensor, share: Tensor, here: Tensor = here) -> None:
            order = merit.sort(descending=True, stable=True).indices[: round(float(share) * len(label))]
            found[kind][here[order]] = True

        others = [true for true in range(len(joint)) if true != given]
        if prune != "noise_rate":
            mark("class", -own, joint[given, others].sum())
        if prune != "class":
            for true in others:
                mark("noise_rate", probability[here, true] - own, joint[given, true])
    return found["class"] & found["noise_rate"] if prune == "both" else found[prune]
