"""Random contrast of a whole batch, for scanners and sequences that a training set does not show."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aide_monai.errors import InputError
from aide_monai.transforms.rotate_flip import RandomRotateFlip


class RandomContrast:
    """Augments a batch, then changes the contrast of every image by a random gamma curve.

    The intensities of each channel, scaled to 0..1 between its extremes, become ``x ** gamma``, with ``log(gamma)``
    uniform in +-``strength``; then the channel gets its former mean and standard deviation back. Labels stay.

    Args:
        augment: what comes before; the random numbers are drawn from its generator.
        strength: largest ``|log(gamma)|``; 0.7 is a gamma of 0.5 to 2.

    Raises:
        InputError: if ``strength`` is negative.
    """

    def __init__(self, augment: RandomRotateFlip, *, strength: float = 0.7) -> None:
        if strength < 0:
            raise InputError(f"strength is {strength}; expected a number of at least 0")
        self.augment = augment
        self.strength = strength
        self.generator = augment.generator

    def __call__(self, image: Tensor, labels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Images (N, C, spatial...) float of another contrast and their labels, same shapes and dtypes."""
        image, labels = self.augment(image, labels)
        drawn = 2 * torch.rand(image.shape[:2], generator=self.generator) - 1
        gamma = torch.exp(self.strength * drawn).to(image.device, non_blocking=True)
        return change_contrast(image, gamma), labels


def change_contrast(image: Tensor, gamma: Tensor) -> Tensor:
    """The gamma curve of ``RandomContrast``.

    Args:
        image: (N, C, spatial...) float.
        gamma: (N, C).

    Returns:
        Same shape and dtype; a constant channel stays as it is.
    """
    flat = image.float().flatten(2)
    low, high = flat.aminmax(dim=2, keepdim=True)
    curved = ((flat - low) / (high - low).clamp_min(1e-6)) ** gamma[..., None]
    spread = flat.std(dim=2, keepdim=True, correction=0) / curved.std(dim=2, keepdim=True, correction=0).clamp_min(1e-6)
    changed = (curved - curved.mean(dim=2, keepdim=True)) * spread + flat.mean(dim=2, keepdim=True)
    return changed.view(image.shape).to(image.dtype)
