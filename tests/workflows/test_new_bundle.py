"""A bundle for one's own data, from the template that all bundles share."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from aide_monai.cli import app, run
from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError
from aide_monai.workflows.bundle import run_bundle
from aide_monai.workflows.new_bundle import differences, new_bundle, refresh_bundle, write_bundle


@pytest.fixture
def datalist(tmp_path) -> Path:
    """Two-channel volumes whose slices lie across axis 0: two labelled, one unlabelled, one test case."""
    records = []
    for number in range(4):
        rng = np.random.default_rng(number)
        image = rng.integers(0, 100, (4, 30, 40, 2)).astype(np.int16)
        label = np.zeros((4, 30, 40), dtype=np.uint8)
        label[:, 5:20, 8 : 25 + number] = 1
        image[label > 0] += 200
        for name, voxels in (("image", image), ("label", label)):
            path = tmp_path / "data" / f"{name}_{number}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([8.0, 1.0, 1.0, 1.0])), path)
        record = {"case": f"case_{number}", "image": str(tmp_path / "data" / f"image_{number}.nii.gz")}
        if number != 2:
            record |= {"label": str(tmp_path / "data" / f"label_{number}.nii.gz"), "quality": "high"}
        records.append({**record, "split": "test" if number == 3 else "training"})
    labels = {0: "background", 1: "tumour"}
    Datalist("Mine", labels, {0: "T1", 1: "T2"}, records).save(tmp_path / "data" / "list.json")
    return tmp_path / "data" / "list.json"


def test_one_command_makes_a_bundle_that_trains_and_segments(datalist, tmp_path):
    bundle = tmp_path / "my_tumour"
    arguments = ["new-bundle", str(bundle), "--datalist", str(datalist)]
    assert run(lambda: app(arguments, standalone_mode=False)) == 0
    assert differences(bundle) == []
    train = json.loads((bundle / "configs" / "train.json").read_text())
    assert train["slice_axis"] == 0
    assert train["slice_size"] == [32, 64]
    assert train["labels"] == {"0": "background", "1": "tumour"}
    assert train["network_args"]["in_channels"] == 2
    page = (bundle / "docs" / "README.md").read_text()
    assert "Tumour from few labels" in page
    assert f"aide train {bundle}" in page
    assert "{" not in page.replace("{data_license}", "{")

    model = {"network_args#features": [4, 4, 4, 8, 8, 4], "device": "cpu"}
    run_dir = {"run_dir": str(tmp_path / "run")}
    budget = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4}
    run_bundle(bundle, ["train"], {"dataset_dir": str(datalist), **model, **run_dir, **budget})
    run_bundle(bundle, ["evaluate"], {"dataset_dir": str(datalist), **model, **run_dir})
    masks = {"output_dir": str(tmp_path / "masks")}
    run_bundle(bundle, ["inference"], {"dataset_dir": str(datalist), **model, **run_dir, **masks})
    written = sorted(path.name for path in (tmp_path / "masks").iterdir())
    assert written == [f"case_{number}_seg.nii.gz" for number in range(4)]
    assert nibabel.load(tmp_path / "masks" / written[0]).shape == (4, 30, 40)


def test_a_refreshed_bundle_keeps_its_parameters(datalist, tmp_path):
    bundle = new_bundle(tmp_path / "mine", datalist)
    path = bundle / "configs" / "train.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps({**before, "epochs": 7, "initialize": []}))
    assert differences(bundle) == [f"{path}: initialize differs"]
    refresh_bundle(bundle)
    assert json.loads(path.read_text()) == {**before, "epochs": 7}
    assert differences(bundle) == []


def test_what_differs_from_the_template_is_told(datalist, tmp_path):
    configs = new_bundle(tmp_path / "mine", datalist) / "configs"
    (configs / "logging.conf").write_text("other")
    (configs / "pretrain.json").unlink()
    content = json.loads((configs / "evaluate.json").read_text())
    (configs / "evaluate.json").write_text(json.dumps({**content, "more": 1}))
    assert differences(configs.parent) == [
        f"{configs / 'evaluate.json'}: other keys, or another order: ['more']",
        f"{configs / 'evaluate.json'}: more differs",
        f"{configs / 'logging.conf'}: another text",
        f"{configs / 'pretrain.json'}: missing",
    ]


@pytest.mark.parametrize("name", ["two words", "tumour_detection", "1st"])
def test_names_that_no_bundle_can_have(name, datalist, tmp_path):
    with pytest.raises(InputError, match="cannot be the name of a bundle"):
        new_bundle(tmp_path / name, datalist)


def test_mistakes_are_named_and_leave_nothing_behind(datalist, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists already; choose another name"):
        new_bundle(tmp_path / "there", datalist)
    with pytest.raises(InputError, match='"epoch" is no parameter of a bundle; expected some of layout'):
        write_bundle(tmp_path / "mine", {"epoch": 1}, metadata={}, texts={})
    assert not (tmp_path / "mine").exists()
    assert run(lambda: app(["new-bundle", str(tmp_path / "mine")], standalone_mode=False)) == 2
    assert "expected --datalist for a new bundle, or --refresh" in capsys.readouterr().err
