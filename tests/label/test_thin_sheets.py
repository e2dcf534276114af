"""A thin sheet keeps its volume and its place through a real MONAI Label server whose model works on other pixels."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from aide_monai.label_app.create import create_app, initial_network
from tests.label.server import LabelServer
from tests.label.tiny import tiny_bundle
from tests.workflows.test_thin_sheets import COARSE, extent_mm, sheet

pytestmark = pytest.mark.label

MODEL = "hippocampus_ssl"


def bright_pixels_bundle(folder: Path) -> Path:
    """A bundle on smaller pixels whose network marks what is brighter than half: it makes no mistake itself."""
    bundle = tiny_bundle(MODEL, folder)
    for path in (bundle / "configs").glob("*.json"):
        content = json.loads(path.read_text())
        if "network_class" in content:
            content["network_class"] = "torch.nn.Conv2d"
            content["network_args"] = {"in_channels": 1, "out_channels": 2, "kernel_size": 1}
        if "volume_options" in content:
            content["volume_options"] |= {"spacing": [0.4, 0.4], "intensity": "window", "window": [0, 100]}
        path.write_text(json.dumps(content))
    network = initial_network(bundle)
    for single in (network.network_1, network.network_2):
        single.weight.data = torch.tensor([0.0, 100.0]).reshape(2, 1, 1, 1)
        single.bias.data = torch.tensor([0.0, -50.0])
    torch.save(network.state_dict(), bundle / "models" / "model.pt")
    return bundle


def test_a_sheet_of_one_voxel_comes_back_where_it_is(label_python, tmp_path):
    bundle = bright_pixels_bundle(tmp_path / MODEL)
    create_app(tmp_path / "app", bundle)
    (tmp_path / "studies").mkdir()
    for first in (4, 5):
        image = nibabel.Nifti1Image(100 * sheet(first, 1).astype(np.int16), COARSE)
        nibabel.save(image, tmp_path / "studies" / f"sheet_{first}.nii.gz")
    server = LabelServer(label_python, tmp_path / "app", tmp_path / "studies", {})
    try:
        for first in (4, 5):
            mask = tmp_path / f"mask_{first}.nii.gz"
            mask.write_bytes(server.infer(MODEL, f"sheet_{first}"))
            found = nibabel.load(mask)
            assert extent_mm(found.dataobj, found.affine) == (1.0, first)
            np.testing.assert_array_equal(found.dataobj, sheet(first, 1))
    finally:
        server.stop()
