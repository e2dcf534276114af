"""Volumes cut into slices: along which axis, laid out so that a slice is one piece of memory, normalised on the way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from aide_monai.data.mapped import MappedTensor, current


def through_plane_axis(affine: Any, *, tolerance: float = 0.01) -> int:
    """The axis along which slices were acquired: the one with the largest spacing.

    Args:
        affine: (4, 4) voxel-to-world matrix in mm.
        tolerance: relative difference below which two spacings count as equal.

    Returns:
        0, 1 or 2; the last of the candidates when spacings are equal, so 2 for isotropic volumes.
    """
    spacing = np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0)
    return int(np.flatnonzero(spacing >= spacing.max() * (1 - tolerance))[-1])


def slice_axis(volume: Any, axis: int | str) -> int:
    """The spatial axis of a volume (channels, X, Y, Z) that ``axis`` means.

    "auto" is the through-plane axis from the affine of a MetaTensor, else the last.
    """
    if axis != "auto":
        return int(axis)
    like = volume.like if isinstance(volume, MappedTensor) else volume
    return through_plane_axis(like.affine) if hasattr(like, "affine") else volume.ndim - 2


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


@dataclass(frozen=True)
class SliceScale:
    """Intensity of each channel of each slice: ``(clamp(value, low, high) - centre) / width``.

    Attributes:
        centre, width: (S, M, 1, 1) float32.
        low, high: (S, M, 1, 1) float32, or None where nothing is clipped.
    """

    centre: Tensor
    width: Tensor
    low: Tensor | None = None
    high: Tensor | None = None

    @cached_property
    def _factor(self) -> Tensor:
        return self.width.reciprocal()  # a product takes half the time of a quotient

    def __call__(self, stored: Tensor, position: int | slice) -> Tensor:
        """The intensities (..., M, H, W) float32 of stored slices at ``position``."""
        value = stored.to(torch.float32, copy=True)
        if self.low is not None and self.high is not None:
            value = value.clamp(self.low[position], self.high[position])
        return value.sub_(self.centre[position]).mul_(self._factor[position])


class Slices(Protocol):
    """The slices of an image.

    Attributes:
        shape: of the volume, (M, X, Y, Z).
        axis: spatial axis along which it is cut.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the volume, (M, X, Y, Z)."""

    @property
    def axis(self) -> int:
        """Spatial axis along which it is cut."""

    def __getitem__(self, position: int | slice) -> Tensor:
        """One slice (M, H, W) float32, or several (S, M, H, W)."""

    def stack(self) -> Tensor:
        """All slices (S, M, H, W) float32."""


class ViewedSlices:
    """Slices of an image as it is, as views of it.

    Args:
        image: (M, X, Y, Z).
        axis: spatial axis along which it is cut.
    """

    def __init__(self, image: Any, axis: int) -> None:
        self.image = image if isinstance(image, MappedTensor) else plain(image)
        self.axis = axis

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the volume, (M, X, Y, Z)."""
        return tuple(self.image.shape)

    def __getitem__(self, position: int | slice) -> Tensor:
        """One slice (M, H, W), or several (S, M, H, W), a view."""
        return self.stack()[position]

    def stack(self) -> Tensor:
        """All slices (S, M, H, W), a view."""
        return current(self.image).movedim(self.axis + 1, 0)


class StoredSlices:
    """Slices of a cached image, which become float32, normalised and padded when they are taken.

    Args:
        voxels: (S, M, h, w) of any real type.
        axis: spatial axis along which the volume was cut.
        scale: normalisation; None when the voxels are float32, normalised and padded: then slices are views.
        size: (H, W) with padding.
        first: row and column at which the stored part lies; the rest is zero.
    """

    def __init__(
        self,
        voxels: Tensor | MappedTensor,
        *,
        axis: int,
        scale: SliceScale | None,
        size: tuple[int, int],
        first: tuple[int, int] = (0, 0),
    ) -> None:
        self.voxels = voxels
        self.axis = axis
        self.scale = scale
        self.size = size
        self.first = first
        height, width = voxels.shape[2:]
        self._box = (..., slice(first[0], first[0] + height), slice(first[1], first[1] + width))
        self._padded = (height, width) != tuple(size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the volume, (M, X, Y, Z)."""
        spatial = list(self.size)
        spatial.insert(self.axis, self.voxels.shape[0])
        return (self.voxels.shape[1], *spatial)

    def __getitem__(self, position: int | slice) -> Tensor:
        """One slice (M, H, W) float32, or several (S, M, H, W)."""
        return self._finished(current(self.voxels)[position], position)

    def stack(self) -> Tensor:
        """All slices (S, M, H, W) float32."""
        return self._finished(current(self.voxels), slice(None))

    def _finished(self, stored: Tensor, position: int | slice) -> Tensor:
        if self.scale is None:
            return stored
        value = self.scale(stored, position)
        if not self._padded:
            return value
        padded = value.new_zeros((*value.shape[:-2], *self.size))
        padded[self._box] = value
        return padded
