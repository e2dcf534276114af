"""Random rotation, flip and zoom of a whole batch as tensor operations, with an exact inverse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aide_monai.errors import InputError
from aide_monai.ignored import IGNORED, PARTIAL
from aide_monai.options import ROTATE_FLIP_RANGES
from aide_monai.utils.validation import require_numbers


@dataclass(frozen=True)
class RotateFlip:
    """One rotation and flip per sample, about the image centre, and a zoom where there is one.

    The rotation acts in the plane of the first two spatial axes, in pixels; further axes stay as they are. The map is
    affine, so its inverse is known exactly; only the interpolation of pixel values is approximate.

    Args:
        angle: (N,) float, radians.
        flip: (N,) bool, mirror along ``flip_axis`` after the rotation.
        flip_axis: spatial axis that is mirrored, 0 or 1. Axis 0 of a RAS volume is left-right.
        zoom: (N,) float, what lies in the plane of the rotation becomes so many times as large; None leaves it.
    """

    angle: Tensor
    flip: Tensor
    flip_axis: int = 0
    zoom: Tensor | None = None

    def apply(self, image: Tensor, *, mode: str = "bilinear", padding_mode: str = "zeros") -> Tensor:
        """The views of ``image``.

        Args:
            image: (N, C, spatial...) float, 2 or 3 spatial axes.
            mode: "bilinear" or "nearest".
            padding_mode: what lies outside the image: "zeros" or "border".

        Returns:
            (N, C, spatial...) of the same shape and dtype.
        """
        return _resample(image, self._matrix(image), mode, padding_mode)

    def invert(self, view: Tensor, *, mode: str = "bilinear") -> Tensor:
        """Take what was computed on the views back onto the original image.

        Pixels that a view did not see get the value of the view's nearest border pixel; mask them with ``visible``.

        Args:
            view: (N, C, spatial...) float.
            mode: "bilinear" or "nearest".

        Returns:
            (N, C, spatial...) of the same shape and dtype.
        """
        return _resample(view, self._inverse_matrix(view), mode, "border")

    def __getitem__(self, index: slice | Tensor) -> RotateFlip:
        """Those of some samples."""
        zoom = None if self.zoom is None else self.zoom[index]
        return RotateFlip(angle=self.angle[index], flip=self.flip[index], flip_axis=self.flip_axis, zoom=zoom)

    def apply_to_batch(self, image: Tensor, labels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Turn images (N, C, spatial...) and their labels (N, 1, spatial...) alike, see the class below.

        Labels are taken from the nearest pixel, unlike everywhere else: at random angles there are no ties, and a thin
        structure keeps its size in the mean of the views (a line one pixel wide: 101 %, its centre within 0.03 pixels).
        The largest share would take a little away from it in nearly every view (94 %).
        """
        return self.apply(image), [self._apply_to_label(label) for label in labels]

    def _apply_to_label(self, label: Tensor) -> Tensor:
        """What comes in from outside is background, or has no verdict where the label knows voxels that have none."""
        knows = (label >= PARTIAL).flatten(1).any(dim=1).view(-1, *[1] * (label.ndim - 1))
        turned = self.apply(torch.where(knows, IGNORED - label, label), mode="nearest")  # 0 and IGNORED change places
        return torch.where(knows, IGNORED - turned, turned)

    def visible(self, like: Tensor) -> Tensor:
        """Pixels of the original image that lie inside the view's field of view.

        Args:
            like: (N, C, spatial...) tensor that gives the spatial shape.

        Returns:
            (N, 1, spatial...) bool.
        """
        grid = _grid(like, self._inverse_matrix(like))
        # A pixel centre counts as seen up to half a pixel outside the outermost centres; the margin absorbs rounding.
        return (grid.abs() <= 1 + 1e-5).all(dim=-1).unsqueeze(1)

    def _matrix(self, like: Tensor) -> Tensor:
        """(N, D, D) map from pixel offsets in the view to pixel offsets in the image, spatial axes in order."""
        dims = like.ndim - 2
        matrix = torch.zeros(len(self.angle), dims, dims)
        angle = self.angle.cpu()  # where they were drawn
        matrix[:, 0, 0], matrix[:, 0, 1] = angle.cos(), -angle.sin()
        matrix[:, 1, 0], matrix[:, 1, 1] = angle.sin(), angle.cos()
        for axis in range(2, dims):
            matrix[:, axis, axis] = 1
        sign = 1 - 2 * self.flip.cpu().float()
        matrix[:, :, self.flip_axis] *= sign[:, None]
        if self.zoom is not None:
            matrix[:, :2, :2] /= self.zoom.cpu()[:, None, None]
        return matrix

    def _inverse_matrix(self, like: Tensor) -> Tensor:
        inverse = self._matrix(like).transpose(1, 2)  # of a rotation and flip
        if self.zoom is not None:
            inverse[:, :2, :2] *= self.zoom.cpu()[:, None, None] ** 2
        return inverse


class RandomRotateFlip:
    """Draws a random ``RotateFlip`` for every sample (local label filtering, Methods).

    Args:
        max_angle: rotations are uniform in +-``max_angle`` degrees.
        flip_probability: probability of a mirror image.
        flip_axis: spatial axis that is mirrored, 0 or 1.
        max_zoom: sizes change by up to this factor, up or down alike (the logarithm is uniform), 1..10; 1 keeps them.
        seed: seed of the generator, which is independent of torch's global one.

    Raises:
        InputError: if a parameter is out of range.
    """

    def __init__(
        self,
        *,
        max_angle: float = 60.0,
        flip_probability: float = 0.5,
        flip_axis: int = 0,
        max_zoom: float = 1.0,
        seed: int = 0,
    ) -> None:
        numbers = {"max_angle": max_angle, "flip_probability": flip_probability, "max_zoom": max_zoom}
        require_numbers(numbers, ROTATE_FLIP_RANGES)
        if flip_axis not in (0, 1):
            raise InputError(f"flip_axis is {flip_axis}; expected 0 or 1, the axes of the rotation plane")
        self.max_angle = max_angle
        self.flip_probability = flip_probability
        self.flip_axis = flip_axis
        self.max_zoom = max_zoom
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, samples: int) -> RotateFlip:
        """Random parameters for ``samples`` samples."""
        draws = torch.rand(2, samples, generator=self.generator)
        angle = (2 * draws[0] - 1) * math.radians(self.max_angle)
        zoom = None
        if self.max_zoom > 1:
            zoom = self.max_zoom ** (2 * torch.rand(samples, generator=self.generator) - 1)
        return RotateFlip(angle=angle, flip=draws[1] < self.flip_probability, flip_axis=self.flip_axis, zoom=zoom)

    def __call__(self, image: Tensor, labels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Turn a training batch and its labels alike, as augmentation.

        Labels outside become background, or ``IGNORED`` in labels that have such voxels.

        Args:
            image: (N, C, spatial...) float.
            labels: tensors of (N, 1, spatial...), any integer dtype.

        Returns:
            The image and the labels, same shapes and dtypes.
        """
        return self.draw(len(image)).apply_to_batch(image, labels)


def _grid(like: Tensor, matrix: Tensor) -> Tensor:
    """Sampling grid (N, spatial..., D) in grid_sample's normalised coordinates, axes reversed as it wants them."""
    half = torch.tensor(like.shape[2:], dtype=torch.float32) / 2
    normalised = matrix * half[None, None, :] / half[None, :, None]
    theta = torch.zeros(*normalised.shape[:2], normalised.shape[2] + 1)
    theta[:, :, :-1] = normalised.flip(1, 2)
    theta = theta.to(like.device, non_blocking=True)
    return F.affine_grid(theta, [len(matrix), 1, *like.shape[2:]], align_corners=False)


def _resample(image: Tensor, matrix: Tensor, mode: str, padding_mode: str) -> Tensor:
    if len(matrix) != len(image):
        raise ValueError(f"the batch has {len(image)} samples; expected {len(matrix)}, one per drawn rotation")
    # Half-precision coordinates would be off by whole pixels, so the sampling itself is done in float32.
    sampled = F.grid_sample(
        image.float(), _grid(image, matrix), mode=mode, padding_mode=padding_mode, align_corners=False
    )
    return sampled.to(image.dtype)
