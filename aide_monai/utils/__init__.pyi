from .distributed import data_parallel, finalize, initialize, local_device, rank, world_size
from .share import batch_mean

__all__ = [
    "batch_mean",
    "data_parallel",
    "finalize",
    "initialize",
    "local_device",
    "rank",
    "world_size",
]
