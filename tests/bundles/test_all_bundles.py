"""Every bundle: the structure of all, and the whole way from pretraining to masks on data in the true layout."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export, create_workflow, onnx_export, verify_metadata, verify_net_in_out

from aide_monai.data.datalist import Datalist
from aide_monai.label_app.create import initial_network
from aide_monai.reports.tables import read_csv
from aide_monai.workflows.bundle import run_bundle
from aide_monai.workflows.new_bundle import differences
from tests.bundles.layouts import BUNDLES

ROOT = Path(__file__).parents[2] / "bundles"
HERE = Path(__file__).parent
TRAINING = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "seed": 0}
SIZE = {"slice_size": [32, 32], "device": "cpu"}
HEADINGS = (
    "Authors",
    "Tags",
    "Model Description",
    "Data",
    "Performance",
    "System Configuration",
    "Limitations",
    "Citation",
    "References",
)


def test_every_bundle_is_tried():
    assert {path.name for path in ROOT.iterdir() if (path / "configs").is_dir()} == set(BUNDLES)


@pytest.mark.parametrize("name", BUNDLES)
def test_bundles_differ_in_their_parameters_only(name):
    """Mend it with ``aide new-bundle bundles/NAME --refresh``, or change the template for all."""
    assert differences(ROOT / name) == []


@pytest.mark.parametrize("name", BUNDLES)
def test_the_configs_of_a_bundle_describe_one_model(name):
    configs = {config: json.loads((ROOT / name / "configs" / f"{config}.json").read_text()) for config in CONFIGS}
    for key in ("labels", "slice_axis", "slice_size", "volume_options", "network_class", "network_args"):
        assert configs["train"][key] == configs["evaluate"][key] == configs["inference"][key], key
    for key in ("layout", "folders", "source", "domains", "labeled", "unlabeled", "test", "seed", "classes"):
        assert configs["train"][key] == configs["evaluate"][key], key
    data_format = configs["metadata"]["network_data_format"]
    assert data_format["inputs"]["image"]["num_channels"] == configs["train"]["network_args"]["in_channels"]
    assert data_format["outputs"]["pred"]["channel_def"] == configs["train"]["labels"]
    assert all(size % 16 == 0 for size in configs["train"]["slice_size"])


CONFIGS = ("train", "evaluate", "inference", "metadata")


@pytest.mark.parametrize("name", BUNDLES)
def test_metadata_and_pages_are_complete(name, monkeypatch):
    """``metadata_schema.json`` is our reading of MONAI's bundle specification: the published one is on the web only."""
    schema = HERE / "metadata_schema.json"
    verify_metadata(meta_file=str(ROOT / name / "configs" / "metadata.json"), filepath=str(schema))
    metadata = json.loads((ROOT / name / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    assert "aide-monai" in metadata["required_packages_version"]
    page = (ROOT / name / "docs" / "README.md").read_text()
    headings = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert [heading for heading in headings if heading != "Use"] == list(HEADINGS)
    assert f"bundles/{name}" in page
    assert (ROOT / name / "LICENSE").read_text() == (ROOT.parent / "LICENSE").read_text()
    assert "contains no data" in (ROOT / name / "docs" / "data_license.txt").read_text()
    assert sum(path.stat().st_size for path in (ROOT / name).rglob("*") if path.suffix != ".pt") < 1e5


@pytest.mark.parametrize("name", BUNDLES)
def test_from_pretraining_to_masks(name, tmp_path):
    tiny = BUNDLES[name]
    data, run_dir = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    tiny.write(data)
    model = {**SIZE, **tiny.network}
    run = {"dataset_dir": str(data), "run_dir": str(run_dir)}
    training = {**TRAINING, **model, **tiny.data, **run}
    run_bundle(ROOT / name, ["train"], training)
    cases = Datalist.load(run_dir / "standardized" / "datalist.json", roots=[tmp_path])
    assert all("label" in record for record in cases.split("training"))

    evaluation = {**model, **tiny.data, **run}
    run_bundle(ROOT / name, ["evaluate"], evaluation)
    rows = read_csv(run_dir / "eval" / "per_case.csv")
    assert {row["case"] for row in rows} == {record["case"] for record in cases.split("test")}

    images = data / tiny.images if tiny.images else run_dir / "standardized" / "datalist.json"
    output = {"run_dir": str(run_dir), "output_dir": str(tmp_path / "masks"), "roots": [str(data)]}
    inference = {**model, "dataset_dir": str(images), **output}
    run_bundle(ROOT / name, ["inference"], inference)
    masks = sorted((tmp_path / "masks").iterdir())
    assert len(masks) == len(list(images.iterdir())) if tiny.images else len(cases.records)
    for mask in map(nibabel.load, masks):
        assert mask.get_data_dtype() == np.uint8
        assert set(np.unique(np.asarray(mask.dataobj)).tolist()) <= set(range(len(cases.labels)))

    runs = {"train": {**training, "resume": True}, "evaluate": evaluation, "inference": inference}
    for config, overrides in runs.items():
        workflow = create_workflow(
            config_file=str(ROOT / name / "configs" / f"{config}.json"),
            workflow_type="train" if config == "train" else "inference",
            bundle_root=str(ROOT / name),
            **overrides,
        )
        assert workflow.check_properties() == [], config


# The eleven bundles have these five networks.
@pytest.mark.parametrize(
    "name", ["hippocampus_ssl", "chaos_liver_ssl", "qubiq_brain_tumor", "breast_dce_ggh", "cardiac_uda"]
)
def test_the_network_is_what_the_metadata_say_and_can_be_exported(name, tmp_path):
    configs = ROOT / name / "configs"
    common = {
        "net_id": "network_def",
        "meta_file": str(configs / "metadata.json"),
        "config_file": str(configs / "inference.json"),
        **BUNDLES[name].network,
    }
    verify_net_in_out(device="cpu", n=1, p=1, **common)
    parser = ConfigParser()
    parser.read_config(configs / "inference.json")
    for key, value in BUNDLES[name].network.items():
        parser[key] = value
    network = parser.get_parsed_content("network_def").eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    image = torch.rand(1, parser["network_args"]["in_channels"], 32, 32)

    ckpt_export(filepath=str(tmp_path / "model.ts"), ckpt_file=str(tmp_path / "model.pt"), **common)
    exported = torch.jit.load(str(tmp_path / "model.ts"))
    with torch.no_grad():
        assert torch.allclose(exported(image), network(image), atol=1e-5)
    onnx_export(
        filepath=str(tmp_path / "model.onnx"),
        ckpt_file=str(tmp_path / "model.pt"),
        input_shape=list(image.shape),
        **common,
    )
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        assert np.allclose(output, network(image).numpy(), atol=1e-4)


def test_an_untrained_network_of_a_bundle_is_the_one_that_training_starts_from():
    first, second = (initial_network(ROOT / "hippocampus_ssl").state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
