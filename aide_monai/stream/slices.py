"""Volumes cut into slices: along which axis, laid out so that a slice is one piece of memory, normalised on the way."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from aide_monai.transforms.intensity import SliceScale
from aide_monai.utils.mapped_tensor import MappedTensor, current
from aide_monai.utils.tensors import plain


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
