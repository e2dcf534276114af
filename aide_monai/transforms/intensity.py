"""Intensity normalisation of volumes; nothing is clipped unless it is asked for by name."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from aide_monai.errors import InputError
from aide_monai.io.grid import slice_axis
from aide_monai.utils.tensors import plain, slices_first

METHODS = ("slice", "volume", "slice_percentile", "volume_percentile", "window")


class NormalizeSlicesd(MapTransform):
    """Normalises each channel of each slice, by statistics of its own or of the whole volume.

    - "slice": zero mean and unit standard deviation of each slice, over the full range (the paper's way);
    - "volume": the same of the volume;
    - "slice_percentile", "volume_percentile": values are first clipped to two percentiles of the slice or volume;
    - "window": values are clipped to ``window`` (such as Hounsfield units), whose ends become 0 and 1.

    A slice (or volume) in which all values are equal, or equal after clipping, becomes zero. Volumes are (M, X, Y, Z)
    of any real type; the result is float32 with the slices as pieces of its memory, and keeps its metadata.

    Args:
        keys: images to normalise.
        axis: spatial axis along which slices are taken, or "auto": the through-plane axis from the affine.
        method: one of the above.
        percentiles: lower and upper one, 0..100.
        window: lower and upper value.
        allow_missing_keys: skip missing keys.

    Raises:
        InputError: for an unknown method, percentiles out of order, or a window that is missing or empty; if an image
            has NaN or infinite voxels.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        axis: int | str = "auto",
        method: str = "slice",
        percentiles: Sequence[float] = (0.5, 99.5),
        window: Sequence[float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if method not in METHODS:
            raise InputError(f"intensity is {method!r}; expected one of {', '.join(METHODS)}")
        if len(percentiles) != 2 or not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise InputError(f"percentiles are {list(percentiles)}; expected two in 0..100, the lower one first")
        if method == "window" and window is None:
            raise InputError('intensity="window" needs a window; give its two ends, such as [-160, 240]')
        if window is not None and (len(window) != 2 or not -np.inf < window[0] < window[1] < np.inf):
            raise InputError(f"window is {list(window)}; expected its two ends, the lower one first")
        self.axis = axis
        self.method = method
        self.percentiles = tuple(percentiles)
        self.window = window

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise the images of ``data``."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            slices, axis = self.cut(image)
            value = self.scale(slices, name=file_name(image, key))(slices, slice(None)).movedim(0, axis + 1)
            result[key] = with_metadata_of(image, value)
        return result

    def cut(self, image: Any) -> tuple[Tensor, int]:
        """An image (M, X, Y, Z) as contiguous slices (S, M, H, W) of its own type, and the axis that was cut."""
        axis = slice_axis(image, self.axis)
        return slices_first(plain(image), axis), axis

    def scale(self, slices: Tensor, *, name: str) -> SliceScale:
        """What normalises these slices.

        Args:
            slices: (S, M, H, W), contiguous.
            name: of the image, for messages.

        Raises:
            InputError: if there are NaN or infinite voxels.
        """
        if slices.is_floating_point():
            _require_finite(slices, name)
        number, channels = slices.shape[:2]
        # Statistics of parts of (P, M, n) values: slices, or the volume
        if self.method.startswith("slice"):
            parts = slices.flatten(2)
        else:
            parts = slices.movedim(0, 1).flatten(1)[None] if self.method != "window" else slices[:1].flatten(2)
        found = torch.tensor([[self._statistics(values) for values in part] for part in parts], dtype=torch.float32)
        low, high, centre, width = found.expand(number, channels, 4)[..., None, None].unbind(2)
        clips = self.method not in ("slice", "volume")
        return SliceScale(
            centre.contiguous(),
            width.contiguous(),
            low.contiguous() if clips else None,
            high.contiguous() if clips else None,
        )

    def _statistics(self, values: Tensor) -> tuple[float, float, float, float]:
        """Low, high, centre and width of some values (n,)."""
        if self.window is not None and self.method == "window":
            low, high = map(float, self.window)
            return low, high, low, high - low
        value = values.float()
        low, high = -np.inf, np.inf
        if self.method.endswith("percentile"):
            low, high = np.percentile(value.numpy(), self.percentiles).tolist()
            value = value.clamp(low, high)
        first, last = torch.stack(torch.aminmax(value)).tolist()
        if first == last:
            return low, high, first, 1.0
        # Sums of float32 are good to 1e-6 for a slice; those of a volume need float64
        exact = value if len(value) <= 2**20 else value.double()
        centred = exact - exact.mean()
        return low, high, float(exact.mean()), float((torch.dot(centred, centred) / len(centred)).sqrt())


def _require_finite(slices: Tensor, name: str) -> None:
    if not torch.isfinite(slices.sum(dtype=torch.float64)):  # one pass; the count takes several
        count = int((~torch.isfinite(slices)).sum())
        if count:
            raise InputError(
                f"{name}: {count} voxels are NaN or infinite; expected finite intensities: repair the image or leave "
                "the case out"
            )


def with_metadata_of(image: Any, value: Tensor) -> Tensor:
    """``value`` with the metadata and the record of transforms of a MetaTensor; as it is for any other tensor."""
    if not isinstance(image, MetaTensor):
        return value
    return MetaTensor(value, meta=image.meta, applied_operations=image.applied_operations)


def file_name(tensor: Any, key: Hashable) -> str:
    """The file a MetaTensor came from, or the key when that is unknown."""
    return str(getattr(tensor, "meta", {}).get("filename_or_obj", f"key {key!r}"))


@dataclass(frozen=True)
class SliceScale:
    """Intensity of each channel of each slice: ``(clamp(value, low, high) - centre) / width``.

    Attributes:
        centre, width: (S, M, 1, 1) float32.
        low, high: (S, M, 1, 1) float32, or None where nothing is clipped.
    """

    centre: Tensor
    width: Tensor
    low: Tensor | None = None
    high: Tensor | None = None

    @cached_property
    def _factor(self) -> Tensor:
        return self.width.reciprocal()  # a product takes half the time of a quotient

    def __call__(self, stored: Tensor, position: int | slice) -> Tensor:
        """The intensities (..., M, H, W) float32 of stored slices at ``position``."""
        value = stored.to(torch.float32, copy=True)
        if self.low is not None and self.high is not None:
            value = value.clamp(self.low[position], self.high[position])
        return value.sub_(self.centre[position]).mul_(self._factor[position])
