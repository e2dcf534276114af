"""Our own app on a real MONAI Label server: it learns from unlabelled images, and asks for the label that helps."""

from __future__ import annotations

import gzip
import random
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from aide_monai.cli.main import run
from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.label_app.create import create_app
from aide_monai.labels.history import LabelHistory
from aide_monai.metrics import class_scores
from tests.label.server import LabelServer, multipart
from tests.label.tiny import tiny_bundle
from tests.waiting import wait_for

pytestmark = pytest.mark.label

MODEL = "hippocampus_ssl"
STUDIES = [f"phantom_{k:03d}" for k in range(10)]
OTHER_SCANNER = (4, 8)  # of the studies
HELD_OUT = {10: "common", 11: "common", 12: "common", 13: "other", 14: "other", 15: "other"}
TRAINING = {"max_epochs": 6}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Phantoms of two scanners with opposite contrast: few studies, but half the held-out cases, are of one."""
    folder = write_phantoms(tmp_path_factory.mktemp("data"), cases=16, shape=(32, 32, 6), spacing_mm=(6, 6, 20))
    for number in (*OTHER_SCANNER, *(k for k, scanner in HELD_OUT.items() if scanner == "other")):
        path = folder / "imagesTr" / f"phantom_{number:03d}.nii.gz"
        image = nibabel.load(path)
        voxels = np.asarray(image.dataobj)
        nibabel.save(nibabel.Nifti1Image(voxels.max() - voxels, image.affine), path)
    return folder


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Path:
    from aide_monai.cli.main import app

    folder = tmp_path_factory.mktemp("apps")
    bundle = tiny_bundle(
        MODEL, folder / MODEL, features=(8, 8, 16, 32, 32, 8), steps_per_epoch=20, learning_rate=0.003, warmup=3
    )
    arguments = ["label-app", str(folder / "app"), "--bundle", str(bundle)]
    assert run(lambda: app(arguments, standalone_mode=False)) == 0
    return folder / "app"


@pytest.fixture(scope="module")
def server(label_python, app, data, tmp_path_factory):
    studies = tmp_path_factory.mktemp("studies")
    for case in STUDIES:
        shutil.copy(data / "imagesTr" / f"{case}.nii.gz", studies)
    server = LabelServer(label_python, app, studies, {})
    yield server
    server.stop()


def held_out_dsc(server: LabelServer, data: Path, folder: Path) -> float:
    values = []
    for number in HELD_OUT:
        name = f"phantom_{number:03d}.nii.gz"
        (folder / name).write_bytes(server.infer_file(MODEL, data / "imagesTr" / name))
        mask, label = (np.asarray(nibabel.load(path).dataobj) for path in (folder / name, data / "labelsTr" / name))
        values.append(class_scores(mask, label, num_classes=2, spacing_mm=(6, 6, 20))[1].dsc)
    return float(np.mean(values))


def test_labels_that_the_server_asks_for_help_more_than_random_ones(server, app, data, tmp_path):
    def annotate(case: str) -> None:
        server.put_label(case, data / "labelsTr" / f"{case}.nii.gz")

    def trained_dsc() -> float:
        task = server.train(MODEL, **TRAINING)
        assert task["status"] == "DONE", task
        return held_out_dsc(server, data, tmp_path)

    annotate("phantom_000")
    one_label = trained_dsc()
    history = LabelHistory.load(app / "model" / MODEL / "runs" / "001" / "labels")
    assert set(history.shapes) == set(STUDIES)  # unlabelled images are trained on too
    assert history.high_quality == {"phantom_000"}
    assert server.finished("scoring")["status"] == "DONE"

    infos = {case: server.image_info(case)["aide"] for case in STUDIES}
    assert all(0 <= info["suspicion"] <= 1 for info in infos.values())
    assert infos["phantom_000"]["suspicion"] == pytest.approx(1 - infos["phantom_000"]["label_quality"])
    unlabelled = [case for case in STUDIES if case != "phantom_000"]
    asked = server.post("/activelearning/suspicious")["id"]
    assert infos[asked]["suspicion"] == max(infos[case]["suspicion"] for case in unlabelled)
    annotate(asked)
    asked_dsc = trained_dsc()
    server.remove_label(asked)

    random_dsc = []
    for case in random.Random(0).sample(unlabelled, 2):
        annotate(case)
        random_dsc.append(trained_dsc())
        server.remove_label(case)
    print(f"held-out DSC: one label {one_label:.3f}, asked for {asked_dsc:.3f}, random {random_dsc}")
    assert asked_dsc - one_label > 0.1
    assert asked_dsc - one_label > 2 * max(np.mean(random_dsc) - one_label, 0)


def test_a_broken_upload_is_left_out_and_named(server, data, tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(gzip.compress(b"no NIfTI at all"))
    body, content = multipart({"params": "{}"}, file=broken)
    server.call("PUT", "/datastore/image?image=broken", body, content)
    server.put_label("phantom_002", broken)
    server.put_label("phantom_001", data / "labelsTr" / "phantom_001.nii.gz")
    before = server.checksum(MODEL)
    assert server.train(MODEL, max_epochs=1)["status"] == "DONE"
    assert server.checksum(MODEL) != before
    assert server.finished("scoring")["status"] == "DONE"
    for case in ("broken", "phantom_002"):
        assert f"{case}.nii.gz" in server.image_info(case)["aide"]["problem"]
    server.put_label("phantom_002", data / "labelsTr" / "phantom_002.nii.gz")
    assert server.train(MODEL, max_epochs=1, val_split=0.4)["status"] == "DONE"
    assert "problem" not in server.image_info("phantom_002")["aide"]


def test_a_profile_can_be_asked_for(server, app):
    default, paper, _ = server.get("/info/")["trainers"][MODEL]["config"]["profile"]
    assert (default, paper) == ("improved", "paper")
    before = server.checksum(MODEL)
    assert server.train(MODEL, max_epochs=1, profile=paper)["status"] == "DONE"
    assert server.checksum(MODEL) != before
    last = max((app / "model" / MODEL / "runs").iterdir())
    state = torch.load(last / "checkpoint.pt", weights_only=True)["engine"]
    assert "average_1" not in state  # the paper keeps no averages
    status, answer = server.answer("POST", f"/train/{MODEL}", b'{"profile": "best"}')
    assert (status, answer["detail"]) == (400, "profile is 'best'; expected one of improved, paper, original")


def test_labels_that_disagree_with_the_model_are_served_for_review(server, data):
    assert server.finished("scoring")["status"] == "DONE"
    labelled = [case for case in STUDIES if server.status("GET", f"/datastore/label?label={case}&tag=final") == 200]
    suspicion = {case: server.image_info(case)["aide"]["suspicion"] for case in labelled}
    asked = server.post("/activelearning/suspicious", {"review": True})
    assert asked["id"] in labelled
    assert suspicion[asked["id"]] == max(suspicion.values())


def test_a_stopped_training_leaves_the_served_model_and_the_next_one_starts_anew(label_python, data, tmp_path):
    """Of a bundle whose data set has a layout of its own, which the studies of a server have not."""
    bundle = tiny_bundle("cardiac_uda", tmp_path / "cardiac_uda")
    app, studies = tmp_path / "app", tmp_path / "studies"
    create_app(app, bundle)
    studies.mkdir()
    for case in STUDIES[:3]:
        shutil.copy(data / "imagesTr" / f"{case}.nii.gz", studies)
    server = LabelServer(label_python, app, studies, {})
    served = app / "model" / "cardiac_uda"
    try:
        server.put_label(STUDIES[0], data / "labelsTr" / f"{STUDIES[0]}.nii.gz")
        task = server.train("cardiac_uda", max_epochs=1)
        assert task["status"] == "DONE", task
        before = (served / "models" / "model.pt").read_bytes()
        assert '"slice_axis": 2' in (served / "models" / "model.json").read_text()

        server.post("/train/cardiac_uda", {"multi_gpu": False, "device": "cpu", "max_epochs": 1000})
        best = served / "runs" / "002" / "models" / "model.pt"
        wait_for(best.exists, alive=lambda: server.running("train"), what="weights of the second training")
        server.call("DELETE", "/train/")
        server.finished("train")
        assert (served / "models" / "model.pt").read_bytes() == before

        server.put_label(STUDIES[1], data / "labelsTr" / f"{STUDIES[1]}.nii.gz")
        assert server.train("cardiac_uda", max_epochs=1)["status"] == "DONE"
        assert LabelHistory.load(served / "runs" / "003" / "labels").high_quality == set(STUDIES[:2])
        assert (served / "models" / "model.pt").read_bytes() != before
    finally:
        server.stop()


@pytest.mark.parametrize(("qform", "sform", "unit"), [(0, 0, "mm"), (1, 0, "mm"), (1, 1, "micron")])
def test_a_mask_lies_on_its_image_for_programs_of_the_itk_family(server, data, tmp_path, qform, sform, unit):
    """SimpleITK 2.5.7 sees one grid, whatever the header of the image leaves out."""
    given = nibabel.load(data / "imagesTr" / "phantom_010.nii.gz")
    affine = np.diag([*[1000.0 if unit == "micron" else 1.0] * 3, 1.0]) @ given.affine
    image = nibabel.Nifti1Image(np.asanyarray(given.dataobj), affine)
    image.set_qform(affine, code=qform)
    image.set_sform(affine, code=sform)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "image.nii.gz")
    (tmp_path / "mask.nii.gz").write_bytes(server.infer_file(MODEL, tmp_path / "image.nii.gz"))
    one, other = (sitk.ReadImage(str(tmp_path / f"{name}.nii.gz")) for name in ("mask", "image"))
    for key in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(one, key)() == pytest.approx(getattr(other, key)(), abs=1e-6), key
    header = nibabel.load(tmp_path / "mask.nii.gz").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (qform, sform)
    assert header.get_xyzt_units()[0] == unit
    assert header.get_data_dtype() == np.uint8


def test_masks_of_a_server_hold_the_values_in_which_labels_are_stored(label_python, data, tmp_path):
    bundle = tiny_bundle(MODEL, tmp_path / MODEL, classes={"4": 1})
    create_app(tmp_path / "app", bundle)
    (tmp_path / "studies").mkdir()
    for case in STUDIES[:2]:
        shutil.copy(data / "imagesTr" / f"{case}.nii.gz", tmp_path / "studies")
    server = LabelServer(label_python, tmp_path / "app", tmp_path / "studies", {})
    try:
        assert server.get("/info/")["models"][MODEL]["labels"] == {"hippocampus": 4}
        drawn = nibabel.load(data / "labelsTr" / f"{STUDIES[0]}.nii.gz")
        label = tmp_path / "label.nii.gz"
        nibabel.save(nibabel.Nifti1Image(4 * np.asarray(drawn.dataobj), drawn.affine), label)
        server.put_label(STUDIES[0], label)
        assert server.train(MODEL, max_epochs=1)["status"] == "DONE"
        network = torch.load(tmp_path / "app" / "model" / MODEL / "models" / "model.pt", weights_only=True)
        for key in network:  # every voxel is of the class
            if key.endswith("final_conv.bias"):
                network[key] = torch.tensor([-100.0, 100.0])
        torch.save(network, tmp_path / "app" / "model" / MODEL / "models" / "model.pt")
        (tmp_path / "mask.nii.gz").write_bytes(server.infer_file(MODEL, data / "imagesTr" / f"{STUDIES[1]}.nii.gz"))
    finally:
        server.stop()
    assert np.unique(nibabel.load(tmp_path / "mask.nii.gz").dataobj).tolist() == [4]


def test_without_a_label_training_says_what_to_do(server):
    for case in STUDIES:
        if server.status("GET", f"/datastore/label?label={case}&tag=final") == 200:
            server.remove_label(case)
    task = server.train(MODEL, max_epochs=1)
    assert task["status"] == "ERROR"
    assert "label one, then train" in "\n".join(task["details"])
