"""MONAI's ``CacheDataset`` for a pipeline that is there already, with labels that can be corrected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset, Dataset, MetaTensor
from monai.inferers import sliding_window_inference
from monai.transforms import Compose, RandCropByLabelClassesd, RandomizableTrait, Transform
from torch import Tensor

from aide_monai.algorithm import confusion
from aide_monai.errors import InputError
from aide_monai.io.location import without_suffix
from aide_monai.labels.store import LabelStore
from aide_monai.labels.volumes import is_high_quality
from aide_monai.stream.training_set import Item, Volume
from aide_monai.stream.volume_cache import mistakes
from aide_monai.transforms.labels import AsClassIndicesd
from aide_monai.utils.tensors import plain


class AIDECacheDataset(Dataset):
    """A ``TrainingSet`` that takes the place of MONAI's ``CacheDataset`` where AIDE shall correct the labels.

    The transforms stay what they are. Those up to the first random one are computed once, and their labels are the ones
    to start from. Where the random ones begin, an item gets the current labels of both networks, which go through them
    together as channels of one label. An item (or each item of the list that a crop makes) is what the transforms
    return, with

    - "label_1", "label_2": the labels that network 1 and network 2 train on now, of the shape and dtype that the
      transforms give a label; "label" is that of network 1,
    - "high_quality": bool, whether the label is trusted.

    Records have "image" and "label", any number of dimensions. "quality" is "high" (trusted, never changed) or "low";
    "case" is a name, by default that of the image file.

    Args:
        data: records, as for ``CacheDataset``.
        transform: dictionary transforms, as for ``CacheDataset``, that leave "label" as class indices in one channel.
        quality: of records that do not say theirs.
        folder: where every version of the labels is kept, see ``LabelStore`` and ``aide labels``; None keeps them in
            memory.
        resume: continue with the labels in ``folder``.
        patch_size: voxels that the networks see at once when a whole volume is predicted; by default the size that the
            random transforms give the first item, which the networks train on.
        overlap: share of a patch, 0 to below 1, by which neighbouring windows overlap then.
        cache_options: further arguments of ``CacheDataset``: ``cache_rate``, ``num_workers``, ``copy_cache``, ...

    Raises:
        InputError: if there are no records, a ``LocationReader`` cannot read a file, a record has no label, or
            ``AsClassIndicesd`` refuses it; if a transform needs labels of one channel; as ``LabelStore``.

    Examples:
        >>> from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
        >>> from aide_monai import AIDECacheDataset, find_datalist, write_phantoms
        >>> records = find_datalist(write_phantoms("phantoms", cases=2, shape=(32, 32, 4))).records
        >>> load = Compose([LoadImaged(["image", "label"]), EnsureChannelFirstd(["image", "label"])])
        >>> dataset = AIDECacheDataset(records, load, progress=False)
        >>> sorted({"label_1", "label_2", "high_quality"} & set(dataset[0]))
        ['high_quality', 'label_1', 'label_2']
    """

    unit = "case"  # what ``GlobalLabelCorrection`` can replace

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Sequence[Callable] | Callable | None = None,
        *,
        quality: str = "low",
        folder: str | Path | None = None,
        resume: bool = False,
        patch_size: Sequence[int] | None = None,
        overlap: float = 0.25,
        **cache_options: Any,
    ) -> None:
        super().__init__(data, transform)
        if len(data) == 0:
            raise InputError("the data set got no records; expected at least one")
        if not 0 <= overlap < 1:
            raise InputError(f"overlap is {overlap}; expected a share from 0 to below 1")
        _require_channelwise(self.transform)
        first_random = self.transform.get_index_of_first(
            lambda step: isinstance(step, RandomizableTrait) or not isinstance(step, Transform)
        )
        self._first = len(self.transform.transforms) if first_random is None else first_random
        with mistakes():
            self.volumes = CacheDataset(data, _Until(self.transform, self._first), **cache_options)
        self.overlap = overlap
        labelled = [self._labelled(number, quality) for number in range(len(data))]
        self._name(labelled)
        self.cases: list[str] = [volume["case"] for volume in labelled]
        self.high_quality: list[bool] = [is_high_quality(volume) for volume in labelled]
        self.store = LabelStore.from_volumes(labelled, folder=folder, resume=resume)
        self.patch_size = tuple(self._patch_size() if patch_size is None else patch_size)

    def _labelled(self, number: int, quality: str) -> Volume:
        """Name, quality and label as class indices of a case."""
        volume = self.volumes[number]
        missing = [key for key in ("image", "label") if key not in volume]
        if missing:
            raise InputError(
                f"record {number} has keys {sorted(map(str, volume))}; expected 'image' and 'label': {missing[0]!r} is "
                "missing"
            )
        indices = AsClassIndicesd("label", image_key="image")({key: volume[key] for key in ("image", "label")})
        return {"label": indices["label"], "quality": volume.get("quality", quality), "case": volume.get("case")}

    def _name(self, labelled: Sequence[Volume]) -> None:
        """Give cases without a name that of their image file, or their number where files share a name."""
        names = [_file_name(self.volumes[number]["image"]) for number in range(len(labelled))]
        unique = None not in names and len(set(names)) == len(names)
        for number, volume in enumerate(labelled):
            if volume["case"] is None:
                volume["case"] = names[number] if unique else str(number)

    def _patch_size(self) -> Sequence[int]:
        item = self[0]
        return (item[0] if isinstance(item, list) else item)["image"].shape[1:]

    def _transform(self, index: int) -> Any:
        number = index % len(self)
        volume = self.volumes[number]
        first, second = (self.store.label(network, self.cases[number]) for network in (1, 2))
        # MONAI's crops by label take the first of several channels for the background, and look at the others.
        label = torch.stack([first, first, second]).to(volume["label"].dtype)
        kept = {key: value for key, value in volume.items() if key != "label"}
        if self.volumes.copy_cache and self._first < len(self.transform.transforms):
            kept = deepcopy(kept)
        if isinstance(volume["label"], MetaTensor):
            label = MetaTensor(label).copy_meta_from(volume["label"])
        item = {**kept, "label": label}
        result = self.transform(item, start=self._first)
        if isinstance(result, list):
            return [self._finished(part, number) for part in result]
        return self._finished(result, number)

    def _finished(self, item: Mapping[str, Any], number: int) -> Item:
        label = item["label"]
        if label.shape[0] != 3:
            raise InputError(
                f"the random transforms made {label.shape[0]} channels of the 3 of a label (its versions); expected "
                "transforms that treat channels alike: one-hot encoding belongs into the postprocessing"
            )
        first = label[1:2]
        labels = {"label": first, "label_1": plain(first), "label_2": plain(label[2:3])}
        return {**item, **labels, "high_quality": self.high_quality[number]}

    @property
    def numbers(self) -> list[int]:
        """For every item, the number of its case."""
        return list(range(len(self)))

    def labels(self, number: int) -> dict[str, Tensor]:
        """Current labels (spatial...) uint8 of case ``number`` by key."""
        return {f"label_{network}": self.store.label(network, self.cases[number]) for network in (1, 2)}

    def predict(self, number: int, network: Callable[[Tensor], Tensor], batch_size: int) -> tuple[Tensor, int]:
        """Class indices (spatial...) uint8 of case ``number``, and the number of classes.

        Args:
            number: of the case.
            network: (B, M, spatial...) to logits (B, C, spatial...).
            batch_size: windows per call.
        """
        image = plain(self.volumes[number]["image"])[None]
        logits = sliding_window_inference(
            image, self.patch_size, batch_size, network, overlap=self.overlap, mode="gaussian"
        )
        assert isinstance(logits, Tensor)
        return logits[0].argmax(dim=0).to("cpu", torch.uint8), logits.shape[1]

    def arranged(self, number: int, volume: Tensor) -> Tensor:
        """A volume (spatial...) of case ``number`` as ``predict`` arranges it: as it is."""
        return volume

    def confusion(self, number: int, prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
        """Confusion counts of the case (1, C, C), from class indices (spatial...)."""
        return confusion(prediction[None], label[None], num_classes=num_classes)

    def correction(self, number: int, prediction: Tensor, position: int | None) -> tuple[Tensor, Any]:
        """What ``LabelStore.replace`` takes as label and index: those of the case."""
        return prediction, None


class _Until(Transform):
    """The transforms of a ``Compose`` up to one of them."""

    def __init__(self, transform: Compose, end: int) -> None:
        self.transform = transform
        self.end = end

    def __call__(self, data: Any) -> Any:
        return self.transform(data, end=self.end, threading=True)


def _require_channelwise(transform: Compose) -> None:
    """Refuse what reads the classes from a label of one channel, for here it has three."""
    for step in transform.flatten().transforms:
        if isinstance(step, RandCropByLabelClassesd) and step.indices_key is None:
            raise InputError(
                "RandCropByLabelClassesd would look for the classes in a label that has a channel for each network; "
                "expected ClassesToIndicesd among the deterministic transforms, and its result as indices_key"
            )


def _file_name(image: Any) -> str | None:
    """Name of the file that an image came from, without the suffix of a volume; None for any other image."""
    file = str((getattr(image, "meta", None) or {}).get("filename_or_obj", ""))
    return without_suffix(file) or None
