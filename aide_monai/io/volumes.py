"""Volumes in files: NIfTI, MetaImage and NRRD, header first and voxels on demand, with one geometry."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK

from aide_monai.errors import InputError
from aide_monai.io.grid import AFFINE_TOLERANCE_MM, _cosine_doubts, corner_distance_mm, shape_text

_HEADER_BYTES = 65536
_DATA_FILE = {
    ".mhd": re.compile(rb"(?im)^\s*ElementDataFile\s*=[ \t]*([^\r\n]*)"),
    ".mha": re.compile(rb"(?im)^\s*ElementDataFile\s*=[ \t]*([^\r\n]*)"),
    ".nrrd": re.compile(rb"(?im)^data ?file:[ \t]*([^\r\n]*)"),
}


SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha", ".nrrd")
LABEL_TOLERANCE = 1e-3
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


def open_volume(file: str) -> Volume:
    """Read the header of a NIfTI, MetaImage or NRRD file.

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
    opener = _open_nifti if path.name.lower().endswith((".nii", ".nii.gz")) else _open_itk
    file_shape, affine, doubts, decode = _or_unreadable(lambda: opener(file), "a header")
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


def _require_plausible(file: str, shape: tuple[int, ...], voxel_bytes: int, *, packed: bool) -> None:
    """Refuse a size that cannot be true before anything makes room for it."""
    voxels = math.prod(shape)
    if voxels > MAX_VOXELS:
        raise InputError(f"a volume of {shape_text(shape)} voxels, more than {MAX_VOXELS}")
    there = os.path.getsize(file)
    if there * (_DEFLATE_RATIO if packed else 1) < voxels * voxel_bytes:
        reason = f"{there} bytes, too few for {shape_text(shape)} voxels of {voxel_bytes} bytes"
        raise InputError(f"voxels that cannot be read, truncated or damaged ({reason})")


def _open_nifti(file: str) -> tuple[tuple[int, ...], np.ndarray, tuple[str, ...], Callable[[], np.ndarray]]:
    packed = file.lower().endswith(".gz")
    with nibabel.openers.ImageOpener(file) as stream:
        start = stream.read(540)
    two = int.from_bytes(start[:4], "little") == 540 or int.from_bytes(start[:4], "big") == 540
    header = (nibabel.Nifti2Header if two else nibabel.Nifti1Header)(start[: 540 if two else 348], check=False)
    if not 0 <= float(header["vox_offset"]) <= MAX_HEADER_BYTES:
        raise ValueError(f"voxels that start at byte {float(header['vox_offset']):g}")
    image: Any = nibabel.load(file)  # typed as any format, of which the suffix leaves NIfTI
    _require_plausible(file, image.shape, image.get_data_dtype().itemsize, packed=packed)
    affine = np.asarray(image.affine, dtype=np.float64)
    doubts = _cosine_doubts(affine)
    qform, sform = image.get_qform(coded=True)[0], image.get_sform(coded=True)[0]
    if qform is not None and sform is not None:
        distance = corner_distance_mm(qform, sform, (*image.shape, 1, 1, 1)[:3])
        if distance > AFFINE_TOLERANCE_MM:
            doubts += ("a qform and an sform that disagree (the sform is used)",)
    return image.shape, affine, doubts, lambda: np.asanyarray(image.dataobj)


def _open_itk(file: str) -> tuple[tuple[int, ...], np.ndarray, tuple[str, ...], Callable[[], np.ndarray]]:
    if problems := data_file_problems(Path(file), Path(os.path.abspath(file)).parent):
        raise InputError(problems[0].removeprefix(f"{Path(file)}: ").removeprefix("found "))
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
    _require_plausible(str(data_file(Path(file))), shape, _voxel_bytes(reader.GetPixelID()), packed=True)

    def decode() -> np.ndarray:
        voxels = SimpleITK.GetArrayFromImage(reader.Execute())  # (z, y, x) or (z, y, x, components)
        return voxels.transpose(*reversed(range(dimension)), *range(dimension, voxels.ndim))

    return shape, affine, _cosine_doubts(affine), decode


def _voxel_bytes(pixel_id: int) -> int:
    """Bytes of one component; 1, the least there is, for kinds that are refused later."""
    name = SimpleITK.GetPixelIDValueAsString(pixel_id)
    return next((bits // 8 for bits in (64, 32, 16) if f"{bits}-bit" in name), 1)


def data_file(header: Path) -> Path:
    """The file of the voxels: the one that the header names, or the header's own."""
    name = _data_name(header)
    return header if not name or name.upper() == "LOCAL" else header.parent / name


def data_file_problems(header: Path, root: Path) -> list[str]:
    """What is wrong with the file in which a MetaImage or NRRD header says its voxels are.

    Args:
        header: .mhd, .mha or .nrrd file; other files, and headers with their voxels in the same file, pass.
        root: absolute path of the folder that nothing may lead out of.
    """
    name = _data_name(header)
    if name is None:
        reason = "no line ElementDataFile, or no end, in the first 64 KiB"
        return [f"{header}: found a header that cannot be read ({reason}); replace the file"]
    if not name or name.upper() == "LOCAL":
        return []
    if name.upper().startswith("LIST") or "%" in name:
        return [f'{header}: its voxels are in several files ("{name}"); expected one: convert the volume']
    path = header.parent / name
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        return [f'{header}: its voxels are in "{name}", outside {root}; expected a file beside it']
    if not path.is_file():
        return [f'{header}: its voxels are in "{name}", which does not exist; put that file beside it']
    return []


def _data_name(header: Path) -> str | None:
    """What the header names; "" when the voxels follow it, None for a header that does not end, or names nothing."""
    pattern = _DATA_FILE.get(header.suffix.lower())
    if pattern is None:
        return ""
    with header.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    if header.suffix.lower() == ".nrrd":
        fields, *rest = re.split(rb"\r?\n\r?\n", start, maxsplit=1)
        match = pattern.search(fields)
        if match is None:
            return "" if rest else None
    else:
        match = pattern.search(start)
        if match is None:
            return None
    return match[1].strip().decode("latin-1")
