"""Channel dropout between the encoder and the decoder of a network that has none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class FeatureDropout:
    """Drops channels of the features that a decoder gets from its encoder, and leaves the encoder's own path alone.

    What is a feature is seen while the network runs: the deepest ones are the outputs of modules that have the fewest
    pixels and that no module makes another such output of. They lose channels, and so does what modules returned
    before them and modules take as an argument after them. So the encoder computes each feature from features that are
    whole. In a network that takes its skips past modules (joins them by a function, as MONAI's ``UNet``), only the
    deepest features lose channels.

    Args:
        network: (B, M, spatial...) to logits.
        probability: that a channel of a sample is set to 0, 0..1 without 1; the others become larger by as much.
        generator: what draws, on the CPU.

    Examples:
        >>> import torch
        >>> from monai.networks.nets import BasicUNet
        >>> from aide_monai.networks import FeatureDropout
        >>> network, image = BasicUNet(2, 1, 2, features=(4, 4, 4, 4, 4, 4)), torch.rand(1, 1, 32, 32)
        >>> drop, whole = FeatureDropout(network, generator=torch.Generator().manual_seed(0)), network(image)
        >>> with drop():
        ...     changed = network(image)
        >>> torch.equal(changed, whole), torch.equal(network(image), whole)
        (False, True)
    """

    def __init__(self, network: nn.Module, *, generator: torch.Generator, probability: float = 0.5) -> None:
        self.network = network
        self.probability = probability
        self.generator = generator
        self._deepest: set[int] = set()  # calls of modules that return the deepest features, numbered as they end

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """While it lasts, passes through the network lose channels; one pass at a time."""
        hooks = [self.network.register_forward_pre_hook(self._begin)]
        for module in self.network.modules():
            if module is not self.network:
                hooks.append(module.register_forward_pre_hook(self._before))
                hooks.append(module.register_forward_hook(self._after))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _begin(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._features: dict[int, Tensor] = {}  # by identity; kept, so that no other tensor gets it
        self._dropped: dict[int, Tensor] = {}
        self._ended = 0
        if not self._deepest:
            self._deepest = self._find_deepest(*arguments)

    def _before(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not self._deepest or self._ended <= max(self._deepest):
            return None
        return tuple(self._drop(a) if id(a) in self._features else a for a in arguments)

    def _after(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        if not self._deepest:
            return None
        number, self._ended = self._ended, self._ended + 1
        if not isinstance(output, Tensor) or number > max(self._deepest):
            return None
        self._features[id(output)] = output
        return self._drop(output) if number in self._deepest else None

    def _drop(self, feature: Tensor) -> Tensor:
        """The same for all that take the feature."""
        if id(feature) not in self._dropped:
            keep = 1 - self.probability
            drawn = torch.rand(feature.shape[:2], generator=self.generator) < keep
            factor = drawn.to(feature).div(keep).view(*feature.shape[:2], *[1] * (feature.ndim - 2))
            self._dropped[id(feature)] = feature * factor
        return self._dropped[id(feature)]

    @torch.no_grad()
    def _find_deepest(self, image: Tensor, *others: Any) -> set[int]:
        calls: list[tuple[tuple[Any, ...], Any]] = []  # arguments and output; kept, so that identities are unique
        modules = [module for module in self.network.modules() if module is not self.network]
        hooks = [
            m.register_forward_hook(lambda _, arguments, output: calls.append((arguments, output))) for m in modules
        ]
        modes = [(module, module.training) for module in self.network.modules()]
        self.network.eval()  # running statistics stay
        try:
            self.network.forward(image[:1], *others)
        finally:
            for hook in hooks:
                hook.remove()
            for module, training in modes:
                module.training = training
        sizes = [o[0, 0].numel() if isinstance(o, Tensor) and o.ndim > 2 else math.inf for _, o in calls]
        deep = [number for number, size in enumerate(sizes) if size == min(sizes)]
        last = {id(calls[number][1]): number for number in deep}  # a block and its last layer return the same
        used = {id(a) for number in deep for a in calls[number][0] if a is not calls[number][1]}
        return {number for output, number in last.items() if output not in used}
