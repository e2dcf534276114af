"""A stream of 2D slices over cached volumes, with the current labels of both networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler

from aide_monai.algorithm import confusion
from aide_monai.errors import InputError
from aide_monai.io.grid import slice_axis, through_plane_axis
from aide_monai.labels.store import LabelStore
from aide_monai.labels.volumes import case_name, is_high_quality
from aide_monai.stream.share_sampler import ShareBatchSampler, collate_share
from aide_monai.stream.slices import Slices, StoredSlices, ViewedSlices
from aide_monai.stream.training_set import Item, TrainingSet, Volume
from aide_monai.utils.mapped_tensor import MappedTensor, current
from aide_monai.utils.tensors import plain
from aide_monai.utils.validation import require_numbers

__all__ = ["SliceDataset", "slice_loader", "through_plane_axis"]


class SliceDataset(Dataset):
    """2D slices of 3D volumes as a ``TrainingSet``; slices are views, no volume is copied.

    From a ``VolumeCache`` that keeps integers, or files, image slices become float32 one by one as they are taken.

    Each item is a dictionary:

    - "image": (M, H, W) float32,
    - "label_1", "label_2": (1, H, W) uint8, the labels that network 1 and network 2 train on now, when a ``store``
      is given; otherwise "label" from the volume,
    - "case": int, index of the volume; "slice": int, index along the slice axis; "high_quality": bool.

    Args:
        volumes: deterministic volumes, usually a ``VolumeCache`` or a MONAI ``CacheDataset``; each is a dictionary
            with "image" (M, X, Y, Z) and, without a ``store``, "label" (1, X, Y, Z). "case" names it; "quality" is
            "high" or "low".
        store: current labels, by case.
        axis: spatial axis along which slices are taken, or "auto": the through-plane axis from the affine of a
            MetaTensor, else the last.
        transform: random transforms of one item, after the cache.

    Raises:
        InputError: if there are no volumes, a label is missing, an image is not 3D, or slices differ in size.

    Examples:
        >>> from aide_monai import find_datalist, load_volumes, volume_transforms, write_phantoms
        >>> folder = write_phantoms("phantoms", cases=2, shape=(32, 32, 4))
        >>> volumes = load_volumes(find_datalist(folder).records, volume_transforms(axis=2))
        >>> from aide_monai import SliceDataset
        >>> slices = SliceDataset(volumes)
        >>> len(slices), slices[0]["image"].shape
        (8, torch.Size([1, 32, 32]))
    """

    unit = "slice"  # what ``GlobalLabelCorrection`` can replace but whole cases

    def __init__(
        self,
        volumes: Sequence[Volume],
        *,
        store: LabelStore | None = None,
        axis: int | str = "auto",
        transform: Callable[[Item], Item] | None = None,
    ) -> None:
        if len(volumes) == 0:
            raise InputError("the slice data set got no volumes; expected at least one case")
        self.store = store
        self.transform = transform
        self.cases: list[str] = []
        self.high_quality: list[bool] = []
        self.axes: list[int] = []
        self._images: list[Slices] = []
        self._labels: list[Tensor | MappedTensor] = []
        stored = getattr(volumes, "stored", volumes.__getitem__)  # a VolumeCache need not make whole volumes of slices
        for number in range(len(volumes)):
            self._add(stored(number), number, axis)
        lengths = [image.shape[a + 1] for image, a in zip(self._images, self.axes, strict=True)]
        self._places = [(number, position) for number, length in enumerate(lengths) for position in range(length)]

    def _add(self, volume: Volume, number: int, axis: int | str) -> None:
        case = case_name(volume, number)
        image = self._sliced(volume["image"], case, axis)
        if self.store is None:
            if "label" not in volume:
                raise InputError(f"case {case!r} has no label; give every training case a label or a label store")
            label = volume["label"]
            self._labels.append(label if isinstance(label, MappedTensor) else plain(label))
        elif case not in self.store.cases:
            raise InputError(f"case {case!r} has no label in the label store; expected one for every volume")
        shape = self._labels[-1].shape[1:] if self.store is None else self.store.label(1, case).shape
        if tuple(shape) != image.shape[1:]:
            raise InputError(
                f"label of case {case!r} has shape {tuple(shape)}, its image {image.shape[1:]}; expected "
                "one grid: resample the label onto the image"
            )
        self.cases.append(case)
        self.high_quality.append(is_high_quality(volume))
        self.axes.append(image.axis)
        self._images.append(image)
        size, first = self._slice_size(number), self._slice_size(0)
        if size != first:
            raise InputError(
                f"slices of case {case!r} have size {size}, those of case {self.cases[0]!r} {first}; expected one "
                'size: give the preprocessing a slice_size that holds the largest slice, or fit="crop" or "resize"'
            )

    def _sliced(self, image: Any, case: str, axis: int | str) -> Slices:
        if isinstance(image, StoredSlices):
            if axis not in ("auto", image.axis):
                raise InputError(
                    f"case {case!r} was cut along axis {image.axis} by its preprocessing, the slice data set has "
                    f'axis={axis!r}; expected the same, or "auto"'
                )
            return image
        if image.ndim != 4:
            raise InputError(f"image of case {case!r} has shape {tuple(image.shape)}; expected (channels, X, Y, Z)")
        if axis not in (0, 1, 2, "auto"):
            raise InputError(f'axis is {axis!r}; expected 0, 1, 2 or "auto"')
        return ViewedSlices(image, slice_axis(image, axis))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Item:
        number, position = self._places[index]
        axis = self.axes[number]
        item: Item = {"image": self._images[number][position]}
        for key, label in self._current_labels(number).items():
            item[key] = label.select(axis, position)[None]
        item |= {"case": number, "slice": position, "high_quality": self.high_quality[number]}
        return item if self.transform is None else self.transform(item)

    @property
    def numbers(self) -> list[int]:
        """For every item, the number of its case."""
        return [number for number, _ in self._places]

    def slices(self, number: int) -> Tensor:
        """All slices of case ``number``, (S, M, H, W) float32; a view where single slices are."""
        return self._images[number].stack()

    def labels(self, number: int) -> dict[str, Tensor]:
        """Current labels of case ``number`` by key, as views (S, H, W) uint8."""
        return {key: label.movedim(self.axes[number], 0) for key, label in self._current_labels(number).items()}

    def predict(self, number: int, network: Callable[[Tensor], Tensor], batch_size: int) -> tuple[Tensor, int]:
        """Class indices (S, H, W) uint8 of case ``number``, slices first, and the number of classes.

        Args:
            number: of the case.
            network: (B, M, H, W) to logits (B, C, H, W).
            batch_size: slices per call.
        """
        images, length = self._images[number], self._images[number].shape[self.axes[number] + 1]
        parts, classes = [], 0
        for first in range(0, length, batch_size):
            logits = network(images[first : first + batch_size])
            parts.append(logits.argmax(dim=1).to(torch.uint8))
            classes = logits.shape[1]
        return torch.cat(parts).to("cpu"), classes

    def arranged(self, number: int, volume: Tensor) -> Tensor:
        """A volume (X, Y, Z) of case ``number`` as ``predict`` arranges it: (S, H, W)."""
        return volume.movedim(self.axes[number], 0)

    def confusion(self, number: int, prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
        """Confusion counts of each slice (S, C, C), from class indices as ``predict`` arranges them."""
        return confusion(prediction, label, num_classes=num_classes)

    def correction(self, number: int, prediction: Tensor, position: int | None) -> tuple[Tensor, Any]:
        """What ``LabelStore.replace`` takes as label and index, of a slice, or of the case (``position`` None)."""
        axis = self.axes[number]
        return (prediction.movedim(0, axis), None) if position is None else (prediction[position], (axis, position))

    def _current_labels(self, number: int) -> dict[str, Tensor]:
        if self.store is None:
            return {"label": current(self._labels[number])[0]}
        return {f"label_{network}": self.store.label(network, self.cases[number]) for network in (1, 2)}

    def _slice_size(self, number: int) -> tuple[int, ...]:
        return tuple(n for i, n in enumerate(self._images[number].shape[1:]) if i != self.axes[number])


class _TwoKindsSampler(Sampler[int]):
    """Draws at least so many samples of every batch from one kind; neither of the two is repeated needlessly.

    Of the other kind come as many as both together have of it, as far as there is room in the batches.

    Args:
        first: indices of the one kind.
        second: indices of the other.
        number: least samples of the first kind in a batch.
        batch_size: samples of a batch.
        samples: how many are drawn in all.
        generator: what draws.
    """

    def __init__(
        self,
        first: Sequence[int],
        second: Sequence[int],
        number: int,
        batch_size: int,
        samples: int,
        generator: torch.Generator,
    ) -> None:
        self.kinds = torch.tensor(first), torch.tensor(second)
        self.number = number
        self.batch_size = batch_size
        self.samples = samples
        self.generator = generator

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[int]:
        batches = self.samples // self.batch_size
        others = self._others(batches)
        shares = [self.batch_size - n for n in others], others
        parts = [self._drawn(kind, sum(share)).split(share) for kind, share in zip(self.kinds, shares, strict=True)]
        for batch in map(torch.cat, zip(*parts, strict=True)):
            yield from batch[torch.randperm(self.batch_size, generator=self.generator)].tolist()

    def _others(self, batches: int) -> list[int]:
        """How many samples of the second kind each batch has."""
        first, second = map(len, self.kinds)
        room = self.batch_size - self.number
        expected = batches * self.batch_size * second / (first + second)
        if expected >= batches * room:
            return [room] * batches
        # Rounded at random: rare ones come in some of the epochs, and not in none.
        total = int(expected + torch.rand((), generator=self.generator).item())
        return [(k + 1) * total // batches - k * total // batches for k in range(batches)]

    def _drawn(self, kind: Tensor, number: int) -> Tensor:
        rounds = max(1, -(-number // len(kind)))
        drawn = torch.cat([kind[torch.randperm(len(kind), generator=self.generator)] for _ in range(rounds)])
        return drawn[:number]


def slice_loader(
    dataset: TrainingSet, *, batch_size: int, steps: int, seed: int, trusted_share: float = 0.0
) -> DataLoader:
    """Shuffled batches of slices; an epoch has ``steps`` of them, whatever the size of the data set.

    Within an epoch every slice comes once before any comes again; with a share of trusted ones, any of its kind.
    Each epoch draws anew: one that is shorter than the data set leaves slices out, which the next need not have. All
    drawing is from a generator of the loader's own. Of several processes, each loads its share of the batches.

    Args:
        dataset: the stream.
        batch_size: slices per step.
        steps: steps per epoch.
        seed: seed of the drawing.
        trusted_share: least share of every batch that comes from high-quality cases, where there are any; below 1, it
            leaves room for one sample of another case. 0 draws all alike.

    Raises:
        InputError: if ``batch_size`` or ``steps`` is no whole number above 0, or there are more processes than samples
            of a step.

    Examples:
        >>> from aide_monai import find_datalist, load_volumes, volume_transforms, write_phantoms
        >>> folder = write_phantoms("phantoms", cases=2, shape=(32, 32, 4))
        >>> volumes = load_volumes(find_datalist(folder).records, volume_transforms(axis=2))
        >>> from aide_monai import SliceDataset, slice_loader
        >>> loader = slice_loader(SliceDataset(volumes), batch_size=4, steps=3, seed=0)
        >>> [tuple(batch["image"].shape) for batch in loader]
        [(4, 1, 32, 32), (4, 1, 32, 32), (4, 1, 32, 32)]
    """
    require_numbers({"batch_size": batch_size, "steps": steps}, {"batch_size": (1, math.inf), "steps": (1, math.inf)})
    generator = torch.Generator().manual_seed(seed)
    samples = steps * batch_size
    trusted = math.ceil(trusted_share * batch_size - 1e-9)
    if trusted_share < 1:
        trusted = min(trusted, batch_size - 1)
    high = [item for item, number in enumerate(dataset.numbers) if dataset.high_quality[number]]
    sampler: Sampler[int]
    if trusted > 0 and 0 < len(high) < len(dataset):
        low = sorted(set(range(len(dataset))) - set(high))
        sampler = _TwoKindsSampler(high, low, trusted, batch_size, samples, generator)
    else:
        sampler = RandomSampler(dataset, num_samples=samples, generator=generator)
    batches = ShareBatchSampler(BatchSampler(sampler, batch_size, drop_last=False))
    indexed = cast("Dataset[Any]", dataset)  # PyTorch names its base class, and asks for length and items alone
    return DataLoader(indexed, batch_sampler=batches, generator=generator, collate_fn=collate_share)
