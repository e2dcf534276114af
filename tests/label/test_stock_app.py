"""Bundles in MONAI Label's own bundle app: a real server, asked over REST."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.labels.history import LabelHistory
from tests.label.server import CONF, LabelServer, multipart
from tests.label.tiny import tiny_bundle, write_mask

pytestmark = pytest.mark.label

MODEL = "hippocampus_ssl"
TRAINING = {"max_epochs": 1, "val_split": 0.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("data"), cases=5, shape=(32, 30, 6), spacing_mm=(6, 6, 20))


@pytest.fixture(scope="module")
def studies(data, tmp_path_factory) -> Path:
    return Path(shutil.copytree(data / "imagesTr", tmp_path_factory.mktemp("studies") / "images"))


@pytest.fixture(scope="module")
def bundle(stock_app) -> Path:
    return tiny_bundle(MODEL, stock_app / "model" / MODEL)


@pytest.fixture(scope="module")
def server(label_python, stock_app, bundle, studies):
    server = LabelServer(label_python, stock_app, studies, {"models": MODEL, **CONF})
    yield server
    server.stop()


def test_the_server_offers_the_bundle_for_inference_and_training(server):
    info = server.get("/info/")
    assert info["models"][MODEL]["labels"] == {"hippocampus": 1}
    assert MODEL in info["trainers"]
    assert info["datastore"]["total"] == 5


def test_the_mask_is_uint8_on_the_grid_of_its_image(server, studies, tmp_path):
    image = nibabel.load(studies / "phantom_003.nii.gz")
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(server.infer(MODEL, "phantom_003"))
    mask = nibabel.load(path)
    assert mask.get_data_dtype() == np.uint8
    assert mask.shape == image.shape
    assert np.allclose(mask.affine, image.affine)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1}


def test_labels_that_a_client_puts_are_trained_on_and_the_model_changes(server, bundle, studies, tmp_path):
    masks = {}
    for case in ("phantom_000", "phantom_001"):
        masks[case] = write_mask(tmp_path / f"{case}.nii.gz", studies / f"{case}.nii.gz")
        server.put_label(case, tmp_path / f"{case}.nii.gz")
    before = server.checksum(MODEL)
    assert server.train(MODEL, max_epochs=2, val_split=0.5)["status"] == "DONE"
    after = server.checksum(MODEL)
    assert after != before
    history = LabelHistory.load(bundle / "runs" / "001" / "labels")
    assert len(history.shapes) == 1  # the other one is for validation
    (case,) = history.shapes
    assert np.array_equal(history.read(0, 1, case)[:, 1:31], masks["phantom_000"])
    assert "dsc_validation" in (bundle / "runs" / "001" / "epochs.csv").read_text()

    assert server.train(MODEL, **TRAINING)["status"] == "DONE"  # without validation data the weights are saved too
    assert server.checksum(MODEL) != after
    assert len(LabelHistory.load(bundle / "runs" / "002" / "labels").shapes) == 2


def test_unknown_images_and_broken_uploads_leave_the_server_running(server, studies, tmp_path):
    before = server.checksum(MODEL)
    with pytest.raises(OSError, match="HTTP Error"):
        server.infer(MODEL, "no_such_image")
    assert server.status("GET", "/datastore/image?image=..%2F..%2Fetc%2Fpasswd") in (404, 500)
    whole = tmp_path / "whole.nii.gz"
    write_mask(whole, studies / "phantom_002.nii.gz")
    with pytest.raises(OSError, match="HTTP Error"):
        server.put_label("no_such_image", whole)

    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(gzip.compress(b"no NIfTI at all"))
    server.put_label("phantom_002", broken)
    assert server.train(MODEL, **TRAINING)["status"] == "ERROR"
    assert "phantom_002.nii.gz: found a header that cannot be read" in server.log.read_text()
    assert server.checksum(MODEL) == before

    body, content = multipart({"params": "{}"}, file=broken)
    server.call("PUT", "/datastore/image?image=broken", body, content)
    with pytest.raises(OSError, match="HTTP Error"):
        server.infer(MODEL, "broken")

    server.put_label("phantom_002", whole)
    assert server.train(MODEL, **TRAINING)["status"] == "DONE"
    assert server.checksum(MODEL) != before
