"""The label store: generations, records, immutability, resume, crashes, shared memory, random histories."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch import Tensor

from aide_monai.errors import InputError
from aide_monai.ignored import partial_background
from aide_monai.labels import LabelChange, LabelStore
from aide_monai.losses import IGNORED


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.uint8)


def given_labels() -> dict[str, Tensor]:
    return {"a": zeros(2, 3, 4), "b": zeros(2, 2, 2) + 1, "sure": zeros(1, 2, 2) + 2}


def store_in(folder: Path | None, *, resume: bool = False, labels: dict | None = None) -> LabelStore:
    return LabelStore(labels or given_labels(), high_quality=["sure"], folder=folder, resume=resume)


def full(store: LabelStore, network: int, case: str, value: int, *, epoch: int = 1, dice: float = 0.5) -> LabelChange:
    """Fill one label with one value."""
    label = torch.full_like(store.label(network, case), value)
    return store.replace(network, case, label, epoch=epoch, dice_before=dice)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# In memory


def test_both_networks_start_from_the_given_label() -> None:
    store = store_in(None)
    for case, label in given_labels().items():
        for network in (1, 2):
            assert torch.equal(store.label(network, case), label)
            assert store.label(network, case).dtype == torch.uint8
        assert torch.equal(store.initial(case), label)
    assert store.cases == ("a", "b", "sure")
    assert store.high_quality == {"sure"}
    assert (store.generation, store.epochs, store.records) == (0, [0], [])


def test_replacing_one_network_leaves_the_other() -> None:
    store = store_in(None)
    full(store, 2, "a", 7)
    assert bool((store.label(2, "a") == 7).all())
    assert bool((store.label(1, "a") == 0).all())
    assert bool((store.initial("a") == 0).all())


def test_a_change_is_recorded_when_it_is_committed() -> None:
    store = store_in(None)
    label = zeros(2, 3, 4)
    label[0, 0, :3] = 1
    change = store.replace(1, "a", label, epoch=4, dice_before=torch.tensor(0.25))
    expected = LabelChange(epoch=4, network=1, case="a", slice=None, dice_before=0.25, voxels_changed=3)
    assert change == expected
    assert store.records == []
    assert store.commit(4) == 1
    assert store.records == [expected]
    assert store.epochs == [0, 4]


def test_one_slice_is_replaced_along_its_axis() -> None:
    store = store_in(None)
    change = store.replace(2, "a", torch.ones(2, 4, dtype=torch.int64), epoch=1, dice_before=0.1, index=(1, 2))
    assert change == LabelChange(epoch=1, network=2, case="a", slice=2, dice_before=0.1, voxels_changed=8)
    expected = zeros(2, 3, 4)
    expected[:, 2] = 1
    assert torch.equal(store.label(2, "a"), expected)


def test_commit_without_a_change_makes_no_generation() -> None:
    store = store_in(None)
    assert store.commit(1) == 0
    full(store, 1, "a", 1)
    assert store.commit(2) == 1
    assert store.commit(3) == 1
    assert store.epochs == [0, 2]


def test_high_quality_labels_cannot_be_written() -> None:
    store = store_in(None)
    for network in (1, 2):
        with pytest.raises(PermissionError, match="case 'sure' is high quality; its label cannot be replaced"):
            full(store, network, "sure", 0)
    assert bool((store.label(1, "sure") == 2).all())
    assert store.commit(1) == 0


def test_a_label_of_another_shape_is_refused_and_nothing_changes() -> None:
    store = store_in(None)
    with pytest.raises(ValueError, match=r"new label of 'a' has shape \(2, 3\); expected \(2, 3, 4\)"):
        store.replace(1, "a", zeros(2, 3), epoch=1, dice_before=0.0)
    with pytest.raises(ValueError, match=r"new label of 'a' has shape \(3, 4\); expected \(2, 4\)"):
        store.replace(1, "a", zeros(3, 4), epoch=1, dice_before=0.0, index=(1, 0))
    assert bool((store.label(1, "a") == 0).all())
    assert store.commit(1) == 0


def test_what_was_given_without_a_verdict_is_filled_alone_and_what_was_given_is_replaced_alone() -> None:
    given = torch.tensor([[0, 1, IGNORED]], dtype=torch.uint8)
    store = LabelStore({"a": given, "sure": given.clone()}, high_quality=["sure"])
    ones = torch.ones(1, 3, dtype=torch.uint8)
    assert store.replace(1, "a", ones, epoch=1, dice_before=0.5).voxels_changed == 1
    assert store.label(1, "a").tolist() == [[1, 1, IGNORED]]
    change = store.fill(2, "sure", ones, epoch=1, dice_before=None)
    assert (change.voxels_changed, change.filled, change.dice_before) == (1, True, None)
    assert store.label(2, "sure").tolist() == [[0, 1, 1]]
    assert store.judged(2, "sure").tolist() == [[0, 1, IGNORED]]
    assert store.foreground("sure", store.label(2, "sure")) == 1
    with pytest.raises(PermissionError):
        store.replace(2, "sure", ones, epoch=1, dice_before=0.5)
    with pytest.raises(ValueError, match=r"shape \(1, 2\); expected \(1, 3\)"):
        store.fill(2, "sure", ones[:, :2], epoch=1, dice_before=None)


def test_what_was_not_annotated_is_filled_alone_and_no_correction_denies_it() -> None:
    open_ = partial_background([1], 3)  # class 2 was not looked for
    given = torch.tensor([[1, 1, open_, open_, open_]], dtype=torch.uint8)
    store = LabelStore({"a": given, "sure": given.clone()}, high_quality=["sure"])
    predicted = torch.tensor([[1, 0, 2, 1, 0]], dtype=torch.uint8)
    store.replace(1, "a", predicted, epoch=1, dice_before=0.5)
    assert store.label(1, "a").tolist() == [[1, open_, open_, 1, open_]]
    assert store.foreground("a", store.label(1, "a")) == 2
    store.fill(1, "a", predicted, epoch=1, dice_before=0.5)
    assert store.label(1, "a").tolist() == [[1, 0, 2, 1, 0]]
    assert store.judged(1, "a").tolist() == [[1, open_, open_, 1, open_]]
    assert store.foreground("a", store.label(1, "a")) == 2
    store.fill(2, "sure", predicted, epoch=1, dice_before=0.5)
    assert store.label(2, "sure").tolist() == [[1, 1, 2, open_, 0]]  # that it is no liver was said
    store.fill(2, "sure", predicted.flip(1), epoch=2, dice_before=0.5)  # 0, 1, 2, 0, 1
    assert store.label(2, "sure").tolist() == [[1, 1, 2, 0, 0]]  # what is filled follows the predictions


def test_earlier_generations_need_a_folder() -> None:
    with pytest.raises(InputError, match="this label store has no folder"):
        store_in(None).read(0, 1, "a")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, bool])
def test_any_integer_labels_are_taken(dtype: type) -> None:
    store = LabelStore({"a": np.array([[0, 1]], dtype=dtype)})
    assert store.label(1, "a").tolist() == [[0, 1]]
    assert store.label(1, "a").dtype == torch.uint8


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({}, "the label store got no labels"),
        ({"a": torch.zeros(2, 2)}, "label of case 'a' is float32; expected integer class indices"),
        ({"a": torch.tensor([256])}, r"label of case 'a' is empty or leaves 0\.\.255"),
        ({"a": torch.tensor([-1])}, r"label of case 'a' is empty or leaves 0\.\.255"),
        ({"a": zeros(0, 2)}, "label of case 'a' is empty"),
    ],
)
def test_other_labels_are_refused_by_name(labels: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        LabelStore(labels)


def test_an_unknown_high_quality_case_is_refused() -> None:
    with pytest.raises(InputError, match="high_quality names 'z', which has no label"):
        LabelStore({"a": zeros(1)}, high_quality=["z"])


def test_from_volumes() -> None:
    volumes = [
        {"case": "x", "label": MetaTensor(zeros(1, 2, 2, 2) + 3), "quality": "low"},
        {"case": "y", "label": zeros(1, 2, 2, 1), "quality": "high"},
        {"label": zeros(1, 1, 1, 1)},
    ]
    store = LabelStore.from_volumes(volumes)
    assert store.cases == ("x", "y", "2")
    assert store.high_quality == {"y", "2"}
    assert store.label(2, "x").shape == (2, 2, 2)
    assert bool((store.label(2, "x") == 3).all())
    with pytest.raises(InputError, match="case 'x' has no label; standardise the data set first"):
        LabelStore.from_volumes([{"case": "x"}])


# On disk


def test_the_first_generation_is_written_once_for_both_networks(tmp_path: Path) -> None:
    store = store_in(tmp_path / "run" / "labels")
    assert len([name for name in files_below(tmp_path) if name.endswith(".npz")]) == 3
    for network in (1, 2):
        for case, label in given_labels().items():
            assert torch.equal(store.read(0, network, case), label)


def test_only_changed_labels_are_written(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    before = files_below(tmp_path)
    full(store, 2, "b", 5)
    store.commit(1)
    assert len(files_below(tmp_path) - before) == 1
    full(store, 1, "a", 6)
    full(store, 2, "a", 6)
    full(store, 2, "a", 7)
    store.commit(2)
    assert len(files_below(tmp_path) - before) == 3


def test_every_generation_can_be_read_back(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for epoch, (network, value) in enumerate([(1, 10), (2, 20), (1, 30)], start=1):
        full(store, network, "a", value, epoch=epoch)
        store.commit(epoch)
    values = [[int(store.read(g, network, "a")[0, 0, 0]) for g in range(4)] for network in (1, 2)]
    assert values == [[0, 10, 10, 30], [0, 0, 20, 20]]
    assert store.read(3, 1, "a").dtype == torch.uint8
    for generation in (-1, 4):
        with pytest.raises(InputError, match=rf"there is no generation {generation}; expected 0\.\.3"):
            store.read(generation, 1, "a")


def test_label_files_are_read_only_and_never_rewritten(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    full(store, 1, "a", 1)
    store.commit(1)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.npz")}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o444 for path in files)
    full(store, 1, "a", 2)
    store.commit(2)
    store.rollback(0)
    assert all(path.read_bytes() == content for path, content in files.items())


def test_label_files_hold_plain_arrays(tmp_path: Path) -> None:
    store_in(tmp_path)
    for path in tmp_path.rglob("*.npz"):
        with np.load(path, allow_pickle=False) as stored:
            assert stored["label"].dtype == np.uint8


def test_the_journal_is_readable_and_complete(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    full(store, 1, "a", 1, epoch=3, dice=0.125)
    store.commit(3)
    head, first, record, second = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert head["cases"] == {"a": [2, 3, 4], "b": [2, 2, 2], "sure": [1, 2, 2]}
    assert head["high_quality"] == ["sure"]
    assert (first["generation"], first["epoch"], len(first["files"])) == (0, 0, 6)
    changed = {"slice": None, "dice_before": 0.125, "voxels_changed": 24}
    assert record == {"epoch": 3, "network": 1, "case": "a", **changed}
    assert second == {"generation": 1, "epoch": 3, "files": {"1/a": "generation_0001/00000_network_1.npz"}}


def test_rollback_is_a_new_generation_and_loses_nothing(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    full(store, 1, "a", 1, epoch=1)
    store.commit(1)
    full(store, 1, "a", 2, epoch=2)
    full(store, 2, "b", 3, epoch=2)
    store.commit(2)
    full(store, 2, "a", 9, epoch=3)  # not committed: dropped
    assert store.rollback(1) == 3
    assert bool((store.label(1, "a") == 1).all())
    assert bool((store.label(2, "b") == 1).all())
    assert bool((store.label(2, "a") == 0).all())
    assert store.epochs == [0, 1, 2, 1]
    assert len(store.records) == 3
    assert bool((store.read(2, 1, "a") == 2).all())
    again = store_in(tmp_path, resume=True)
    assert bool((again.label(1, "a") == 1).all())
    assert again.generation == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"no array",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-30],
        lambda whole: whole.replace(whole[60:90], bytes(30)),
    ],
    ids=["empty", "text", "half", "end missing", "bytes changed"],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    store = store_in(tmp_path)
    path = next(path for path in tmp_path.rglob("*.npz") if path.name.startswith("00001"))
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(whole))
    with pytest.raises(InputError, match=r"00001_network_1\.npz: cannot read this stored label"):
        store.read(0, 2, "b")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    next(path for path in tmp_path.rglob("*.npz") if path.name.startswith("00001")).unlink()
    with pytest.raises(InputError, match=r"00001_network_1\.npz: cannot read this stored label .*; restore the run"):
        store.read(0, 2, "b")
    with pytest.raises(InputError, match=r"00001_network_1\.npz"):
        store_in(tmp_path, resume=True)


def test_discard_after_forgets_later_generations(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for epoch in (1, 2, 3):
        full(store, 1, "a", epoch, epoch=epoch)
        full(store, 2, "b", 10 * epoch, epoch=epoch)
        store.commit(epoch)
    full(store, 2, "a", 99)  # not committed: dropped
    store.discard_after(1)
    assert store.generation == 1
    assert store.epochs == [0, 1]
    assert [record.epoch for record in store.records] == [1, 1]
    assert bool((store.label(1, "a") == 1).all())
    assert bool((store.label(2, "b") == 10).all())
    assert bool((store.label(2, "a") == 0).all())
    full(store, 1, "a", 77, epoch=2)
    assert store.commit(2) == 2
    again = store_in(tmp_path, resume=True)
    assert bool((again.label(1, "a") == 77).all())
    assert bool((again.label(2, "b") == 10).all())
    with pytest.raises(InputError, match="there is no generation 5"):
        store.discard_after(5)


# Resume and crashes


def test_a_used_folder_is_refused_unless_resumed(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    full(store, 1, "a", 4, epoch=2)
    store.commit(2)
    with pytest.raises(InputError, match=r"already holds the labels of a run; .* pass --resume"):
        store_in(tmp_path)
    again = store_in(tmp_path, resume=True)
    assert again.generation == 1
    assert again.records == store.records
    assert bool((again.label(1, "a") == 4).all())
    assert bool((again.label(2, "a") == 0).all())
    assert bool((again.initial("a") == 0).all())
    full(again, 2, "a", 5, epoch=3)
    assert again.commit(3) == 2
    assert bool((again.read(2, 1, "a") == 4).all())
    assert bool((again.read(2, 2, "a") == 5).all())


def test_resuming_an_unused_folder_starts_anew(tmp_path: Path) -> None:
    assert store_in(tmp_path, resume=True).generation == 0
    assert (tmp_path / "journal.jsonl").exists()


@pytest.mark.parametrize(
    "labels",
    [
        {"a": zeros(2, 3, 4), "b": zeros(2, 2, 2)},
        {"a": zeros(2, 3, 4), "b": zeros(2, 2, 3), "sure": zeros(1, 2, 2)},
        {"a": zeros(2, 3, 4), "c": zeros(2, 2, 2), "sure": zeros(1, 2, 2)},
    ],
)
def test_other_cases_are_refused(tmp_path: Path, labels: dict[str, Tensor]) -> None:
    store_in(tmp_path)
    quality = ["sure"] if "sure" in labels else []
    with pytest.raises(InputError, match="differ in name, shape or quality"):
        LabelStore(labels, high_quality=quality, folder=tmp_path, resume=True)


def test_another_quality_is_refused(tmp_path: Path) -> None:
    store_in(tmp_path)
    with pytest.raises(InputError, match="differ in name, shape or quality"):
        LabelStore(given_labels(), folder=tmp_path, resume=True)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"cases": {}}', '{"generations": [], "high_quality": []}'])
def test_a_damaged_journal_is_named(tmp_path: Path, content: str) -> None:
    store_in(tmp_path)
    (tmp_path / "journal.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"journal\.jsonl: not a readable journal of labels .*; start in a new folder"):
        store_in(tmp_path, resume=True)


def test_files_of_an_uncommitted_generation_are_ignored_and_replaced(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    full(store, 1, "a", 1)
    store.commit(1)
    left = tmp_path / "generation_0002"  # killed after the files, before the journal
    left.mkdir()
    name = "00000_network_1.npz"
    np.savez_compressed(left / name, label=np.full((2, 3, 4), 66, dtype=np.uint8))
    (left / name).chmod(0o444)
    (left / "00001_network_2.npz").write_bytes(b"half a fi")
    (tmp_path / "journal.tmp").write_text("{ half a jour")
    again = store_in(tmp_path, resume=True)
    assert again.generation == 1
    assert bool((again.label(1, "a") == 1).all())
    full(again, 1, "a", 2, epoch=2)
    assert again.commit(2) == 2
    assert bool((again.read(2, 1, "a") == 2).all())
    assert {path.name for path in left.iterdir()} == {name}


def test_files_left_by_a_start_that_died_are_replaced(tmp_path: Path) -> None:
    left = tmp_path / "generation_0000"
    left.mkdir()
    (left / "00000_network_1.npz").write_bytes(b"half a fi")
    store = store_in(tmp_path)
    assert torch.equal(store.read(0, 1, "a"), given_labels()["a"])


def test_a_failed_write_leaves_the_committed_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_in(tmp_path)
    full(store, 1, "a", 1)
    store.commit(1)
    journal = (tmp_path / "journal.jsonl").read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    full(store, 1, "a", 2, epoch=2)
    with monkeypatch.context() as broken:
        broken.setattr("aide_monai.labels.journal.os.write", fail)
        with pytest.raises(InputError, match=r"journal\.jsonl: cannot be written \(no space left on device\)"):
            store.commit(2)
    assert (tmp_path / "journal.jsonl").read_bytes() == journal
    again = store_in(tmp_path, resume=True)
    assert again.generation == 1
    assert bool((again.label(1, "a") == 1).all())
    full(again, 1, "a", 3, epoch=2)
    assert again.commit(2) == 2
    assert bool((store_in(tmp_path, resume=True).label(1, "a") == 3).all())


def test_a_failed_commit_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_in(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    full(store, 1, "a", 2)
    with monkeypatch.context() as broken:
        broken.setattr("aide_monai.labels.journal.os.write", fail)
        with pytest.raises(InputError, match="no space left"):
            store.commit(1)
    assert store.generation == 0
    assert store.commit(1) == 1
    assert bool((store_in(tmp_path, resume=True).label(1, "a") == 2).all())


# Shared memory


def _fill_with_nine(label: Tensor) -> None:
    label.fill_(9)


def test_labels_are_shared_between_processes() -> None:
    store = store_in(None)
    assert all(store.label(network, case).is_shared() for network in (1, 2) for case in store.cases)
    process = multiprocessing.get_context("fork").Process(target=_fill_with_nine, args=(store.label(1, "a"),))
    process.start()
    process.join(20)
    assert process.exitcode == 0
    assert bool((store.label(1, "a") == 9).all())
    assert bool((store.label(2, "a") == 0).all())


def test_a_change_keeps_the_memory_that_others_look_at(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    seen = store.label(1, "a")
    full(store, 1, "a", 3)
    store.commit(1)
    assert bool((seen == 3).all())
    store.rollback(0)
    assert bool((seen == 0).all())
    store.discard_after(1)
    assert bool((seen == 3).all())


# Random histories against a model


class Model:
    """What a label store promises, with dictionaries."""

    def __init__(self) -> None:
        self.now = {(n, case): label.clone() for n in (1, 2) for case, label in given_labels().items()}
        self.history = [self._copy()]
        self.records: list[tuple] = []
        self.staged: list[tuple] = []

    def _copy(self) -> dict[tuple[int, str], Tensor]:
        return {key: label.clone() for key, label in self.now.items()}

    def replace(self, network: int, case: str, position: int | None, value: int, epoch: int) -> None:
        target = self.now[network, case] if position is None else self.now[network, case][:, position]
        changed = sum(int(old != value) for old in target.flatten().tolist())
        target.fill_(value)
        self.staged.append((epoch, network, case, position, changed))

    def commit(self) -> None:
        if self.staged:
            self.records += self.staged
            self.staged = []
            self.history.append(self._copy())

    def rollback(self, generation: int) -> None:
        self.now = {key: label.clone() for key, label in self.history[generation].items()}
        self.staged = []
        self.history.append(self._copy())


def assert_same(store: LabelStore, model: Model) -> None:
    assert store.generation == len(model.history) - 1
    assert [(r.epoch, r.network, r.case, r.slice, r.voxels_changed) for r in store.records] == model.records
    for key, label in model.now.items():
        assert torch.equal(store.label(*key), label)


ACTIONS = st.one_of(
    st.tuples(
        st.just("replace"),
        st.sampled_from([1, 2]),
        st.sampled_from(["a", "b"]),
        st.sampled_from([None, 0, 1]),
        st.integers(0, 3),
    ),
    st.tuples(st.just("commit")),
    st.tuples(st.just("rollback"), st.integers(0, 10)),
    st.tuples(st.just("resume")),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(ACTIONS, max_size=12))
def test_any_history_can_be_read_back(actions: list[tuple]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, model = store_in(folder), Model()
        for epoch, (kind, *arguments) in enumerate(actions, start=1):
            if kind == "replace":
                network, case, position, value = arguments
                target = store.label(network, case) if position is None else store.label(network, case)[:, position]
                index = None if position is None else (1, position)
                label = torch.full_like(target, value)
                store.replace(network, case, label, epoch=epoch, dice_before=0.0, index=index)
                model.replace(network, case, position, value, epoch)
            elif kind == "commit":
                store.commit(epoch)
                model.commit()
            elif kind == "rollback":
                generation = arguments[0] % len(model.history)
                store.rollback(generation)
                model.rollback(generation)
            else:  # what was not committed is lost
                store = store_in(folder, resume=True)
                model.now = {key: label.clone() for key, label in model.history[-1].items()}
                model.staged = []
            assert_same(store, model)
        store = store_in(folder, resume=True)
        for generation, labels in enumerate(model.history):
            for key, label in labels.items():
                assert torch.equal(store.read(generation, *key), label)
        assert {path.name for path in folder.iterdir() if path.is_file()} == {"journal.jsonl"}
        for path in folder.rglob("*.npz"):
            assert not os.stat(path).st_mode & stat.S_IWUSR
