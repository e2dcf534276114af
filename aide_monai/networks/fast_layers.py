"""Layers that compute what torch's own do, around kernels that are slow on CPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets.basic_unet import UpCat
from torch import Tensor, nn


class ThinConv2d(nn.Conv2d):
    """Convolution of one input channel, which trains with a second channel of zeros.

    oneDNN's kernels for a single bfloat16 channel are about nine times slower than those for two.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As ``nn.Conv2d``."""
        weight = self.weight
        if self.training:
            input, weight = F.pad(input, [0, 0, 0, 0, 0, 1]), F.pad(weight, [0, 0, 0, 0, 0, 1])
        return self._conv_forward(input, weight, self.bias)


class ThinConv3d(nn.Conv3d):
    """As ``ThinConv2d``, for volumes."""

    def forward(self, input: Tensor) -> Tensor:
        """As ``nn.Conv3d``."""
        weight = self.weight
        if self.training:
            input, weight = F.pad(input, [0, 0, 0, 0, 0, 0, 0, 1]), F.pad(weight, [0, 0, 0, 0, 0, 0, 0, 1])
        return self._conv_forward(input, weight, self.bias)


class ChannelsLastInstanceNorm2d(nn.InstanceNorm2d):
    """Instance normalisation that does not leave the channels-last layout.

    torch's own copies such images to the other layout and back. For one image it is a batch normalisation.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As ``nn.InstanceNorm2d``."""
        if not input.is_contiguous(memory_format=torch.channels_last):
            return F.instance_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)
        images = input.split(1)
        return torch.cat([F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps) for x in images])


class SnugUpCat(UpCat):
    """``UpCat`` that pads what is too small only; MONAI's always does, in float32 and with copies."""

    def forward(self, x: Tensor, x_e: Tensor | None) -> Tensor:
        """As ``UpCat``."""
        x_0 = self.upsample(x)
        if x_e is None:
            return self.convs(x_0)
        if self.is_pad and x_0.shape[2:] != x_e.shape[2:]:
            missing: list[int] = []
            for axis in range(x.dim() - 1, 1, -1):
                missing += [0, x_e.shape[axis] - x_0.shape[axis]]
            x_0 = F.pad(x_0, missing, "replicate")
        return self.convs(torch.cat([x_e, x_0], dim=1))


def use_fast_layers(network: nn.Module) -> None:
    """Let layers of a network compute the same in a way that is faster on CPUs; parameters and their names stay."""
    for layer in network.modules():
        if type(layer) is nn.Conv2d and layer.in_channels == 1:
            layer.__class__ = ThinConv2d
        elif type(layer) is nn.Conv3d and layer.in_channels == 1:
            layer.__class__ = ThinConv3d
        elif type(layer) is nn.InstanceNorm2d and not layer.track_running_stats:
            layer.__class__ = ChannelsLastInstanceNorm2d
        elif type(layer) is UpCat:
            layer.__class__ = SnugUpCat


class DoubleSize(nn.Upsample):
    """Doubles the size by linear interpolation, with a gradient that is several times faster on CPUs than torch's.

    Args:
        mode: "bilinear" or "trilinear".
    """

    def __init__(self, mode: str) -> None:
        # Aligned corners would make the scale, and so the result for a patch, depend on the patch size.
        super().__init__(scale_factor=2, mode=mode, align_corners=False)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, 2 spatial...) from (B, C, spatial...)."""
        # exporters do not know our gradient
        if not torch.jit.is_scripting() and self.training and input.is_cpu and input.requires_grad:
            return _Doubling.apply(input, self.mode)
        return F.interpolate(input, scale_factor=2.0, mode=self.mode, align_corners=False)


class _Doubling(torch.autograd.Function):
    """Along each axis a pixel becomes two, which lie a quarter of a pixel from its centre."""

    @staticmethod
    def forward(context: Any, image: Tensor, mode: str) -> Tensor:
        return F.interpolate(image, scale_factor=2.0, mode=mode, align_corners=False)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0]
        for axis in range(2, gradient.ndim):
            gradient = _gather_pairs(gradient, axis)
        return gradient, None


def _gather_pairs(gradient: Tensor, axis: int) -> Tensor:
    """Each pixel has 3/4 of its own pair and 1/4 of its neighbours' nearest; beyond the border lies its own again."""
    first, second = gradient.unflatten(axis, (-1, 2)).unbind(axis + 1)
    last = first.shape[axis] - 1
    total = torch.add(first, second).mul_(0.75)
    total.narrow(axis, 0, last).add_(first.narrow(axis, 1, last), alpha=0.25)
    total.narrow(axis, 1, last).add_(second.narrow(axis, 0, last), alpha=0.25)
    total.narrow(axis, 0, 1).add_(first.narrow(axis, 0, 1), alpha=0.25)
    total.narrow(axis, last, 1).add_(second.narrow(axis, last, 1), alpha=0.25)
    return total
