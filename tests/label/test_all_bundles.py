"""Every bundle in MONAI Label's own bundle app; one server for all that take as many channels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.labels.history import LabelHistory
from tests.bundles.layouts import ALL, OWN
from tests.label.server import CONF, LabelServer
from tests.label.tiny import tiny_bundle, write_mask

pytestmark = pytest.mark.label

SHAPE = (32, 30, 6)
TRAINING = {"max_epochs": 1, "val_split": 0.0}
CHANNELS = {
    1: ["hippocampus_ssl", "prostate_uda", "qubiq_prostate", "qubiq_brain_growth", "qubiq_kidney", "cardiac_uda"],
    2: ["chaos_liver_ssl", "breast_dce_ggh", "breast_dce_gpph", "breast_dce_hpph", OWN],
    4: ["qubiq_brain_tumor"],
}


def test_every_bundle_is_served():
    assert {name for names in CHANNELS.values() for name in names} == {*ALL}


@pytest.fixture(scope="module")
def app(stock_app, tmp_path_factory) -> Path:
    """The stock app without the models of other tests."""
    ignore = shutil.ignore_patterns("model", "logs", "*.log")
    return Path(shutil.copytree(stock_app, tmp_path_factory.mktemp("apps") / "app", ignore=ignore))


@pytest.fixture(scope="module")
def server_of(label_python, app, bundle_of, tmp_path_factory) -> Iterator[Callable[[int], LabelServer]]:
    """Server of all bundles with so many channels, one at a time; ``scan_0`` has a label that a client has put."""
    running: dict[int, LabelServer] = {}

    def start(channels: int) -> LabelServer:
        folder = tmp_path_factory.mktemp(f"channels_{channels}")
        phantoms = write_phantoms(folder / "made", cases=2, shape=SHAPE, spacing_mm=(6, 6, 20))
        (folder / "studies").mkdir()
        for index, path in enumerate(sorted((phantoms / "imagesTr").iterdir())):
            image = nibabel.load(path)
            voxels = np.asarray(image.dataobj)
            stack = np.stack([voxels if k % 2 == 0 else voxels.max() - voxels for k in range(channels)], axis=-1)
            study = nibabel.Nifti1Image(stack if channels > 1 else voxels, image.affine)
            nibabel.save(study, folder / "studies" / f"scan_{index}.nii.gz")
        names = CHANNELS[channels]
        for name in names:
            features = ALL[name].model["network_args#features"]
            tiny_bundle(bundle_of(name), app / "model" / name, features=features)
        server = LabelServer(label_python, app, folder / "studies", {"models": ",".join(names), **CONF})
        running[channels] = server
        write_mask(folder / "label.nii.gz", folder / "studies" / "scan_0.nii.gz")
        server.put_label("scan_0", folder / "label.nii.gz")
        return server

    def server_of(channels: int) -> LabelServer:
        if channels not in running:
            while running:
                running.popitem()[1].stop()
            start(channels)
        return running[channels]

    yield server_of
    while running:
        running.popitem()[1].stop()


@pytest.mark.parametrize(
    ("channels", "name"), [(channels, name) for channels in CHANNELS for name in CHANNELS[channels]]
)
def test_it_infers_and_trains(channels, name, server_of, app, tmp_path):
    server = server_of(channels)
    info = server.get("/info/")
    train = json.loads((app / "model" / name / "configs" / "train.json").read_text())
    assert train["network_args"]["in_channels"] == channels
    assert info["models"][name]["labels"] == {text: int(k) for k, text in train["labels"].items() if k != "0"}
    assert name in info["trainers"]

    mask = inferred(server, name, tmp_path)
    assert set(np.unique(mask)) <= set(map(int, train["labels"]))

    before = server.checksum(name)
    task = server.train(name, **TRAINING)
    assert task["status"] == "DONE", "\n".join(task["details"])
    assert server.checksum(name) != before
    history = LabelHistory.load(app / "model" / name / "runs" / "001" / "labels")
    (case,) = history.shapes
    assert set(np.unique(history.read(0, 1, case))) == {0, 1}
    inferred(server, name, tmp_path)


def inferred(server: LabelServer, name: str, folder: Path) -> np.ndarray:
    """The mask of the study without a label, which must lie on its grid."""
    path = folder / "mask.nii.gz"
    path.write_bytes(server.infer(name, "scan_1"))
    mask = nibabel.load(path)
    assert mask.get_data_dtype() == np.uint8
    assert mask.shape == SHAPE
    assert np.allclose(mask.affine, nibabel.load(server.studies / "scan_1.nii.gz").affine)
    return np.asarray(mask.dataobj)
