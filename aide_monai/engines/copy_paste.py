"""The bidirectional copy-paste engine, a rival of AIDE: trusted and doubtful images pasted into each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from monai.engines.utils import IterationEvents
from torch import Tensor

from aide_monai.engines.partly_labelled import Extra, Labels, PartlyLabelledTrainer, require_teacher
from aide_monai.ignored import IGNORED
from aide_monai.transforms import COMPONENTS, CutMix, RandomRotateFlip, keep_components
from aide_monai.utils.validation import require_choices, require_numbers

RANGES: dict[str, tuple[float, float]] = {
    "weight": (0.0, math.inf),
    "pretrain_epochs": (0, math.inf),
    "size": (0.0, 1.0),
}
"""Smallest and largest value of the options, by name."""
CHOICES = {"largest_component": COMPONENTS}
"""Values of the option that is no number, by name."""


def check(options: Mapping[str, Any]) -> None:
    """Refuse values, by name, that the engine does not take."""
    require_numbers(options, RANGES)
    require_choices(options, CHOICES)


def bidirectional_pairs(trusted: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Which images frame which boxes: every one does both, and every pair has one of each kind.

    Args:
        trusted: (T,) positions of the trusted images, at least one.
        others: (U,) positions of the others, at least one. The shorter of the two is repeated.

    Returns:
        (2 P,) positions of the frames and of the images that the boxes come from, P the larger of T and U: first boxes
        of others in trusted frames, then boxes of trusted ones in frames of others, of other pairs.

    Examples:
        >>> import torch
        >>> frames, boxes = bidirectional_pairs(torch.tensor([0, 1]), torch.tensor([2, 3]))
        >>> frames.tolist(), boxes.tolist()
        ([0, 1, 2, 3], [2, 3, 1, 0])
    """
    number = torch.arange(max(len(trusted), len(others)), device=trusted.device)
    first, second = trusted[number % len(trusted)], others[number % len(others)]
    return torch.cat([first, second]), torch.cat([second, first.roll(1)])


class CopyPasteTrainer(PartlyLabelledTrainer):
    """Trains two students on bidirectional copy-paste (BCP; Bai, Chen, Li, Shen, Li and Wang, CVPR 2023).

    First a student trains on trusted images alone, each with a box of another one pasted into it. Then, with M = 0 in
    a random box and 1 around it, trusted images x_i, x_j and others u_p, u_q become::

        in:  x_j M + u_p (1 - M)  with the label  y_j M + z_p (1 - M)
        out: u_q M + x_i (1 - M)  with the label  z_q M + y_i (1 - M)

    where z is the largest component of each class of the classes that the teacher predicts, the moving average of
    the student's weights. The student f learns both, pixels with the teacher's label with the weight W::

        L = L_seg(f(mixed), label) on trusted pixels + W L_seg(f(mixed), label) on the others

    The paper is for medical images with few labels: in a mixed image the semantics of both kinds are learnt in one
    context, so that what is learnt of few trusted images carries over. Students do not know of each other:
    network 1 with its teacher is the paper's method, and two make its model comparable with the other engines here.

    Different from the paper: every image is both frame and box, which makes as many mixed images as the batch has
    samples, where the paper makes half as many; each pair has a box of its own; the moving average runs during the
    first part too, so that the teacher is not copied from the student at its end; the student does not return to
    the best validated weights of the first part, for there may be no validation data; components are those of a
    slice for 2D networks, of a patch for 3D ones. With ``augment=CutMix(...)`` boxes are mixed twice: leave it out.

    Args:
        args: as in ``PartlyLabelledTrainer``.
        weight: W; the paper has 0.5.
        pretrain_epochs: epochs of the first part; the paper takes a quarter of all for hearts in 2D.
        size: side of the box as a share of each spatial axis, 0..1; the paper has two thirds.
        largest_component: what the teacher's labels keep, as in ``AIDEOptions``.
        average: decay of the moving average, above 0 and below 1; the paper has 0.99.
        seed: of the boxes.
        kwargs: as in ``PartlyLabelledTrainer``; ``perturb`` changes what students see, not what their teachers do.

    Raises:
        InputError: if an option is out of range; see ``PartlyLabelledTrainer``.

    Examples:
        >>> from aide_monai import find_datalist, load_volumes, volume_transforms, write_phantoms
        >>> folder = write_phantoms("phantoms", cases=2, shape=(32, 32, 4))
        >>> volumes = load_volumes(find_datalist(folder).records, volume_transforms(axis=2))
        >>> import torch
        >>> from monai.networks.nets import BasicUNet
        >>> from aide_monai import seeded, slice_loader, SliceDataset
        >>> from aide_monai.engines import CopyPasteTrainer
        >>> build = lambda: BasicUNet(2, 1, 2, features=(4, 4, 4, 4, 4, 4), norm="batch")
        >>> first, second = seeded(build, 1), seeded(build, 2)
        >>> trainer = CopyPasteTrainer(
        ...     "cpu", 2, slice_loader(SliceDataset(volumes), batch_size=4, steps=2, seed=0),
        ...     first, torch.optim.Adam(first.parameters()), second, torch.optim.Adam(second.parameters()),
        ...     pretrain_epochs=1,
        ... )
        >>> trainer.run()
        >>> trainer.state.iteration
        4
    """

    def __init__(
        self,
        *args: Any,
        weight: float = 0.5,
        pretrain_epochs: int = 5,
        size: float = 2 / 3,
        largest_component: str = "class",
        average: float = 0.99,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        numbers = {"weight": weight, "pretrain_epochs": pretrain_epochs, "size": size}
        check(numbers | {"largest_component": largest_component})
        require_teacher(average)
        self.weight = weight
        self.pretrain_epochs = pretrain_epochs
        self.largest_component = largest_component
        self.boxes = CutMix(RandomRotateFlip(max_angle=0, flip_probability=0, seed=seed), size=size)
        super().__init__(*args, average=average, **kwargs)

    @property
    def generators(self) -> dict[str, torch.Generator]:
        """As in ``TwoNetworkTrainer``, with that of the boxes."""
        return super().generators | {"boxes": self.boxes.generator}

    def learn(self, image: Tensor, labels: Labels) -> tuple[Labels, list[Tensor], Extra]:
        """Mix, let the students predict, and compare; see ``PartlyLabelledTrainer``."""
        trusted, doubtful = self.trusted.nonzero()[:, 0], (~self.trusted).nonzero()[:, 0]
        pretraining = self.state.epoch <= self.pretrain_epochs
        if len(trusted) == 0:  # nothing to frame the others with
            trusted = doubtful
        others = trusted.roll(1) if pretraining or len(doubtful) == 0 else doubtful
        frames, boxes = bidirectional_pairs(trusted, others)
        _, inside = self.boxes.boxes(len(frames), image.shape[2:])
        inside = inside.to(image.device)

        def mixed(values: Tensor) -> Tensor:
            return torch.where(inside, values[boxes], values[frames])

        seen = mixed(self.seen(image))
        logits = self.forward(1, seen), self.forward(2, seen)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        losses, shown = [], []
        for index, (output, label) in enumerate(zip(logits, labels, strict=True), start=1):
            target = mixed(label)
            losses.append(self.supervised(output, target))
            if not pretraining and len(doubtful):
                own = torch.full_like(label, IGNORED)  # the teacher's labels, and none where there are others
                own[doubtful] = self._teacher_labels(index, image[doubtful]).to(label)
                own = mixed(own).where(target == IGNORED, IGNORED)
                losses[-1] = losses[-1] + self.weight * self.supervised(output, own)
                target = target.where(target != IGNORED, own)
            shown.append(target)
        return logits, losses, {"image": seen, "label_1": shown[0], "label_2": shown[1]}

    def _teacher_labels(self, index: int, image: Tensor) -> Tensor:
        """(B, 1, spatial...) uint8."""
        predicted = self.predict(index, image).argmax(dim=1).to(torch.uint8)
        return torch.stack([keep_components(labels, self.largest_component) for labels in predicted])[:, None]
