"""A process of several that trains a network and leaves the others: it says which threads of gloo are left behind."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from aide_monai.utils import distributed
from aide_monai.utils.share import batch_mean


def threads() -> list[str]:
    """Names of gloo's threads in this process."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]


if __name__ == "__main__":
    distributed.initialize(timeout_minutes=1)
    torch.manual_seed(distributed.rank())
    network = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    network = distributed.data_parallel(network, optimizer)
    start = network.weight.detach().clone()
    samples = torch.eye(2)[: 2 - distributed.rank()]  # two in the first process, one in the second
    batch_mean(network(samples).flatten()).backward()
    optimizer.step()
    moved = [round(float(value), 4) for value in (start - network.weight.detach()).flatten()]
    same = len({str(weights.tolist()) for weights in distributed.gather(network.weight.detach())}) == 1
    working = bool(threads())
    distributed.finalize()
    print(f"moved {moved}, same {same}, threads {working} {threads()}")
