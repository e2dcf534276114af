from .distributed import batch_mean, data_parallel, finalize, initialize, local_device, rank, world_size

__all__ = [
    "batch_mean",
    "data_parallel",
    "finalize",
    "initialize",
    "local_device",
    "rank",
    "world_size",
]
