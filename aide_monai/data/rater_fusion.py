"""Fusing several raters' masks while volumes are loaded, as a MONAI transform."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from aide_monai.data.raters import FUSIONS, as_mask, as_place, fuse_raters


class FuseRatersd(MapTransform):
    """Fuses the masks that ``LoadImaged`` stacked from a list of files, (R, spatial...), to one label (1, spatial...).

    Args:
        keys: stacked masks of R raters, 0 and 1 (or floats within 0.001 of these).
        method: as in ``fuse_raters``; a number is the place in the list of files.
        allow_missing_keys: skip missing keys.

    Raises:
        InputError: an unknown method, or masks that are none.
    """

    def __init__(self, keys: KeysCollection, *, method: str | int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.method = method if method in FUSIONS else as_place(method)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Fuse the masks of ``data``; the result is uint8, float32 for "mean"."""
        result = dict(data)
        for key in self.key_iterator(result):
            masks = result[key]
            voxels = masks.numpy() if isinstance(masks, torch.Tensor) else np.asarray(masks)
            name = str(getattr(masks, "meta", {}).get("filename_or_obj", f"key {key!r}"))
            fused = torch.as_tensor(fuse_raters(as_mask(voxels, name=name), self.method))[None]
            result[key] = MetaTensor(fused, meta=masks.meta) if isinstance(masks, MetaTensor) else fused
        return result
