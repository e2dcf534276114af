"""A raw data folder of nnU-Net on a real MONAI Label server: what is labelled there is learned from here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aide_monai.io.location import open_location
from aide_monai.label_app.create import create_app
from aide_monai.labels.history import LabelHistory
from tests.bundles.doors import aide
from tests.data.sources.nnunet_files import write_nnunet
from tests.label.server import LabelServer
from tests.label.tiny import tiny_bundle

pytestmark = pytest.mark.label


def test_a_server_learns_from_the_folder_and_labels_its_other_images(label_python: Path, tmp_path: Path) -> None:
    raw, studies = write_nnunet(tmp_path / "raw", test=2), tmp_path / "studies"
    assert aide("prepare", "nnunet", raw, "--out", tmp_path / "list.json") == 0
    assert aide("new-bundle", tmp_path / "made", "--datalist", tmp_path / "list.json", "--root", raw) == 0
    assert aide("prepare", "nnunet", raw, "--out", studies, "--as", "studies") == 0
    bundle = tiny_bundle(tmp_path / "made", tmp_path / "phantoms")
    create_app(tmp_path / "app", bundle, weights=bundle / "models" / "model.pt")
    server = LabelServer(label_python, tmp_path / "app", studies, {})
    try:
        known = server.get("/datastore/?output=all")["objects"]
        assert {name for name, one in known.items() if "final" in one["labels"]} == {
            f"phantom_00{k}" for k in (2, 3, 4)
        }
        assert {name for name, one in known.items() if not one["labels"]} == {"phantom_000", "phantom_005"}
        task = server.train("phantoms")
        assert task["status"] == "DONE", "\n".join(task["details"])
        (tmp_path / "mask.nii.gz").write_bytes(server.infer("phantoms", "phantom_005"))
    finally:
        server.stop()
    mask = open_location(str(tmp_path / "mask.nii.gz"))
    assert mask.grid.mismatch(open_location(str(raw / "imagesTr/phantom_005_0000.nii.gz")).grid) is None
    history = LabelHistory.load(tmp_path / "app" / "model" / "phantoms" / "runs" / "001" / "labels")
    given = open_location(str(raw / "labelsTr/phantom_002.nii.gz")).decode()[..., 0]
    assert np.count_nonzero(history.read(0, 1, "phantom_002")) == np.count_nonzero(given)
