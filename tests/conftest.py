"""Shared fixtures. Real scans are found through AIDE_DATA and never enter the repository."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import monai.bundle  # noqa: F401  its loggers keep the standard error of their import, which must be no test's own
import pytest


@pytest.fixture(scope="session")
def aide_data() -> Path:
    """Folder with the real scans: the environment variable AIDE_DATA, else ../shared/data beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("AIDE_DATA", default))
    if not folder.is_dir():
        pytest.skip("real scans not found: set AIDE_DATA to the folder that holds chaos/, msd_hippocampus/, ...")
    return folder


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Take a bundle's log handler off again: it writes to the captured output of the test that ran it."""
    before = logging.getLogger().handlers[:]
    yield
    for handler in set(logging.getLogger().handlers) - set(before):
        if type(handler) is logging.StreamHandler:
            logging.getLogger().removeHandler(handler)
