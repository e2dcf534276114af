"""Consistency loss between a prediction and a pseudo-label made from augmented views."""

from __future__ import annotations

from torch import Tensor, nn


class ConsistencyLoss(nn.Module):
    """Half the mean squared distance between softmax output and pseudo-label, per sample (eq. 2)."""

    def forward(self, logits: Tensor, pseudo_label: Tensor, weight: Tensor | None = None) -> Tensor:
        """Loss of each sample.

        Args:
            logits: (B, C, spatial...) raw network output.
            pseudo_label: (B, C, spatial...) class probabilities that sum to 1 over C; carries no gradient.
            weight: optional (B, 1, spatial...) confidence of each pixel in 0..1.

        Returns:
            (B,) float32 in 0..1.

        Raises:
            ValueError: if the shapes differ.
        """
        if logits.shape != pseudo_label.shape:
            raise ValueError(
                f"pseudo_label has shape {tuple(pseudo_label.shape)}; expected that of logits {tuple(logits.shape)}"
            )
        squared = (logits.float().softmax(dim=1) - pseudo_label.detach()).square().sum(dim=1, keepdim=True)
        if weight is not None:
            squared = squared * weight
        return 0.5 * squared.flatten(1).mean(dim=1)
