"""Folded networks predict what the networks predict, and leave them alone."""

from __future__ import annotations

import pytest
import torch
from monai.networks.blocks import Convolution
from monai.networks.nets import BasicUNet, SegResNet
from torch import Tensor, nn

from aide_monai.inferers import AutocastInferer, Predictor, place, predictors_of
from aide_monai.networks import FoldedNetwork, MultiStreamUNet, folded


def trained(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Weights and running statistics away from where they start."""
    torch.manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(2 * torch.randn(*shape) + 1)
    return network


def multi_stream(dims: int = 2, **options: object) -> nn.Module:
    return MultiStreamUNet(dims, 2, 3, features=(4, 8, 16), **options)


def basic(dims: int = 2) -> nn.Module:
    features = (4, 4, 8, 8, 8, 4)
    return BasicUNet(spatial_dims=dims, in_channels=2, out_channels=2, features=features, norm="batch", dropout=0.3)


@pytest.mark.parametrize(
    ("network", "dims", "folded"),
    [(multi_stream(), 2, 16), (multi_stream(3), 3, 16), (multi_stream(streams=1), 2, 10), (basic(), 2, 18)],
)
def test_predicts_what_the_network_predicts_in_evaluation_mode(network: nn.Module, dims: int, folded: int) -> None:
    shape = (2, 2, *[32] * dims)
    trained(network, shape)
    image = torch.randn(*shape)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fast = FoldedNetwork(network)
    fast.refresh()
    found = fast(image)
    assert fast.folded == folded
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    with torch.no_grad():
        expected = network.eval()(image)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.equal(expected, network.train()(image))
    assert not found.requires_grad


@pytest.mark.parametrize("fused", [folded._FUSED_DTYPES, [torch.float32]], ids=["as here", "without AVX-512"])
def test_one_channel_in_bfloat16(fused: list[torch.dtype], monkeypatch: pytest.MonkeyPatch) -> None:
    """The thin convolution's second channel adds nothing; oneDNN refuses bfloat16 on processors without AVX-512."""
    monkeypatch.setattr(folded, "_FUSED_DTYPES", fused)
    network = place(trained(MultiStreamUNet(2, 1, 2, features=(4, 8)), (2, 1, 16, 16)), "cpu", channels_last=True)
    image = torch.randn(2, 1, 16, 16)
    predict = Predictor(network, AutocastInferer("bf16", channels_last=True))
    predict.refresh()
    with torch.no_grad():
        exact = network.eval()(image)
    assert float((predict(image) - exact).abs().max()) < 0.05 * float(exact.abs().max())


def test_follows_the_network_only_when_refreshed() -> None:
    network = trained(multi_stream(), (2, 2, 16, 16))
    image = torch.randn(2, 2, 16, 16)
    fast = FoldedNetwork(network)
    fast.refresh()
    before = fast(image)
    with torch.no_grad():
        for weight in network.parameters():
            weight.data.add_(0.1)  # past the version counter
    network(3 * image)
    fast.refresh()
    after = fast(image)
    assert not torch.allclose(before, after)
    with torch.no_grad():
        torch.testing.assert_close(after, network.eval()(image), atol=1e-4, rtol=1e-4)


def test_nothing_to_fold_is_called_as_it_is() -> None:
    network = SegResNet(spatial_dims=2, in_channels=1, out_channels=2, init_filters=8, norm="instance").train()
    fast = FoldedNetwork(network)
    fast.refresh()
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        expected = network.eval()(image)
    network.train()
    assert torch.equal(fast(image), expected)
    assert (fast.folded, network.training) == (0, True)


class Skipping(nn.Module):
    """Calls the layers of a sequence one by one and uses what lies between them."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU())

    def forward(self, image: Tensor) -> Tensor:
        plain = self.block[0](image)
        return plain + self.block[2](self.block[1](plain))


def test_a_network_that_uses_what_is_folded_away_is_noticed() -> None:
    network = trained(Skipping(), (4, 1, 8, 8))
    fast = FoldedNetwork(network)
    fast.refresh()
    assert fast.folded == 1
    image = torch.randn(2, 1, 8, 8)
    found = fast(image)
    assert fast.folded == 0
    fast.refresh()
    with torch.no_grad():
        expected = network.eval()(image)
    assert torch.equal(found, expected)
    assert torch.equal(fast(image), expected)


@pytest.mark.parametrize("act", ["relu", "prelu", ("leakyrelu", {"negative_slope": 0.1}), None])
@pytest.mark.parametrize("ordering", ["NDA", "NA", "AN", "DN", "A"])
def test_any_order_and_activation_of_monai(act: object, ordering: str) -> None:
    network = nn.Sequential(
        *[
            Convolution(2, 3, 3, adn_ordering=ordering, act=act, norm="batch", dropout=0.2, strides=1 + i)
            for i in (0, 1)
        ]
    )
    trained(network, (4, 3, 8, 8))
    fast = FoldedNetwork(network)
    fast.refresh()
    image = torch.randn(2, 3, 8, 8)
    found = fast(image)
    with torch.no_grad():
        torch.testing.assert_close(found, network.eval()(image), atol=1e-5, rtol=1e-5)


def test_layers_with_hooks_or_in_two_places_stay() -> None:
    shared = nn.Conv2d(2, 2, 3, padding=1)
    network = nn.Sequential(shared, nn.BatchNorm2d(2), shared, nn.BatchNorm2d(2))
    trained(network, (4, 2, 8, 8))
    hooked = trained(nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)), (4, 2, 8, 8))
    hooked[0].register_forward_hook(lambda *_: None)
    for unchanged in (network, hooked):
        fast = FoldedNetwork(unchanged)
        fast.refresh()
        assert fast.folded == 0


def test_an_engine_without_a_network_is_refused() -> None:
    with pytest.raises(ValueError, match="object has no network; expected a TwoNetworkTrainer"):
        predictors_of(object())
