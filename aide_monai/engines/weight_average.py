"""A moving average of the weights of networks that are being trained."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving averages of the weights and running statistics of networks (Tarvainen and Valpola, 2017).

    Single steps at a high learning rate move a network's predictions to and fro; those of the average lie in their
    middle. The decay rises to its final value, so that an average of few steps is one of all of them.

    Args:
        networks: what is averaged; the averages begin as copies.
        decay: weight of the past after many steps, 0..1 without 1.
    """

    def __init__(self, networks: Sequence[nn.Module], decay: float) -> None:
        self.decay = decay
        self.averages = [copy.deepcopy(network).requires_grad_(False).eval() for network in networks]
        self._networks = list(networks)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the present weights in, after optimiser step number ``step`` (from 1)."""
        weight = 1 - min(self.decay, step / (step + 9))
        for network, average in zip(self._networks, self.averages, strict=True):
            present, past = _tensors(network), _tensors(average)
            moving = [n for n, tensor in enumerate(past) if tensor.is_floating_point()]
            torch._foreach_lerp_([past[n] for n in moving], [present[n] for n in moving], weight)
            for n in set(range(len(past))) - set(moving):
                past[n].copy_(present[n])

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights of the networks and those of their averages."""
        for network, average in zip(self._networks, self.averages, strict=True):
            for one, other in zip(_tensors(network), _tensors(average), strict=True):
                kept = one.clone()
                one.copy_(other)
                other.copy_(kept)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [parameter.detach() for parameter in network.parameters()] + list(network.buffers())
