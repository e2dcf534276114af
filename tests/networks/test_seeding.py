"""A network from a seed of its own."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from aide_monai.errors import InputError
from aide_monai.networks import reinitialised, seeded


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


def test_a_network_like_another_one_draws_all_its_weights_anew() -> None:
    network = seeded(lambda: UNet(3, 1, 2, channels=(4, 8), strides=(2,), norm="batch"), 0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    other = reinitialised(network, 1)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    drawn = [name for name, parameter in network.named_parameters() if parameter.ndim > 1]
    assert drawn
    assert not any(torch.equal(other.state_dict()[name], before[name]) for name in drawn)
    again = reinitialised(network, 1).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in other.state_dict().items())


def test_what_cannot_be_drawn_anew_is_refused() -> None:
    with pytest.raises(InputError, match="Sequential has no layer with reset_parameters"):
        reinitialised(nn.Sequential(nn.ParameterList([torch.ones(2)])), 1)
