"""Generations on disk: killed commits, refused writes, rollbacks that lose nothing, one writer at a time."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aide_monai.errors import InputError
from aide_monai.labels import LabelStore
from aide_monai.labels.file_grid import LabelGrid
from aide_monai.labels.history import LabelHistory

from .kill_at_line import killed_at

CASES = ("a", "b", "sure")
EYE = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))
GRID = LabelGrid(affine=EYE, original_affine=EYE, original_shape=(2, 3, 4))
WRITER = ("/labels/journal.py",)
OWN_FILES = ("/labels/history.py", "/utils/files.py", *WRITER)


def store_in(folder: Path, *, resume: bool = False, **options: Any) -> LabelStore:
    labels = {case: torch.full((2, 3, 4), number, dtype=torch.uint8) for number, case in enumerate(CASES)}
    return LabelStore(labels, high_quality=["sure"], folder=folder, resume=resume, **options)


def fill(store: LabelStore, network: int, case: str, value: int, *, epoch: int) -> None:
    store.replace(network, case, torch.full_like(store.label(1, case), value), epoch=epoch, dice_before=0.5)


def three_generations(folder: Path) -> LabelStore:
    """Generation g holds g for network 1 and case a, and 10 g for network 2 and case b."""
    store = store_in(folder)
    for epoch in (1, 2, 3):
        fill(store, 1, "a", epoch, epoch=epoch)
        fill(store, 2, "b", 10 * epoch, epoch=epoch)
        store.commit(epoch)
    return store


def values(labels: LabelStore | LabelHistory, generation: int | None = None) -> list[int]:
    """The values that fill all six labels, of both networks, case by case."""

    def label(network: int, case: str) -> Tensor:
        if generation is None:
            assert isinstance(labels, LabelStore)
            return labels.label(network, case)
        return labels.read(generation, network, case)

    found = [label(network, case).unique().tolist() for network in (1, 2) for case in CASES]
    assert all(len(one) == 1 for one in found)
    return [one[0] for one in found]


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("change", "files", "step"),
    [("commit", OWN_FILES, 3), ("commit", WRITER, 1), ("rollback", WRITER, 1)],
    ids=["commit, every third line", "commit, its journal", "rollback"],
)
def test_killed_at_any_line_a_generation_is_there_or_not(
    tmp_path: Path, change: str, files: tuple[str, ...], step: int
) -> None:
    expected = {"commit": [7, 1, 2, 0, 8, 2], "rollback": [0, 1, 2, 0, 1, 2]}[change]
    ends: list[bool] = []
    line = 1
    three_generations(tmp_path / "template")
    while True:
        folder = tmp_path / str(line)
        shutil.copytree(tmp_path / "template", folder)
        store = store_in(folder, resume=True)
        fill(store, 1, "a", 7, epoch=4)
        fill(store, 2, "b", 8, epoch=4)
        committed = partial(store.commit, 4) if change == "commit" else partial(store.rollback, 0)
        killed = killed_at(line, committed, files=files)
        again = store_in(folder, resume=True)
        ends.append(again.generation == 4)
        assert values(again) == (expected if ends[-1] else [3, 1, 2, 0, 30, 2])
        assert [values(again, generation) for generation in (0, 2)] == [[0, 1, 2, 0, 1, 2], [2, 1, 2, 0, 20, 2]]
        # nothing unfinished is left, and the next commit works
        assert {path.name for path in folder.iterdir() if path.is_file()} == {"journal.jsonl"}
        kept = len(list(folder.glob("generation_*")))
        assert kept == (5 if ends[-1] and change == "commit" else 4)
        if line % 10 < step:
            fill(again, 1, "b", 9, epoch=5)
            again.commit(5)
            assert values(store_in(folder, resume=True))[1] == 9
        if not killed:
            break
        line += step
    assert ends == sorted(ends)  # once it is there, it stays
    assert 8 < ends.index(True) < len(ends) - 1


@pytest.mark.parametrize("name", ["open", "fsync", "write"])
def test_a_refused_commit_leaves_no_trace_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    store = three_generations(tmp_path)
    before = everything_below(tmp_path)
    fill(store, 1, "a", 7, epoch=4)
    fill(store, 2, "b", 8, epoch=4)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as broken:
        broken.setattr(io if name == "open" else os, name, refuse)
        with pytest.raises(
            InputError, match=r"(npz|journal\.jsonl): cannot be written \(Read-only file system\); expected"
        ):
            store.commit(4)
    assert everything_below(tmp_path) == before
    assert not (tmp_path / "generation_0004").exists()
    assert store.generation == 3
    assert store.commit(4) == 4
    assert values(store_in(tmp_path, resume=True)) == [7, 1, 2, 0, 8, 2]


def test_a_commit_that_cannot_be_taken_back_keeps_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines are in place when the disk fails, so that nothing they name may be removed."""
    store = three_generations(tmp_path)
    fill(store, 1, "a", 7, epoch=4)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    fsync, journal = os.fsync, (tmp_path / "journal.jsonl").stat()
    monkeypatch.setattr(
        os, "fsync", lambda file: refuse() if os.path.samestat(os.fstat(file), journal) else fsync(file)
    )
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(InputError, match=r"journal\.jsonl: cannot be written \(Input/output error\)"):
        store.commit(4)
    monkeypatch.undo()
    again = store_in(tmp_path, resume=True)
    assert again.generation == 4
    assert values(again) == [7, 1, 2, 0, 30, 2]


def test_a_commit_appends_what_has_changed(tmp_path: Path) -> None:
    store = three_generations(tmp_path)
    path = tmp_path / "journal.jsonl"
    sizes = [path.stat().st_size]
    before = path.read_bytes()
    for epoch in range(4, 40):
        fill(store, 1, "a", epoch, epoch=epoch)
        store.commit(epoch)
        sizes.append(path.stat().st_size)
    assert path.read_bytes().startswith(before)
    grown = [later - earlier for earlier, later in itertools.pairwise(sizes)]
    assert max(grown) - min(grown) < 10  # digits of numbers


def test_a_commit_that_was_cut_off_anywhere_does_not_count(tmp_path: Path) -> None:
    store = three_generations(tmp_path / "whole")
    path = tmp_path / "whole" / "journal.jsonl"
    before = path.read_bytes()
    fill(store, 1, "a", 7, epoch=4)
    fill(store, 2, "b", 8, epoch=4)
    store.commit(4)
    added = path.read_bytes()[len(before) :]
    assert added.count(b"\n") == 3
    for length in range(len(added)):
        path.write_bytes(before + added[:length])
        assert LabelHistory.load(path.parent).generation == 3
    again = store_in(path.parent, resume=True)
    assert path.read_bytes() == before
    assert values(again) == [3, 1, 2, 0, 30, 2]
    path.write_bytes(before + added[:50])
    fill(again, 1, "a", 9, epoch=4)
    with pytest.raises(InputError, match="another program has changed the labels"):
        again.commit(4)


def as_manifest(folder: Path) -> Path:
    """The journal as the file that stores had before."""
    history = LabelHistory.load(folder)
    content = json.loads((folder / "journal.jsonl").read_text().splitlines()[0])
    generations = [entry.as_json() for entry in history.generations]
    path = folder / "manifest.json"
    path.write_text(json.dumps({**content, "format": 1, "generations": generations}, indent=1))
    (folder / "journal.jsonl").unlink()
    return path


@pytest.mark.parametrize("change", ["commit", "rollback", "discard"])
def test_a_manifest_of_an_older_store_is_read_and_becomes_a_journal(tmp_path: Path, change: str) -> None:
    three_generations(tmp_path / "old")
    three_generations(tmp_path / "new")
    path = as_manifest(tmp_path / "old")
    old, new = store_in(tmp_path / "old", resume=True), store_in(tmp_path / "new", resume=True)
    assert path.exists()  # looking changes nothing
    assert old.records == new.records
    for store in (old, new):
        fill(store, 1, "a", 7, epoch=4)
        if change == "commit":
            store.commit(4)
        elif change == "rollback":
            store.rollback(1)
        else:
            store.discard_after(1)
    assert everything_below(tmp_path / "old") == everything_below(tmp_path / "new")
    assert "journal.jsonl" in everything_below(tmp_path / "old")


def test_a_rollback_points_at_older_files_and_writes_no_label(tmp_path: Path) -> None:
    store = three_generations(tmp_path)
    before = everything_below(tmp_path)
    assert store.rollback(1) == 4
    after = everything_below(tmp_path)
    assert {name for name in after if after[name] != before.get(name)} == {"journal.jsonl"}
    entry = LabelHistory.load(tmp_path).generations[4]
    assert (entry.rollback_to, entry.epoch, entry.records) == (1, 1, ())
    assert set(entry.files) == {"1/a", "2/b"}
    assert store.rollback(3) == 5  # and back again
    assert values(store) == [3, 1, 2, 0, 30, 2]
    assert [values(store, generation)[0] for generation in range(6)] == [0, 1, 2, 3, 1, 3]
    fill(store, 1, "a", 9, epoch=4)
    store.commit(4)
    store.discard_after(5)
    assert [values(store, generation)[0] for generation in range(6)] == [0, 1, 2, 3, 1, 3]


def test_a_rollback_to_a_damaged_label_changes_nothing(tmp_path: Path) -> None:
    store = three_generations(tmp_path)
    path = tmp_path / LabelHistory.load(tmp_path).file(1, 2, "b")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:100])
    journal = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"generation_0001/00001_network_2\.npz: cannot read this stored label"):
        store.rollback(1)
    assert (tmp_path / "journal.jsonl").read_bytes() == journal
    assert values(store) == [3, 1, 2, 0, 30, 2]


def test_a_resumed_run_drops_what_it_had_not_saved_but_no_rollback(tmp_path: Path) -> None:
    three_generations(tmp_path)

    def resumed(checkpoint: int, change: Callable[[LabelStore], Any] = lambda _: None) -> LabelStore:
        change(store_in(tmp_path, resume=True))
        store = store_in(tmp_path, resume=True)
        store.resume_from(checkpoint)
        assert values(store) == values(store_in(tmp_path, resume=True))
        return store

    def commit(store: LabelStore) -> None:
        fill(store, 1, "b", 77, epoch=9)
        store.commit(9)

    assert resumed(3).generation == 3
    # killed in the epoch after checkpoint 2, then rolled back by hand: what was seen then is still there
    store = resumed(2, lambda store: store.rollback(1))
    assert (store.generation, values(store)) == (4, [1, 1, 2, 0, 10, 2])
    assert values(store, 3) == [3, 1, 2, 0, 30, 2]
    # killed again after another commit: back to the rollback
    assert (resumed(2, commit).generation, values(store)) == (4, [1, 1, 2, 0, 10, 2])
    # saved after the rollback: an ordinary generation from then on
    assert resumed(4, commit).generation == 4
    assert resumed(3, lambda store: store.discard_after(3)).generation == 3
    assert resumed(2).generation == 2
    with pytest.raises(InputError, match=r"there is no generation 5; expected 0\.\.2"):
        resumed(5)


@pytest.mark.parametrize("change", ["commit", "rollback", "discard"])
def test_two_writers_at_a_time_are_refused(tmp_path: Path, change: str) -> None:
    first = three_generations(tmp_path)
    second = store_in(tmp_path, resume=True)
    second.rollback(1)
    fill(first, 1, "a", 9, epoch=4)
    journal = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(
        InputError, match=r"journal\.jsonl: another program has changed the labels .*; expected one at a"
    ):
        {
            "commit": lambda: first.commit(4),
            "rollback": lambda: first.rollback(0),
            "discard": lambda: first.discard_after(0),
        }[change]()
    assert (tmp_path / "journal.jsonl").read_bytes() == journal
    assert not (tmp_path / "generation_0004").exists()
    assert values(store_in(tmp_path, resume=True)) == [1, 1, 2, 0, 10, 2]


def test_two_starts_in_one_new_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one starts after the first has looked whether the folder is new."""
    append = LabelHistory.append

    def late(self: LabelHistory, *arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(LabelHistory, "append", append)
        store_in(tmp_path)
        append(self, *arguments, **options)

    monkeypatch.setattr(LabelHistory, "append", late)
    with pytest.raises(InputError, match="another program has changed the labels"):
        store_in(tmp_path)
    assert values(store_in(tmp_path, resume=True)) == [0, 1, 2, 0, 1, 2]


def test_a_resume_removes_what_was_not_committed(tmp_path: Path) -> None:
    three_generations(tmp_path)
    whole = everything_below(tmp_path)
    (tmp_path / "generation_0004").mkdir()
    (tmp_path / "generation_0004" / "00000_network_1.npz").write_bytes(b"half a fi")
    (tmp_path / ".journal.jsonl.tmp").write_text("{ half a jour")
    (tmp_path / "generation_of_mine").mkdir()
    (tmp_path / "generation_of_mine" / "notes.txt").write_text("mine")
    LabelHistory.load(tmp_path)  # looking changes nothing
    assert (tmp_path / ".journal.jsonl.tmp").exists()
    store_in(tmp_path, resume=True)
    assert everything_below(tmp_path) == whole | {"generation_of_mine/notes.txt": b"mine"}


def test_the_grids_of_the_labels_are_kept(tmp_path: Path) -> None:
    store_in(tmp_path, grids={"a": GRID})
    assert LabelHistory.load(tmp_path).grids == {"a": GRID}
    # what is known first stays, what becomes known is added with the next commit
    other = LabelGrid(affine=EYE, original_affine=EYE, original_shape=(9, 9, 9))
    store = store_in(tmp_path, resume=True, grids={"a": other, "b": other})
    fill(store, 1, "a", 5, epoch=1)
    store.commit(1)
    assert LabelHistory.load(tmp_path).grids == {"a": GRID, "b": other}


def test_a_manifest_without_grids_is_as_good(tmp_path: Path) -> None:
    three_generations(tmp_path)
    path = as_manifest(tmp_path)
    content = json.loads(path.read_text())
    del content["grids"]
    path.write_text(json.dumps(content))
    assert LabelHistory.load(tmp_path).grids == {}
    assert values(store_in(tmp_path, resume=True)) == [3, 1, 2, 0, 30, 2]


@pytest.mark.parametrize(
    "change",
    [
        {"grids": {"a": {"affine": [[1]], "original_affine": [[1]], "original_shape": [1]}}},
        {"grids": {"a": {}}},
        {"grids": []},
        {"cases": [1]},
        {"generations": []},
        {"generations": [{"epoch": 0, "records": [{"epoch": 1}], "files": {}}]},
        {"format": 2},
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    three_generations(tmp_path)
    path = as_manifest(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(
        InputError, match=r"manifest\.json: not a readable journal of labels \(.+\); start in a new folder"
    ):
        LabelHistory.load(tmp_path)


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        (0, '{"format": 2, "cases": [1], "high_quality": []}'),
        (0, '{"format": 1}'),
        (0, "null"),
        (1, "{"),
        (1, "[]"),
        (1, '{"generation": 1, "epoch": 0, "files": {}}'),
        (2, '{"epoch": 1}'),
        (3, ""),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: int, instead: str) -> None:
    three_generations(tmp_path)
    path = tmp_path / "journal.jsonl"
    lines = path.read_text().splitlines()
    lines[line] = instead
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(
        InputError, match=r"journal\.jsonl: not a readable journal of labels \(.+\); start in a new folder"
    ):
        LabelHistory.load(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "journal.jsonl"])
def test_a_journal_that_nests_deeply_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[" * 100_000 + "]" * 100_000 + "\n")
    with pytest.raises(InputError, match=rf"{name}: not a readable journal of labels \(.+\); start in a new folder"):
        LabelHistory.load(tmp_path)


def test_a_missing_journal_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"journal\.jsonl: not a readable journal of labels \(.*No such file"):
        LabelHistory.load(tmp_path / "absent")
