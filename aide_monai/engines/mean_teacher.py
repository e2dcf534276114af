"""The mean-teacher engine, a rival of AIDE: students that agree with the averages of their own weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aide_monai.engines.partly_labelled import PartlyLabelledTrainer, require_teacher
from aide_monai.utils.validation import require_numbers

RANGES: dict[str, tuple[float, float]] = {
    "weight": (0.0, math.inf),
    "noise": (0.0, math.inf),
    "ramp_epochs": (0, math.inf),
}
"""Smallest and largest value of the options, by name."""


def check(options: Mapping[str, Any]) -> None:
    """Refuse values, by name, that the engine does not take."""
    require_numbers(options, RANGES)


def gaussian_ramp(step: int, length: int) -> float:
    """Weight of the consistency at a step (from 1): ``exp(-5 (1 - t)^2)``, t = step / length, and 1 from t = 1 on.

    Examples:
        >>> [round(gaussian_ramp(step, 4), 4) for step in (2, 4, 8)]
        [0.2865, 1.0, 1.0]
    """
    return math.exp(-5 * (1 - min(step / length, 1.0)) ** 2) if length else 1.0


class MeanTeacherTrainer(PartlyLabelledTrainer):
    """Trains two students, each with the moving average of its weights as its teacher (Tarvainen and Valpola, 2017).

    A student f with weights w learns the trusted labels, and on all images to agree with its teacher, under another
    noise n'. With the weights v of the teacher after step t::

        v_t = a v_(t-1) + (1 - a) w_t
        L = L_seg(f(x + n; w), y) + r(t) W mean (softmax f(x + n; w) - softmax f(x + n'; v))^2

    where the mean is over images, pixels and classes, r is ``gaussian_ramp``, and a is ``average``, lower in the first
    steps (``WeightAverage``). No gradient goes through the teacher, which is what is kept and evaluated.

    The paper is for classification with few labels: the teacher gives better targets than the student's own past
    outputs. Students do not know of each other: network 1 with its teacher is the paper's method, and two make its
    model comparable with the other engines here. Left out: dropout (give networks that have it), random
    translations beyond ``augment``, and the change of a from 0.99 to 0.999 after the ramp, for which trainings here are
    too short. The teacher uses the averaged running statistics of batch normalisation, not those of the batch, so that
    its targets do not depend on the other images. W is 100 in the paper, for ten classes of small images.

    Args:
        args: as in ``PartlyLabelledTrainer``.
        weight: W, at least 0.
        noise: standard deviation of the Gaussian n and n', in units of the intensity; the paper has 0.15.
        ramp_epochs: length of the ramp in epochs; 0 for none.
        average: a, above 0 and below 1.
        seed: of the noise.
        kwargs: as in ``PartlyLabelledTrainer``; ``perturb`` changes what students see, besides the noise.

    Raises:
        InputError: if an option is out of range; see ``PartlyLabelledTrainer``.

    Examples:
        >>> from aide_monai import find_datalist, load_volumes, volume_transforms, write_phantoms
        >>> folder = write_phantoms("phantoms", cases=2, shape=(32, 32, 4))
        >>> volumes = load_volumes(find_datalist(folder).records, volume_transforms(axis=2))
        >>> import torch
        >>> from monai.networks.nets import BasicUNet
        >>> from aide_monai import seeded, slice_loader, SliceDataset
        >>> from aide_monai.engines import MeanTeacherTrainer
        >>> build = lambda: BasicUNet(2, 1, 2, features=(4, 4, 4, 4, 4, 4), norm="batch")
        >>> first, second = seeded(build, 1), seeded(build, 2)
        >>> trainer = MeanTeacherTrainer(
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
        weight: float = 10.0,
        noise: float = 0.15,
        ramp_epochs: int = 8,
        average: float = 0.99,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check({"weight": weight, "noise": noise, "ramp_epochs": ramp_epochs})
        require_teacher(average)
        self.weight = weight
        self.noise = noise
        self.ramp_epochs = ramp_epochs
        self.generator = torch.Generator().manual_seed(seed)
        super().__init__(*args, average=average, **kwargs)

    @property
    def generators(self) -> dict[str, torch.Generator]:
        """As in ``TwoNetworkTrainer``, with that of the noise."""
        return super().generators | {"noise": self.generator}

    def seen(self, image: Tensor) -> Tensor:
        """The perturbed image under the students' noise."""
        return self._noisy(super().seen(image))

    def compute_losses(
        self, image: Tensor, logits: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Supervised loss and weighted consistency of each student; see ``TwoNetworkTrainer.compute_losses``."""
        weight = self.weight * gaussian_ramp(self.state.iteration, self.ramp_epochs * self.state.epoch_length)
        seen = self._noisy(image)
        losses = []
        for index, (output, label) in enumerate(zip(logits, labels, strict=True), start=1):
            target = self.predict(index, seen).softmax(dim=1)
            consistency = (output.softmax(dim=1) - target).square().mean()
            losses.append(self.supervised(output, label) + weight * consistency)
        return losses[0], losses[1], {}

    def _noisy(self, image: Tensor) -> Tensor:
        return image + self.noise * torch.randn(image.shape, generator=self.generator).to(image)
