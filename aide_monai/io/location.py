"""Where the voxels of an image or a label are: a file or folder, and the part of it that is meant.

Datalists are read without the libraries that read voxels: those are imported when a location is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from aide_monai.errors import InputError

if TYPE_CHECKING:
    from aide_monai.io.volumes import Volume

PathText: TypeAlias = str | os.PathLike[str]

SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha", ".nrrd", ".nhdr", ".seg.nrrd", ".hdr", ".mgz", ".mgh")
"""Of files that are opened as volumes, in any case; of an .hdr the voxels lie in the .img beside it."""

_NUMBERS = re.compile(r"(?:channel|[xyz])=\d{1,9}(?:&(?:channel|[xyz])=\d{1,9})*")


@dataclass(frozen=True)
class Location:
    """A path as a datalist has it: ``PATH``, or ``PATH#PART`` for a part of what is there.

    ``PART`` is KEY=VALUE, several joined by ``&``. Of a volume file: "channel" (or time point, on the last axis), "x",
    "y" and "z" (one slice), numbers from 0. Of DICOM: "series", "echo", "type", "phase", "volume", which select one of
    several volumes.

    Attributes:
        path: file or folder.
        part: what stands behind ``#``, "" for all of it.

    Examples:
        >>> place = Location.parse("/data/dce.nii.gz#channel=2")
        >>> place.path, place.numbers
        ('/data/dce.nii.gz', {'channel': 2})
        >>> str(place.slice(2, 12))
        '/data/dce.nii.gz#channel=2&z=12'
    """

    path: str
    part: str = ""

    @classmethod
    def parse(cls, text: PathText) -> Location:
        """What a text says; one that exists as it is, ``#`` and all, has no part."""
        text = os.fspath(text)
        path, separator, part = text.rpartition("#")
        if not separator or os.path.lexists(text) or text.lower().endswith(SUFFIXES):
            return cls(text)
        if path.lower().endswith(SUFFIXES) and not _NUMBERS.fullmatch(part):
            return cls(text)
        return cls(path, part)

    def __str__(self) -> str:
        return f"{self.path}#{self.part}" if self.part else self.path

    @property
    def is_volume_file(self) -> bool:
        """Whether it is, by its suffix, a file that holds a volume."""
        return self.path.lower().endswith(SUFFIXES)

    @property
    def name(self) -> str:
        """Name of a case after it: the file without its suffix, or the folder."""
        return without_suffix(self.path)

    @property
    def numbers(self) -> dict[str, int]:
        """The part of a volume file by key: "channel", "x", "y", "z"."""
        pairs = [part.split("=") for part in self.part.split("&")] if _NUMBERS.fullmatch(self.part) else []
        return {key: int(number) for key, number in pairs}

    def channel(self, number: int) -> Location:
        """One channel (or time point) of a file, from 0, on its last axis."""
        return self._and(f"channel={number}")

    def slice(self, axis: int, index: int) -> Location:
        """One slice of a volume across axis 0, 1 or 2."""
        return self._and(f"{'xyz'[axis]}={index}")

    def _and(self, part: str) -> Location:
        return replace(self, part=f"{self.part}&{part}" if self.part else part)

    def absolute(self, folder: Path, *, roots: Iterable[str | Path] = ()) -> Location:
        """The same as an absolute path; a relative one starts at ``folder``.

        Raises:
            InputError: with symbolic links and ``..`` resolved, it lies outside ``folder`` and all ``roots``.
        """
        return Location.parse(Places(folder, roots).absolute(str(self)))

    def open(self) -> Volume:
        """The header of the volume; voxels on demand.

        A volume file, DICOM, or a folder of PNG slices (see ``PNGStackReader``).

        Raises:
            InputError: nothing there, unreadable, or not one volume.
        """
        from aide_monai.io.opening import opened

        return opened(self)

    def files(self) -> list[str]:
        """The files that it consists of, in order.

        Raises:
            InputError: as ``open``.
        """
        from aide_monai.io.opening import files_of

        return files_of(self)


class Places:
    """Where many paths lie, each of whose folders is looked up once.

    Args:
        folder: where relative paths start.
        roots: further folders that paths may lead to.

    Examples:
        >>> Places("/data").absolute("a.nii"), Places("/data").relative("/data/images/a.nii")
        ('/data/a.nii', 'images/a.nii')
    """

    def __init__(self, folder: str | Path, roots: Iterable[str | Path] = ()) -> None:
        self.folder = os.fspath(folder)
        self.allowed = [os.path.realpath(root) for root in (folder, *roots)]
        self._real: dict[str, str] = {}

    def absolute(self, text: str) -> str:
        """A path, with the part that it may name, as an absolute one.

        Raises:
            InputError: with symbolic links and ``..`` resolved, it lies outside the folder and all roots.
        """
        absolute = os.path.abspath(os.path.join(self.folder, text))
        target = self._resolved(Location.parse(absolute).path)
        if all(_below(target, root) is None for root in self.allowed):
            raise InputError(
                f'path "{text}", which leads to {target}, outside {" and ".join(self.allowed)}',
                advice="move the file there, or name its folder as a root "
                "(--root DIR; of a bundle --roots '[\"DIR\"]')",
            )
        return absolute

    def relative(self, path: str) -> str:
        """An absolute path as it is to be written into the folder: relative where it lies in it, else as it is."""
        inside = _below(path, self.folder)
        if inside is None:  # the folder may have been reached by a link
            inside = _below(self._resolved(path), self.allowed[0])
        return path if inside is None else inside

    def _resolved(self, path: str) -> str:
        """``os.path.realpath``."""
        folder, name = os.path.split(path)
        if not name or name in (".", "..") or os.path.islink(path):
            return os.path.realpath(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        return os.path.join(self._real[folder], name)


def _below(path: str, folder: str) -> str | None:
    """A path from a folder on; None where it does not lie in it."""
    if path.startswith(folder.rstrip("/") + "/"):
        return path[len(folder.rstrip("/")) :].lstrip("/") or "."
    return "." if path == folder else None


def open_location(path: PathText) -> Volume:
    """The header of the volume that a path of a datalist names, see ``Location``; voxels on demand.

    Raises:
        InputError: nothing there, unreadable, or not one volume.
    """
    return Location.parse(path).open()


def without_suffix(file: PathText) -> str:
    """Name of a file without the suffix of a volume, of which .nii.gz and .seg.nrrd are one each.

    >>> without_suffix("scans/chest.seg.nrrd")
    'chest'
    """
    name = Path(file).name
    suffix = max((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), key=len, default="")
    return name[: len(name) - len(suffix)] or name


def as_paths(value: str | list[str]) -> list[str]:
    """One path or a list of paths, as a list."""
    return [value] if isinstance(value, str) else value
