"""Preprocessed volumes in memory or in memory-mapped files, in the source's own integers where that loses nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from monai.transforms import Compose, LoadImaged, SpatialPadd
from rich.progress import track
from torch import Tensor

from aide_monai.errors import InputError, Problem
from aide_monai.io.ahead import images_ahead
from aide_monai.io.readers import LocationReader
from aide_monai.stream.slices import StoredSlices
from aide_monai.stream.training_set import Volume
from aide_monai.transforms.intensity import NormalizeSlicesd, file_name, with_metadata_of
from aide_monai.utils.mapped_tensor import MappedTensor, ScratchFolder, current
from aide_monai.utils.tensors import hollow, plain, slices_first

CACHES = ("ram", "disk")

_AHEAD = 3


class VolumeCache(Sequence[Volume]):
    """What a deterministic transform makes of records, computed once: MONAI's ``CacheDataset`` for volumes of slices.

    Items are exactly what the transform gives. Stored are slices, each one piece of memory. Where the transform ends
    with ``NormalizeSlicesd``, and perhaps ``SpatialPadd``, as ``volume_transforms`` does, images of whole numbers are
    stored as they come, a half or a quarter of float32, without the padding; ``SliceDataset`` takes them slice by slice
    and normalises and pads each then. Other images are stored as float32 and cost nothing later.

    Args:
        data: records of a datalist.
        transform: from a record to "image" (M, X, Y, Z) and any labels.
        cache: "ram", or "disk": memory-mapped files in a new folder, so that the memory of the process does not grow
            with the number of cases.
        folder: where "disk" makes its folder, which is removed at the end; None is the system's temporary folder.
        progress: show a progress bar.

    Raises:
        InputError: if ``cache`` is unknown, a file cannot be read, a transform refuses it (naming the file), or the
            disk is full.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Compose,
        *,
        cache: str = "ram",
        folder: str | Path | None = None,
        progress: bool = False,
    ) -> None:
        if cache not in CACHES:
            raise InputError(f"cache is {cache!r}; expected one of {', '.join(CACHES)}")
        self.data = data
        self.transform = transform
        self._before, self._normalize, self._after = _split(transform)
        self._scratch = ScratchFolder(folder) if cache == "disk" else None
        numbers = track(range(len(data)), description="Loading volumes", disable=not progress)
        self._files: list[MappedTensor] = []
        with ThreadPoolExecutor(1) as self._writer:
            self._stored = self._load(numbers)
            for file in self._files:
                file.finish()
        del self._writer, self._files

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, number: Any) -> Any:
        """A volume as the transform gives it, or several for a slice."""
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        item = dict(self._stored[number])
        for key, value in item.items():
            if isinstance(value, _Stored):
                stack = value.slices.stack()
                item[key] = with_metadata_of(value.like, stack.movedim(0, value.slices.axis + 1))
            elif isinstance(value, MappedTensor):
                item[key] = with_metadata_of(value.like, current(value))
        return item

    def stored(self, number: int) -> Volume:
        """A volume as it is stored: images as ``StoredSlices``, labels (1, X, Y, Z) uint8, perhaps in a file."""
        item = self._stored[number]
        return {key: value.slices if isinstance(value, _Stored) else value for key, value in item.items()}

    def headers(self, key: str = "image") -> list[Any]:
        """Of each volume the image, or another key, with shape and metadata but without its voxels; nothing is read."""
        values = [item[key] for item in self._stored]
        return [hollow(getattr(value, "like", value)) for value in values]

    def _load(self, numbers: Iterable[int]) -> list[Volume]:
        """All records; after one that cannot be read, the others are read for the report alone."""
        stored: list[Volume] = []
        problems: list[Problem] = []
        with images_ahead(_paths(self.data, self.transform)):
            for number in numbers:
                try:
                    with mistakes():
                        item = self._before(dict(self.data[number]))
                except InputError as error:
                    problems += error.problems
                    continue
                if not problems:
                    with mistakes():
                        stored.append(self._store_all(item, number))
        if problems:
            raise InputError("volumes that cannot be read" if len(problems) > 1 else "", problems=problems)
        return stored

    def _store_all(self, item: Any, number: int) -> Volume:
        images = {key: self._store(item[key], key, number) for key in self._image_keys(item)}
        # The steps after the normalisation move labels and metadata; of the image there is nothing left to move
        item = self._after(item | {key: hollow(item[key]) for key in images})
        for key, value in item.items():
            if key in images:
                item[key] = _Stored(images[key], like=hollow(value))
            elif isinstance(value, Tensor) and value.ndim == 4:
                item[key] = self._kept(_in_slices(value, images), key, number)
        return dict(item)

    def _image_keys(self, item: Mapping[str, Any]) -> list[str]:
        return [] if self._normalize is None else [str(key) for key in self._normalize.key_iterator(cast(Any, item))]

    def _store(self, image: Any, key: str, number: int) -> StoredSlices:
        assert self._normalize is not None
        slices, axis = self._normalize.cut(image)
        scale = self._normalize.scale(slices, name=file_name(image, key))
        size, first = self._padding(image, axis, key)
        slices = _narrow(slices)
        if not slices.is_floating_point() and slices.dtype.itemsize < 4:
            return self._kept_slices(slices, key, number, axis=axis, scale=scale, size=size, first=first)
        whole = StoredSlices(slices, axis=axis, scale=scale, size=size, first=first).stack()
        return self._kept_slices(whole, key, number, axis=axis, scale=None, size=size)

    def _padding(self, image: Any, axis: int, key: str) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size of the slices with padding, and where the image lies in them."""
        widths = [(0, 0)] * image.ndim
        for step in self._after.transforms:
            if key in step.keys:
                widths = [(a + c, b + d) for (a, b), (c, d) in zip(widths, _pad_widths(step, image), strict=True)]
        spatial = [(n, first, last) for n, (first, last) in zip(image.shape[1:], widths[1:], strict=True)]
        (height, top, bottom), (width, left, right) = spatial[:axis] + spatial[axis + 1 :]
        return (height + top + bottom, width + left + right), (top, left)

    def _kept_slices(self, slices: Tensor, key: str, number: int, **how: Any) -> StoredSlices:
        return StoredSlices(self._kept(slices, key, number), **how)

    def _kept(self, values: Tensor, key: str, number: int) -> Tensor | MappedTensor:
        """What is stored: the values, or a file of them, which is written while the next ones are read."""
        if self._scratch is None:
            return values
        file = MappedTensor(self._scratch.path / f"{number:05d}_{key}", values, writer=self._writer)
        self._files.append(file)
        if len(self._files) > _AHEAD:
            self._files[-_AHEAD - 1].finish()  # what waits for the disk is in memory
        return file


def _narrow(slices: Tensor) -> Tensor:
    """Integers of more than 16 bits as uint16 if that loses nothing: so they were read, see ``LocationReader``."""
    if slices.dtype not in (torch.int32, torch.int64):
        return slices
    low, high = torch.aminmax(slices)
    return slices.to(torch.uint16) if low >= 0 and high < 2**16 else slices


def _in_slices(volume: Tensor, images: Mapping[str, StoredSlices]) -> Tensor:
    """The volume, its memory cut like that of the image it belongs to."""
    for image in images.values():
        slices = slices_first(plain(volume), image.axis)
        return with_metadata_of(volume, slices.movedim(0, image.axis + 1))
    return volume


class _Stored:
    """The slices of an image, and an empty image with its metadata."""

    def __init__(self, slices: StoredSlices, like: Any) -> None:
        self.slices = slices
        self.like = like


def _split(transform: Compose) -> tuple[Compose, NormalizeSlicesd | None, Compose]:
    """The steps up to the normalisation, the normalisation, and the padding after it; else (all, None, none)."""
    steps = list(transform.transforms)
    places = [place for place, step in enumerate(steps) if isinstance(step, NormalizeSlicesd)]
    if len(places) == 1 and all(_pads_with_zeros(step) for step in steps[places[0] + 1 :]):
        (place,) = places
        return Compose(steps[:place]), steps[place], Compose(steps[place + 1 :])
    return transform, None, Compose([])


def _pads_with_zeros(step: Any) -> bool:
    return isinstance(step, SpatialPadd) and set(step.mode) == {"constant"} and not step.padder.kwargs


def _pad_widths(step: SpatialPadd, image: Any) -> list[tuple[int, int]]:
    return [(int(before), int(after)) for before, after in step.padder.compute_pad_width(image.shape[1:])]


def _paths(data: Iterable[Mapping[str, Any]], transform: Compose) -> list[list[str]]:
    """Of each image that a ``LocationReader`` will be asked for, its paths."""
    loaders = [
        step
        for step in transform.flatten().transforms
        if isinstance(step, LoadImaged) and any(isinstance(one, LocationReader) for one in step._loader.readers)
    ]
    read = LocationReader().read
    keys = [str(key) for step in loaders for key in step.keys]
    return [read(record[key]) for record in data for key in keys if key in record]


@contextmanager
def mistakes() -> Iterator[None]:
    """Raise the user's mistake that MONAI has wrapped, if it was one, in place of MONAI's error."""
    try:
        yield
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise InputError(str(cause)) from error
