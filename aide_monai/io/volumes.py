"""Volumes in files: NIfTI, MetaImage, NRRD, MGH and Analyze, header first and voxels on demand, with one geometry."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import nibabel
import numpy as np
import SimpleITK

from aide_monai.errors import InputError
from aide_monai.io.grid import AFFINE_TOLERANCE_MM, SHEARED, Grid, shape_text
from aide_monai.io.header_lines import Header
from aide_monai.io.headers import (
    data_file,
    data_file_problems,
    intensity_function,
    is_nifti_pair,
    length_unit,
    matrix_file,
    read_header,
)
from aide_monai.io.location import SUFFIXES
from aide_monai.io.nifti import NO_CODES, NiftiPlace, to_mm
from aide_monai.io.segments import nrrd_segments, one_label_map

LABEL_TOLERANCE = 1e-3
_Opened: TypeAlias = (
    "tuple[tuple[int, ...], np.ndarray, tuple[str, ...], Callable[[], np.ndarray], NiftiPlace | None, bool]"
)
# shape, affine in mm, doubts, voxels, how a NIfTI header would say it, and whether the axes lie known in the patient

MAX_VOXELS = 2**31
MAX_HEADER_BYTES = 16 * 2**20

_DEFLATE_RATIO = 1100  # no more can be packed into a byte, so that a smaller file has lost its end


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
        modality, echo_ms, acquired: of DICOM, see ``DicomSeries``; "" or None for other files.
        place: how its NIfTI header says it, for masks on its grid; None for other files in mm.
        oriented: whether the file says how its axes lie in the patient.
    """

    shape: tuple[int, ...]
    channels: int | None
    file_shape: tuple[int, ...]
    affine: np.ndarray
    doubts: tuple[str, ...]
    decode: Callable[[], np.ndarray]
    modality: str = ""
    echo_ms: float | None = None
    acquired: str = ""
    place: NiftiPlace | None = None
    oriented: bool = True

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        return Grid(self.shape, self.affine)


def open_volume(file: str) -> Volume:
    """Read the header of a NIfTI, MetaImage, NRRD, MGH or Analyze file.

    Raises:
        InputError: missing, another format, unreadable, of more than 2^31 voxels or fewer bytes than they take, or a
            header whose voxels lie outside its folder. ``decode`` of the result raises it too.
    """
    path = Path(file)
    if path.is_dir():
        raise InputError(f"a folder (a DICOM series?) instead of a file with a suffix of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError("no such file")
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"a file with an unknown suffix instead of one of {', '.join(SUFFIXES)}")
    if path.suffix.lower() == ".hdr" and (problems := data_file_problems(path, path.absolute().parent)):
        raise InputError(problems=[replace(problem, place="") for problem in problems])
    opener = _opener(path)
    file_shape, affine, doubts, decode, place, oriented = _or_unreadable(lambda: opener(file), "a header")
    shape = (*file_shape[:3], 1, 1)[:3]
    further = [size for size in file_shape[3:] if size != 1]
    channels = None if len(further) > 1 else (further or [1])[0]

    def voxels() -> np.ndarray:
        return _or_unreadable(decode, "voxels").reshape(*shape, -1)

    return Volume(shape, channels, file_shape, affine, doubts, voxels, place=place, oriented=oriented)


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


def tell_doubts(path: str | Path, doubts: Iterable[str]) -> None:
    """Warn of what is strange about a volume."""
    for doubt in doubts:
        warnings.warn(f"{path}: {doubt}", stacklevel=1)  # from one line, so that Python shows the same words once


def listed(values: Any, limit: int = 8) -> str:
    """The first numbers of a list for messages, and how many are left."""
    shown = ", ".join(f"{value:g}" for value in values[:limit])
    return shown + (f" and {len(values) - limit} more" if len(values) > limit else "")


def _or_unreadable(read: Callable[[], Any], part: str) -> Any:
    try:
        return read()
    except InputError:
        raise
    except Exception as error:  # whatever a decoder makes of a broken file is the same finding
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise InputError(f"{part} that cannot be read, truncated or damaged ({reason.strip()})") from error


def _require_plausible(shape: tuple[int, ...], voxel_bytes: int, there: int, *, coding: str) -> None:
    """Refuse a size that cannot be true before anything makes room for it."""
    voxels = math.prod(shape)
    if not voxels:
        raise InputError(f"no voxels (shape {shape_text(shape)})")
    if voxels > MAX_VOXELS:
        raise InputError(f"a volume of {shape_text(shape)} voxels, more than {MAX_VOXELS}")
    fewest = {
        "raw": voxels * voxel_bytes,
        "packed": -(-voxels * voxel_bytes // _DEFLATE_RATIO),
        "hex": 2 * voxels * voxel_bytes,
        "text": 2 * voxels - 1,  # a digit each, and what stands between
    }
    if there < fewest[coding]:
        reason = f"{there} bytes, too few for {shape_text(shape)} voxels of {voxel_bytes} bytes"
        raise InputError(f"voxels that cannot be read, truncated or damaged ({reason})")


def _opener(path: Path) -> Callable[[str], _Opened]:
    name = path.name.lower()
    if name.endswith((".mgz", ".mgh")):
        return _open_nibabel
    if name.endswith(".hdr"):
        with path.open("rb") as stream:
            return _open_nifti if is_nifti_pair(stream.read(348)) else _open_nibabel
    return _open_nifti if name.endswith((".nii", ".nii.gz")) else _open_itk


def _open_nibabel(file: str) -> _Opened:
    """MGH, packed or not, and Analyze."""
    image: Any = nibabel.load(file)
    coding = "packed" if file.lower().endswith(".mgz") else "raw"
    there = os.path.getsize(data_file(Path(file)))
    _require_plausible(image.shape, image.get_data_dtype().itemsize, there, coding=coding)
    affine = np.asarray(image.affine, dtype=np.float64)
    doubts = _doubts(Grid((*image.shape, 1, 1, 1)[:3], affine))
    oriented = isinstance(image, nibabel.MGHImage) or matrix_file(Path(file)) is not None
    if not oriented:
        doubts += ("an Analyze file, which does not tell left from right (x is taken to run to the left)",)
    return image.shape, affine, doubts, lambda: np.asanyarray(image.dataobj), None, oriented


def _open_nifti(file: str) -> _Opened:
    packed = file.lower().endswith(".gz")
    with nibabel.openers.ImageOpener(file) as stream:
        start = stream.read(540)
    two = int.from_bytes(start[:4], "little") == 540 or int.from_bytes(start[:4], "big") == 540
    header = (nibabel.Nifti2Header if two else nibabel.Nifti1Header)(start[: 540 if two else 348], check=False)
    if not 0 <= float(header["vox_offset"]) <= MAX_HEADER_BYTES:
        raise ValueError(f"voxels that start at byte {float(header['vox_offset']):g}")
    image: Any = nibabel.load(file)  # typed as any format, of which the suffix leaves NIfTI
    _require_plausible(
        image.shape,
        image.get_data_dtype().itemsize,
        os.path.getsize(data_file(Path(file))) - (0 if packed else int(header["vox_offset"])),
        coding="packed" if packed else "raw",
    )
    place = NiftiPlace.of(image.header)
    assert place is not None
    grid = Grid((*image.shape, 1, 1, 1)[:3], to_mm(image.affine, place.unit_mm))
    doubts = _doubts(grid) + (() if place.has_codes else (NO_CODES,))
    qform, sform = image.get_qform(coded=True)[0], image.get_sform(coded=True)[0]
    if qform is not None and sform is not None:
        other = Grid(grid.shape, to_mm(qform, place.unit_mm))
        if grid.distance_mm(other) > AFFINE_TOLERANCE_MM:
            doubts += ("a qform and an sform that disagree (the sform is used)",)
    return image.shape, grid.affine, doubts, lambda: np.asanyarray(image.dataobj), place, place.has_codes


def _open_itk(file: str) -> _Opened:
    header = read_header(Path(file))
    kept = (header.channels,) if header.channels > 1 else ()
    _require_plausible(header.shape + kept, header.number_bytes, header.room, coding=header.coding)
    _require_directions(header)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if file.lower().endswith((".nrrd", ".nhdr")) else "MetaImageIO")
    reader.SetFileName(file)
    reader.ReadImageInformation()
    dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
    if math.prod(reader.GetSize()) * components != math.prod(header.shape + kept):
        found = f"{shape_text(reader.GetSize())} voxels of {components} numbers"
        raise InputError(f"a header of {shape_text(header.shape + kept)} numbers that SimpleITK takes for {found}")
    used = min(dimension, 3)
    affine = np.eye(4)
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))
    affine[:used, :used] = (direction * reader.GetSpacing())[:used, :used]
    affine[:used, 3] = reader.GetOrigin()[:used]
    unit_mm, told = length_unit(header)
    affine = to_mm(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, unit_mm)  # ITK counts towards left and posterior
    place = None if unit_mm == 1 else NiftiPlace.in_unit(affine, unit_mm)
    slope, offset = intensity_function(header)
    if (slope, offset) != (1, 0):
        told += (f"intensities of {slope:g} x stored + {offset:g}, which programs of the ITK family do not apply",)
    segments = nrrd_segments(header.notes)
    layers = (components,) if components > 1 and not segments else ()  # those of segments become one label map
    shape = (*reader.GetSize(), *(1,) * (3 - dimension), *layers)

    def decode() -> np.ndarray:
        voxels = SimpleITK.GetArrayFromImage(reader.Execute())  # (z, y, x) or (z, y, x, components)
        if (slope, offset) != (1, 0):  # ITK passes over it
            voxels = voxels * slope + offset
        voxels = voxels.transpose(*reversed(range(dimension)), *range(dimension, voxels.ndim))
        if segments:
            return one_label_map(voxels.reshape(*voxels.shape[:dimension], -1), segments)[0]
        return voxels

    oriented = not file.lower().endswith((".nrrd", ".nhdr")) or "space" in header.fields
    return shape, affine, _doubts(Grid(shape[:3], affine)) + told, decode, place, oriented


def _require_directions(header: Header) -> None:
    """Refuse by name what SimpleITK takes for damage: a further axis of a kind that would need a direction."""
    kinds = header.fields.get("kinds", "").split()
    nowhere = re.sub(r"\([^)]*\)", "there", header.fields.get("space directions", "")).split()
    for number, (kind, direction) in enumerate(zip(kinds, nowhere, strict=False)):
        if direction.lower() == "none" and kind.lower() in ("domain", "space", "time"):
            right = " ".join([*kinds[:number], "list", *kinds[number + 1 :]])
            raise InputError(
                f"axis {number + 1} of kind {kind} without a direction, which no reader here takes",
                expected="another kind of it",
                advice=f'write the line "kinds: {right}"',
            )


def _doubts(grid: Grid) -> tuple[str, ...]:
    grid.require_sound()
    return (SHEARED,) if grid.sheared else ()
