"""Boxes of other images of a batch, pasted with their labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aide_monai.ranges import require_numbers
from aide_monai.transforms.rotate_flip import RandomRotateFlip


class CutMix:
    """Augments a batch, then pastes into its images a box of another one, with its labels (Yun et al., ICCV 2019).

    Where few labels are trusted, many pairs bring a trusted and a doubtful label into one image, into one distribution
    of contexts (Bai et al., CVPR 2023, of whose method this is the augmentation alone).

    Of many processes, each mixes the samples of its share.

    Args:
        augment: what comes before; the random numbers are drawn from its generator.
        probability: that an image gets a box.
        size: side of the box as a share of each spatial axis; the place is random.

    Raises:
        InputError: if a number is out of range.
    """

    def __init__(self, augment: RandomRotateFlip, *, probability: float = 1.0, size: float = 2 / 3) -> None:
        require_numbers({"probability": probability, "size": size}, {"probability": (0.0, 1.0), "size": (0.0, 1.0)})
        self.augment = augment
        self.probability = probability
        self.size = size
        self.generator = augment.generator

    def __call__(self, image: Tensor, labels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Mixed images (N, C, spatial...) and labels (N, 1, spatial...), same shapes and dtypes."""
        return self.paste(*self.augment(image, labels))

    def paste(self, image: Tensor, labels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The same without what comes before; nothing is drawn where the probability is 0."""
        if self.probability == 0 or len(image) == 0:
            return image, list(labels)
        other, inside = self.draw_boxes(len(image), image.shape[2:])
        other, inside = other.to(image.device), inside.to(image.device)
        mixed = [torch.where(inside, values[other], values) for values in (image, *labels)]
        return mixed[0], mixed[1:]

    def draw_boxes(self, samples: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Another sample for each (N,), if there are two, and where its box lies (N, 1, spatial...)."""
        order = torch.randperm(samples, generator=self.generator)
        other = torch.empty_like(order)
        other[order] = order.roll(1)
        inside = (torch.rand(samples, generator=self.generator) < self.probability).view(-1, *[1] * (1 + len(shape)))
        for axis, length in enumerate(shape, start=2):
            side = round(self.size * length)
            first = (torch.rand(samples, generator=self.generator) * (length - side + 1)).floor()
            place = torch.arange(length) - first[:, None]
            within = (place >= 0) & (place < side)
            inside = inside & within.view(samples, *[length if n == axis else 1 for n in range(1, 2 + len(shape))])
        return other, inside
