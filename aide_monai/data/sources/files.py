"""Files of a downloaded data set: everything below its folder, and nothing that leads out of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from aide_monai.data.case import Case
from aide_monai.errors import InputError, Problem
from aide_monai.io.folder import voxel_files
from aide_monai.io.location import Location
from aide_monai.io.png import png_files
from aide_monai.utils.texts import DESCRIPTIONS, tell_unused


def source_folder(root: str | Path, *, expected: str) -> Path:
    """The absolute path of a data set's folder.

    Raises:
        InputError: no such folder; says what was expected in it.
    """
    folder = Path(os.path.abspath(root))
    if not folder.is_dir():
        raise InputError("no such folder", expected=expected, place=folder)
    return folder


def typed(option: str, value: str = "") -> str:
    """How an option of a layout is typed at the doors that have it: of ``aide prepare``, and of a bundle.

    Args:
        option: its name in Python.
        value: what to give it; empty for an option of ``aide prepare`` that takes none.

    Examples:
        >>> typed("task", "TASK")
        '--task TASK; of a bundle --source#task TASK'
    """
    flag = "--" + option.replace("_", "-")
    return f"{flag}{value and ' ' + value}; of a bundle --source#{option} {value or 'true'}"


def files_below(root: Path, *, suffixes: Sequence[str] = ()) -> tuple[list[Path], list[Problem]]:
    """All files of a folder and its subfolders, sorted by path, without hidden ones, each once.

    Links are followed inside ``root`` only.

    Args:
        root: absolute path of the folder.
        suffixes: endings in lower case that count; none: all files.

    Returns:
        The files, and one problem per link that leads out of ``root`` or nowhere.
    """
    real_root = Path(os.path.realpath(root))
    files: list[Path] = []
    problems: list[Problem] = []
    visited: set[str] = set()
    folders = [root]
    while folders:
        folder = folders.pop()
        if os.path.realpath(folder) in visited:
            continue
        visited.add(os.path.realpath(folder))
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_symlink() and not (real := Path(os.path.realpath(path))).is_relative_to(real_root):
                problems.append(
                    Problem(f"a link to {real}, outside {root}", advice="put the files themselves there", place=path)
                )
            elif path.is_dir():
                folders.append(path)
            elif path.name.lower().endswith(tuple(suffixes) or ""):
                if path.is_file():
                    files.append(path)
                elif path.is_symlink():
                    problems.append(Problem("a link to nothing", advice="put the file itself there", place=path))
    return sorted(files), problems


def case_paths(cases: Iterable[Case]) -> list[str]:
    """The paths of all images and labels of a data set."""
    return [path for case in cases for path in case.images + case.labels]


def tell_left_out(
    root: Path, used: Iterable[str | Path], reason: Callable[[Path], str], *, others: Iterable[str] = ()
) -> None:
    """Name in one line of the log what lies in a data set's folder and belongs to none of its cases.

    A folder without any file that is used is named in place of its files, when they have one reason.

    Args:
        root: absolute path of the folder.
        used: files and folders of the cases, as a datalist names them; of a folder all is used, or its PNG slices.
        reason: from a file, as seen from ``root``, to why it is not used.
        others: files in used folders that are not used.
    """
    paths = {Path(Location.parse(path).path) for path in used}
    pictures = {Path(file) for path in paths for file in png_files(path)}
    known = (paths - {file.parent for file in pictures}) | pictures
    known |= set(voxel_files(path for path in known if path.is_file()))
    unused = set(map(Path, others))
    left: dict[Path, str] = {}
    kinds: dict[Path, set[str]] = {root: {""}}
    for file in files_below(root)[0]:
        if file.name.lower().endswith(DESCRIPTIONS):
            continue
        is_left = file in unused or known.isdisjoint((file, *file.parents))
        why = reason(file.relative_to(root)) if is_left else ""
        for folder in file.parents[: len(file.relative_to(root).parts)]:
            kinds.setdefault(folder, set()).add(why)
        if is_left:
            left[file] = why

    def named(file: Path) -> Path:
        return next((folder for folder in reversed(file.parents) if kinds.get(folder) == {left[file]}), file)

    tell_unused(root, {str(named(file)): why for file, why in left.items()})


def tell_beside(root: Path, folders: Iterable[str], reason: str) -> None:
    """Name in one line of the log what lies in a folder beside the folders that are read there.

    Args:
        root: the folder.
        folders: what is read, as seen from ``root``.
        reason: why the rest is not used.
    """
    top = Path(os.path.abspath(root))
    read = {os.path.relpath(top / folder, top).split(os.sep)[0] for folder in folders}
    beside = [path for path in sorted(top.iterdir()) if not path.name.startswith(".") and path.name not in read]
    tell_unused(top, {str(path): reason for path in beside})
