"""Intensity normalisation of volumes, slice by slice, without clipping."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from aide_monai.data.slice_dataset import through_plane_axis
from aide_monai.errors import InputError


class NormalizeSlicesd(MapTransform):
    """Zero mean and unit standard deviation for each channel of each slice, over the full intensity range.

    A constant slice becomes zero. Volumes are (M, X, Y, Z); the result is float32.

    Args:
        keys: images to normalise.
        axis: spatial axis along which slices are taken, or "auto": the through-plane axis from the affine.
        allow_missing_keys: skip missing keys.

    Raises:
        InputError: if an image has NaN or infinite voxels.
    """

    def __init__(self, keys: KeysCollection, *, axis: int | str = "auto", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.axis = axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise the images of ``data``."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            axis = self._slice_axis(image)
            value = torch.as_tensor(image).as_subclass(torch.Tensor).float()
            if not torch.isfinite(value).all():
                count = int((~torch.isfinite(value)).sum())
                raise InputError(
                    f"{file_name(image, key)}: {count} voxels are NaN or infinite; expected finite intensities: repair "
                    "the image or leave the case out"
                )
            plane = tuple(i + 1 for i in range(value.ndim - 1) if i != axis)
            deviation = value.std(dim=plane, keepdim=True, correction=0)
            value = (value - value.mean(dim=plane, keepdim=True)) / torch.where(deviation > 0, deviation, 1.0)
            result[key] = MetaTensor(value, meta=image.meta) if isinstance(image, MetaTensor) else value
        return result

    def _slice_axis(self, image: Any) -> int:
        if self.axis != "auto":
            return int(self.axis)
        return through_plane_axis(image.affine) if hasattr(image, "affine") else image.ndim - 2


def file_name(tensor: Any, key: Hashable) -> str:
    """The file a MetaTensor came from, or the key when that is unknown."""
    return str(getattr(tensor, "meta", {}).get("filename_or_obj", f"key {key!r}"))
