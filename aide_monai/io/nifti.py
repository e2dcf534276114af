"""How a NIfTI header says where its voxels lie, and files that say it in the same words as their source.

A header has a unit and two ways to place voxels, each with a code that may be 0, "not set". Programs differ in which of
them they believe: nibabel and SimpleITK put a file without codes at mirrored places. So a mask lies on its image in
every program only if its header says all that the image's header says.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from aide_monai.io.grid import Grid
from aide_monai.utils.files import write_atomically

NO_CODES = "no orientation codes (qform and sform 0), so that programs of the ITK family show it mirrored and shifted"

FIELDS = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)

PLACE = "nifti_place"
"""Key of the fields in the metadata of a MetaTensor."""

_UNITS_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # metre, mm, micron; without a unit everybody takes mm
_SPACE = 7  # the bits of xyzt_units that are those of space


@dataclass(frozen=True)
class NiftiPlace:
    """The unit, codes and affines of a NIfTI header.

    Attributes:
        fields: the numbers of each of ``FIELDS``, as NIfTI names them.

    Examples:
        >>> header = nibabel.Nifti1Header()
        >>> header.set_xyzt_units("micron")
        >>> NiftiPlace.of(header).grid((2, 2, 2)).spacing_mm
        (0.001, 0.001, 0.001)
    """

    fields: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, values: Any) -> NiftiPlace | None:
        """From a header or what was kept of one, such as ``meta[PLACE]`` of an image; None where fields are missing."""
        if any(name not in values for name in FIELDS):
            return None
        return cls({name: tuple(np.asarray(values[name], dtype=np.float64).ravel().tolist()) for name in FIELDS})

    @classmethod
    def in_unit(cls, affine_mm: NDArray[np.float64], unit_mm: float) -> NiftiPlace | None:
        """What a file of another format would say in NIfTI; None for a unit that NIfTI does not have."""
        code = next((code for code, length in _UNITS_MM.items() if np.isclose(length, unit_mm, rtol=1e-9)), None)
        if code is None:
            return None
        affine = np.diag([*[1 / unit_mm] * 3, 1.0]) @ affine_mm
        header = nibabel.Nifti1Image(np.zeros((1, 1, 1), dtype=np.uint8), affine).header
        header["xyzt_units"] = code
        return cls.of(header)

    @property
    def unit_mm(self) -> float:
        """Length of the unit of space in mm."""
        return _UNITS_MM.get(int(self.fields["xyzt_units"][0]) & _SPACE, 1.0)

    @property
    def has_codes(self) -> bool:
        """Whether one of the two affines is set."""
        return any(self.fields[name][0] > 0 for name in ("qform_code", "sform_code"))

    def header(self, shape: tuple[int, ...]) -> Any:
        """A NIfTI header of this ``shape`` that says the same."""
        header = nibabel.Nifti1Header()
        header.set_data_shape(shape)
        for name, numbers in self.fields.items():
            header[name] = numbers[0] if len(numbers) == 1 else numbers
        header["xyzt_units"] = int(self.fields["xyzt_units"][0]) & _SPACE
        header["pixdim"][1:4] = np.where(header["pixdim"][1:4] > 0, header["pixdim"][1:4], 1)  # of a file of two axes
        header["pixdim"][4:] = 1
        return header

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """Where voxels of this ``shape`` lie, in mm, as nibabel has it."""
        return Grid(shape, to_mm(self.header(shape).get_best_affine(), self.unit_mm))


def to_mm(affine: NDArray[np.floating], unit_mm: float) -> NDArray[np.float64]:
    """A (4, 4) affine in a unit of so many mm, in mm."""
    return np.diag([unit_mm, unit_mm, unit_mm, 1.0]) @ np.asarray(affine, dtype=np.float64)


def write_nifti(path: str | Path, voxels: NDArray[Any], affine: Any, place: NiftiPlace | None = None) -> Path:
    """Write a volume; the file appears whole or not at all.

    Args:
        path: file ending in .nii.gz or .nii; an older one is replaced. Missing folders are made.
        voxels: (x, y, z), or further axes, in a type that NIfTI has; slope 1.
        affine: (4, 4) voxel index to mm, RAS.
        place: what the header of the source says. It is said again, in its unit, where it means the grid of ``affine``;
            a volume on another grid gets the affine in mm.

    Raises:
        InputError: if the disk refuses the file.
    """
    path = Path(path)
    grid = Grid((*voxels.shape, 1, 1, 1)[:3], np.asarray(affine, dtype=np.float64))
    if place is not None and place.grid(grid.shape).mismatch(grid) is None:
        header = place.header(voxels.shape)
        header.set_data_dtype(voxels.dtype)
        image = nibabel.Nifti1Image(voxels, None, header)
    else:
        image = nibabel.Nifti1Image(voxels, grid.affine)
        image.header.set_xyzt_units("mm")

    def write(file: Any) -> None:
        if not path.name.endswith(".gz"):
            image.to_stream(file)
            return
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed:
            image.to_stream(packed)

    write_atomically(path, write)
    return path
