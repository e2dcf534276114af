"""The file that says what a label store has committed: written at its end alone, a line for each thing.

The first line says which cases there are. Then come the generations, each as a line for every replaced label and a last
line, which commits it. What stands behind the last commit was being written when the process was stopped, and does not
count. So a commit costs what has changed, however long the history is, and ``less`` or ``grep`` show what happened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from aide_monai.errors import InputError
from aide_monai.labels.manifest import JOURNAL, MANIFEST
from aide_monai.utils.files import JsonObject, disk_errors, remove_unfinished, write_atomically

_FORMAT = 2
_MANIFEST_FORMAT = 1  # the generations of older stores are in one file, which was written anew for each


class Journal:
    """The journal in a folder of labels.

    Args:
        folder: where it is, or will be.

    Examples:
        >>> journal = Journal(Path("."))
        >>> journal.start({"cases": {"a": [2, 2]}}, [{"epoch": 0, "records": [], "files": {}}])
        >>> change = {"epoch": 1, "network": 1, "case": "a"}
        >>> journal.append([{"epoch": 1, "records": [change], "files": {"1/a": "a.npz"}}])
        >>> print(Path("journal.jsonl").read_text(), end="")
        {"format": 2, "cases": {"a": [2, 2]}}
        {"generation": 0, "epoch": 0, "files": {}}
        {"epoch": 1, "network": 1, "case": "a"}
        {"generation": 1, "epoch": 1, "files": {"1/a": "a.npz"}}
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self._manifest = folder / MANIFEST
        self._ends: list[int] = []  # bytes up to each commit; none where there is no journal
        self._last_seen = self._on_disk()

    def load(self) -> JsonObject:
        """What is committed: the content of the first line, and "generations".

        Raises:
            OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError: if it is missing or damaged.
        """
        self._last_seen = self._on_disk()
        self._ends = []
        if self.file == self._manifest:
            manifest = json.loads(self._manifest.read_text())
            _require_format(manifest, _MANIFEST_FORMAT)
            return dict(manifest)
        content: JsonObject = {}
        generations: list[JsonObject] = []
        records: list[JsonObject] = []
        end = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break  # the process was stopped while it wrote
                end += len(line)
                entry = json.loads(line)
                if number == 0:
                    _require_format(entry, _FORMAT)
                    content = entry
                elif "generation" not in entry:
                    records.append(entry)
                elif entry.pop("generation") != len(generations):
                    raise ValueError(f"line {number + 1} is not generation {len(generations)}")
                else:
                    generations.append({**entry, "records": records})
                    self._ends.append(end)
                    records = []
        if not content:
            raise ValueError("no first line")
        return {**content, "generations": generations}

    def start(self, head: JsonObject, generations: Sequence[JsonObject]) -> None:
        """Write a new journal, whole or not at all; it stands for a manifest that may be there.

        Raises:
            InputError: if the disk refuses it.
        """
        encoded = [(json.dumps({"format": _FORMAT, **head}) + "\n").encode()]
        encoded += [_lines(number, entry) for number, entry in enumerate(generations)]
        write_atomically(self.path, lambda file: file.writelines(encoded))
        self._manifest.unlink(missing_ok=True)
        self._follow(len(encoded[0]), encoded[1:])

    def append(self, generations: Iterable[JsonObject]) -> None:
        """Commit generations after those that are there; where this fails, it leaves none of them.

        Raises:
            InputError: if the disk refuses it.
        """
        end = self._ends[-1]
        encoded = [_lines(number, entry) for number, entry in enumerate(generations, start=len(self._ends))]
        with disk_errors(self.path), self.path.open("r+b", buffering=0) as file:
            try:
                file.truncate(end)
                file.seek(end)
                left = memoryview(b"".join(encoded))
                while left:
                    left = left[os.write(file.fileno(), left) :]
                os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(file.fileno(), end)
                    self._last_seen = self._on_disk()
                    os.fsync(file.fileno())
                raise
        self._follow(end, encoded)

    def keep(self, number: int) -> None:
        """Drop all but the first generations, so many.

        Raises:
            InputError: if the disk refuses it.
        """
        with disk_errors(self.path), self.path.open("r+b") as file:
            file.truncate(self._ends[number - 1])
            os.fsync(file.fileno())
        del self._ends[number:]
        self._last_seen = self._on_disk()

    @property
    def file(self) -> Path:
        """The journal, or the manifest that older runs have in its place."""
        return self._manifest if self._manifest.exists() and not self.path.exists() else self.path

    @property
    def started(self) -> bool:
        """Whether there is a journal to append to: neither before the first commit, nor with a manifest."""
        return bool(self._ends)

    @property
    def changed_by_another(self) -> bool:
        """Whether the file is not as it was when this object has read or written it."""
        return self._on_disk() != self._last_seen

    def remove_unfinished(self) -> None:
        """Remove what was being written when a process was killed, as far as the file may be written."""
        remove_unfinished(self.path)
        if self._ends and self.path.stat().st_size > self._ends[-1]:
            with suppress(InputError):
                self.keep(len(self._ends))

    def _follow(self, end: int, encoded: Sequence[bytes]) -> None:
        for lines in encoded:
            end += len(lines)
            self._ends.append(end)
        self._last_seen = self._on_disk()

    def _on_disk(self) -> tuple[int, ...] | None:
        """What tells whether the file was changed."""
        try:
            found = os.stat(self.file)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _lines(number: int, entry: JsonObject) -> bytes:
    committed = {"generation": number, **{key: value for key, value in entry.items() if key != "records"}}
    return "".join(json.dumps(line) + "\n" for line in (*entry["records"], committed)).encode()


def _require_format(content: Any, expected: int) -> None:
    if content["format"] != expected:
        raise ValueError(f"format {content['format']!r}, expected {expected}")
