"""Tiny data sets for the workflows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.stream.preprocessing import load_volumes, volume_transforms
from aide_monai.workflows.prepare import prepare_datalist

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """Six phantoms of 32 x 32 x 6 voxels in the Decathlon layout."""
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), cases=6, shape=(32, 32, 6), spacing_mm=(6, 6, 20))


@pytest.fixture(scope="session")
def moved_labels(phantoms) -> list[dict]:
    """Volumes of one trusted case, and of three with a poor label: the clean one, moved by four pixels."""
    datalist = prepare_datalist(phantoms, labeled=1, unlabeled=3)
    transform = volume_transforms(keys=["image", "label", "clean_label"], axis=2, slice_size=(32, 32))
    return [
        {**v, "quality": "high"} if "label" in v else {**v, "label": v["clean_label"].roll(4, dims=1), "quality": "low"}
        for v in load_volumes(datalist.split("training"), transform)
    ]
