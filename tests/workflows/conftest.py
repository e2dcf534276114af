"""Tiny data sets for the workflows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aide_monai.data.sources.phantom import write_phantoms

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """Six phantoms of 32 x 32 x 6 voxels in the Decathlon layout."""
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), cases=6, shape=(32, 32, 6), spacing_mm=(6, 6, 20))
