"""Files that are whole whatever happens, and clear words when the disk refuses them."""

from __future__ import annotations

import errno
import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from aide_monai.errors import InputError
from aide_monai.utils.files import (
    disk_errors,
    new_folder,
    read_object,
    refused_by_disk,
    remove_unfinished,
    require_place,
    require_writable,
    write_atomically,
    write_text,
)
from tests.labels.kill_at_line import killed_at

OLD, NEW = b"old" * 20_000, b"new" * 50_000


def write_new(path: Path) -> None:
    write_atomically(
        path, lambda file: [file.write(NEW[first : first + 10_000]) for first in range(0, len(NEW), 10_000)]
    )


def test_the_new_content_replaces_the_old(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    for content in (OLD, NEW):
        write_atomically(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


def test_killed_at_any_line_it_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    found, unfinished, line = [], 0, 1
    while True:
        path.write_bytes(OLD)
        killed = killed_at(line, lambda: write_new(path), files=("/utils/files.py", "/utils/test_files.py"))
        found.append(path.read_bytes())
        unfinished += path.with_name(".file.bin.tmp").exists()
        remove_unfinished(path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]
        if not killed:
            break
        line += 1
    switch = found.index(NEW)
    assert found == [OLD] * switch + [NEW] * (len(found) - switch)
    assert 10 < switch < len(found) - 1
    assert unfinished > 5


def test_an_unfinished_file_of_a_killed_run_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".file.bin.tmp").write_bytes(OLD)
    write_new(tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == NEW
    assert not (tmp_path / ".file.bin.tmp").exists()
    remove_unfinished(tmp_path / "absent" / "file.bin")  # nothing to remove is no error


@pytest.mark.parametrize("module_and_name", [(os, "fsync"), (os, "replace"), (io, "open"), (os, "mkdir")])
def test_a_refused_call_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module_and_name: tuple[Any, str]
) -> None:
    path = tmp_path / ("new/file.bin" if module_and_name[1] == "mkdir" else "file.bin")
    if path.parent.exists():
        path.write_bytes(OLD)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(*module_and_name, refuse)
        with pytest.raises(InputError) as caught:
            write_new(path)
    assert str(caught.value) == (
        f"{path}: cannot be written (No space left on device); expected a folder with free space that may be written. "
        "What was saved before is intact: make room or allow writing, then continue (a training run with --resume)"
    )
    if path.parent.exists():
        assert path.read_bytes() == OLD
        assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


class FullFile(io.BytesIO):
    """A file on a disk with 100 bytes."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_an_error_of_the_disk_that_torch_hides_is_found(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        torch.save(torch.zeros(1000), FullFile())
    with pytest.raises(InputError, match=r"model\.pt: cannot be written \(No space left on device\)"):
        write_atomically(tmp_path / "model.pt", lambda file: torch.save(torch.zeros(1000), FullFile()))
    assert list(tmp_path.iterdir()) == []


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    def fail(error: BaseException) -> None:
        raise error

    for error in (ZeroDivisionError("a bug"), InputError("a mistake"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            write_atomically(tmp_path / "file.bin", lambda file, error=error: fail(error))
        assert caught.value is error
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "file.bin")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"file/file\.bin: cannot be written \((Not a directory|File exists)\)"):
        require_writable(tmp_path / "file" / "file.bin")


def test_a_place_for_results_is_looked_at_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    require_place(tmp_path / "new" / "results", folder=True)
    require_place(tmp_path, folder=True)
    require_place(tmp_path / "file")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    with pytest.raises(InputError, match="found a folder; expected the name of a file to write"):
        require_place(tmp_path)
    for path, folder in (
        (tmp_path / "file", True),
        (tmp_path / "file" / "x" / "y", True),
        (tmp_path / "file/x", False),
    ):
        with pytest.raises(InputError, match="/file: found a file; expected a folder: choose another place"):
            require_place(path, folder=folder)


def test_what_the_disk_has_refused_anywhere_is_told_in_a_sentence() -> None:
    cause = OSError(errno.EROFS, os.strerror(errno.EROFS), "/data/run")
    wrapped = RuntimeError("an error of a library")
    wrapped.__context__ = cause
    for error in (cause, wrapped):
        assert str(refused_by_disk(error)).startswith(
            "/data/run: refused by the disk (Read-only file system); expected"
        )
    unnamed = refused_by_disk(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert str(unnamed).startswith("a file that was being written: refused by the disk (No space left on device)")
    for other in (FileNotFoundError(errno.ENOENT, "no such file"), ValueError("a bug"), OSError("without a number")):
        assert refused_by_disk(other) is None


def test_disk_errors_name_the_path_that_is_written() -> None:
    message = r"^labels: cannot be written \(an unknown reason\); expected a folder"
    with pytest.raises(InputError, match=message), disk_errors("labels"):
        raise OSError("an unknown reason")


def test_a_new_folder_appears_with_all_its_files_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "results" / "today"
    with new_folder(place) as unfinished:
        write_text(unfinished / "a.txt", "é")
        assert not place.exists()
    assert (place / "a.txt").read_bytes() == "é".encode()

    def fail(error: BaseException) -> None:
        with new_folder(tmp_path / "other") as unfinished:
            write_text(unfinished / "a.txt", "half")
            raise error

    with pytest.raises(InputError, match=r"/other: cannot be written \(No space left on device\)"):
        fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_folder_that_cannot_be_copied_says_why_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text("a")

    def refuse(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def copy() -> None:
        with new_folder(tmp_path / "target") as unfinished:
            shutil.copytree(tmp_path / "source", unfinished, copy_function=refuse, dirs_exist_ok=True)

    with pytest.raises(InputError, match=r"/target: cannot be written \(\[Errno 28\] No space left on device\)"):
        copy()
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# JSON


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "No such file"),
        (b"{", "Expecting"),
        (b"\xff\x00", "can't decode"),
        (b"[1]", "found no JSON object"),
        (b"[" * 100_000 + b"]" * 100_000, "not readable as JSON .*recursion"),
    ],
    ids=["missing", "cut", "no text", "a list", "deep"],
)
def test_what_is_no_json_object_is_named(tmp_path: Path, content: bytes | None, found: str) -> None:
    path = tmp_path / "job.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"job\.json: .*{found}.*; restore it"):
        read_object(path, advice="restore it")


def test_a_json_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_bytes(b'\xef\xbb\xbf{"seconds": 1.5}')
    assert read_object(tmp_path / "job.json", advice="restore it") == {"seconds": 1.5}
