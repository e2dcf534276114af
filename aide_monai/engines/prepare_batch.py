"""From a loaded batch to what an engine trains on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor

from aide_monai.utils.distributed import world_size
from aide_monai.utils.share import Share

Augmentation = Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, list[Tensor]]]
"""Augments a batch on the device: (image, [label, ...]) to the same, all (B, channels, spatial...)."""

Perturbation = Callable[[Tensor], Tensor]
"""Changes the images of a batch (B, M, spatial...) so that their labels stay true: (image) to the same shape."""


Batch: TypeAlias = dict[str, Any]
"""What a loader gives: tensors and lists by key, see ``stream.TrainingSet``."""


def prepare_two_labels(
    batch: Batch, device: torch.device | str | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Image, the current labels of both networks, and which samples are high quality.

    Args:
        batch: "image" (B, M, spatial...) float; "label_1" and "label_2" (B, 1, spatial...) integers, or one "label"
            for both networks; optionally "high_quality" (B,) bool.
        device: where the tensors go.
        non_blocking: as in ``Tensor.to``.
        kwargs: as in ``Tensor.to``, for the image only.

    Raises:
        KeyError: if there is no image or no label, naming the keys that were found.
    """
    first, second = ("label_1", "label_2") if "label_1" in batch else (Keys.LABEL, Keys.LABEL)
    missing = [key for key in (Keys.IMAGE, first, second) if key not in batch]
    if missing:
        raise KeyError(
            f"the batch has keys {sorted(batch)}; expected 'image' and 'label_1' with 'label_2' (or one 'label'): "
            f"{missing[0]!r} is missing"
        )

    def move(key: str, **options: Any) -> Tensor:
        value = batch[key]
        value = value.as_tensor() if hasattr(value, "as_tensor") else value
        return value.to(device=device, non_blocking=non_blocking, **options)

    quality = move("high_quality") if "high_quality" in batch else None
    label_1 = move(first)
    label_2 = label_1 if second == first else move(second)
    return move(Keys.IMAGE, **kwargs), label_1, label_2, quality


def augmented(augment: Augmentation, image: Tensor, labels: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
    """Augment a batch; of many processes, each augments its share as one process would augment the whole.

    For that an augmentation offers ``draw(samples)``, as ``RandomRotateFlip`` and ``CutMix`` do; of the latter's draw,
    a share mixes among itself. Another one is called for the share alone, and every process should seed it differently.
    """
    if world_size() == 1 or not hasattr(augment, "draw"):
        return augment(image, labels) if len(image) else (image, labels)
    share = Share.of(len(image))
    drawn = augment.draw(share.total)[share.part]
    return drawn.apply_to_batch(image, labels) if len(image) else (image, labels)


def perturbed(perturb: Perturbation | None, image: Tensor) -> Tensor:
    """Perturb a batch; of many processes, each does so with its share, as ``augmented`` does."""
    if perturb is None:
        return image
    if world_size() == 1 or not hasattr(perturb, "draw"):
        return perturb(image) if len(image) else image
    share = Share.of(len(image))
    drawn = perturb.draw(share.total)[share.part]  # type: ignore[attr-defined]
    return perturb.apply(image, drawn)  # type: ignore[attr-defined]


class PrepareAugmented:
    """``prepare_batch`` for MONAI's ``SupervisedTrainer`` that augments the whole batch on the device.

    Args:
        augment: the augmentation, for example ``RandomRotateFlip``.
        perturb: what changes images alone, after it, for example ``RandomIntensity``.
    """

    def __init__(self, augment: Augmentation, perturb: Perturbation | None = None) -> None:
        self.augment = augment
        self.perturb = perturb

    def __call__(
        self,
        batch: Batch,
        device: torch.device | str | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Augmented image (B, M, spatial...) and label (B, 1, spatial...) on ``device``."""
        image, label, _, _ = prepare_two_labels(batch, device, non_blocking, **kwargs)
        image, labels = augmented(self.augment, image, [label])
        return perturbed(self.perturb, image), labels[0]
