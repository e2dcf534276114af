"""Tensors in files, mapped into memory while they are looked at."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import tempfile
import weakref
from concurrent.futures import Executor, Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from monai.data import MetaTensor
from torch import Tensor

from aide_monai.errors import InputError
from aide_monai.utils.files import disk_errors
from aide_monai.utils.locks import LOCK, is_locked
from aide_monai.utils.tensors import hollow, memory_order

_PREFIX = "aide-"


class ScratchFolder:
    """A new folder that is removed when this object, or the process that made it, comes to its end.

    That of a process that was killed is removed when the next one is made beside it: nobody holds its lock any more.

    Args:
        parent: folder to make it in, made too; None is the system's temporary folder.

    Raises:
        InputError: if it cannot be made.

    Attributes:
        path: the folder.
    """

    def __init__(self, parent: str | Path | None = None) -> None:
        if parent is not None:
            with disk_errors(parent):
                Path(parent).mkdir(parents=True, exist_ok=True)
        beside = Path(parent or tempfile.gettempdir())
        remove_left_over(beside)
        with disk_errors(beside):
            made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=beside))
            lock = FileLock(made / LOCK, thread_local=False)
            lock.acquire()
            # Only now, as it is locked, does it have the name of a folder that others may find left over
            self.path = made.rename(beside / made.name.removeprefix("."))
        weakref.finalize(self, _remove, self.path, os.getpid(), lock)


def _remove(folder: Path, owner: int, lock: FileLock) -> None:
    if os.getpid() == owner:  # not a worker that was forked off
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def remove_left_over(parent: Path) -> None:
    """Remove the scratch folders in a folder whose process was killed."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if (folder / LOCK).is_file() and folder.stat().st_uid == os.getuid() and not is_locked(folder):
                shutil.rmtree(folder, ignore_errors=True)


class MappedTensor:
    """A tensor in a file of its own, scratch that is made anew by every run.

    Each ``tensor()`` maps the file anew and lets go of it with the last view of it, so that the memory of the process
    does not grow with the number of tensors that it has seen. All processes that map it see each other's changes.

    Args:
        path: the file; its folder is made.
        values: content; the file keeps the order of its memory.
        writer: what writes the file while this thread goes on; ``finish`` waits for it. None writes it at once.

    Raises:
        InputError: if the disk is full or read-only.

    Attributes:
        shape, dtype, ndim: of the tensor.
        writing: until the file is finished, the task that writes it.
    """

    def __init__(self, path: str | Path, values: Tensor, *, writer: Executor | None = None) -> None:
        self.path = Path(path)
        self.shape = tuple(values.shape)
        self.dtype = values.dtype
        self.ndim = values.ndim
        self._like = hollow(values) if isinstance(values, MetaTensor) else None
        values = values.as_subclass(Tensor)
        axes = memory_order(values)
        self._stored_shape = tuple(self.shape[axis] for axis in axes)
        self._restored = tuple(axes.index(axis) for axis in range(values.ndim))
        content = values.permute(axes).contiguous().flatten().view(torch.uint8).numpy()
        self.writing: Future[None] | None = None
        if writer is None:
            self._write(content)
        else:
            self.writing = writer.submit(self._write, content)

    @property
    def like(self) -> Tensor:
        """A tensor of this shape without memory, which has the metadata of a MetaTensor."""
        return torch.zeros(1, dtype=torch.uint8).expand(self.shape) if self._like is None else self._like

    def _write(self, content: Any) -> None:
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("wb") as file:
                file.write(content.data)

    def finish(self) -> None:
        """Wait until the file is written.

        Raises:
            InputError: if the disk is full or read-only.
        """
        writing = self.writing
        if writing is not None:
            writing.result()
            self.writing = None

    def tensor(self) -> Tensor:
        """The values; writing into them changes the file.

        Raises:
            InputError: if the file is gone.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be opened ({error.strerror}); expected a file of this run's cache: leave its "
                "folder alone while the run lasts"
            ) from error
        try:
            mapped = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)
        return torch.frombuffer(mapped, dtype=self.dtype).view(self._stored_shape).permute(self._restored)


def current(values: Tensor | MappedTensor) -> Tensor:
    """The tensor that is in memory or in a file."""
    return values.tensor() if isinstance(values, MappedTensor) else values


def release_freed_memory() -> None:
    """Give back to the system what the C library has kept of freed tensors, where it can: glibc's ``malloc_trim``."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
