"""Folders that one process at a time works in."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aide_monai.errors import InputError
from aide_monai.utils.locks import is_locked, lock_folder, locked, locks_of_this_block
from tests.holder import held_by_another


def test_a_second_process_is_refused_by_name_until_the_first_one_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with held_by_another(folder) as first:
        assert is_locked(folder)
        with pytest.raises(InputError, match=r"new/run: another run is at work in this folder; expected one at a time"):
            lock_folder(folder)
        first.kill()
        first.wait()
        assert not is_locked(folder)
    with locked(folder):
        assert is_locked(folder)


def test_a_process_may_lock_its_own_folder_again_and_the_outer_block_lets_go(tmp_path: Path) -> None:
    link = tmp_path / "link"
    (tmp_path / "run").mkdir()
    link.symlink_to(tmp_path / "run")
    with locks_of_this_block():
        lock_folder(tmp_path / "run")
        assert not lock_folder(link)
        with pytest.raises(InputError, match="another run is at work"), locked(link):
            pass
        with locked(tmp_path / "other"):
            assert is_locked(tmp_path / "other")
        assert is_locked(tmp_path / "run")
        assert not is_locked(tmp_path / "other")
    assert not is_locked(tmp_path / "run")
    with held_by_another(tmp_path / "run"):
        assert is_locked(tmp_path / "run")


def test_a_folder_that_nobody_has_locked_stays_empty(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert not is_locked(tmp_path / "nothing")
    assert not list(tmp_path.iterdir())


def test_a_worker_that_was_forked_off_neither_keeps_nor_loses_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    go_on = context.Event()
    with locked(tmp_path):
        short, long = context.Process(target=int), context.Process(target=go_on.wait)
        short.start()
        long.start()
        short.join()
        check = "import sys; from aide_monai.utils.locks import is_locked; print(is_locked(sys.argv[1]))"
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        found = subprocess.check_output([sys.executable, "-c", check, str(tmp_path)], env=environment, text=True)
        assert found == "True\n"
    with held_by_another(tmp_path):  # while the long one lives
        go_on.set()
    long.join()
