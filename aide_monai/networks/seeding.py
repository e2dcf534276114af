"""Networks from a seed of their own."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn

from aide_monai.errors import InputError


def seeded(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a network with weights from ``seed``; the global random state stays as it was.

    Args:
        factory: builds the network.
        seed: give two networks that correct each other two different ones.

    Examples:
        >>> import torch
        >>> from aide_monai import seeded
        >>> first, again, second = (seeded(lambda: torch.nn.Linear(2, 1), seed) for seed in (1, 1, 2))
        >>> bool((first.weight == again.weight).all()), bool((first.weight == second.weight).all())
        (True, False)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory()


def reinitialised(network: nn.Module, seed: int) -> nn.Module:
    """A copy of a network, each layer of which has drawn its weights anew by ``reset_parameters``.

    Parameters of modules that have no such method, such as position embeddings, are those of ``network``.

    Args:
        network: any network; it stays as it is, and so does the global random state.
        seed: of the weights.

    Raises:
        InputError: if no parameter changes.
    """

    def fresh() -> nn.Module:
        copy = deepcopy(network)
        for layer in copy.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
        return copy

    copy = seeded(fresh, seed)
    if all(torch.equal(a, b) for a, b in zip(network.parameters(), copy.parameters(), strict=True)):
        raise InputError(
            f"{type(network).__name__} has no layer with reset_parameters, so that a second network would be the same "
            "as the first; build one with other weights (network_2)"
        )
    return copy
