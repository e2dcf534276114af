"""Shared fixtures. Real scans are found through AIDE_DATA and never enter the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def aide_data() -> Path:
    """Folder with the real scans: the environment variable AIDE_DATA, else ../shared/data beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("AIDE_DATA", default))
    if not folder.is_dir():
        pytest.skip("real scans not found: set AIDE_DATA to the folder that holds chaos/, msd_hippocampus/, ...")
    return folder
