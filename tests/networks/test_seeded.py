"""A network from a seed of its own."""

from __future__ import annotations

import torch
from torch import nn

from aide_monai.networks import seeded


def test_the_seed_alone_decides_on_the_weights() -> None:
    def network() -> nn.Module:
        return nn.Linear(3, 2)

    torch.manual_seed(5)
    first = seeded(network, 1)
    torch.manual_seed(6)
    assert torch.equal(first.weight, seeded(network, 1).weight)
    assert not torch.equal(first.weight, seeded(network, 2).weight)


def test_the_global_random_state_stays_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    seeded(lambda: nn.Linear(3, 2), 1)
    assert torch.equal(torch.rand(3), expected)
