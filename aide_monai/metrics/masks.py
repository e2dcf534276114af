"""Checks and preparation shared by all metrics: binary masks, label maps, spacing, bounding boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from aide_monai.errors import InputError
from aide_monai.utils.axes import COSINE_TOLERANCE, largest_cosine

ArrayLike: TypeAlias = "npt.NDArray[Any] | torch.Tensor"
Mask: TypeAlias = "npt.NDArray[np.bool_]"
Spacing: TypeAlias = "Sequence[float] | npt.NDArray[np.floating]"
"""Distance of voxel centres along each of D axes in mm; or steps (S, D): how a voxel along an axis moves in space."""

Steps: TypeAlias = "tuple[float, ...] | npt.NDArray[np.float64]"
"""A checked ``Spacing``: distances alone wherever the axes are at right angles, steps only where they are not."""


def as_array(values: ArrayLike) -> npt.NDArray[Any]:
    """A numpy view of an array or tensor (MetaTensors included); copied only from another device or from bfloat16."""
    if isinstance(values, torch.Tensor):
        tensor = values.detach().as_subclass(torch.Tensor).cpu()
        return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
    return np.asarray(values)


def as_mask(values: ArrayLike, name: str) -> Mask:
    """A boolean view of a mask, without a copy for bool and uint8.

    Args:
        values: (H, W) or (D, H, W), any axis order; bool, or any number type that holds only 0 and 1.
        name: what to call the mask in messages.

    Raises:
        InputError: other values, no voxels, or neither 2 nor 3 axes.
    """
    array = as_array(values)
    if array.ndim not in (2, 3) or array.size == 0:
        raise InputError(
            f"{name} has the shape {array.shape}; expected (H, W) or three axes with at least one voxel each"
        )
    if array.dtype == np.bool_ or (array.dtype == np.uint8 and array.max() <= 1):
        return array.view(np.bool_)
    if not np.issubdtype(array.dtype, np.number):
        raise InputError(f"{name} has the dtype {array.dtype}; expected bool, or numbers that are 0 or 1")
    others = np.unique(array[(array != 0) & (array != 1)])[:5]
    if not len(others):
        return array != 0
    raise InputError(
        f"{name} holds the values {', '.join(str(value) for value in others)}; expected a binary mask of 0 and 1: "
        "one-hot encode a label map, take one class of it (labels == 2), or use class_scores"
    )


def check_same_shape(prediction_shape: Sequence[int], reference_shape: Sequence[int]) -> None:
    """Raises InputError unless both shapes are equal."""
    if tuple(prediction_shape) != tuple(reference_shape):
        raise InputError(
            f"prediction has the shape {tuple(prediction_shape)}, reference {tuple(reference_shape)}; "
            "expected equal shapes: bring both onto one grid first"
        )


def as_mask_pair(prediction: ArrayLike, reference: ArrayLike) -> tuple[Mask, Mask]:
    """Both masks as in `as_mask`, of one shape (InputError otherwise)."""
    masks = as_mask(prediction, "prediction"), as_mask(reference, "reference")
    check_same_shape(masks[0].shape, masks[1].shape)
    return masks


def check_spacing(spacing_mm: Spacing, axes: int) -> Steps:
    """A spacing or steps that measure distances between voxels of so many axes.

    Raises:
        InputError: neither one positive, finite number of mm per axis nor steps in independent directions.
    """
    given = np.asarray(spacing_mm, dtype=np.float64)
    is_steps = given.ndim == 2 and len(given) > 1
    lengths = np.linalg.norm(given, axis=0) if is_steps else given.ravel()
    sound = len(lengths) == axes and np.isfinite(lengths).all() and bool((lengths > 0).all())
    if not sound or (is_steps and np.linalg.matrix_rank(given / lengths) < axes):
        raise InputError(
            f"spacing_mm is {spacing_mm}; expected {axes} positive numbers, one per axis of the mask, or steps "
            f"(3, {axes}) along the axes, the columns of an affine"
        )
    return given if is_steps and largest_cosine(given) > COSINE_TOLERANCE else tuple(lengths.tolist())


def bounding_box(mask: npt.NDArray[Any]) -> tuple[slice, ...] | None:
    """The smallest box that holds the foreground (all that is not 0), None for an empty mask or label map."""
    occupied = np.flatnonzero(mask.any(axis=tuple(range(1, mask.ndim))))
    if not len(occupied):
        return None
    first = slice(int(occupied[0]), int(occupied[-1]) + 1)
    if mask.ndim == 1:
        return (first,)
    others = bounding_box(np.logical_or.reduce(mask[first], axis=0))
    return None if others is None else (first, *others)


def joint_box(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> tuple[slice, ...]:
    """The smallest box that holds the foreground of both and, inside the image, one voxel more on each side.

    The margin keeps the background neighbours, so that a side of the box without margin is a side of the image.
    Without any foreground it is one voxel.
    """
    boxes = [box for box in (bounding_box(first), bounding_box(second)) if box is not None]
    if not boxes:
        return (slice(0, 1),) * first.ndim
    return tuple(
        slice(max(min(side.start for side in sides) - 1, 0), min(max(side.stop for side in sides) + 1, size))
        for sides, size in zip(zip(*boxes, strict=True), first.shape, strict=True)
    )


def joint_crop(first: Mask, second: Mask, spacing: Steps) -> tuple[Mask, Mask, Steps]:
    """Both masks inside their `joint_box`, and the spacing, axes in the order in which `first` lies in memory.

    No metric depends on the order of axes, and NIfTI files come with the first axis fastest.
    """
    axes = sorted(range(first.ndim), key=lambda axis: -abs(first.strides[axis]))
    first, second = first.transpose(axes), second.transpose(axes)
    box = joint_box(first, second)
    ordered = spacing[:, axes] if isinstance(spacing, np.ndarray) else tuple(spacing[axis] for axis in axes)
    return first[box], second[box], ordered
