"""Any segmentation loss, one value per sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class PerSampleLoss(nn.Module):
    """Calls a loss for each sample of a batch by itself, so that samples can be ranked by it.

    The mean over the batch is the loss of the batch, unless the loss mixes its samples as MONAI's with ``batch=True``.

    Args:
        loss: (logits (B, C, spatial...), label (B, 1, spatial...)) to a tensor whose mean is the loss.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss (B,) of each sample."""
        if len(logits) == 0:
            return logits.flatten(1).sum(dim=1)
        pairs = zip(logits.split(1), label.split(1), strict=True)
        return torch.stack([self.loss(prediction, target).mean() for prediction, target in pairs])
