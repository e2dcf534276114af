"""The plain loop that AIDE's speed is measured against, in the order of work of the authors' released code.

A step of it makes ten forward passes in float32: both networks on the batch, and both on each of the four views, of all
samples, in training mode and with the graph of a gradient that nobody asks for. Every view is turned, and its
prediction turned back, image by image on the CPU through PIL. Nothing here is the authors' code.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from aide_monai.algorithm import small_loss_mask
from aide_monai.losses import PerSampleDiceCELoss


class NaiveStep:
    """One training step of the plain loop.

    Args:
        networks: both networks, on the CPU or a GPU.
        optimizers: their optimisers.
        views: K, augmented views of each sample.
        weight: weight of the consistency loss.
        ramp: lambda.
    """

    def __init__(
        self,
        networks: tuple[nn.Module, nn.Module],
        optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
        *,
        views: int = 4,
        weight: float = 10.0,
        ramp: float = 1.0,
    ) -> None:
        self.networks = networks
        self.optimizers = optimizers
        self.views = views
        self.weight = weight
        self.ramp = ramp
        self.loss = PerSampleDiceCELoss()

    def __call__(self, image: Tensor, label: Tensor) -> None:
        """Train on a batch: image (B, M, H, W) float32, label (B, 1, H, W)."""
        for network in self.networks:
            network.train()
        outputs = [network(image) for network in self.networks]
        summed: list[Tensor | None] = [None, None]
        for _ in range(self.views):
            angles = [random.uniform(-60, 60) for _ in image]
            flips = [random.random() < 0.5 for _ in image]
            view = torch.stack([_turned(*item) for item in zip(image, angles, flips, strict=True)])
            for i, network in enumerate(self.networks):
                predicted = network(view)
                back = [_turned_back(*item) for item in zip(predicted.detach(), angles, flips, strict=True)]
                summed[i] = torch.stack(back) if summed[i] is None else summed[i] + torch.stack(back)
        losses = [self.loss(output, label) for output in outputs]
        kept = [small_loss_mask(loss, 0.5) for loss in losses]
        totals = []
        for i in (0, 1):
            mean = summed[1 - i] / self.views
            pseudo = mean.softmax(dim=1)
            trusted = kept[1 - i]
            confidence = 1 - 4 * pseudo[:, :1] * pseudo[:, 1:2]
            distance = ((outputs[i].softmax(dim=1) - pseudo) ** 2 * confidence).flatten(1).mean(dim=1)
            totals.append(
                losses[i][trusted].mean()
                + (1 - self.ramp) * losses[i][~trusted].mean()
                + self.weight * self.ramp * distance[~trusted].mean()
            )
        for total, optimizer in zip(totals, self.optimizers, strict=True):
            optimizer.zero_grad()
            total.backward()
            optimizer.step()


def _turned(image: Tensor, angle: float, flip: bool) -> Tensor:
    """The view (M, H, W) of an image, channel by channel."""
    channels = [Image.fromarray(channel).rotate(angle, Image.Resampling.BILINEAR) for channel in image.cpu().numpy()]
    channels = [c.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else c for c in channels]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels])).to(image.device)


def _turned_back(predicted: Tensor, angle: float, flip: bool) -> Tensor:
    """The prediction (C, H, W) of a view on the image."""
    channels = [Image.fromarray(channel) for channel in predicted.cpu().numpy()]
    channels = [c.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else c for c in channels]
    back = [np.asarray(channel.rotate(-angle, Image.Resampling.BILINEAR)) for channel in channels]
    return torch.from_numpy(np.stack(back)).to(predicted.device)
