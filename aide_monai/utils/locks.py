"""A folder that one process at a time works in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from aide_monai.errors import InputError
from aide_monai.utils.files import disk_errors

LOCK = ".lock"
_held: dict[Path, FileLock] = {}


def lock_folder(folder: str | Path) -> bool:
    """Keep a folder for this process, until ``locks_of_this_block`` or the process ends, however it does.

    The system lets go of the lock (``flock`` where there is one) with the process that holds it, so a killed run leaves
    nothing to clean up; the empty file ``.lock`` stays. A process may lock a folder that it holds already.

    Args:
        folder: made if it is not there.

    Returns:
        Whether this process did not hold it before.

    Raises:
        InputError: if another process holds it, or nothing can be written there, naming the folder.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locks_of_this_block():
        ...     lock_folder(folder), lock_folder(folder), is_locked(folder)
        (True, False, True)
    """
    folder = Path(folder).resolve()
    if folder in _held:
        return False
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout):
            lock.acquire()
    if not lock.is_locked:
        raise _in_use(folder)
    _held[folder] = lock
    return True


def _in_use(folder: Path) -> InputError:
    return InputError(
        f"{folder}: another run is at work in this folder; expected one at a time: wait for its end or stop it, or "
        "choose another folder"
    )


def is_locked(folder: str | Path) -> bool:
    """Whether a process, this one or another, holds a folder, or this cannot be found out for lack of rights."""
    folder = Path(folder).resolve()
    if folder in _held:
        return True
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except OSError:  # Timeout is one
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
    """Hold a folder for the length of a block that is not entered twice, not in this process either.

    Raises:
        InputError: as ``lock_folder``, or if this process holds it.
    """
    with locks_of_this_block():
        if not lock_folder(folder):
            raise _in_use(Path(folder).resolve())
        yield
