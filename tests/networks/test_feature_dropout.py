"""Dropout between encoder and decoder: what is dropped, and what is left alone."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import BasicUNet, UNet
from torch import Tensor, nn

from aide_monai.networks import FeatureDropout, MultiStreamUNet
from aide_monai.networks.fast_layers import use_fast_layers

IMAGE = torch.rand(2, 2, 32, 32, generator=torch.Generator().manual_seed(0))


def inputs(network: nn.Module, *modules: nn.Module) -> list[Tensor]:
    """All tensors that the modules get as arguments in a pass of ``IMAGE`` with all channels dropped but for chance."""
    found: list[Tensor] = []
    drop = FeatureDropout(network, probability=0.9999, generator=torch.Generator().manual_seed(0))
    with drop():
        network(IMAGE)  # looks for the deepest features first
        hooks = [m.register_forward_pre_hook(lambda _, arguments: found.extend(arguments)) for m in modules]
        network(IMAGE)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("fast", [False, True])
def test_all_that_the_decoder_of_a_basic_unet_gets_from_its_encoder_is_dropped_and_the_encoder_is_whole(fast) -> None:
    network = BasicUNet(2, 2, 2, features=(4, 5, 6, 7, 8, 4))
    if fast:
        use_fast_layers(network)
    decoder = (network.upcat_4, network.upcat_3, network.upcat_2, network.upcat_1)
    found = inputs(network, *decoder)
    deep, skips, inner = found[0], found[1::2], found[2::2]
    assert [skip.shape[1] for skip in skips] == [7, 6, 5, 4]
    assert not any(skip.any() for skip in (deep, *skips))
    assert all(feature.any() for feature in inner)  # the decoder's own
    assert all(feature.any() for feature in inputs(network, network.down_1, network.down_4))


@pytest.mark.parametrize("fusion", ["symmetric", "asymmetric"])
def test_all_streams_lose_their_features(fusion) -> None:
    network = MultiStreamUNet(2, in_channels=2, out_channels=2, features=(4, 5, 6), fusion=fusion)
    deepest = inputs(network, network.upsample)[0]
    assert deepest.shape[1] == 2 * 6
    assert not deepest.any()
    joined = inputs(network, *network.decoder)
    assert [x.shape[1] for x in joined] == [2 * 6 + 2 * 5, 5 + 2 * 4]
    assert not joined[0].any()
    assert not joined[1][:, :8].any()


def test_skips_past_the_modules_keep_their_channels_and_the_deepest_features_do_not() -> None:
    network = UNet(2, 2, 2, channels=(4, 6, 8), strides=(2, 2)).eval()
    whole = network(IMAGE)
    with FeatureDropout(network, generator=torch.Generator().manual_seed(0))():
        assert not torch.equal(network(IMAGE), whole)


def test_channels_of_each_sample_are_dropped_or_doubled() -> None:
    network = nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2))
    drop = FeatureDropout(network, generator=torch.Generator().manual_seed(1))
    image = torch.ones(50, 40, 4, 4)
    with drop():
        found = network(image)
    assert set(found.unique().tolist()) == {0.0, 2.0}
    assert (found == found[..., :1, :1]).all()
    assert found.mean().item() == pytest.approx(1.0, abs=0.1)
    with drop():
        assert not torch.equal(network(image), found)  # drawn anew


def test_statistics_and_mode_stay_and_a_gradient_comes_through() -> None:
    network = BasicUNet(2, 2, 2, features=(4, 4, 4, 4, 4, 4), norm="batch").train()
    first = network.conv_0.conv_0.adn.N
    with FeatureDropout(network, generator=torch.Generator().manual_seed(0))():
        network(IMAGE).sum().backward()
    assert int(first.num_batches_tracked) == 1  # looking for the deepest features leaves no trace
    assert all(module.training for module in network.modules())
    assert network.conv_0.conv_0.conv.weight.grad is not None
    assert not network._forward_pre_hooks
    assert not first._forward_hooks
