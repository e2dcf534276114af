"""The replaced kernels compute what torch's own compute."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import BasicUNet
from torch import nn

from aide_monai.inferers import place
from aide_monai.networks.fast_layers import ChannelsLastInstanceNorm2d, DoubleSize, SnugUpCat, ThinConv2d, ThinConv3d


@pytest.mark.parametrize(
    ("mode", "shape"),
    [
        ("bilinear", (2, 3, 5, 4)),
        ("bilinear", (1, 2, 1, 3)),
        ("bilinear", (1, 1, 1, 1)),
        ("trilinear", (2, 2, 3, 1, 4)),
    ],
)
def test_gradient_of_doubling(mode: str, shape: tuple[int, ...]) -> None:
    image = torch.randn(*shape, dtype=torch.double)
    stock = nn.Upsample(scale_factor=2, mode=mode, align_corners=False)
    mine = DoubleSize(mode).train()
    first, second = image.clone().requires_grad_(), image.clone().requires_grad_()
    assert torch.equal(stock(first), mine(second))
    weight = torch.randn_like(stock(first))
    (stock(first) * weight).sum().backward()
    (mine(second) * weight).sum().backward()
    torch.testing.assert_close(first.grad, second.grad)


def test_gradient_of_doubling_by_hand() -> None:
    image = torch.zeros(1, 1, 1, 2, requires_grad=True)
    (DoubleSize("bilinear").train()(image) * torch.tensor([1.0, 2.0, 4.0, 8.0])).sum().backward()
    # along the row: 1 + 3/4 * 2 + 1/4 * 4 and 1/4 * 2 + 3/4 * 4 + 8, in each of the two new rows
    assert image.grad.tolist() == [[[[7.0, 23.0]]]]


@pytest.mark.parametrize(("kind", "dims"), [(ThinConv2d, 2), (ThinConv3d, 3)])
def test_thin_convolutions(kind: type[nn.Module], dims: int) -> None:
    plain = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, 4, 3, padding=1, stride=2)
    network = place(nn.Sequential(plain), "cpu")
    assert type(network[0]) is kind
    assert list(network.state_dict()) == ["0.weight", "0.bias"]
    assert network[0].weight.shape[1] == 1
    first, second = (torch.randn(2, 1, *[6] * dims).requires_grad_() for _ in range(2))
    second.data.copy_(first.data)
    trained, evaluated = network.train()(first), network.eval()(second)
    torch.testing.assert_close(trained, evaluated, atol=1e-6, rtol=1e-5)
    trained.square().sum().backward()
    gradient = network[0].weight.grad.clone()
    network.zero_grad()
    evaluated.square().sum().backward()
    torch.testing.assert_close(gradient, network[0].weight.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(first.grad, second.grad, atol=1e-4, rtol=1e-4)
    scripted = torch.jit.script(network)
    torch.testing.assert_close(scripted(first), network(first))


def test_only_single_channels_are_thin() -> None:
    network = nn.Sequential(nn.Conv2d(2, 1, 3), nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(1, 1, 2))
    place(network, "cpu")
    assert [type(layer) for layer in network] == [nn.Conv2d, ThinConv2d, nn.ConvTranspose2d]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_instance_normalisation_in_either_layout(affine: bool, channels_last: bool) -> None:
    stock = nn.InstanceNorm2d(3, affine=affine)
    if affine:
        stock.weight.data.normal_()
        stock.bias.data.normal_()
    fast = place(copy.deepcopy(stock), "cpu")
    assert type(fast) is ChannelsLastInstanceNorm2d
    image = torch.randn(4, 3, 5, 6) * torch.rand(4, 3, 1, 1) + torch.randn(4, 3, 1, 1)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    first, second = image.clone().requires_grad_(), image.contiguous(memory_format=layout).requires_grad_()
    expected, found = stock(first), fast(second)
    assert found.is_contiguous(memory_format=layout)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(expected)
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    torch.testing.assert_close(second.grad, first.grad, atol=1e-5, rtol=1e-4)
    for one, other in zip(fast.parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.jit.script(fast)(second), found)


def test_instance_normalisation_with_running_statistics_stays() -> None:
    assert type(place(nn.InstanceNorm2d(3, track_running_stats=True), "cpu")) is nn.InstanceNorm2d


@pytest.mark.parametrize(("dims", "size"), [(2, (32, 32)), (2, (33, 38)), (3, (32, 16, 16)), (3, (33, 16, 19))])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_unet_without_needless_padding(dims: int, size: tuple[int, ...], norm: str) -> None:
    stock = BasicUNet(dims, 1, 3, features=(4, 4, 4, 8, 8, 4), norm=norm).eval()
    fast = place(copy.deepcopy(stock), "cpu", channels_last=True)
    assert sum(type(layer) is SnugUpCat for layer in fast.modules()) == 4
    image = torch.randn(2, 1, *size)
    expected = stock(image)
    torch.testing.assert_close(fast(image), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.jit.script(fast)(image), expected, atol=1e-4, rtol=1e-4)
