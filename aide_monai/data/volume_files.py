"""Volumes in files: NIfTI, MetaImage and NRRD, header first and voxels on demand, with one geometry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK

from aide_monai.errors import InputError

SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha", ".nrrd")
AFFINE_TOLERANCE_MM = 0.05
COSINE_TOLERANCE = 1e-3
LABEL_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Volume:
    """A file whose header was read.

    Attributes:
        shape: spatial shape (x, y, z); a 2D image has z = 1.
        channels: size of the only further axis, 1 without one; None when several further axes are left.
        file_shape: shape as the file has it.
        affine: (4, 4) float64, voxel index to millimetres, RAS.
        doubts: what is strange about the geometry.
        decode: reads the voxels, (x, y, z, channels), in the dtype of the file (float64 where NIfTI scales).
    """

    shape: tuple[int, ...]
    channels: int | None
    file_shape: tuple[int, ...]
    affine: np.ndarray
    doubts: tuple[str, ...]
    decode: Callable[[], np.ndarray]


def open_volume(file: str) -> Volume:
    """Read the header of a NIfTI, MetaImage or NRRD file.

    Raises:
        InputError: missing, another format, or unreadable. ``decode`` of the result raises it too.
    """
    path = Path(file)
    if path.is_dir():
        raise InputError(f"a folder (a DICOM series?) instead of a file with a suffix of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError("no such file")
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"a file with an unknown suffix instead of one of {', '.join(SUFFIXES)}")
    opener = _open_nifti if path.name.lower().endswith((".nii", ".nii.gz")) else _open_itk
    file_shape, affine, doubts, decode = _or_unreadable(lambda: opener(file), "header")
    shape = (*file_shape[:3], 1, 1)[:3]
    further = [size for size in file_shape[3:] if size != 1]
    channels = None if len(further) > 1 else (further or [1])[0]

    def voxels() -> np.ndarray:
        return _or_unreadable(decode, "voxels").reshape(*shape, -1)

    return Volume(shape, channels, file_shape, affine, doubts, voxels)


def label_values(voxels: np.ndarray) -> list[int]:
    """Sorted values of a label. 2.9999, which NIfTI scaling makes of 3, counts as 3 (tolerance 0.001).

    Raises:
        InputError: values that are not real, finite and whole numbers.
    """
    if voxels.dtype.kind not in "biuf":
        raise InputError(f"voxels of type {voxels.dtype}")
    values = np.unique(voxels)
    if not np.isfinite(values).all():
        raise InputError("NaN or infinite voxels")
    whole = np.rint(values)
    wrong = values[np.abs(values - whole) > LABEL_TOLERANCE]
    if wrong.size:
        raise InputError(f"values that are not whole numbers: {listed(wrong)}")
    return sorted({int(value) for value in whole})


def corner_distance_mm(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """Largest distance in mm between the places at which two (4, 4) affines put the same corner voxel of a volume."""
    corners = np.array([(*index, 1) for index in np.ndindex(2, 2, 2)]) * (*(size - 1 for size in shape), 1)
    return float(np.linalg.norm(corners @ (affine - other)[:3].T, axis=1).max())


def affine_text(affine: np.ndarray) -> str:
    """The first three rows of a (4, 4) affine, for messages."""
    return "[" + "; ".join(" ".join(f"{value:g}" for value in row) for row in affine[:3]) + "]"


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape for messages: 3 x 4."""
    return " x ".join(str(size) for size in shape)


def listed(values: Any, limit: int = 8) -> str:
    """The first numbers of a list for messages, and how many are left."""
    shown = ", ".join(f"{value:g}" for value in values[:limit])
    return shown + (f" and {len(values) - limit} more" if len(values) > limit else "")


def _or_unreadable(read: Callable[[], Any], part: str) -> Any:
    try:
        return read()
    except Exception as error:  # whatever a decoder makes of a broken file is the same finding
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise InputError(f"a {part} that cannot be read, truncated or damaged ({reason.strip()})") from error


def _open_nifti(file: str) -> tuple[tuple[int, ...], np.ndarray, tuple[str, ...], Callable[[], np.ndarray]]:
    image: Any = nibabel.load(file)  # typed as any format, of which the suffix leaves NIfTI
    affine = np.asarray(image.affine, dtype=np.float64)
    doubts = _cosine_doubts(affine)
    qform, sform = image.get_qform(coded=True)[0], image.get_sform(coded=True)[0]
    if qform is not None and sform is not None:
        distance = corner_distance_mm(qform, sform, (*image.shape, 1, 1, 1)[:3])
        if distance > AFFINE_TOLERANCE_MM:
            doubts += ("a qform and an sform that disagree (the sform is used)",)
    return image.shape, affine, doubts, lambda: np.asanyarray(image.dataobj)


def _open_itk(file: str) -> tuple[tuple[int, ...], np.ndarray, tuple[str, ...], Callable[[], np.ndarray]]:
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
    used = min(dimension, 3)
    affine = np.eye(4)
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))
    affine[:used, :used] = (direction * reader.GetSpacing())[:used, :used]
    affine[:used, 3] = reader.GetOrigin()[:used]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # ITK counts towards left and posterior
    shape = (*reader.GetSize(), *(1,) * (3 - dimension), *((components,) if components > 1 else ()))

    def decode() -> np.ndarray:
        voxels = SimpleITK.GetArrayFromImage(reader.Execute())  # (z, y, x) or (z, y, x, components)
        return voxels.transpose(*reversed(range(dimension)), *range(dimension, voxels.ndim))

    return shape, affine, _cosine_doubts(affine), decode


def _cosine_doubts(affine: np.ndarray) -> tuple[str, ...]:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or np.any(spacing == 0) or np.linalg.det(affine[:3, :3] / spacing) == 0:
        raise InputError(f"an affine without a volume: {affine_text(affine)}")
    cosines = affine[:3, :3] / spacing
    skewed = np.abs(cosines.T @ cosines - np.eye(3)).max() > COSINE_TOLERANCE
    return ("axes that are not at right angles",) if skewed else ()
