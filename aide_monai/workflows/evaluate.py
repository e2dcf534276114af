"""Evaluation of whole volumes on their own grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.inferers import SliceInferer
from monai.transforms import AsDiscreted, Compose
from torch import Tensor, nn

from aide_monai.handlers.case_scores import CaseScores
from aide_monai.networks import MeanNetwork


def slice_inferer(*, axis: int, slice_size: Sequence[int]) -> SliceInferer:
    """Runs a 2D network over a volume (1, M, X, Y, Z), slice by slice along ``axis``, in windows of ``slice_size``."""
    return SliceInferer(roi_size=tuple(slice_size), sw_batch_size=32, spatial_dim=axis, overlap=0.5)


def network_variants(network: nn.Module) -> dict[str, nn.Module]:
    """What is reported for a model: the mean of two networks and each single one, or the one network it has."""
    if isinstance(network, MeanNetwork):
        return {"mean": network, "network_1": network.network_1, "network_2": network.network_2}
    return {"single": network}


def evaluate(
    network: nn.Module,
    volumes: Sequence[dict[str, Any]],
    *,
    labels: Mapping[int, str],
    method: str,
    axis: int,
    slice_size: Sequence[int],
    device: str | torch.device = "cpu",
    keep_largest: bool = False,
) -> list[dict[str, Any]]:
    """Per-case scores of a model and, for two networks, of each single one.

    Args:
        network: (B, M, H, W) to logits (B, C, H, W).
        volumes: normalised, unpadded volumes with "image" (M, X, Y, Z), "label" (1, X, Y, Z) and "case".
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
    rows: list[dict[str, Any]] = []
    for name, variant in network_variants(network).items():
        scores = [CaseScores(labels, method=method, network=name)]
        if keep_largest and variant is network:
            scores.append(CaseScores(labels, method=method, network=name, keep_largest=True))
        SupervisedEvaluator(
            device=torch.device(device),
            val_data_loader=DataLoader(Dataset(volumes), batch_size=1),
            network=variant,
            inferer=slice_inferer(axis=axis, slice_size=slice_size),
            postprocessing=Compose([AsDiscreted("pred", argmax=True)]),
            val_handlers=scores,
        ).run()
        rows += [row for handler in scores for row in handler.rows]
    return rows


def predict(
    network: nn.Module, image: Tensor, *, axis: int, slice_size: Sequence[int], device: str | torch.device = "cpu"
) -> Tensor:
    """Class indices (X, Y, Z) uint8 of one normalised image (M, X, Y, Z), on its own grid."""
    return probabilities(network, image, axis=axis, slice_size=slice_size, device=device).argmax(dim=0).to(torch.uint8)


@torch.no_grad()
def probabilities(
    network: nn.Module, image: Tensor, *, axis: int, slice_size: Sequence[int], device: str | torch.device = "cpu"
) -> Tensor:
    """Class probabilities (C, X, Y, Z) of one normalised image (M, X, Y, Z), on its own grid, on the CPU."""
    network.to(device).eval()
    logits = slice_inferer(axis=axis, slice_size=slice_size)(image[None].to(device), network)
    return torch.as_tensor(logits)[0].softmax(dim=0).to("cpu").as_subclass(Tensor)
