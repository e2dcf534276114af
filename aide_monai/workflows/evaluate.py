"""Prediction and evaluation of whole volumes, on the grid of their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SliceInferer
from monai.transforms import Activationsd, AsDiscreted, Compose, Invertd, InvertibleTransform
from torch import Tensor, nn

from aide_monai.handlers.case_scores import CaseScores
from aide_monai.networks import MeanNetwork
from aide_monai.reports.tables import Row
from aide_monai.stream.training_set import Volume
from aide_monai.utils.tensors import plain


def slice_inferer(*, axis: int, slice_size: Sequence[int]) -> SliceInferer:
    """Runs a 2D network over a volume (1, M, X, Y, Z), slice by slice along ``axis``, in windows of ``slice_size``."""
    return SliceInferer(roi_size=tuple(slice_size), sw_batch_size=32, spatial_dim=axis, overlap=0.5)


def to_file_grid(keys: str, transform: Compose | None) -> list[Any]:
    """The way back from the network's grid to that of the image's file, as the steps of a pipeline.

    Turning, resampling, cutting and padding of "image" are undone one by one; intensities and probabilities are
    interpolated linearly, and what was cut off is zero. This is the only way by which predictions become masks:
    evaluation, pseudo-labels and figures take it, and ``inference.json`` of a bundle names the same transform.

    Args:
        keys: what to bring back, (C, X, Y, Z).
        transform: what made the image from its record; None when that left the grid alone.
    """
    if transform is None or not any(isinstance(step, InvertibleTransform) for step in transform.transforms):
        return []
    return [Invertd(keys, transform, orig_keys="image", nearest_interp=False, to_tensor=True)]


def on_file_grid(image: Tensor, transform: Compose | None) -> Tensor:
    """A preprocessed image (M, X, Y, Z) back on the grid of its file, for pictures; intensities stay normalised."""
    item = {"image": image, "shown": image}
    return Compose(to_file_grid("shown", transform))(item)["shown"]


def network_variants(network: nn.Module) -> dict[str, nn.Module]:
    """What is reported for a model: the mean of two networks and each single one, or the one network it has."""
    if isinstance(network, MeanNetwork):
        return {"mean": network, "network_1": network.network_1, "network_2": network.network_2}
    return {"single": network}


def evaluate(
    network: nn.Module,
    volumes: Sequence[Volume],
    *,
    labels: Mapping[int, str],
    method: str,
    axis: int,
    slice_size: Sequence[int],
    device: str | torch.device = "cpu",
    keep_largest: bool = False,
) -> list[Row]:
    """Per-case scores of a model and, for two networks, of each single one.

    Args:
        network: (B, M, H, W) to logits (B, C, H, W).
        volumes: preprocessed volumes with "image" (M, X, Y, Z), "case", and "label" (1, X, Y, Z) on the grid of the
            image's file (``fit_labels=False``); a ``VolumeCache`` knows the way back to it, and volumes of any other
            kind must lie on it.
        labels: class index to name.
        method: name of the method in the rows.
        axis: slice axis.
        slice_size: window (H, W) in pixels; smaller slices are padded, larger ones are covered by several windows.
        device: where the network runs.
        keep_largest: score what a model is reported by, the mean of its networks, once more with the largest component
            of each class alone.

    Returns:
        Rows as ``CaseScores`` makes them; "pp" tells which of them kept the largest component.
    """
    way_back = to_file_grid("pred", getattr(volumes, "transform", None))
    postprocessing = Compose([Activationsd("pred", softmax=True), *way_back, AsDiscreted("pred", argmax=True)])
    rows: list[Row] = []
    for name, variant in network_variants(network).items():
        scores = [CaseScores(labels, method=method, network=name)]
        if keep_largest and variant is network:
            scores.append(CaseScores(labels, method=method, network=name, keep_largest=True))
        SupervisedEvaluator(
            device=torch.device(device),
            val_data_loader=DataLoader(Dataset(volumes), batch_size=1),
            network=variant,
            inferer=slice_inferer(axis=axis, slice_size=slice_size),
            postprocessing=postprocessing,
            val_handlers=scores,
        ).run()
        rows += [row for handler in scores for row in handler.rows]
    return rows


def predict(
    network: nn.Module,
    image: Tensor,
    *,
    axis: int,
    slice_size: Sequence[int],
    transform: Compose | None = None,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Class indices (X, Y, Z) uint8 of one preprocessed image (M, X, Y, Z), on the grid of its file.

    Args:
        network: (B, M, H, W) to logits (B, C, H, W).
        image: as ``transform`` gives it.
        axis: slice axis.
        slice_size: window (H, W) in pixels, as in ``evaluate``.
        transform: what made the image from its record; None when that left the grid alone.
        device: where the network runs.
    """
    how: dict[str, Any] = {"axis": axis, "slice_size": slice_size, "transform": transform, "device": device}
    return probabilities(network, image, **how).argmax(dim=0).to(torch.uint8)


@torch.no_grad()
def probabilities(
    network: nn.Module,
    image: Tensor,
    *,
    axis: int,
    slice_size: Sequence[int],
    transform: Compose | None = None,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Class probabilities (C, X, Y, Z) float32, on the CPU; the arguments are those of ``predict``."""
    network.to(device).eval()
    logits = slice_inferer(axis=axis, slice_size=slice_size)(plain(image)[None].to(device), network)
    item = {"image": image, "pred": MetaTensor(plain(logits)[0].softmax(dim=0).cpu())}
    return plain(Compose(to_file_grid("pred", transform))(item)["pred"])
