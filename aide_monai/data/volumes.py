"""Records of a datalist to deterministic, cached volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import CacheDataset
from monai.transforms import Compose, LoadImaged, ResampleToMatchd, SpatialPadd

from aide_monai.data.locations import LocationReader, open_location
from aide_monai.data.slice_dataset import through_plane_axis
from aide_monai.data.volume_files import Volume
from aide_monai.errors import InputError
from aide_monai.transforms import AsClassIndicesd, NormalizeSlicesd


def volume_transforms(
    *,
    keys: Sequence[str] = ("image", "label"),
    classes: Mapping[Any, int] | None = None,
    axis: int | str = "auto",
    slice_size: Sequence[int] | None = None,
    resample_labels: bool = False,
) -> Compose:
    """The deterministic part of the pipeline: load, check, normalise, pad.

    Args:
        keys: "image" and any of "label" and "clean_label"; keys that a record lacks are skipped.
        classes: stored label value to class index, see ``AsClassIndicesd``.
        axis: spatial axis along which slices are taken, or "auto".
        resample_labels: bring labels from other grids onto their image's (nearest neighbour, background outside).
        slice_size: slices are padded with zeros to at least this size (H, W); None leaves them. Needs a fixed axis.

    Raises:
        InputError: if ``slice_size`` is given with ``axis="auto"``.

    Returns:
        Transform from a record to MetaTensors: "image" (M, X, Y, Z) float32, labels (1, X, Y, Z) uint8.
    """
    labels = [key for key in keys if key != "image"]
    steps: list[Any] = [
        LoadImaged(keys, reader=LocationReader, image_only=True, ensure_channel_first=True, allow_missing_keys=True),
        NormalizeSlicesd("image", axis=axis),
    ]
    if labels and resample_labels:
        steps.append(
            ResampleToMatchd(labels, key_dst="image", mode="nearest", padding_mode="zeros", allow_missing_keys=True)
        )
    if labels:
        steps.append(AsClassIndicesd(labels, classes=classes, image_key="image", allow_missing_keys=True))
    if slice_size is not None:
        if axis == "auto":
            raise InputError(
                'slice_size needs a fixed axis, found axis="auto"; give axis=0, 1 or 2 (see slice_geometry)'
            )
        size = [int(n) for n in slice_size]
        size.insert(int(axis), -1)
        steps.append(SpatialPadd(keys, spatial_size=size, allow_missing_keys=True))
    return Compose(steps)


def load_volumes(
    records: Sequence[dict[str, Any]], transform: Compose, *, workers: int = 0, progress: bool = False
) -> list[dict[str, Any]]:
    """All records as preprocessed volumes in memory (MONAI's ``CacheDataset``).

    Raises:
        InputError: if a file cannot be read or a transform refuses it, naming the file.
    """
    try:
        cache = CacheDataset(list(records), transform, num_workers=workers, progress=progress)
        return [cache[index] for index in range(len(cache))]
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        if cause is not None:
            raise InputError(str(cause)) from error
        raise


def slice_geometry(records: Sequence[dict[str, Any]], *, multiple: int = 16) -> tuple[int, tuple[int, int]]:
    """Slice axis and the smallest slice size that holds every case.

    Args:
        records: records of a datalist; headers alone are read.
        multiple: the size is rounded up to a multiple of this, for the network's poolings.

    Returns:
        The through-plane axis of the first case, and (H, W) in pixels.

    Raises:
        InputError: if there are no records or a header cannot be read.
    """
    if not records:
        raise InputError("there are no cases; expected at least one record")
    headers = [_header(_first_image(record)) for record in records]
    axis = through_plane_axis(headers[0].affine)
    sizes = np.array([[n for i, n in enumerate(header.shape) if i != axis] for header in headers])
    height, width = (-(-sizes.max(axis=0) // multiple) * multiple).tolist()
    return axis, (height, width)


def _header(path: str) -> Volume:
    try:
        return open_location(path)
    except InputError as error:
        raise InputError(f"{path}: cannot read the image header ({error}); replace it or leave the case out") from error


def _first_image(record: Mapping[str, Any]) -> str:
    image = record["image"]
    return str(image if isinstance(image, (str, Path)) else image[0])
