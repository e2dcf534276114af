"""Networks from a seed of their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def seeded(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a network with weights from ``seed``; the global random state stays as it was.

    Args:
        factory: builds the network.
        seed: give two networks that correct each other two different ones.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory()
