"""Many files read by other processes, ahead of their use: a file at which a decoder dies is named, the rest goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from pathlib import Path
from typing import Any

from aide_monai.errors import InputError
from aide_monai.io.channels import Channels, read_channels
from aide_monai.io.location import open_location
from aide_monai.io.nifti import NiftiPlace
from aide_monai.io.segmentations import Segmentation, read_segmentation
from aide_monai.io.volumes import Volume
from aide_monai.utils.workers import Ahead, LostError, Result

VOLUME, LABELS, IMAGE = (f"{__name__}:{name}" for name in ("read_volume", "read_labels", "read_image"))

_announced: ContextVar[Ahead | None] = ContextVar("announced", default=None)


@contextmanager
def volumes_ahead(paths: Sequence[str]) -> Iterator[Callable[[str], Volume]]:
    """Gives a function like ``open_location`` whose volumes have their voxels read already.

    Args:
        paths: what will be opened, in this order. A path can be left out, and one that is not announced opened.

    Examples:
        >>> import nibabel, numpy as np
        >>> file = "a.nii"
        >>> nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.eye(4)), file)
        >>> with volumes_ahead([file]) as open_ahead:
        ...     open_ahead(file).decode().shape
        (3, 4, 5, 1)
    """
    with Ahead(VOLUME, paths) as ahead:

        def opened(path: str) -> Volume:
            values, (affine, voxels) = ahead.result(path)
            place = NiftiPlace.of(values.pop("place"))
            return Volume(**_tuples(values), affine=affine, decode=lambda: voxels, place=place)

        yield opened


def open_apart(path: str) -> Volume:
    """``open_location`` of one file whose voxels are needed, by another process."""
    with volumes_ahead([path]) as opened:
        return opened(path)


@contextmanager
def segmentations_ahead(files: Sequence[Path]) -> Iterator[Callable[[Path], Segmentation]]:
    """Gives ``read_segmentation`` for files that are read already; see ``volumes_ahead``."""
    with Ahead(LABELS, [str(file) for file in files]) as ahead:

        def read(file: Path) -> Segmentation:
            try:
                values, (labels, *affine) = ahead.result(str(file))
            except LostError as error:
                raise InputError(error, expected="a label map of whole numbers from 0", place=file) from error
            names = {int(value): name for value, name in values.pop("names").items()}
            place = affine[0] if affine else None
            return Segmentation(file=file, labels=labels, affine=place, names=names, **_tuples(values))

        yield read


@contextmanager
def images_ahead(images: Sequence[Sequence[str]]) -> Iterator[None]:
    """Within the block, ``read_apart`` in this thread finds these images read already; see ``volumes_ahead``.

    Args:
        images: for each the paths of its channels.
    """
    with Ahead(IMAGE, [json.dumps(list(paths)) for paths in images]) as ahead:
        token = _announced.set(ahead)
        try:
            yield
        finally:
            _announced.reset(token)


def read_apart(paths: Sequence[str]) -> Channels:
    """``read_channels`` by another process.

    Raises:
        InputError: as ``read_channels``, or naming the paths at which a decoder died, hung or took too much memory.
    """
    ahead = _announced.get()
    if ahead is None:
        with images_ahead([paths]):
            return read_apart(paths)
    try:
        values, (voxels, affine) = ahead.result(json.dumps(list(paths)))
    except LostError as error:
        named = ", ".join(paths)
        raise InputError(error, expected="a volume", advice="replace the file", place=named) from error
    place = NiftiPlace.of(values.pop("place"))
    return Channels(voxels, affine, place=place, **_tuples(values))


def read_volume(path: str) -> Result:
    """What a worker does for ``volumes_ahead``."""
    volume = open_location(path)
    place = dict(volume.place.fields) if volume.place else {}
    values = {**_values(volume, "affine", "decode", "place"), "place": place}
    return values, [volume.affine, volume.decode()]


def read_labels(path: str) -> Result:
    """What a worker does for ``segmentations_ahead``."""
    found = read_segmentation(path)
    affine = [] if found.affine is None else [found.affine]
    return _values(found, "file", "labels", "affine"), [found.labels, *affine]


def read_image(job: str) -> Result:
    """What a worker does for ``read_apart``."""
    found = read_channels(json.loads(job))
    place = dict(found.place.fields) if found.place else {}
    return {**_values(found, "voxels", "affine", "place"), "place": place}, [found.voxels, found.affine]


def _values(one: Any, *without: str) -> dict[str, Any]:
    return {field.name: getattr(one, field.name) for field in fields(one) if field.name not in without}


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that they were."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
