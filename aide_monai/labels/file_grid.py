"""The way back from a stored label to the grid of the file that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from aide_monai.utils.stored_values import VALUES
from aide_monai.utils.votes import indices_by_votes

_TOLERANCE_VOXELS = 0.01


@dataclass(frozen=True)
class LabelGrid:
    """Where the voxels of a stored label lie, and the grid of its file.

    Padding, cropping, flipping, turning and resampling all show in the first affine, so that no transform needs to be
    remembered.

    Attributes:
        affine: (4, 4) voxel index of the stored label to mm, RAS.
        original_affine: (4, 4) voxel index of the file to mm, RAS.
        original_shape: spatial shape of the file, two or three sizes.
        values: stored value of each class index; empty where labels are stored as class indices.
        place: all that a NIfTI header says about its place, see ``aide_monai.io.nifti``; empty for other files.
    """

    affine: tuple[tuple[float, ...], ...]
    original_affine: tuple[tuple[float, ...], ...]
    original_shape: tuple[int, ...]
    place: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    values: tuple[int, ...] = ()

    @classmethod
    def of(cls, label: Any) -> LabelGrid | None:
        """The grid of a label (1, spatial...) as MONAI's ``LoadImage`` and transforms leave it; None for any other."""
        meta = getattr(label, "meta", None) or {}
        if "spatial_shape" not in meta or "original_affine" not in meta:
            return None
        grid = cls(
            affine=_rows(label.affine),
            original_affine=_rows(meta["original_affine"]),
            original_shape=tuple(int(size) for size in meta["spatial_shape"]),
            place=_numbers(meta.get("nifti_place")),
            values=tuple(int(value) for value in meta.get(VALUES, ())),
        )
        return grid if grid._is_sound(label.ndim - 1) else None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LabelGrid:
        """The reverse of ``dataclasses.asdict``, after JSON.

        Raises:
            ValueError, KeyError, TypeError: if the content is no such grid.
        """
        grid = cls(
            affine=_rows(content["affine"]),
            original_affine=_rows(content["original_affine"]),
            original_shape=tuple(int(size) for size in content["original_shape"]),
            place=_numbers(content.get("place")),
            values=tuple(int(value) for value in content.get("values", ())),
        )
        if not grid._is_sound(len(grid.original_shape)):
            raise ValueError("a grid that is no grid")
        return grid

    def voxel_exact(self) -> bool:
        """Whether every voxel of the file is one of the stored label or lies beside it: nothing was resampled."""
        matrix, offset = self._to_stored()
        reach = np.abs(matrix - np.rint(matrix)) @ np.maximum(np.array(self.original_shape) - 1, 0)
        same_size = np.allclose(np.abs(np.rint(matrix)).sum(axis=0), 1) and np.abs(np.linalg.det(np.rint(matrix))) == 1
        return bool(same_size and (reach + np.abs(offset - np.rint(offset)) < _TOLERANCE_VOXELS).all())

    def covers(self, shape: tuple[int, ...]) -> bool:
        """Whether a stored label of this ``shape`` holds all of the file's grid, so that nothing was cropped."""
        matrix, offset = self._to_stored()
        corners = np.array(list(np.ndindex(*(2,) * len(shape)))) * (np.array(self.original_shape) - 1)
        beyond = np.abs(corners @ matrix.T + offset - (np.array(shape) - 1) / 2) - np.array(shape) / 2
        return bool((beyond < _TOLERANCE_VOXELS).all())

    def to_original(self, label: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A stored label on the grid of the file, by the largest share of each voxel, as on the way there.

        Where ``voxel_exact`` that is voxel by voxel.

        Args:
            label: (spatial...) uint8 as stored.

        Returns:
            ``original_shape`` uint8; where the stored label does not reach, background, or ``IGNORED`` if it has such
            voxels.
        """
        matrix, offset = self._to_stored()
        whole = np.eye(len(offset) + 1)
        whole[:-1, :-1], whole[:-1, -1] = matrix, offset
        return indices_by_votes(label, whole, self.original_shape)

    def _to_stored(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Matrix (D, D) and offset (D,) from voxel indices of the file to those of the stored label."""
        whole = np.linalg.solve(np.array(self.affine), np.array(self.original_affine))
        dimensions = len(self.original_shape)
        return whole[:dimensions, :dimensions], whole[:dimensions, 3]

    def _is_sound(self, dimensions: int) -> bool:
        if {len(row) for rows in (self.affine, self.original_affine) for row in (rows, *rows)} != {4}:
            return False
        affines = np.array([self.affine, self.original_affine])
        return (
            bool(np.isfinite(affines).all())
            and bool((np.abs(np.linalg.det(affines)) > 0).all())
            and len(self.original_shape) == dimensions
            and min(self.original_shape) > 0
        )


def _rows(affine: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in affine)


def _numbers(place: Mapping[str, Any] | None) -> dict[str, tuple[float, ...]]:
    return {
        name: tuple(np.asarray(numbers, dtype=np.float64).ravel().tolist()) for name, numbers in (place or {}).items()
    }
