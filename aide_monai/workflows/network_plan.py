"""What a network for a data set looks like, slices or patches, and why; from headers alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aide_monai.data.checks.voxels import is_ct
from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError, Problem
from aide_monai.io.grid import shape_text, through_plane_axis
from aide_monai.io.opening import image_header
from aide_monai.io.volumes import Volume
from aide_monai.reports.table import Table
from aide_monai.utils.files import JsonObject, write_text

ANISOTROPIC = 3.0
"""From this ratio of through-plane to in-plane spacing on, kernels and strides differ between the axes."""

NETWORKS = {
    "BasicUNet": "monai.networks.nets.BasicUNet",
    "MultiStreamUNet": "aide_monai.networks.MultiStreamUNet",
    "SegResNet": "monai.networks.nets.SegResNetDS",
}
"""Name of a network to where it is imported from."""

_ISOTROPIC = 1.5  # up to this ratio a rotation in voxels, which is what views are, hardly bends anatomy
_SPACING_TOLERANCE = 0.05  # relative: volumes this much alike are not resampled, which would blur them
_CT_WINDOW = (-1000.0, 1000.0)
_BATCH = {2: 8, 3: 2}  # by number of spatial axes
_OVERLAP = {2: 0.5, 3: 0.25}
_POOLINGS = 4  # of the U-Nets: sizes are multiples of 2**4
_NAMES = "xyz"


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """Choices for a data set, each with its reason.

    Attributes:
        parameters: by name: "spatial_dims", "slice_axis" (through-plane), "spacing" (mm, None: not resampled), "size"
            (voxels of a slice or a patch), "fit" ("crop" where slices are larger than ``size``, else "pad"),
            "batch_size", "network_class", "network_args", "intensity", "window", "overlap", "rotation_planes" (pairs of
            axes of the volume). Lists for spatial axes are in the order of the volume's, for slices without
            ``slice_axis``.
        reasons: title of a choice to its value as text and its reason.
    """

    parameters: Mapping[str, Any]
    reasons: Mapping[str, tuple[str, str]]

    def table(self) -> Table:
        """What was chosen, and why."""
        return Table(["choice", "value", "reason"], [[name, *texts] for name, texts in self.reasons.items()], 3)

    def content(self) -> JsonObject:
        """The parameters and the table, as JSON has them."""
        return {"parameters": dict(self.parameters), "table": json.loads(self.table().json())}

    def save(self, file: str | Path) -> None:
        """Write ``content`` as JSON.

        Raises:
            InputError: if the file cannot be written.
        """
        write_text(file, json.dumps(self.content(), indent=2, ensure_ascii=False) + "\n")


def plan_network(
    datalist: Datalist,
    *,
    spatial_dims: int = 2,
    network: str | None = None,
    size: Sequence[int] | None = None,
    memory_gb: float = 8.0,
) -> NetworkPlan:
    """Choose network, slice or patch size, spacing and what hangs on them; headers alone are read.

    Args:
        datalist: the cases.
        spatial_dims: 2 for slices, 3 for patches of volumes.
        network: name in ``NETWORKS``; None chooses.
        size: voxels of a slice or patch that are asked for, rounded up to what the network's strides need; None
            chooses.
        memory_gb: what a training may take, in GB; half of it is for activations of two networks in float32, the rest
            for views, gradients and volumes.

    Raises:
        InputError: no cases, an option out of range, an image that cannot be read; for three axes one report of all
            images that have a single slice; or not even the smallest size fits into the memory.

    Examples:
        >>> from aide_monai import find_datalist, write_phantoms
        >>> from aide_monai.workflows import plan_network
        >>> data = find_datalist(write_phantoms("phantoms", cases=2, shape=(32, 32, 4)))
        >>> plan_network(data).parameters["size"]
        [32, 32]
    """
    _require_options(datalist, spatial_dims=spatial_dims, network=network, size=size, memory_gb=memory_gb)
    headers = {case.name: image_header(case.images[0]) for case in datalist.cases}
    if spatial_dims == 3:
        _require_volumes(headers)
    grid = _measured(headers, spatial_dims)
    axis, ratio, spacing, extents = grid.axis, grid.ratio, grid.spacing_mm, grid.extents
    reasons = {
        "data": grid.text,
        "axes": (f"{spatial_dims}D", "slices" if spatial_dims == 2 else "patches of volumes"),
        "spacing": _spacing_text(spacing, grid.resampled),
    }
    channels, classes = len(datalist.modality), len(datalist.labels)
    name, reason = _network(network, channels, ratio, spatial_dims)
    args = _arguments(name, spatial_dims, channels, classes, spacing, ratio)
    reasons["network"] = (name, reason)
    if name == "SegResNet":
        reasons["kernels and strides"] = _strides_text(args)
    multiple = _multiple(name, args)
    wanted = extents.max(axis=0) if spatial_dims == 2 else np.median(extents, axis=0)
    chosen, texts = _size(
        wanted if size is None else np.array(size),
        multiple,
        lambda voxels: _activation_bytes(name, args, _BATCH[spatial_dims], voxels),
        memory_gb,
        asked=size is not None,
        largest=spatial_dims == 2,
    )
    reasons["slice size" if spatial_dims == 2 else "patch size"] = texts
    cropped = spatial_dims == 2 and bool((np.ceil(extents.max(axis=0) - 1e-6) > chosen).any())
    reasons["smaller or larger"] = _fit_text(spatial_dims, cropped=cropped)
    intensity, window, reasons["normalisation"] = _normalisation(datalist, headers, spatial_dims)
    reasons["sliding window"] = _window_text(spatial_dims)
    planes, reasons["rotation of views"] = _rotation(spatial_dims, axis, ratio)
    return NetworkPlan(
        parameters={
            "spatial_dims": spatial_dims,
            "slice_axis": axis,
            "spacing": [round(float(mm), 4) for mm in spacing] if grid.resampled else None,
            "size": list(chosen),
            "fit": "crop" if cropped else "pad",
            "batch_size": _BATCH[spatial_dims],
            "network_class": NETWORKS[name],
            "network_args": args,
            "intensity": intensity,
            "window": window,
            "overlap": _OVERLAP[spatial_dims],
            "rotation_planes": planes,
        },
        reasons=reasons,
    )


def _require_options(
    datalist: Datalist, *, spatial_dims: int, network: str | None, size: Sequence[int] | None, memory_gb: float
) -> None:
    if not datalist.cases:
        raise InputError(f"{datalist.name}: the data set has no cases; expected at least one")
    if spatial_dims not in (2, 3):
        raise InputError(f"spatial_dims is {spatial_dims}; expected 2 (slices) or 3 (volumes)")
    if network is not None and network not in NETWORKS:
        raise InputError(f"network is {network!r}; expected one of {', '.join(NETWORKS)}")
    if size is not None and (len(size) != spatial_dims or min(size) < 1):
        raise InputError(f"size is {list(size)}; expected {spatial_dims} numbers of voxels from 1 on")
    if not 0 < memory_gb < float("inf"):
        raise InputError(f"memory is {memory_gb} GB; expected a number above 0")


def _require_volumes(headers: Mapping[str, Volume]) -> None:
    flat = [(name, header.shape) for name, header in headers.items() if 1 in header.shape]
    if flat:
        raise InputError(
            "images of one slice in a 3D data set",
            problems=[
                Problem(
                    f"shape {shape_text(shape)}", "at least 2 voxels along each axis", "use 2D, or leave it out", name
                )
                for name, shape in flat
            ],
        )


@dataclass(frozen=True)
class _Measured:
    """What headers say: of the axes that a network sees the median spacing and all extents in voxels."""

    axis: int
    ratio: float
    spacing_mm: list[float]
    extents: np.ndarray
    resampled: bool
    text: tuple[str, str]


def _measured(headers: Mapping[str, Volume], dims: int) -> _Measured:
    axes = [through_plane_axis(header.affine) for header in headers.values()]
    axis = max(sorted(set(axes)), key=axes.count)
    shapes = np.array([header.shape for header in headers.values()])
    spacings = np.array([header.grid.spacing_mm for header in headers.values()])
    used = [k for k in range(3) if dims == 3 or k != axis]
    median = np.median(spacings, axis=0)
    resampled = bool((np.abs(spacings[:, used] / median[used] - 1) > _SPACING_TOLERANCE).any())
    extents = shapes * spacings / median if resampled else shapes.astype(float)
    ratio = float(median[axis] / np.delete(median, axis).max())
    text = _data_text(shapes, median, axes, axis)
    return _Measured(axis, ratio, median[used].tolist(), extents[:, used], resampled, text)


def _network(asked: str | None, channels: int, ratio: float, dims: int) -> tuple[str, str]:
    thick = dims == 3 and ratio > ANISOTROPIC
    if asked is not None:
        blind = thick and asked != "SegResNet"
        return asked, "asked for" + (
            "; its kernels and strides are the same along thin and thick axes" if blind else ""
        )
    if thick:
        return "SegResNet", f"slices are {ratio:.3g} times as thick as pixels are wide: its strides can differ by axis"
    if channels > 1:
        return "MultiStreamUNet", f"{channels} channels: an encoder for each, as in the paper"
    return "BasicUNet", "one channel: a plain U-Net"


def _arguments(
    name: str, dims: int, channels: int, classes: int, spacing: Sequence[float], ratio: float
) -> dict[str, Any]:
    args: dict[str, Any] = {"spatial_dims": dims, "in_channels": channels, "out_channels": classes, "norm": "batch"}
    if name == "SegResNet":
        args |= {"init_filters": 16, "blocks_down": [1, 2, 2, 4]}
        if dims == 3 and ratio > ANISOTROPIC:
            args["resolution"] = [round(float(mm), 4) for mm in spacing]
        return args
    features = [16, 16, 32, 64, 128, 16] if name == "BasicUNet" else [16, 16, 32, 64, 128]
    return {**args, "features": features, "act": "relu"}


def _build(name: str, args: Mapping[str, Any]) -> Any:
    """The network without memory: on PyTorch's meta device."""
    from pydoc import locate

    import torch

    with torch.device("meta"):
        return locate(NETWORKS[name])(**args)  # type: ignore[operator]


def _multiple(name: str, args: Mapping[str, Any]) -> list[int]:
    """What a size has to be a multiple of, along each axis."""
    if name == "SegResNet":
        return [int(n) for n in _build(name, args).shape_factor()]
    return [2**_POOLINGS] * args["spatial_dims"]


def _activation_bytes(name: str, args: Mapping[str, Any], batch: int, size: Sequence[int]) -> int:
    """What two networks keep of a batch for the backward pass; nothing is computed.

    The tensors that PyTorch itself saves are counted, each once.
    """
    import torch
    from torch.multiprocessing.reductions import StorageWeakRef

    network = _build(name, args).train()
    weights = {StorageWeakRef(weight.untyped_storage()) for weight in network.parameters()}
    kept: dict[StorageWeakRef, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept[StorageWeakRef(tensor.untyped_storage())] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        _logits = network(torch.empty(batch, args["in_channels"], *size, device="meta"))  # kept: so are its parents
    return 2 * sum(number for storage, number in kept.items() if storage not in weights)


def _size(
    wanted: np.ndarray,
    multiple: Sequence[int],
    bytes_of: Callable[[Sequence[int]], int],
    memory_gb: float,
    *,
    asked: bool,
    largest: bool,
) -> tuple[list[int], tuple[str, str]]:
    """The size, rounded up to multiples, then made smaller until it fits: always the side that is largest for it.

    Args:
        wanted: voxels along each axis.
        multiple: of a size, along each axis.
        bytes_of: activations of a size.
        memory_gb: of a training; half of it is for activations.
        asked: whether a user named the size.
        largest: whether ``wanted`` is the largest extent, else the median one.
    """
    # 1e-6: a resampled extent of 48 voxels may be 48.0000001
    whole = [int(np.ceil(n / m - 1e-6)) * m for n, m in zip(wanted, multiple, strict=True)]
    size = list(whole)
    while bytes_of(size) > memory_gb * 1e9 / 2:
        free = [k for k in range(len(size)) if size[k] > multiple[k]]
        if not free:
            raise InputError(
                f"memory is {memory_gb:g} GB; expected more: the smallest size, {shape_text(tuple(size))}, needs "
                f"{2 * bytes_of(size) / 1e9:.2g} GB"
            )
        # of sides equally large for their extent the longest: a step of it takes the least away
        side = max(free, key=lambda k: (size[k] / whole[k], size[k]))
        size[side] -= multiple[side]
    named = "asked for" if asked else ("largest extent" if largest else "median extent")
    reason = f"{named} {shape_text(tuple(int(np.ceil(n - 1e-6)) for n in wanted))}"
    if (np.array(whole) != wanted).any():
        reason += f", rounded up to multiples of {shape_text(tuple(multiple))} for the network's strides"
    if size != whole:
        reason += ", then made smaller to fit"
    reason += f"; activations take about {bytes_of(size) / 1e9:.2g} of {memory_gb:g} GB"
    return size, (shape_text(tuple(size)), reason)


def _data_text(shapes: np.ndarray, spacing: np.ndarray, axes: Sequence[int], axis: int) -> tuple[str, str]:
    shape = shape_text(tuple(int(n) for n in np.median(shapes, axis=0)))
    text = f"{shape} voxels of {' x '.join(f'{mm:.3g}' for mm in spacing)} mm"
    other = sum(k != axis for k in axes)
    reason = f"median of {len(shapes)} images; through-plane axis {_NAMES[axis]}"
    return text, reason + (f", but another one in {other}: bring them to one orientation" if other else "")


def _spacing_text(spacing: Sequence[float], resampled: bool) -> tuple[str, str]:
    if resampled:
        return " x ".join(f"{mm:.3g}" for mm in spacing) + " mm", "the median, because spacings differ by more than 5 %"
    return "as it is", "spacings differ by no more than 5 %: resampling would only blur"


def _strides_text(args: Mapping[str, Any]) -> tuple[str, str]:
    scales = _build("SegResNet", args).anisotropic_scales
    if scales is None:
        return "3 and 2 along all axes", "voxels are near enough to cubes"
    steps = ", ".join(shape_text(tuple(int(n) for n in scale)) for scale in scales[:-1])
    return f"strides {steps}", "no stride along the thick axis, and kernels 1 there, until voxels are near cubes"


def _fit_text(dims: int, *, cropped: bool) -> tuple[str, str]:
    if dims == 3:
        return (
            "padded, or many patches",
            "smaller volumes need padding to a patch (SpatialPadd); larger ones have several patches",
        )
    if cropped:
        return "cropped", "whole slices do not fit: about their centre"
    return "padded", "every slice fits: zeros are put around smaller ones"


def _normalisation(
    datalist: Datalist, headers: Mapping[str, Volume], dims: int
) -> tuple[str, list[float] | None, tuple[str, str]]:
    if all(is_ct(header.modality, datalist.modality) for header in headers.values()):
        text = f"window {_CT_WINDOW[0]:g} to {_CT_WINDOW[1]:g} HU"
        return "window", list(_CT_WINDOW), (text, "CT: a value means the same in every volume; narrow it to the organ")
    if dims == 2:
        return "slice", None, ("slice", "values have no unit: mean 0 and deviation 1 in each slice, as in the paper")
    reason = "values have no unit: mean 0 and deviation 1 in each volume, so that its patches agree"
    return "volume_percentile", None, ("volume_percentile", f"{reason}; without the outermost 0.5 %")


def _window_text(dims: int) -> tuple[str, str]:
    if dims == 2:
        return f"overlap {_OVERLAP[2]:g}", "only slices larger than the size have several windows"
    return f"overlap {_OVERLAP[3]:g}, Gaussian weights", "predictions at the border of a patch see less, and count less"


def _rotation(dims: int, axis: int, ratio: float) -> tuple[list[list[int]], tuple[str, str]]:
    in_plane = [k for k in range(3) if k != axis]
    if dims == 2:
        return [in_plane], ("in the slice", "slices have one plane")
    if ratio <= _ISOTROPIC:
        return [[0, 1], [0, 2], [1, 2]], ("in all planes", f"voxels are near cubes ({ratio:.3g} to 1)")
    names = " and ".join(_NAMES[k] for k in in_plane)
    return [in_plane], (
        f"in the plane of {names}",
        f"slices are thick ({ratio:.3g} to 1): other turns would bend anatomy",
    )
