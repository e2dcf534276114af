"""What one of many processes gets of the data: its share of every batch, and files that only another machine has."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import BatchSampler, Sampler, default_collate

from aide_monai.errors import InputError
from aide_monai.utils import distributed
from aide_monai.utils.files import write_atomically


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


def share_files(paths: Iterable[str | Path]) -> None:
    """Copy files of the main process to the same places on machines that do not see them, or see other ones there.

    One process of each machine writes; with a shared file system none does.
    """
    if distributed.world_size() == 1:
        return
    for name in distributed.broadcast([str(path) for path in paths]):
        _share_file(Path(name))
    distributed.gather(None)  # nobody reads before all is written


def _share_file(path: Path) -> None:
    found = distributed.gather(hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "")
    if all(other == found[0] for other in found):
        return
    content = distributed.on_main(lambda: torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8))
    if found[distributed.rank()] != found[0] and os.environ.get("LOCAL_RANK", "0") == "0":
        write_atomically(path, lambda file: file.write(content.numpy().tobytes()))
