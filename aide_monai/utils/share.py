"""The share of a batch that one of many processes has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aide_monai.utils import distributed


@dataclass(frozen=True)
class Share:
    """The part of the global batch that this process has; the shares in order of rank are the whole batch.

    Attributes:
        sizes: samples of each process.
        rank: number of this process.
    """

    sizes: tuple[int, ...]
    rank: int

    @classmethod
    def of(cls, samples: int) -> Share:
        """The share of a process that has so many samples; every process must ask."""
        if distributed.world_size() == 1:
            return cls((samples,), 0)
        return cls(tuple(int(size) for size in distributed.all_gather(torch.tensor([samples]))), distributed.rank())

    @property
    def total(self) -> int:
        """Samples of the global batch."""
        return sum(self.sizes)

    @property
    def part(self) -> slice:
        """Which samples of the global batch are here."""
        start = sum(self.sizes[: self.rank])
        return slice(start, start + self.sizes[self.rank])

    def holds(self, positions: Tensor) -> Tensor:
        """(N,) bool on the CPU: which of some positions (N,) in the global batch are here."""
        if len(self.sizes) == 1:
            return torch.ones(len(positions), dtype=torch.bool)
        return ((positions >= self.part.start) & (positions < self.part.stop)).cpu()

    def local(self, positions: Tensor) -> Tensor:
        """Positions in the global batch (N,) as those in the share, without the ones that are elsewhere."""
        if len(self.sizes) == 1:
            return positions
        return positions[self.holds(positions).to(positions.device)] - self.part.start

    def gather(self, values: Tensor) -> Tensor:
        """Values of all samples of the global batch, from those of the samples here (without their gradient)."""
        values = values.detach()
        if len(self.sizes) == 1:
            return values
        if values.dtype == torch.bool:  # gloo has no such messages
            return self.gather(values.byte()).bool()
        padded = values.new_zeros(max(self.sizes), *values.shape[1:])
        padded[: len(values)] = values
        parts = distributed.all_gather(padded)
        return torch.cat([part[:size] for part, size in zip(parts, self.sizes, strict=True)])


def batch_mean(losses: Tensor) -> Tensor:
    """Mean of per-sample losses (b,) over the global batch, for the network of ``data_parallel``.

    The mean of this over the processes is the loss, also where their shares differ in size.
    """
    if distributed.world_size() == 1:
        return losses.mean()
    return losses.sum() * (distributed.world_size() / Share.of(len(losses)).total)
