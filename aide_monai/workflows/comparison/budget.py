"""The budget that all compared methods share, as a config says it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aide_monai.errors import InputError
from aide_monai.options import AMP, ROTATE_FLIP_RANGES
from aide_monai.options import RANGES as AIDE_RANGES
from aide_monai.utils.validation import ABOVE_0, require_choices, require_numbers

RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, math.inf),
    "steps_per_epoch": (1, math.inf),
    "batch_size": (1, math.inf),
    "learning_rate": ABOVE_0,
    "augmentation_angle": ROTATE_FLIP_RANGES["max_angle"],
    "augmentation_zoom": ROTATE_FLIP_RANGES["max_zoom"],
    "augmentation_mix": (0.0, 1.0),
    "augmentation_intensity": (0.0, 1.0),
    "networks": (1, 2),
    "average": AIDE_RANGES["average"],
    "trusted_share": AIDE_RANGES["trusted_share"],
    "seed": (0, math.inf),
}
"""What the numbers of a training may be, in ``TrainingSettings`` as in the configs of a bundle."""

_CHOICES = {"norm": ("batch", "instance"), "amp": AMP, "kept": ("last", "best")}


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Budget and recipe that all compared methods share.

    Attributes:
        epochs: number of epochs.
        steps_per_epoch: optimiser steps per epoch and network.
        batch_size: slices per step.
        learning_rate: initial rate of Adam (amsgrad), decaying polynomially (power 0.9) to 0.
        features: channels of ``BasicUNet``, encoder to decoder.
        norm: its normalisation, "batch" or "instance".
        augmentation_angle: training slices are rotated in +-this many degrees and mirrored at random.
        augmentation_zoom: they also change their size by up to this factor, up or down.
        augmentation_mix: probability with which a box of another slice of the batch, two thirds of each side, is then
            pasted into a slice, labels included (``CutMix``).
        augmentation_intensity: probability of each change of contrast, brightness, sharpness and noise
            (``RandomIntensity``), which AIDE's views do not see.
        networks: how many networks the methods train that need only one. Of 2, from different seeds and on the same
            batches, the mean is the method's model, as it is of AIDE and co-teaching.
        average: decay of a moving average of the weights of every network, which is what predicts and is kept; 0 keeps
            none, and with None AIDE alone has one, by its option ``average``.
        trusted_share: least share of every batch that is drawn from trusted cases, see ``AIDEOptions``; None leaves it
            to the options of each method.
        kept: the "last" epoch is what all methods keep; with "best" AIDE keeps the one with the best Dice with its
            training labels, the others their last.
        amp: "off", "bf16" or "fp16".
        device: where training runs.
        seed: seed of weights, shuffling, augmentation and views.

    Raises:
        InputError: if a setting is out of range or not one of its choices.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int = 8
    learning_rate: float = 1e-3
    features: tuple[int, ...] = (16, 16, 32, 64, 128, 16)
    norm: str = "batch"
    augmentation_angle: float = 15.0
    augmentation_zoom: float = 1.0
    augmentation_mix: float = 0.0
    augmentation_intensity: float = 0.0
    networks: int = 1
    average: float | None = None
    trusted_share: float | None = None
    kept: str = "best"
    amp: str = "off"
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        left = [key for key in ("average", "trusted_share") if vars(self)[key] is None]
        require_numbers(vars(self), {key: limits for key, limits in RANGES.items() if key not in left})
        require_choices(vars(self), _CHOICES)
        features = self.features
        whole = isinstance(features, tuple) and all(isinstance(number, int) and number > 0 for number in features)
        if not whole or len(features) != 6:
            raise InputError(f"features is {features!r}; expected 6 whole numbers, the channels of BasicUNet")

    @property
    def fair(self) -> bool:
        """Whether all methods have two averaged networks, one share of trusted cases, and keep the last epoch."""
        same = self.average is not None and self.trusted_share is not None
        return same and self.networks == 2 and self.kept == "last"
