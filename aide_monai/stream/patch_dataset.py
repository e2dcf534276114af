"""A stream of 3D patches over cached volumes, with the current labels of both networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor
from torch.utils.data import Dataset

from aide_monai.algorithm import confusion
from aide_monai.errors import InputError
from aide_monai.labels.store import LabelStore
from aide_monai.labels.volumes import case_name, is_high_quality
from aide_monai.stream.training_set import Item, Volume

Window = tuple[slice, ...]
"""Where a patch lies in a volume (X, Y, Z)."""


class PatchDataset(Dataset):
    """3D patches of volumes as a ``TrainingSet``; patches are views, no volume is copied.

    The patches of a volume lie on a grid from its first voxel on; where the size is no multiple, the last ones are
    moved inwards, so that all have one size and every voxel is in at least one. Items are those of ``SliceDataset``
    with "image" (M, x, y, z) and labels (1, x, y, z), and "patch", the number of the patch in its volume, for "slice".

    For the correction of labels, a patch of the grid is a unit; there the last ones are cut off instead, so that every
    voxel belongs to one unit.

    Args:
        volumes: deterministic volumes, usually a MONAI ``CacheDataset``; each is a dictionary with "image"
            (M, X, Y, Z) and, without a ``store``, "label" (1, X, Y, Z). "case" names it; "quality" is "high" or "low".
        patch_size: (x, y, z) in voxels.
        store: current labels, by case.
        overlap: share of a patch, 0 to below 1, by which neighbouring windows overlap when whole volumes are predicted.
        transform: random transforms of one item, after the cache.

    Raises:
        InputError: if there are no volumes, a label is missing, or a volume is smaller than a patch.

    Examples:
        >>> from aide_monai import find_datalist, load_volumes, volume_transforms, write_phantoms
        >>> folder = write_phantoms("phantoms", cases=2, shape=(32, 32, 4))
        >>> volumes = load_volumes(find_datalist(folder).records, volume_transforms(axis=2))
        >>> from aide_monai import PatchDataset
        >>> patches = PatchDataset(volumes, (16, 16, 4), overlap=0.0)
        >>> len(patches), patches[0]["image"].shape
        (8, torch.Size([1, 16, 16, 4]))
    """

    unit = "patch"  # what ``GlobalLabelCorrection`` can replace but whole cases

    def __init__(
        self,
        volumes: Sequence[Volume],
        patch_size: Sequence[int],
        *,
        store: LabelStore | None = None,
        overlap: float = 0.25,
        transform: Callable[[Item], Item] | None = None,
    ) -> None:
        if len(volumes) == 0:
            raise InputError("the patch data set got no volumes; expected at least one case")
        if len(patch_size) != 3 or min(patch_size) < 1:
            raise InputError(f"patch_size is {list(patch_size)}; expected three numbers of voxels")
        if not 0 <= overlap < 1:
            raise InputError(f"overlap is {overlap}; expected a share from 0 to below 1")
        self.patch_size = tuple(int(n) for n in patch_size)
        self.store = store
        self.overlap = overlap
        self.transform = transform
        self.cases: list[str] = []
        self.high_quality: list[bool] = []
        self._images: list[Tensor] = []
        self._labels: list[Tensor] = []
        for number in range(len(volumes)):
            self._add(volumes[number], number)
        self._windows = [self._training_windows(image.shape[1:]) for image in self._images]
        self._first = np.concatenate([[0], np.cumsum([len(windows) for windows in self._windows])])

    def _add(self, volume: Volume, number: int) -> None:
        case = case_name(volume, number)
        image = torch.as_tensor(volume["image"]).as_subclass(Tensor)
        if image.ndim != 4 or any(n < p for n, p in zip(image.shape[1:], self.patch_size, strict=True)):
            raise InputError(
                f"image of case {case!r} has shape {tuple(image.shape)}; expected (channels, X, Y, Z) and at least "
                f"{self.patch_size} voxels: pad the volumes (SpatialPadd), or choose a smaller patch_size"
            )
        if self.store is None and "label" not in volume:
            raise InputError(f"case {case!r} has no label; give every training case a label or a label store")
        if self.store is not None and case not in self.store.cases:
            raise InputError(f"case {case!r} has no label in the label store; expected one for every volume")
        if self.store is None:
            self._labels.append(torch.as_tensor(volume["label"]).as_subclass(Tensor)[0])
        label = self._labels[-1] if self.store is None else self.store.label(1, case)
        if label.shape != image.shape[1:]:
            raise InputError(
                f"label of case {case!r} has shape {tuple(label.shape)}, its image {tuple(image.shape[1:])}; expected "
                "one grid: resample the label onto the image"
            )
        self.cases.append(case)
        self.high_quality.append(is_high_quality(volume))
        self._images.append(image)

    def _training_windows(self, shape: Sequence[int]) -> list[Window]:
        starts = [[min(start, n - p) for start in range(0, n, p)] for n, p in zip(shape, self.patch_size, strict=True)]
        return [tuple(slice(a, a + p) for a, p in zip(at, self.patch_size, strict=True)) for at in product(*starts)]

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def numbers(self) -> list[int]:
        """For every item, the number of its case."""
        return np.repeat(range(len(self.cases)), np.diff(self._first)).tolist()

    def __getitem__(self, index: int) -> Item:
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        position = index - int(self._first[number])
        window = self._windows[number][position]
        item: Item = {"image": self._images[number][(slice(None),) + window]}  # noqa: RUF005
        for key, label in self.labels(number).items():
            item[key] = label[window][None]
        item |= {"case": number, "patch": position, "high_quality": self.high_quality[number]}
        return item if self.transform is None else self.transform(item)

    def labels(self, number: int) -> dict[str, Tensor]:
        """Current labels (X, Y, Z) uint8 of case ``number`` by key."""
        if self.store is None:
            return {"label": self._labels[number]}
        return {f"label_{network}": self.store.label(network, self.cases[number]) for network in (1, 2)}

    def predict(self, number: int, network: Callable[[Tensor], Tensor], batch_size: int) -> tuple[Tensor, int]:
        """Class indices (X, Y, Z) uint8 of case ``number``, and the number of classes.

        Args:
            number: of the case.
            network: (B, M, x, y, z) to logits (B, C, x, y, z).
            batch_size: windows per call.
        """
        logits = sliding_window_inference(
            self._images[number][None], self.patch_size, batch_size, network, overlap=self.overlap, mode="gaussian"
        )
        assert isinstance(logits, Tensor)
        return logits[0].argmax(dim=0).to("cpu", torch.uint8), logits.shape[1]

    def arranged(self, number: int, volume: Tensor) -> Tensor:
        """A volume (X, Y, Z) of case ``number`` as ``predict`` arranges it: as it is."""
        return volume

    def confusion(self, number: int, prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
        """Confusion counts of each patch of the grid (P, C, C), from class indices (X, Y, Z)."""
        return torch.cat(
            [
                confusion(prediction[window][None], label[window][None], num_classes=num_classes)
                for window in self.units(number)
            ]
        )

    def correction(self, number: int, prediction: Tensor, position: int | None) -> tuple[Tensor, Any]:
        """What ``LabelStore.replace`` takes as label and index, of a patch, or of the case (``position`` None)."""
        if position is None:
            return prediction, None
        window = self.units(number)[position]
        return prediction[window], window

    def units(self, number: int) -> list[Window]:
        """The patches that are ranked and corrected: they cover case ``number`` without overlap."""
        shape = self._images[number].shape[1:]
        parts = [
            [slice(start, min(start + p, n)) for start in range(0, n, p)]
            for n, p in zip(shape, self.patch_size, strict=True)
        ]
        return list(product(*parts))
