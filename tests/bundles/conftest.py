"""Data for the bundles, written once for all tests of a process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundles.doors import ROOT, aide
from tests.bundles.layouts import ALL, OWN


@pytest.fixture(scope="session")
def data_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of tiny data of a bundle, in the layout in which its data set is downloaded."""

    @functools.cache
    def write(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        ALL[name].write(folder)
        return folder

    return write


@pytest.fixture(scope="session")
def bundle_of(data_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a bundle; that for one's own data is written by the command."""

    @functools.cache
    def find(name: str) -> Path:
        if name != OWN:
            return ROOT / name
        folder = tmp_path_factory.mktemp("bundles") / name
        assert aide("new-bundle", folder, "--datalist", data_of(name) / "datalist.json") == 0
        return folder

    return find
