"""Headers of MetaImage and NRRD files, read strictly, before a library sees the file.

Both formats can name any file of the computer as the place of the voxels. A check that understands a line otherwise
than the library that opens the file later guards nothing, so a header with one line that is not understood is refused.

=========== =========================================================================================================
rival       why it does not take this module's place
=========== =========================================================================================================
SimpleITK   Apache-2.0, 2.5.7: opens whatever file a header names, and cannot be asked for the name before
pynrrd      MIT, 1.1.3: likewise; it lets lines pass that ITK reads otherwise
=========== =========================================================================================================
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import ModuleType

from aide_monai.errors import InputError, Problem
from aide_monai.io import metaimage, nrrd
from aide_monai.io.header_lines import Header, Lines

_FIRST_BYTES = 65536
_MAX_BYTES = 16 * 2**20
_SUFFIXES: dict[str, ModuleType] = {".mhd": metaimage, ".mha": metaimage, ".nrrd": nrrd, ".nhdr": nrrd}


_QUOTED = re.compile(r'"([^"]*)"')
_LENGTHS_MM = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1000.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "\udcb5m"), 0.001),  # the last is Latin-1
    **dict.fromkeys(("micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"), 0.001),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1e-6),
}


def read_header(file: Path) -> Header:
    """Read the header of an .mhd, .mha, .nrrd or .nhdr file.

    Raises:
        InputError: a line that is not understood, is missing or contradicts another one, or voxels that do not lie in a
            file beside the header. The message is what was found; it does not name the header.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.nrrd"
        >>> lines = b"NRRD0004", b"type: uchar", b"dimension: 2", b"sizes: 2 3", b"encoding: raw", b"", bytes(6)
        >>> _ = file.write_bytes(b"\\n".join(lines))
        >>> header = read_header(file)
        >>> header.shape, header.room
        ((2, 3), 6)
    """
    lines = _lines(file)
    if problem := _data_problem(file, lines.name, Path(os.path.abspath(file)).parent):
        raise problem
    header: Header = _SUFFIXES[file.suffix.lower()].header(file, lines)
    return header


def data_file(file: Path) -> Path:
    """The file of the voxels: the one that a MetaImage or NRRD header names, the .img of an .hdr, else the file itself.

    Raises:
        InputError: a header that is not understood.
    """
    name = _data_name(file)
    return file.parent / name if name else file


def matrix_file(file: Path) -> Path | None:
    """The .mat beside an Analyze header, by which SPM and nibabel place its voxels; None without one."""
    matrix = file.with_suffix(".mat")
    if file.suffix.lower() != ".hdr" or not matrix.is_file():
        return None
    with file.open("rb") as stream:
        return None if is_nifti_pair(stream.read(348)) else matrix


def is_nifti_pair(header: bytes) -> bool:
    """Whether the 348 bytes of an .hdr are NIfTI, else they are Analyze."""
    return header[344:347] == b"ni1"


def data_file_problems(file: Path, root: Path) -> list[Problem]:
    """What is wrong with the file in which a MetaImage or NRRD header says its voxels are.

    Args:
        file: .mhd, .mha, .nrrd, .nhdr or .hdr file; others, and headers with their voxels in the same file, pass.
        root: absolute path of the folder that nothing may lead out of.
    """
    try:
        problem = _data_problem(file, _data_name(file), root)
    except InputError as error:
        return list(error.at(file, advice="replace the file").problems)
    return list(problem.at(file).problems) if problem else []


def _data_name(file: Path) -> str:
    """Name of the file of the voxels beside a header; "" when they are in the same file."""
    if file.suffix.lower() == ".hdr":
        names = (file.stem + suffix for suffix in (".img", ".IMG"))
        return next((name for name in names if (file.parent / name).exists()), file.stem + ".img")
    return _lines(file).name if file.suffix.lower() in _SUFFIXES else ""


def length_unit(header: Header) -> tuple[float, tuple[str, ...]]:
    """Length in mm of the unit in which a header gives places, and a doubt where it names one that is not known.

    Raises:
        InputError: axes of space in different units.
    """
    texts = [header.fields.get("DistanceUnits", "")]
    if "space units" in header.fields or "space directions" in header.fields:
        texts = _QUOTED.findall(header.fields.get("space units", ""))
    elif "units" in header.fields:  # of each axis, of which a fourth may be time
        texts = [text for text in _QUOTED.findall(header.fields["units"]) if text.strip().lower() in _LENGTHS_MM]
    named = {text.strip().lower() for text in texts} - {"", "?", "???"}
    lengths = {_LENGTHS_MM[text] for text in named if text in _LENGTHS_MM}
    if len(lengths) > 1:
        raise InputError(
            f"axes in different units ({', '.join(sorted(named))})", expected="one", advice="convert the volume"
        )
    unknown = sorted(named - _LENGTHS_MM.keys())
    if unknown:
        return 1.0, (f'lengths in "{unknown[0]}", taken for mm',)
    return (lengths.pop() if lengths else 1.0), ()


def intensity_function(header: Header) -> tuple[float, float]:
    """Slope and offset that make intensities of a MetaImage's stored numbers; 1 and 0 where it has none.

    Raises:
        InputError: slope 0.
    """
    slope, offset = (header.fields.get(f"ElementToIntensityFunction{name}") for name in ("Slope", "Offset"))
    function = float(slope or 1), float(offset or 0)
    if function[0] == 0:
        raise InputError("ElementToIntensityFunctionSlope 0, which leaves no intensities: correct the header")
    return function


def _lines(file: Path) -> Lines:
    parse = _SUFFIXES[file.suffix.lower()].parse
    with file.open("rb") as stream:
        start = stream.read(_FIRST_BYTES)
        lines: Lines | None = parse(start, more=len(start) == _FIRST_BYTES)
        return lines or parse(start + stream.read(_MAX_BYTES), more=False)


def _data_problem(file: Path, name: str, root: Path) -> InputError | None:
    if not name:
        return None
    found = f'voxels in "{name}"'
    if name.upper().startswith("LIST") or "%" in name:
        return InputError(f'voxels in several files ("{name}")', expected="one", advice="convert the volume")
    path = file.parent / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        return InputError(f"{found}, outside {root}", expected="a file beside it")
    plain = name.removeprefix("./")
    if plain in ("", "-", ".", "..") or plain != plain.strip() or re.search(r"[/\\]|^.:", plain):
        return InputError(found, expected="the plain name of a file beside it")
    if not path.is_file():
        return InputError(f"{found}, which does not exist", advice="put that file beside it")
    return None
