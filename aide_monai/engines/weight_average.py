"""A moving average of the weights of networks that are being trained."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving averages of the weights and running statistics of networks (Tarvainen and Valpola, 2017).

    Single steps at a high learning rate move a network's predictions to and fro; those of the average lie in their
    middle. The decay rises to its final value, so that an average of few steps is one of all of them.

    Attached to an engine, as a ``TwoNetworkTrainer`` has it built in: when an epoch ends the averages are put into the
    networks, so that handlers that are attached later see, score and save them; the next epoch goes on with the weights
    of the optimisers.

    Args:
        networks: what is averaged; the averages begin as copies.
        decay: weight of the past after many steps, 0..1 without 1.
    """

    def __init__(self, networks: Sequence[nn.Module], decay: float) -> None:
        self.decay = decay
        self.averages = [copy.deepcopy(network).requires_grad_(False).eval() for network in networks]
        self._networks = list(networks)

    def attach(self, engine: Engine) -> None:
        """Register the handler; attach it before all that look at the networks after an epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._take_out)
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: self.update(engine.state.iteration))
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.swap)

    def _take_out(self, engine: Any) -> None:
        if engine.state.epoch > 1:  # before the first epoch the weights of the optimisers are in the networks
            self.swap()

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
