"""The UniMatch engine, a rival of AIDE: strong views and dropped features that learn the labels of a weak view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from monai.engines.utils import IterationEvents
from torch import Tensor

from aide_monai.engines.partly_labelled import Extra, Labels, PartlyLabelledTrainer
from aide_monai.engines.prepare_batch import Perturbation
from aide_monai.networks import FeatureDropout
from aide_monai.transforms import CutMix, RandomIntensity, RandomRotateFlip
from aide_monai.utils.validation import require_numbers

RANGES: dict[str, tuple[float, float]] = {
    "threshold": (0.0, 1.0),
    "feature_weight": (0.0, 1.0),
    "view_weight": (0.0, 1.0),
    "dropout": (0.0, 0.999),
    "box_probability": (0.0, 1.0),
    "size": (0.0, 1.0),
}
"""Smallest and largest value of the options, by name."""


def check(options: Mapping[str, Any]) -> None:
    """Refuse values, by name, that the engine does not take."""
    require_numbers(options, RANGES)


def confident_loss(logits: Tensor, probability: Tensor, threshold: float) -> Tensor:
    """Cross-entropy with the most probable classes, of pixels whose probability reaches the threshold.

    Args:
        logits: (B, C, spatial...) of the network that learns.
        probability: (B, C, spatial...) softmax output that it learns from; carries no gradient.
        threshold: 0..1.

    Returns:
        Scalar: the sum over these pixels divided by the number of all; 0 where there is none.
    """
    certainty, label = probability.detach().max(dim=1)
    loss = F.cross_entropy(logits, label, reduction="none")
    return loss.where(certainty >= threshold, 0).sum() / max(loss.numel(), 1)


class UniMatchTrainer(PartlyLabelledTrainer):
    """Trains two networks from weak to strong with two strong views and dropped features (UniMatch; Yang et al., 2023).

    Of a doubtful image x, ``augment`` gives the weak view w; two strong views s_1 and s_2 come from it by another
    contrast, sharpness and noise and by boxes of other doubtful images, whose labels move with them. A network f
    learns the classes that it predicts of w itself, where it is sure; f_d is f with half of the channels dropped that
    its decoder gets (``FeatureDropout``). With ``p = softmax f(w)``, ``z = argmax p``, and 1[.] taken at each pixel::

        L_u = mean of 1[max p >= t] (A CE(f_d(w), z) + B / 2 (CE(f(s_1), z) + CE(f(s_2), z)))
        L = (L_seg(f(x), y) + L_u) / 2

    The paper is for semantic segmentation with few labels, hearts among them: two strong views pull one weak view's
    prediction together, and changed features try what no change of an image reaches. Networks do not know of each
    other: network 1 alone is the paper's method, and two make its model comparable with the other engines here.

    Different from the paper: pasted boxes are of one size and come, with their labels, from the same batch; the
    dropped features come from a pass of their own, so that any network will do, which costs an encoder more; strong
    views are made by ``RandomIntensity``, which is for medical images, where the paper jitters colours, blurs and turns
    grey. With ``augment=CutMix(...)``
    boxes are mixed twice: leave it out.

    Args:
        args: as in ``PartlyLabelledTrainer``.
        threshold: t, 0..1; the paper has 0.95.
        feature_weight: A, 0..1; the paper has 0.5.
        view_weight: B, 0..1; the paper has 0.5.
        dropout: probability of a channel to be dropped, 0..0.999; the paper has 0.5.
        strong: what changes a strong view, images (B, M, spatial...) to the same shape, with its ``generator``;
            ``RandomIntensity(probability=0.8)`` by default.
        box_probability: that a strong view gets a box; the paper has 0.5.
        size: side of the box as a share of each spatial axis.
        seed: of views, boxes and dropout.
        kwargs: as in ``PartlyLabelledTrainer``; ``perturb`` changes the trusted images.

    Raises:
        InputError: if an option is out of range; see ``PartlyLabelledTrainer``.

    Examples:
        >>> from aide_monai import find_datalist, load_volumes, volume_transforms, write_phantoms
        >>> folder = write_phantoms("phantoms", cases=2, shape=(32, 32, 4))
        >>> volumes = load_volumes(find_datalist(folder).records, volume_transforms(axis=2))
        >>> import torch
        >>> from monai.networks.nets import BasicUNet
        >>> from aide_monai import seeded, slice_loader, SliceDataset
        >>> from aide_monai.engines import UniMatchTrainer
        >>> build = lambda: BasicUNet(2, 1, 2, features=(4, 4, 4, 4, 4, 4), norm="batch")
        >>> first, second = seeded(build, 1), seeded(build, 2)
        >>> trainer = UniMatchTrainer(
        ...     "cpu", 1, slice_loader(SliceDataset(volumes), batch_size=4, steps=2, seed=0),
        ...     first, torch.optim.Adam(first.parameters()), second, torch.optim.Adam(second.parameters()),
        ... )
        >>> trainer.run()
        >>> trainer.state.iteration
        2
    """

    def __init__(
        self,
        *args: Any,
        threshold: float = 0.95,
        feature_weight: float = 0.5,
        view_weight: float = 0.5,
        dropout: float = 0.5,
        strong: Perturbation | None = None,
        box_probability: float = 0.5,
        size: float = 0.5,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check(
            {
                "threshold": threshold,
                "feature_weight": feature_weight,
                "view_weight": view_weight,
                "dropout": dropout,
                "box_probability": box_probability,
                "size": size,
            }
        )
        self.threshold = threshold
        self.feature_weight = feature_weight
        self.view_weight = view_weight
        self.strong = strong or RandomIntensity(probability=0.8, seed=seed)
        still = RandomRotateFlip(max_angle=0, flip_probability=0, seed=seed + 1)
        self.boxes = CutMix(still, probability=box_probability, size=size)
        # before the handlers, which may set their state
        self.drawing = [torch.Generator().manual_seed(seed + number) for number in (2, 3)]
        super().__init__(*args, **kwargs)
        self.dropouts = [
            FeatureDropout(network, generator=generator, probability=dropout)
            for network, generator in zip(self.networks, self.drawing, strict=True)
        ]

    @property
    def generators(self) -> dict[str, torch.Generator]:
        """As in ``TwoNetworkTrainer``, with those of strong views, boxes and dropout."""
        own = {"strong": getattr(self.strong, "generator", None), "boxes": self.boxes.generator}
        own |= {f"dropout_{number}": generator for number, generator in enumerate(self.drawing, start=1)}
        return super().generators | {name: generator for name, generator in own.items() if generator is not None}

    def learn(self, image: Tensor, labels: Labels) -> tuple[Labels, list[Tensor], Extra]:
        """Weak, strong and dropped passes and their losses; see ``PartlyLabelledTrainer``."""
        doubtful = ~self.trusted
        weak = image[doubtful]
        seen = image.clone()
        if not doubtful.all():
            seen[self.trusted] = self.seen(image[self.trusted])
        logits = self.forward(1, seen), self.forward(2, seen)
        views = [self._strong_view(weak) for _ in range(2)] if len(weak) else []
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        losses = []
        for index, (output, label) in enumerate(zip(logits, labels, strict=True), start=1):
            unlabelled = self._unlabelled(index, weak, views, output[doubtful].detach().softmax(dim=1))
            losses.append((self.supervised(output, label) + unlabelled) / 2)
        return logits, losses, {}

    def _strong_view(self, weak: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A view (B, M, spatial...), from which other image each one's box comes (B,), and where it lies."""
        image = self.strong(weak)
        source, inside = self.boxes.boxes(len(weak), weak.shape[2:])
        source, inside = source.to(weak.device), inside.to(weak.device)
        return torch.where(inside, image[source], image), source, inside

    def _unlabelled(self, index: int, weak: Tensor, views: list[Any], probability: Tensor) -> Tensor:
        if not views:
            return weak.new_zeros(())
        with self.dropouts[index - 1]():
            # not the compiled network, whose layers cannot be looked into
            dropped = self.inferers[index - 1](weak, self.networks[index - 1]).float()
        loss = self.feature_weight * confident_loss(dropped, probability, self.threshold)
        outputs = self.forward(index, torch.cat([view for view, _, _ in views])).split(len(weak))
        for output, (_, source, inside) in zip(outputs, views, strict=True):
            target = torch.where(inside, probability[source], probability)
            loss = loss + self.view_weight / 2 * confident_loss(output, target, self.threshold)
        return loss
