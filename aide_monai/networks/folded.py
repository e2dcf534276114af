"""Networks for prediction alone: batch normalisation and ReLU folded into the convolutions before them."""

from __future__ import annotations

import copy
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from aide_monai.networks.fast_layers import ThinConv2d, ThinConv3d

logger = logging.getLogger(__name__)
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, ThinConv2d, ThinConv3d)
_FUSED: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)  # oneDNN's convolution with activation
_FUSED_DTYPES = [torch.float32]
if _FUSED is not None and torch.ops.mkldnn._is_mkldnn_bf16_supported():  # else torch's own convolutions do bfloat16
    _FUSED_DTYPES.append(torch.bfloat16)


class FoldedNetwork:
    """A network in evaluation mode that computes faster: what follows a convolution is part of it.

    In every ``nn.Sequential`` (MONAI's blocks are such) a batch normalisation in evaluation mode, which is a scaling
    per channel, is folded into the weights of the convolution before it, and a ReLU after it is computed with it. All
    else is shared with the network, whose own weights, statistics and mode stay as they are.

    ``refresh`` takes over the network's present weights; call it after they have changed, and before the first use.
    The first use compares with the network itself; if a network does with its layers what this class cannot see, it
    is called as it is from then on.

    Args:
        network: (B, M, spatial...) to logits (B, C, spatial...).
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._layers: list[_FoldedConvolution] = []
        self._pairs: list[tuple[nn.Module, nn.Module]] = []
        self._twin: nn.Module | None = None
        self._trusted = False

    @property
    def folded(self) -> int:
        """How many convolutions have something folded into them."""
        return len(self._layers)

    def refresh(self) -> None:
        """Take over the network's present weights and statistics."""
        if not self._trusted and self._twin is None:
            self._build()
        for source, twin in self._pairs:
            # Moving a network to a device replaces its buffers.
            twin._parameters.update(source._parameters)
            twin._buffers.update(source._buffers)
        for layer in self._layers:
            layer.fold()

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """Logits (B, C, spatial...) in evaluation mode, without a gradient."""
        if not self._trusted:
            self._compare(image[:1])
        return self._plain(self.network, image) if self._twin is None else self._twin(image)

    def _plain(self, call: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """Call the network, or what belongs to it, in evaluation mode."""
        modes = [(layer, layer.training) for layer in self.network.modules()]
        self.network.eval()
        try:
            return call(image)
        finally:
            for layer, mode in modes:
                layer.training = mode

    def _build(self) -> None:
        tensors = itertools.chain(self.network.parameters(), self.network.buffers())
        try:
            twin = copy.deepcopy(self.network, {id(tensor): tensor for tensor in tensors})
        except Exception as error:  # whatever a network holds that cannot be copied
            logger.info("The network cannot be copied (%s) and predicts as it is.", error)
            self._trusted = True
            return
        self._pairs = list(zip(self.network.modules(), twin.modules(), strict=True))
        self._layers = _fold_sequences(twin)
        if not self._layers:
            self._pairs, self._trusted = [], True
            return
        self._twin = twin.eval()

    def _compare(self, image: Tensor) -> None:
        """Give up the folded network if it does not compute what the network does, up to rounding."""
        self._trusted = True
        if self._twin is None or len(image) == 0:
            self._trusted = self._twin is None
            return
        with torch.autocast(image.device.type, enabled=False):
            # past the hooks of the network: who counts its calls need not know of this one
            expected, found = self._plain(self.network.forward, image), self._twin.forward(image)
        if not _close(expected, found):
            logger.info("The network's layers do not simply follow each other; it predicts as it is.")
            self._twin, self._layers, self._pairs = None, [], []


def _close(expected: Tensor, found: Tensor) -> bool:
    scale = expected.abs().max().clamp(min=1e-3)
    return expected.shape == found.shape and bool((expected - found).abs().max() <= 1e-3 * scale)


class _FoldedConvolution(nn.Module):
    """A convolution with the normalisation and activation that follow it.

    Args:
        convolution: the convolution.
        norm: batch normalisation after it, or None.
        relu: whether a ReLU follows.
    """

    def __init__(self, convolution: nn.Module, norm: nn.Module | None, *, relu: bool) -> None:
        super().__init__()
        self.convolution: Any = convolution
        self.norm: Any = norm
        self.relu = relu
        self._folded: tuple[Tensor, Tensor | None]
        self._cast: dict[torch.dtype, tuple[Tensor, Tensor | None]] = {}

    @torch.no_grad()
    def fold(self) -> None:
        """Compute the weights anew."""
        weight, bias = self.convolution.weight, self.convolution.bias
        if self.norm is not None:
            scale = (self.norm.running_var + self.norm.eps).rsqrt()
            scale = scale if self.norm.weight is None else scale * self.norm.weight
            shift = -self.norm.running_mean * scale if bias is None else (bias - self.norm.running_mean) * scale
            bias = shift if self.norm.bias is None else shift + self.norm.bias
            weight = weight * scale.view(-1, *[1] * (weight.ndim - 1))
        self._folded, self._cast = (weight, bias), {}

    def forward(self, image: Tensor) -> Tensor:
        """As the layers that this one stands for."""
        kind = image.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else image.dtype
        if dtype not in self._cast:
            self._cast[dtype] = self._weights(dtype, thin=image.is_cpu)
        weight, bias = self._cast[dtype]
        image = image.to(dtype)
        convolution = self.convolution
        if weight.shape[1] > convolution.weight.shape[1]:
            image = F.pad(image, [0, 0] * (image.ndim - 2) + [0, 1])
        if self.relu and self._is_fused(image):
            stride, padding, dilation = convolution.stride, convolution.padding, convolution.dilation
            return _FUSED(image, weight, bias, padding, stride, dilation, convolution.groups, "relu", [], "")
        output = convolution._conv_forward(image, weight, bias)
        return output.relu_() if self.relu else output

    def _weights(self, dtype: torch.dtype, *, thin: bool) -> tuple[Tensor, Tensor | None]:
        weight, bias = self._folded
        if thin and isinstance(self.convolution, (ThinConv2d, ThinConv3d)):
            weight = F.pad(weight, [0, 0] * (weight.ndim - 2) + [0, 1])
        return weight.to(dtype), None if bias is None else bias.to(dtype)

    def _is_fused(self, image: Tensor) -> bool:
        return (
            _FUSED is not None
            and image.is_cpu
            and image.dtype in _FUSED_DTYPES
            and torch.backends.mkldnn.is_available()
            and self.convolution.padding_mode == "zeros"
            and not isinstance(self.convolution.padding, str)
        )


def _fold_sequences(network: nn.Module) -> list[_FoldedConvolution]:
    """Replace the layers of a network that can be folded, and return what replaces them."""
    uses = Counter(id(child) for parent in network.modules() for child in parent._modules.values())
    inner = {id(child) for parent in network.modules() if _is_sequence(parent) for child in parent.children()}
    folded: list[_FoldedConvolution] = []
    for sequence in list(network.modules()):
        if not _is_sequence(sequence) or id(sequence) in inner:
            continue
        places = list(_places(sequence))
        for start, (parent, name) in enumerate(places):
            convolution = parent._modules[name]
            following = places[start + 1 : start + 5]
            if convolution is None or type(convolution) not in _CONVOLUTIONS or not _is_plain(convolution, uses):
                continue
            norm: nn.Module | None = None
            relu = False
            for next_parent, next_name in following:
                layer = next_parent._modules[next_name]
                if layer is None or not _is_plain(layer, uses):
                    break
                if isinstance(layer, _BatchNorm) and norm is None and not relu and layer.running_mean is not None:
                    norm = layer
                elif type(layer) is nn.ReLU and not relu:
                    relu = True
                elif not isinstance(layer, (nn.Identity, nn.modules.dropout._DropoutNd)):
                    break
                next_parent._modules[next_name] = nn.Identity()
                if relu:
                    break
            if norm is not None or relu:
                folded.append(_FoldedConvolution(convolution, norm, relu=relu))
                parent._modules[name] = folded[-1]
    return folded


def _is_sequence(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward and not _has_hooks(layer)


def _places(sequence: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Parent and name of the layers of a sequence in the order of their calls, those of nested ones in between."""
    for name, child in sequence._modules.items():
        if child is not None and _is_sequence(child):
            yield from _places(child)
        else:
            yield sequence, name


def _is_plain(layer: nn.Module, uses: Counter[int]) -> bool:
    """Whether a layer is used in one place and does nothing but its own forward."""
    return uses[id(layer)] == 1 and not _has_hooks(layer)


def _has_hooks(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks)
