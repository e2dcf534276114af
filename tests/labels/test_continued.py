"""A store that continues an earlier run's: its generations stay, and every label begins where it should."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from aide_monai.errors import InputError
from aide_monai.labels import LabelStore
from aide_monai.labels.history import LabelHistory
from aide_monai.workflows.labels import diff, list_generations, rollback

SHAPE = (2, 3, 1)


def filled(value: int) -> torch.Tensor:
    return torch.full(SHAPE, value, dtype=torch.uint8)


def store_of(values: Mapping[str, int], trusted: Sequence[str], folder: Path, **options: object) -> LabelStore:
    labels = {case: filled(value) for case, value in values.items()}
    return LabelStore(labels, high_quality=trusted, folder=folder / "labels", **options)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """Four doubtful cases of zeros and a trusted one of fives; network N has N in all doubtful ones by epoch 3."""
    store = store_of({"a": 0, "b": 0, "c": 0, "gone": 0, "sure": 5}, ["sure"], tmp_path / "first")
    for network in (1, 2):
        for case in ("a", "b", "c", "gone"):
            store.replace(network, case, filled(network), epoch=3, dice_before=0.5)
    store.commit(3)
    return tmp_path / "first"


def second(first: Path, folder: Path, **options: object) -> LabelStore:
    """a is given as before, b was reviewed, c was drawn anew but is still doubtful, and d is new."""
    values = {"d": 6, "a": 0, "b": 7, "c": 8, "sure": 5}
    return store_of(values, ["sure", "b"], folder, start=first, **options)


def labels(store: LabelStore) -> dict[str, tuple[int, int]]:
    return {case: tuple(int(store.label(n, case).max()) for n in (1, 2)) for case in store.cases}


BEGUN = {"d": (6, 6), "a": (1, 2), "b": (7, 7), "c": (8, 8), "sure": (5, 5)}


def test_every_label_begins_where_it_should(first: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = second(first, tmp_path / "second")
    assert labels(store) == BEGUN
    assert store.beginning == store.generation == 2
    told = "continued from generation 1: 2 kept (a, sure); 1 reviewed (b); 1 changed (c); 1 new (d); 1 left out (gone)"
    assert told in caplog.text
    with pytest.raises(PermissionError):
        store.replace(1, "b", filled(0), epoch=1, dice_before=0.5)


def test_the_history_stays_without_the_earlier_folder(first: Path, tmp_path: Path) -> None:
    second(first, tmp_path / "second")
    shutil.rmtree(first)
    rows = list_generations(tmp_path / "second")
    assert [row["change"] for row in rows] == ["as given", "corrected", "as given, after first"]
    assert [row["epoch"] for row in rows] == [0, 3, 0]
    assert [row["cases"] for row in rows] == [5, 3, 2]
    history = LabelHistory.load(tmp_path / "second" / "labels")
    read = {case: [int(history.read(g, 2, case).max()) for g in range(3)] for case in history.shapes}
    assert read == {"d": [6, 6, 6], "a": [0, 2, 2], "b": [0, 2, 7], "c": [0, 2, 8], "sure": [5, 5, 5]}
    assert {(row["case"], *row["networks"]) for row in diff(tmp_path / "second", 1, 2)} == {
        (case, network) for case in "bc" for network in (1, 2)
    }


def test_trusted_labels_survive_a_return_to_the_earlier_run(first: Path, tmp_path: Path) -> None:
    second(first, tmp_path / "second")
    assert rollback(tmp_path / "second", 0) == 3
    store = second(first, tmp_path / "second", resume=True)
    assert labels(store) == {**BEGUN, "a": (0, 0), "c": (0, 0)}


def test_a_run_killed_before_its_first_epoch_resumes_from_its_own_beginning(first: Path, tmp_path: Path) -> None:
    store = second(first, tmp_path / "second")
    store.replace(1, "a", filled(9), epoch=1, dice_before=0.5)
    store.commit(1)
    again = second(first, tmp_path / "second", resume=True)
    again.resume_from(again.beginning)
    assert labels(again) == BEGUN
    third = store_of({"a": 0, "b": 7}, ["b"], tmp_path / "third", start=tmp_path / "second")
    assert labels(third) == {"a": (1, 2), "b": (7, 7)}
    assert third.beginning == 3


def test_what_cannot_be_continued_is_refused_and_leaves_nothing(first: Path, tmp_path: Path) -> None:
    other = {"a": torch.zeros((2, 2, 1), dtype=torch.uint8), "b": filled(0)}
    with pytest.raises(
        InputError, match=r'case "a": found shape \(2, 3, 1\); expected \(2, 2, 1\), as this run'
    ) as caught:
        LabelStore(other, folder=tmp_path / "second" / "labels", start=first)
    assert len(caught.value.problems) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no labels of a run"):
        LabelStore(other, folder=tmp_path / "second" / "labels", start=tmp_path / "empty")
    with pytest.raises(InputError, match="has no folder; expected one to continue"):
        LabelStore({"a": filled(0)}, start=first)
    assert not (tmp_path / "second" / "labels" / "journal.jsonl").exists()
