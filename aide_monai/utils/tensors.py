"""Tensors: their memory and their axes."""

from __future__ import annotations

from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor


def plain(tensor: Any) -> Tensor:
    """The tensor without MONAI's metadata, sharing its memory."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else torch.as_tensor(tensor)


def slices_first(volume: Tensor, axis: int) -> Tensor:
    """A volume (M, X, Y, Z) as contiguous slices (S, M, H, W) of the same type; a copy only where needed."""
    slices = volume.movedim(axis + 1, 0)
    if slices.is_contiguous() or slices.ndim != 4:
        return slices.contiguous()
    result = torch.empty(slices.shape, dtype=slices.dtype)
    for target, source in zip(result, slices, strict=True):
        for plane, stored in zip(target, source, strict=True):
            plane.copy_(stored)  # plane by plane: torch transposes a matrix several times faster than a volume
    return result


def memory_order(values: Tensor) -> list[int]:
    """The axes of a tensor, those with the largest step in memory first."""
    steps = values.stride()
    return sorted(range(values.ndim), key=lambda axis: -steps[axis])


def hollow(values: Tensor) -> Tensor:
    """A tensor of one repeated zero, uint8, with the shape and the metadata of another."""
    empty = torch.zeros(1, dtype=torch.uint8).expand(values.shape)
    if not isinstance(values, MetaTensor):
        return empty
    return MetaTensor(empty, meta=values.meta, applied_operations=values.applied_operations)
