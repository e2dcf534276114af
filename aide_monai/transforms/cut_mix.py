"""Boxes of other images of a batch, pasted with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aide_monai.transforms.rotate_flip import RandomRotateFlip, RotateFlip
from aide_monai.utils.validation import require_numbers


@dataclass(frozen=True)
class Mix:
    """A turn of every sample of a batch, and where a box of another one is pasted into it.

    Args:
        turn: what comes before.
        order: (N,) float; the samples that are here, in this order, make a ring in which each gets its box from the
            sample before it.
        chosen: (N,) bool, which samples get a box.
        corner: (N, 3) float in 0..1, where the box lies on each spatial axis, from one end to the other.
        size: side of the box as a share of each spatial axis.
    """

    turn: RotateFlip
    order: Tensor
    chosen: Tensor
    corner: Tensor
    size: float

    def __getitem__(self, index: slice | Tensor) -> Mix:
        """Those of some samples, which then mix among each other."""
        parts = (self.order[index], self.chosen[index], self.corner[index])
        return Mix(self.turn[index], *parts, size=self.size)

    def apply_to_batch(self, image: Tensor, labels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Turn and mix images (N, C, spatial...) and their labels (N, 1, spatial...) alike."""
        image, labels = self.turn.apply_to_batch(image, labels)
        other, inside = self.boxes(image.shape[2:])
        other, inside = other.to(image.device), inside.to(image.device)
        mixed = [torch.where(inside, values[other], values) for values in (image, *labels)]
        return mixed[0], mixed[1:]

    def boxes(self, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The sample that each gets its box from (N,), if there are two, and where that lies (N, 1, spatial...)."""
        samples = len(self.order)
        ring = self.order.argsort()
        other = torch.empty_like(ring)
        other[ring] = ring.roll(1)
        inside = self.chosen.view(-1, *[1] * (1 + len(shape)))
        for axis, length in enumerate(shape, start=2):
            side = round(self.size * length)
            first = (self.corner[:, axis - 2] * (length - side + 1)).floor()
            place = torch.arange(length) - first[:, None]
            within = (place >= 0) & (place < side)
            inside = inside & within.view(samples, *[length if n == axis else 1 for n in range(1, 2 + len(shape))])
        return other, inside


class CutMix:
    """Augments a batch, then pastes into its images a box of another one, with its labels (Yun et al., ICCV 2019).

    Where few labels are trusted, many pairs bring a trusted and a doubtful label into one image, into one distribution
    of contexts (Bai et al., CVPR 2023, of whose method this is the augmentation alone).

    Of many processes, each mixes the samples of its share.

    Args:
        augment: what comes before; the random numbers are drawn from its generator.
        probability: that an image gets a box; with 0 nothing but the turn is drawn.
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

    def draw(self, samples: int) -> Mix | RotateFlip:
        """Random parameters for ``samples`` samples."""
        turn = self.augment.draw(samples)
        return turn if self.probability == 0 else self._mix(turn, samples)

    def boxes(self, samples: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Boxes alone, see ``Mix.boxes``, for an engine that pastes them itself; the turn of the draw is not used."""
        return self._mix(self.augment.draw(samples), samples).boxes(shape)

    def _mix(self, turn: RotateFlip, samples: int) -> Mix:
        order, chance = torch.rand(2, samples, generator=self.generator)
        corner = torch.rand(samples, 3, generator=self.generator)
        return Mix(turn, order, chance < self.probability, corner, size=self.size)

    def __call__(self, image: Tensor, labels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Mixed images (N, C, spatial...) and labels (N, 1, spatial...), same shapes and dtypes."""
        return self.draw(len(image)).apply_to_batch(image, labels)
