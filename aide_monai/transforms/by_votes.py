"""Labels on another grid, class by class instead of by the nearest voxel."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from aide_monai.transforms.intensity import with_metadata_of
from aide_monai.utils.tensors import plain


class ByVotesd(MapTransform):
    """Gives every voxel of a label's new grid the class that has the largest share of it.

    Each class is resampled like an intensity from 0 to 1, and the largest one wins. Contours move less than by taking
    the nearest voxel.

    Args:
        keys: labels (1, X, Y, Z), class indices.
        transform: resamples intensities: one of MONAI's array transforms, such as ``Resize`` or ``Spacing``.
        allow_missing_keys: skip missing keys.
    """

    def __init__(
        self, keys: KeysCollection, transform: Callable[..., Any], *, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = transform

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample the labels of ``data``; the results are of their type."""
        result = dict(data)
        for key in self.key_iterator(result):
            label = result[key]
            value = plain(label)
            classes = value.unique()
            shares = torch.cat([value == index for index in classes]).float()
            moved = self.transform(with_metadata_of(label, shares))
            winners = classes[plain(moved).argmax(dim=0, keepdim=True)]
            result[key] = with_metadata_of(moved, winners) if isinstance(label, MetaTensor) else winners
        return result
