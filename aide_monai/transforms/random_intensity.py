"""Random changes of contrast, brightness, sharpness and noise, image by image, in a batch."""

from __future__ import annotations

import torch
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensity,
    RandShiftIntensity,
)
from torch import Tensor

from aide_monai.utils.validation import require_numbers


class RandomIntensity:
    """Changes the intensities of the images of a batch by MONAI's random transforms.

    For images of about unit standard deviation. In this order, each image is blurred (sigma 0.3 to 1.2 pixels), gets a
    gamma of 0.5 to 2, another one as its negative (mean and deviation stay), is scaled and shifted by up to 0.35, and
    gets noise of a standard deviation of up to 0.15.

    Args:
        probability: that an image is scaled, shifted, gets noise or a gamma, each on its own; 0.6 of it for the blur,
            and half of it for the gamma of the negative.
        seed: seed of the generator, which is independent of torch's global one.

    Raises:
        InputError: if the probability is out of range.
    """

    def __init__(self, *, probability: float = 0.5, seed: int = 0) -> None:
        require_numbers({"probability": probability}, {"probability": (0.0, 1.0)})
        self.generator = torch.Generator().manual_seed(seed)
        self.change = Compose(
            [
                RandGaussianSmooth((0.3, 1.2), (0.3, 1.2), (0.3, 1.2), prob=0.6 * probability),
                RandAdjustContrast(prob=probability, gamma=(0.5, 2.0), retain_stats=True),
                RandAdjustContrast(prob=0.5 * probability, gamma=(0.5, 2.0), invert_image=True, retain_stats=True),
                RandScaleIntensity(prob=probability, factors=0.35),
                RandShiftIntensity(prob=probability, offsets=0.35),
                RandGaussianNoise(prob=probability, std=0.15),
            ],
            map_items=False,
        )

    def draw(self, samples: int) -> Tensor:
        """(N,) a seed for each sample."""
        return torch.randint(2**31, (samples,), generator=self.generator)

    def apply(self, image: Tensor, seeds: Tensor) -> Tensor:
        """Images (N, C, spatial...) changed as their seeds (N,) say, same shape and dtype."""
        changed = torch.empty_like(image)
        for target, source, seed in zip(changed, image, seeds.tolist(), strict=True):
            self.change.set_random_state(seed=seed)
            target.copy_(self.change(source))
        return changed

    def __call__(self, image: Tensor) -> Tensor:
        """Changed images (N, C, spatial...), same shape and dtype."""
        return self.apply(image, self.draw(len(image)))
