"""A folder that one process at a time works in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from aide_monai.errors import InputError

LOCK = ".lock"
_held: dict[Path, FileLock] = {}


def lock_folder(folder: str | Path) -> None:
    """Keep a folder for this process, until ``locks_of_this_block`` or the process ends, however it does.

    The system lets go of the lock (``flock`` where there is one) with the process that holds it, so a killed run leaves
    nothing to clean up; the empty file ``.lock`` stays. A process may lock a folder that it holds already.

    Args:
        folder: made if it is not there.

    Raises:
        InputError: if another process holds it, naming the folder.
        OSError: if nothing can be written there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locks_of_this_block():
    ...     lock_folder(folder)
    ...     is_locked(folder)
    True
    """
    folder = Path(folder).resolve()
    if folder in _held:
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"{folder}: another process is at work in this folder; expected one at a time: wait for its end or stop "
            "it, or choose another folder"
        ) from error
    _held[folder] = lock


def is_locked(folder: str | Path) -> bool:
    """Whether a process, this one or another, holds a folder.

    Raises:
        OSError: if nothing can be written there.
    """
    folder = Path(folder).resolve()
    if folder in _held:
        return True
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def locks_of_this_block() -> Iterator[None]:
    """Let go, at the end of the block, of the folders that were locked in it."""
    before = set(_held)
    try:
        yield
    finally:
        for folder in set(_held) - before:
            _held.pop(folder).release()


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold a folder for the length of a block.

    Raises:
        InputError, OSError: as ``lock_folder``.
    """
    with locks_of_this_block():
        lock_folder(folder)
        yield
