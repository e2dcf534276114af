"""The deployed predictor: the mean of both trained networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class MeanNetwork(nn.Module):
    """Two networks as one whose softmax is the mean of their softmax outputs.

    One state dict holds both, so that one file is the whole model. The output is ``log((p1 + p2) / 2)``, so that a
    softmax, an argmax or an export treats it like the logits of any network.

    Args:
        network_1: (B, M, spatial...) to logits (B, C, spatial...).
        network_2: same shapes.

    Examples:
        >>> import torch
        >>> from aide_monai import MeanNetwork
        >>> mean = MeanNetwork(torch.nn.Identity(), torch.nn.Softmax(1))
        >>> logits = torch.zeros(1, 2, 4, 4)  # both networks are undecided
        >>> mean(logits).exp()[0, :, 0, 0]
        tensor([0.5000, 0.5000])
    """

    def __init__(self, network_1: nn.Module, network_2: nn.Module) -> None:
        super().__init__()
        self.network_1 = network_1
        self.network_2 = network_2

    def forward(self, image: Tensor) -> Tensor:
        """Log-probabilities (B, C, spatial...) of the mean prediction."""
        first = self.network_1(image).log_softmax(dim=1)
        second = self.network_2(image).log_softmax(dim=1)
        return torch.logaddexp(first, second) - math.log(2)
