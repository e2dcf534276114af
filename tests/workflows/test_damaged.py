"""Deliberately damaged copies of data sets: the check names every fault, and says nothing of the sound ones."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aide_monai.workflows import check

from .damage import DAMAGES, MAKERS, Copy


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, aide_data: Path) -> Callable[[str], Path]:
    """Folder of a sound data set, made when it is first asked for."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "data"
            made[name].mkdir()
            MAKERS[name](made[name], aide_data)
        return made[name]

    return folder


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_draw", lambda *_: [])  # what they show is tested elsewhere, and takes a second each


@pytest.mark.parametrize("name", MAKERS)
def test_the_sound_data_sets_are_silent(sound: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    report = check.check_data(sound(name) / "datalist.json", tmp_path)
    assert [str(problem) for problem in report.problems] == []


@pytest.mark.parametrize(
    ("name", "damage", "told"), DAMAGES, ids=[f"{name}-{damage.__name__}" for name, damage, _ in DAMAGES]
)
def test_each_fault_is_named(
    sound: Callable[[str], Path], tmp_path: Path, name: str, damage: Callable[[Copy], None], told: str
) -> None:
    shutil.copytree(sound(name), tmp_path / "data")
    copy = Copy(tmp_path / "data")
    damage(copy)
    copy.save()
    report = check.check_data(copy.datalist, tmp_path / "out")
    lines = [f"{problem.severity} {problem}" for problem in report.problems]
    assert any(re.search(told, line, re.DOTALL) for line in lines), lines
    for problem in report.problems:
        assert all((problem.found, problem.expected, problem.advice)), problem
    assert (report.errors > 0) == any(line.startswith("error") for line in lines)


def test_there_are_enough_of_them() -> None:
    assert len({damage for _, damage, _ in DAMAGES}) == len(DAMAGES) >= 40
