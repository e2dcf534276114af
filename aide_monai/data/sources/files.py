"""Files of a downloaded data set: everything below its folder, and nothing that leads out of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from aide_monai.errors import InputError


def source_folder(root: str | Path, *, expected: str) -> Path:
    """The absolute path of a data set's folder.

    Raises:
        InputError: no such folder; says what was expected in it.
    """
    folder = Path(os.path.abspath(root))
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected {expected}")
    return folder


def files_below(root: Path, *, suffixes: Sequence[str] = ()) -> tuple[list[Path], list[str]]:
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
    problems: list[str] = []
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
                problems.append(f"{path}: a link to {real}, outside {root}; put the files themselves there")
            elif path.is_dir():
                folders.append(path)
            elif path.name.lower().endswith(tuple(suffixes) or ""):
                if path.is_file():
                    files.append(path)
                elif path.is_symlink():
                    problems.append(f"{path}: a link to nothing; put the file itself there")
    return sorted(files), problems
