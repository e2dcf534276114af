"""Our app on a real MONAI Label server meets volumes stored otherwise than those of its training, and other files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from aide_monai.label_app.create import create_app
from tests.bundles.test_unlike_training import STORED, stored_as, trained  # noqa: F401 (a fixture)
from tests.label.server import LabelServer
from tests.label.tiny import tiny_bundle

pytestmark = pytest.mark.label

MODEL = "hippocampus_ssl"


@pytest.fixture(scope="module")
def app(trained, tmp_path_factory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("app")
    bundle = tiny_bundle(MODEL, folder / MODEL)
    assert create_app(folder / "app", bundle, weights=trained / "undecided" / "models" / "model.pt")
    return folder / "app"


def mask_of(answer: bytes, file: Path) -> nibabel.Nifti1Image:
    file.write_bytes(answer)
    return nibabel.load(file)


def test_axes_other_files_and_other_names_of_the_server(label_python, app, trained, tmp_path):  # noqa: F811
    scan = nibabel.load(trained / "data" / "imagesTr" / "phantom_003.nii.gz")
    studies = tmp_path / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    for codes in STORED:
        nibabel.save(stored_as(scan, codes), studies / f"{codes}.nii.gz")
    volume = sitk.ReadImage(str(studies / "RAS.nii.gz"))
    sitk.WriteImage(volume, str(studies / "extra.mha"))
    (studies / "labels" / "final" / "nobody.mha").write_bytes((studies / "extra.mha").read_bytes())
    (studies / "series").mkdir()

    server = LabelServer(label_python, app, studies, {})
    try:
        expected = mask_of(server.infer(MODEL, "RAS"), tmp_path / "RAS_mask.nii.gz")
        assert 0.1 < np.asarray(expected.dataobj).mean() < 0.9
        for codes in STORED:
            mask = mask_of(server.infer(MODEL, codes), tmp_path / f"{codes}_mask.nii.gz")
            image = nibabel.load(studies / f"{codes}.nii.gz")
            assert mask.shape == image.shape
            assert np.allclose(mask.affine, image.affine, atol=1e-4)
            assert np.array_equal(np.asarray(stored_as(mask, "RAS").dataobj), np.asarray(expected.dataobj)), codes
        foreign = {"Host": "gpu.hospital.org"}, {"Origin": "http://viewer.org"}
        refused = [server.answer("GET", "/info/", headers=headers) for headers in foreign]
    finally:
        server.stop()
    assert [code for code, _ in refused] == [403, 403]
    options = [re.findall(r"name it by --conf (\w+)", answer["detail"])[0] for _, answer in refused]
    lines = [line for line in server.log.read_text().splitlines() if "not used" in line]
    assert len(lines) == 2
    assert f"{studies}: 2 files and folders are not used: extra.mha, series/ (not in the datastore: " in lines[0]
    assert "final: 1 file is not used: nobody.mha (no label of an image of the datastore: " in lines[1]

    (name, value) = re.findall(r"(MONAI_LABEL_\w+) is (\[.*?\])", lines[0])[0]
    suffixes = {name: json.dumps([*json.loads(value), "*.mha"])}
    conf = dict(zip(options, ["gpu.hospital.org", "http://viewer.org"], strict=True))
    server = LabelServer(label_python, app, studies, conf, environment=suffixes)
    try:
        assert [server.answer("GET", "/info/", headers=headers)[0] for headers in foreign] == [200, 200]
        (tmp_path / "extra_mask.mha").write_bytes(server.infer(MODEL, "extra"))
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "extra_mask.mha")))
        assert np.array_equal(mask.T, np.asarray(expected.dataobj))
    finally:
        server.stop()
