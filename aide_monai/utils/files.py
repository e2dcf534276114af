"""Files that appear whole or not at all, and one sentence when the disk refuses them."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from aide_monai.errors import InputError

REFUSALS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
)


def write_atomically(path: str | Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file that holds, whenever the process or the machine stops, its old content or the whole new one.

    The content goes to a temporary file beside it, which is synchronised with the disk and then renamed.

    Args:
        path: the file; its folder is made.
        write: called with the open temporary file.

    Raises:
        InputError: if the disk is full, read-only or fails; the old content is untouched.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _temporary(path).open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(_temporary(path), path)
        except BaseException:
            remove_unfinished(path)  # on a full disk its space is needed
            raise
        sync_folder(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """``write_atomically`` for a text, as UTF-8.

    Raises:
        InputError: as ``write_atomically``.
    """
    write_atomically(path, lambda file: file.write(text.encode()))


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder that appears with all its files or not at all; what cannot be finished is removed.

    Args:
        path: the folder, which is missing or empty; the ones above it are made.

    Yields:
        The folder to write into, which gets its name at the end.

    Raises:
        InputError: if the disk is full, read-only or fails.

    Examples:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "results"
        >>> with new_folder(place) as folder:
        ...     write_text(folder / "a.txt", "one")
        >>> [file.name for file in place.iterdir()]
        ['a.txt']
    """
    temporary = _temporary(Path(path))
    shutil.rmtree(temporary, ignore_errors=True)  # a killed process has left it
    with disk_errors(path):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(Path(path).parent)


JsonObject: TypeAlias = dict[str, Any]
"""What a JSON file holds that is an object."""


def read_object(path: str | Path, *, advice: str) -> JsonObject:
    """The JSON object in a file.

    Args:
        path: the file.
        advice: what to do if there is none.

    Raises:
        InputError: if the file is missing, is no JSON, nests deeper than Python can follow, or holds no object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); {advice}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: found no JSON object; {advice}")
    return content


def remove_unfinished(path: str | Path) -> None:
    """Remove the temporary file that a killed ``write_atomically`` has left, if it has."""
    with suppress(OSError):
        _temporary(Path(path)).unlink()


def require_writable(path: str | Path) -> None:
    """Make sure that ``write_atomically`` can start to write this file, before hours of work depend on it.

    Raises:
        InputError: if the folder cannot be made or written.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _temporary(path).open("wb").close()
    remove_unfinished(path)


def require_place(path: str | Path, *, folder: bool = False) -> None:
    """Make sure that a result can be put here, before the work of which it is the result; nothing is made.

    Args:
        path: the file or folder that will be written; what lies there may be replaced or filled.
        folder: whether it is a folder.

    Raises:
        InputError: if a file lies where a folder is expected, or the other way round, or nothing may be written there.
    """
    path = Path(os.path.abspath(path))
    if not folder and path.is_dir():
        raise InputError(f"{path}: found a folder; expected the name of a file to write")
    there = next(place for place in ((path, *path.parents) if folder else path.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise InputError(f"{there}: found a file; expected a folder: choose another place to write")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{there}: found a folder that may not be written; allow it, or choose another place to write")


def require_unused(folder: str | Path, what: str) -> None:
    """Make sure that a folder for new results is missing or empty.

    Args:
        folder: the folder.
        what: the results.

    Raises:
        InputError: if something lies there.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder; choose a new one for {what}")


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turn what a full, read-only or failing disk raises while ``path`` is written into one sentence.

    Raises:
        InputError: in place of an OSError, also of one that a library has replaced by an error of its own.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = _os_error(error)
        if cause is None:
            raise
        raise InputError(
            f"{path}: cannot be written ({_reason(cause)}); expected a folder with free space that may be "
            "written. What was saved before is intact: make room or allow writing, then continue (a training run with "
            "--resume)"
        ) from error


def refused_by_disk(error: BaseException) -> InputError | None:
    """The sentence for an error of any part of a program, if a full or protected disk is behind it."""
    cause = _os_error(error)
    if cause is None or cause.errno not in REFUSALS:
        return None
    place = cause.filename or "a file that was being written"
    return InputError(
        f"{place}: refused by the disk ({cause.strerror}); expected free space and the right to use this folder. Make "
        "room, allow it, or choose another folder, and start again"
    )


def sync_folder(folder: Path) -> None:
    """Synchronise the names of a folder's files with the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _os_error(error: BaseException) -> OSError | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__  # torch.save, for one, raises a RuntimeError of its own
    return cause


def _reason(error: OSError) -> str:
    if isinstance(error, shutil.Error):  # a list of (source, target, reason)
        return str(error.args[0][0][2])
    return error.strerror or str(error)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")
