"""Label noise as annotators make it, seeded and of a stated size: for studies of learning from noisy labels.

Sizes in mm are made on the label's own grid, its axes taken for perpendicular. On the sheared grid of a tilted gantry
they hold within a slice; from slice to slice they count along the lean, which at 25 degrees is 10 % longer than the
distance of the slices. Noise is drawn, so that changes its size a little, and no score: scores measure in space.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from scipy import ndimage

from aide_monai.errors import InputError
from aide_monai.ignored import IGNORED
from aide_monai.io.grid import through_plane_axis

Label = npt.NDArray[np.uint8]

SMOOTHNESS_MM = 8.0
"""Standard deviation of the Gaussian that smooths the random fields of boundary shift and elastic deformation."""


def resize(label: Label, *, distance_mm: float, spacing_mm: Sequence[float]) -> Label:
    """Move the whole border outwards (dilation) or, with a negative distance, inwards (erosion).

    New foreground gets the class of the nearest labelled voxel.

    Args:
        label: (X, Y, Z) class indices, 0 is the background.
        distance_mm: how far the border moves.
        spacing_mm: voxel size.
    """
    return _moved(label, np.full(label.shape, distance_mm), spacing_mm)


def shift_boundary(
    label: Label, *, magnitude_mm: float, spacing_mm: Sequence[float], generator: np.random.Generator
) -> Label:
    """Move the border in here and out there, by a smooth random field of standard deviation ``magnitude_mm``."""
    return _moved(label, magnitude_mm * _field(label.shape, spacing_mm, generator), spacing_mm)


def deform(label: Label, *, magnitude_mm: float, spacing_mm: Sequence[float], generator: np.random.Generator) -> Label:
    """Elastic deformation: every voxel is displaced by a smooth random vector of standard deviation ``magnitude_mm``.

    Along each axis with more than one voxel; what comes from outside is background.
    """
    places = np.indices(label.shape, dtype=np.float64)
    for axis, spacing in enumerate(spacing_mm):
        if label.shape[axis] > 1:
            places[axis] += magnitude_mm / spacing * _field(label.shape, spacing_mm, generator)
    return ndimage.map_coordinates(label, places, order=0, mode="constant")


def drop_components(label: Label, *, share: float, axis: int, generator: np.random.Generator) -> Label:
    """Forget structures in some slices: each 2D component (8-connected) of a class vanishes with probability ``share``.

    Args:
        label: (X, Y, Z) class indices.
        share: 0..1.
        axis: slice axis.
        generator: source of randomness.
    """
    result = label.copy()
    plane = np.ones((3, 3, 3), dtype=bool)
    plane.swapaxes(0, axis)[[0, 2]] = False  # neighbours within the slice only
    for index in np.unique(label[label > 0]):
        components, number = ndimage.label(label == index, structure=plane)
        dropped = np.concatenate([[False], generator.random(number) < share])
        result[dropped[components]] = 0
    return result


def shift_slices(label: Label, *, slices: int, axis: int) -> Label:
    """Put each slice's label on the slice that lies ``slices`` further; slices that get none are background."""
    result = np.zeros_like(label)
    count = label.shape[axis]
    if abs(slices) < count:
        source, target = label.swapaxes(0, axis), result.swapaxes(0, axis)
        target[max(slices, 0) : count + min(slices, 0)] = source[max(-slices, 0) : count + min(-slices, 0)]
    return result


def _random_resize(label: Label, size: float, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    return resize(label, distance_mm=float(rng.choice([-size, size])), spacing_mm=spacing)


def _boundary(label: Label, size: float, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    return shift_boundary(label, magnitude_mm=size, spacing_mm=spacing, generator=rng)


def _elastic(label: Label, size: float, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    return deform(label, magnitude_mm=size, spacing_mm=spacing, generator=rng)


def _dropped(label: Label, size: float, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    return drop_components(label, share=0.5, axis=axis, generator=rng)


def _wrong_slice(label: Label, size: float, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    slices = max(1, round(size / spacing[axis]))
    return shift_slices(label, slices=int(rng.choice([-slices, slices])), axis=axis)


NOISES: dict[str, Callable[[Label, float, Sequence[float], int, np.random.Generator], Label]] = {
    "boundary": _boundary,
    "resize": _random_resize,
    "elastic": _elastic,
    "dropped": _dropped,
    "wrong_slice": _wrong_slice,
}
"""Kinds of noise: (label, size in mm, spacing in mm, slice axis, generator) to the noisy label.

"boundary": `shift_boundary`; "resize": dilation or erosion, by chance; "elastic": `deform`; "dropped":
`drop_components` of half of them, whatever the size; "wrong_slice": `shift_slices` by that many mm, at least one slice.
"""


def corrupt(
    label: Label,
    kinds: Sequence[str],
    *,
    magnitude_mm: float,
    spacing_mm: Sequence[float],
    axis: int,
    generator: np.random.Generator,
) -> Label:
    """One kind of noise, drawn from ``kinds``; voxels without a verdict stay so.

    Args:
        label: (X, Y, Z) uint8 class indices.
        kinds: names in ``NOISES``.
        magnitude_mm: size of the noise.
        spacing_mm: voxel size.
        axis: slice axis.
        generator: source of all randomness.

    Raises:
        InputError: an unknown kind, or a size that is not above 0.
    """
    check_noise(kinds, magnitude_mm)
    drawn = np.where(label == IGNORED, np.uint8(0), label)
    noisy = NOISES[str(generator.choice(list(kinds)))](drawn, magnitude_mm, spacing_mm, axis, generator)
    return np.where(label == IGNORED, label, noisy)


def check_noise(kinds: Sequence[str], magnitude_mm: float) -> None:
    """Refuse noise that there is not.

    Raises:
        InputError: an unknown kind, none, or a size that is not above 0.
    """
    known = list(NOISES)
    unknown = [kind for kind in kinds if kind not in known] if isinstance(kinds, list | tuple) else [kinds]
    if unknown or not kinds:
        found = repr(unknown[0]) if unknown else "[]"
        raise InputError(f"label noise {found}: expected some of {', '.join(known)}, in a list")
    if not magnitude_mm > 0:
        raise InputError(f"magnitude_mm is {magnitude_mm}; expected a size of the label noise above 0 mm")


class RandLabelNoised(RandomizableTransform, MapTransform):
    """Corrupts labels at random, with probability ``rate`` each.

    Args:
        keys: labels (1, X, Y, Z) of whole numbers in 0..255.
        kinds: names in ``NOISES``; one of them is drawn for each label.
        rate: probability 0..1.
        magnitude_mm: size of the noise; a plain tensor counts as one of 1 mm voxels.
        axis: slice axis, or "auto": the through-plane axis from the affine.
        allow_missing_keys: skip missing keys.

    Raises:
        InputError: as ``corrupt``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        kinds: Sequence[str] = tuple(NOISES),
        rate: float = 0.3,
        magnitude_mm: float = 3.0,
        axis: int | str = "auto",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, rate)
        check_noise(kinds, magnitude_mm)
        self.kinds = tuple(kinds)
        self.magnitude_mm = magnitude_mm
        self.axis = axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Corrupt the labels of ``data``."""
        result = dict(data)
        for key in self.key_iterator(result):
            self.randomize(None)
            if self._do_transform:
                result[key] = self._corrupt(result[key])
        return result

    def _corrupt(self, label: Any) -> Any:
        affine = label.affine if isinstance(label, MetaTensor) else np.eye(4)
        spacing = np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0)
        noisy = corrupt(
            torch.as_tensor(label)[0].numpy().astype(np.uint8),
            self.kinds,
            magnitude_mm=self.magnitude_mm,
            spacing_mm=spacing.tolist(),
            axis=through_plane_axis(affine) if self.axis == "auto" else int(self.axis),
            generator=np.random.default_rng(int(self.R.randint(2**31))),
        )
        value = torch.from_numpy(noisy)[None].to(label.dtype)
        return MetaTensor(value, meta=label.meta) if isinstance(label, MetaTensor) else value


def _moved(label: Label, distance_mm: npt.NDArray[np.float64], spacing_mm: Sequence[float]) -> Label:
    """Foreground where the signed distance to its border, positive inside, plus ``distance_mm`` is positive."""
    foreground = label > 0
    if not foreground.any():
        return label.copy()
    outside, nearest = ndimage.distance_transform_edt(~foreground, sampling=spacing_mm, return_indices=True)
    inside = ndimage.distance_transform_edt(foreground, sampling=spacing_mm)
    # Distances are between voxel centres, the border runs half a voxel from either.
    half = 0.5 * min(spacing for spacing, count in zip(spacing_mm, label.shape, strict=True) if count > 1)
    signed = np.where(foreground, inside - half, half - outside)
    return np.where(signed + distance_mm > 0, label[tuple(nearest)], 0).astype(np.uint8)


def _field(
    shape: Sequence[int], spacing_mm: Sequence[float], generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Smooth random field of mean 0 and standard deviation 1."""
    sigma = [SMOOTHNESS_MM / spacing for spacing in spacing_mm]
    field = ndimage.gaussian_filter(generator.standard_normal(shape), sigma, mode="reflect")
    return (field - field.mean()) / max(float(field.std()), 1e-12)
