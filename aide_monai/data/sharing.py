"""The share of every batch that one of many processes loads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import BatchSampler, Sampler, default_collate

from aide_monai import distributed
from aide_monai.errors import InputError


class ShareBatchSampler(Sampler[list[int]]):
    """The consecutive part of each batch that this process trains on; the parts in order of rank are the whole batch.

    Every process must draw the same batches, from a generator with the same seed. Use it with ``collate_share``.

    Args:
        batches: the batches of the whole run.

    Raises:
        InputError: if a full batch has fewer samples than there are processes.
    """

    def __init__(self, batches: BatchSampler) -> None:
        self.batches = batches
        self.sampler = batches.sampler
        self.batch_size = batches.batch_size
        self.drop_last = batches.drop_last
        if self.batch_size < distributed.world_size():
            raise InputError(
                f"batch_size is {self.batch_size}; expected at least one sample for each of the "
                f"{distributed.world_size()} processes: raise batch_size, or start fewer processes"
            )

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        rank, size = distributed.rank(), distributed.world_size()
        for batch in self.batches:
            yield batch[len(batch) * rank // size : len(batch) * (rank + 1) // size]


def collate_share(samples: list[Any]) -> Any:
    """A batch of samples; an empty dictionary where a short batch has left none for this process."""
    return default_collate(samples) if samples else {}
