"""Records of a datalist to deterministic, cached volumes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import (
    CastToTyped,
    CenterSpatialCropd,
    Compose,
    LoadImaged,
    MapTransform,
    Orientationd,
    Resized,
    Spacingd,
    SpatialPad,
    SpatialPadd,
)

from aide_monai.errors import InputError
from aide_monai.ignored import IGNORED, PARTIAL
from aide_monai.io.grid import through_plane_axis
from aide_monai.io.opening import image_header
from aide_monai.io.readers import LocationReader
from aide_monai.stream.trained_on import IntensityRanged, TellUnlikeTrainingd, TurnLikeTrainingd
from aide_monai.stream.volume_cache import VolumeCache
from aide_monai.transforms.by_votes import ByVotesd
from aide_monai.transforms.intensity import NormalizeSlicesd
from aide_monai.transforms.labels import AsClassIndicesd
from aide_monai.utils.validation import is_orientation, require_pair

FITS = ("pad", "crop", "resize")


def volume_transforms(
    *,
    keys: Sequence[str] = ("image", "label"),
    classes: Mapping[Any, int] | None = None,
    axis: int | str = "auto",
    slice_size: Sequence[int] | None = None,
    fit: str = "pad",
    spacing: Sequence[float] | None = None,
    orientation: str | None = None,
    intensity: str = "slice",
    percentiles: Sequence[float] = (0.5, 99.5),
    window: Sequence[float] | None = None,
    resample_labels: bool = False,
    fit_labels: bool = True,
    weights: str | Path | None = None,
) -> Compose:
    """The deterministic part of the pipeline: load, check, bring onto the network's grid, normalise.

    Labels follow their image to the network's grid, to its own sample points, where the class with the largest share
    of a voxel wins, see ``ByVotesd``.
    Predictions go the whole way back, see ``aide_monai.workflows.evaluate.to_file_grid``.

    Args:
        keys: "image" and any of "label" and "clean_label"; keys that a record lacks are skipped.
        classes: stored label value to class index, see ``AsClassIndicesd``.
        axis: spatial axis along which slices are taken, after ``orientation``, or "auto". All that follow but
            ``intensity`` need a fixed one.
        slice_size: (H, W) in pixels; None leaves the slices as they are.
        fit: how slices come to ``slice_size``: "pad" with zeros to at least this size; "crop": cut and padded to
            exactly this size, about their centre; "resize": resampled to this size, whatever their shape.
        spacing: pixel size (H, W) in mm to which slices are resampled before; None leaves it. With "crop" it brings
            volumes of several scanners to one grid.
        orientation: axes to which volumes are turned first, such as "RAS"; None leaves them.
        intensity: normalisation of the images, see ``NormalizeSlicesd``: "slice", "volume", "slice_percentile",
            "volume_percentile" or "window".
        percentiles: for the percentile variants.
        window: for "window", its two ends.
        resample_labels: bring labels from other grids onto their image's (largest share, background outside).
        fit_labels: False leaves labels on the grid of the image's file, where predictions are scored.
        weights: file of weights that are used on the volumes: where ``orientation`` leaves them, they are turned to
            the orientation that the training volumes had (see ``TrainedOn.target``), and it is told how else they are
            unlike those. None for a training.

    Raises:
        InputError: for an unknown ``fit`` or ``intensity``, a size or spacing that is not two positive numbers, or one
            that is given with ``axis="auto"``.

    Returns:
        Transform from a record to MetaTensors: "image" (M, X, Y, Z) float32, labels (1, X, Y, Z) uint8.

    Examples:
        >>> from aide_monai import volume_transforms
        >>> transform = volume_transforms(axis=2, slice_size=(64, 64), spacing=(1.5, 1.5))
        >>> transform({"image": "scan.nii.gz", "label": "label.nii.gz"})  # doctest: +SKIP
    """
    _require_options(axis=axis, slice_size=slice_size, fit=fit, spacing=spacing)
    if orientation is not None and not is_orientation(orientation):
        raise InputError(f'orientation is {orientation!r}; expected a letter for each of three axes, such as "RAS"')
    labels = [key for key in keys if key != "image"]
    moved = labels if fit_labels else []
    steps: list[Any] = [
        # the file's own type: whole numbers need half the room of float32 and are exact
        LoadImaged(
            keys, reader=LocationReader, dtype=None, image_only=True, ensure_channel_first=True, allow_missing_keys=True
        ),
    ]
    if labels:
        image_key = None if resample_labels else "image"
        steps.append(AsClassIndicesd(labels, classes=classes, image_key=image_key, allow_missing_keys=True))
        steps += [ByVotesd(labels, allow_missing_keys=True)] if resample_labels else []
    steps.append(IntensityRanged("image"))
    if orientation is not None:
        steps.append(Orientationd(["image", *moved], axcodes=orientation, labels=None, allow_missing_keys=True))
    elif weights is not None:
        steps.append(TurnLikeTrainingd(["image", *moved], weights=weights))
    if spacing is not None:
        pixel = _in_plane(spacing, axis, -1.0)
        steps += [
            CastToTyped("image", torch.float32),
            _SpacingOfKeysd("image", pixdim=pixel, mode="bilinear", dtype=np.float32),
        ]
    size = None if slice_size is None else _in_plane([int(n) for n in slice_size], axis, -1)
    if size is not None and fit == "resize":
        steps += [
            CastToTyped("image", torch.float32),
            Resized("image", spatial_size=size, mode="trilinear", anti_aliasing=True),
        ]
    if moved and (spacing is not None or fit == "resize"):
        steps.append(ByVotesd(moved, beyond_edges=True, allow_missing_keys=True))  # as images go on beyond their border
    if size is not None and fit == "crop":
        steps.append(CenterSpatialCropd(["image", *moved], roi_size=size, allow_missing_keys=True))
    if weights is not None:
        steps.append(TellUnlikeTrainingd("image", weights=weights))
    padded = None if fit == "resize" else size
    if moved and padded is not None:  # before the last two, which a ``VolumeCache`` puts off
        steps.append(_PadIndicesd(moved, size=padded, allow_missing_keys=True))
    steps.append(NormalizeSlicesd("image", axis=axis, method=intensity, percentiles=percentiles, window=window))
    steps += [] if padded is None else [SpatialPadd("image", spatial_size=padded)]
    return Compose(steps)


class _SpacingOfKeysd(Spacingd):
    """MONAI's, which else takes all that begins with "image_" for metadata, such as MONAI Label's "image_path"."""

    def __call__(self, data: Any, lazy: bool | None = None) -> dict[Any, Any]:
        return {**data, **super().__call__({key: data[key] for key in self.key_iterator(data)}, lazy)}


class _PadIndicesd(MapTransform):
    """As ``SpatialPadd``; around a label that has voxels without a verdict, nobody has given one either."""

    def __init__(self, keys: KeysCollection, *, size: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.padders = {value: SpatialPad(size, value=value) for value in (0, IGNORED)}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Pad the labels (1, spatial...) of ``data``."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.padders[IGNORED if (result[key] >= PARTIAL).any() else 0](result[key])
        return result


def load_volumes(
    records: Sequence[Mapping[str, Any]],
    transform: Compose,
    *,
    cache: str = "ram",
    folder: str | Path | None = None,
    progress: bool = False,
) -> VolumeCache:
    """All records as preprocessed volumes, in memory or in memory-mapped files; the arguments are ``VolumeCache``'s.

    Raises:
        InputError: if a file cannot be read or a transform refuses it, naming the file.

    Examples:
        >>> from aide_monai import find_datalist, load_volumes, volume_transforms, write_phantoms
        >>> folder = write_phantoms("phantoms", cases=2, shape=(32, 32, 4))
        >>> volumes = load_volumes(find_datalist(folder).records, volume_transforms(axis=2))
        >>> volumes[0]["image"].shape
        torch.Size([1, 32, 32, 4])
    """
    return VolumeCache(list(records), transform, cache=cache, folder=folder, progress=progress)


def _require_options(
    *, axis: int | str, slice_size: Sequence[int] | None, fit: str, spacing: Sequence[float] | None
) -> None:
    if fit not in FITS:
        raise InputError(f"fit is {fit!r}; expected one of {', '.join(FITS)}")
    if axis not in (0, 1, 2, "auto"):
        raise InputError(f'axis is {axis!r}; expected 0, 1, 2 or "auto"')
    for name, value in (("slice_size", slice_size), ("spacing", spacing)):
        if value is None:
            continue
        require_pair(name, value)
        if axis == "auto":
            raise InputError(f'{name} needs a fixed axis, found axis="auto"; give axis=0, 1 or 2 (see slice_geometry)')


def _in_plane(values: Sequence[Any], axis: int | str, through_plane: Any) -> list[Any]:
    """Two in-plane values as three for the axes of a volume."""
    result = list(values)
    result.insert(int(axis), through_plane)
    return result


def slice_geometry(records: Sequence[Mapping[str, Any]], *, multiple: int = 16) -> tuple[int, tuple[int, int]]:
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
    headers = [image_header(_first_image(record)) for record in records]
    axis = through_plane_axis(headers[0].affine)
    sizes = np.array([[n for i, n in enumerate(header.shape) if i != axis] for header in headers])
    height, width = (-(-sizes.max(axis=0) // multiple) * multiple).tolist()
    return axis, (height, width)


def _first_image(record: Mapping[str, Any]) -> str:
    image = record["image"]
    return str(image if isinstance(image, (str, Path)) else image[0])
