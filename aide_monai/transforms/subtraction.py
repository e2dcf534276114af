"""Subtraction images of contrast-enhanced phases as further channels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from aide_monai.errors import InputError
from aide_monai.transforms.intensity import file_name


class SubtractPhasesd(MapTransform):
    """Adds each phase minus the one before contrast: what took up contrast agent is bright.

    Put it right after loading, before ``NormalizeSlicesd``: differences of phases that were normalised one by one mean
    nothing. The phases must show one body in one place; nothing is registered here.

    Args:
        keys: images (M, spatial...), M phases.
        before: channel of the phase before contrast.
        keep: keep the M phases, in front of the M - 1 differences; otherwise give the differences alone.
        allow_missing_keys: skip missing keys.

    Raises:
        InputError: if an image has a single phase, or no channel ``before``.
    """

    def __init__(
        self, keys: KeysCollection, *, before: int = 0, keep: bool = True, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if before < 0:
            raise InputError(f"before={before}: expected the number of a channel, from 0")
        self.before = before
        self.keep = keep

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Subtract within the images of ``data``; the results are float32, the phases in their order."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            phases = torch.as_tensor(image).as_subclass(torch.Tensor)
            if len(phases) < 2 or self.before >= len(phases):
                raise InputError(
                    f"{file_name(image, key)}: found {len(phases)} phases; expected at least two, and a channel "
                    f"{self.before} from before contrast"
                )
            after = [channel for channel in range(len(phases)) if channel != self.before]
            # Unsigned integers would wrap around, and float32 itself would round large ones.
            differences = (phases[after].double() - phases[self.before].double()).float()
            value = torch.cat([phases.float(), differences]) if self.keep else differences
            result[key] = MetaTensor(value, meta=image.meta) if isinstance(image, MetaTensor) else value
        return result


def subtraction_channels(modality: Mapping[int, str], *, before: int = 0, keep: bool = True) -> dict[int, str]:
    """Names of the channels that ``SubtractPhasesd`` makes of those of a datalist, 0, 1, 2, ..."""
    phases = [modality[channel] for channel in sorted(modality)]
    differences = [f"{name} minus {phases[before]}" for channel, name in enumerate(phases) if channel != before]
    return dict(enumerate([*phases, *differences] if keep else differences))
