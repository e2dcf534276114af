"""Labels on the grid of their image, by the share of each class instead of by the nearest voxel."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from aide_monai.errors import InputError
from aide_monai.utils.tensors import plain
from aide_monai.utils.votes import indices_by_votes

_ORIGINAL = ("original_affine", "spatial_shape", "nifti_place")


class ByVotesd(MapTransform):
    """Gives every voxel of an image's grid the class that has the largest share of it.

    The image may come from another grid or have been resampled by any transform that keeps its affine: labels follow to
    its own sample points. After ``Spacingd`` or ``Resized`` of "image" alone, this takes the place of their mode
    "nearest", which lets thin structures come and go. See ``aide_monai.utils.votes``.

    Args:
        keys: labels (1, spatial...), MetaTensors of whole numbers, with the affine of their own grid.
        image_key: the image (M, spatial...), a MetaTensor.
        beyond_edges: beyond its border a label goes on as its outermost voxels; otherwise it is 0 there, or ``IGNORED``
            in a label that has such voxels.
        allow_missing_keys: skip missing keys.

    A label whose metadata say "sparse", as DICOM SEG that leave out slices, counts from then on as one of the image's
    file, so that it is written on that grid.

    Raises:
        InputError: a label or an image without an affine.

    Examples:
        >>> label = MetaTensor(torch.tensor([[[0, 1, 0, 0]]]), affine=torch.eye(4))
        >>> image = MetaTensor(torch.zeros(1, 1, 8), affine=torch.diag(torch.tensor([1, 0.5, 1, 1])))
        >>> ByVotesd("label")({"label": label, "image": image})["label"].tolist()
        [[[0, 1, 1, 0, 0, 0, 0, 0]]]
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        image_key: str = "image",
        beyond_edges: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.beyond_edges = beyond_edges

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample the labels of ``data``; the results are of their type."""
        result = dict(data)
        for key in self.key_iterator(result):
            label, image = result[key], result[self.image_key]
            if not isinstance(label, MetaTensor) or not isinstance(image, MetaTensor):
                raise InputError(
                    f'"{key}" and "{self.image_key}": found a tensor without an affine; expected two of MONAI\'s '
                    "MetaTensors, as LoadImaged makes them"
                )
            matrix = np.linalg.solve(label.affine.double().numpy(), image.affine.double().numpy())
            axes = [*range(label.ndim - 1), 3]
            values = plain(label)[0].cpu().numpy()
            moved = indices_by_votes(
                values, matrix[np.ix_(axes, axes)], tuple(image.shape[1:]), beyond_edges=self.beyond_edges
            )
            meta = {**label.meta, "affine": image.affine.clone()}
            if meta.pop("sparse", False):  # a file that leaves slices out has no grid to go back to but the image's
                meta |= {name: image.meta[name] for name in _ORIGINAL if name in image.meta}
            result[key] = MetaTensor(torch.from_numpy(moved)[None], meta=meta)
        return result
