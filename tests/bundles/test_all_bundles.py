"""Every bundle: the structure of all, and the whole way from pretraining to masks on data in the true layout."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ckpt_export, create_workflow, onnx_export, verify_metadata, verify_net_in_out

from aide_monai.data.datalist import Datalist
from aide_monai.label_app.create import initial_network
from aide_monai.options import AIDEOptions
from aide_monai.reports.tables import read_csv
from aide_monai.workflows.comparison.experiment import Experiment
from aide_monai.workflows.new_bundle import TEMPLATE, differences
from tests.bundles.doors import ROOT, TRAINING, aide, config_files, image_grids, monai_bundle_run, parsed, weights
from tests.bundles.layouts import ALL, BUNDLES, OWN

HERE = Path(__file__).parent
CONFIGS = ("train", "evaluate", "inference", "metadata")
NOT_IN_THE_PAPER = ("hippocampus_ssl", "cardiac_uda", OWN)
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


@pytest.mark.parametrize("name", ALL)
def test_bundles_differ_in_their_parameters_only(name, bundle_of):
    """Mend it with ``aide new-bundle bundles/NAME --refresh``, or change the template for all."""
    assert differences(bundle_of(name)) == []


def test_no_target_of_the_configs_is_also_the_name_of_a_module():
    """Where both exist, ``pydoc.locate`` and so MONAI find the module since Python 3.12."""
    text = "".join(path.read_text() for path in (TEMPLATE / "configs").glob("*.json"))
    targets = set(re.findall(r'"_target_": "(aide_monai[^"]+)"', text))
    assert len(targets) > 10
    files = (ROOT.parent.joinpath(*target.split(".")) for target in targets)
    assert [str(file) for file in files if file.with_suffix(".py").exists() or file.is_dir()] == []


@pytest.mark.parametrize(
    ("name", "experiment"),
    [
        ("cardiac_uda", "cardiac_uda/experiments/uda_long.json"),
        ("hippocampus_ssl", "hippocampus_ssl/experiments/ssl.json"),
        ("qubiq_brain_growth", "qubiq_brain_growth/experiments/raters.json"),
    ],
)
def test_the_training_is_what_was_compared(name, experiment):
    compared = Experiment.load(ROOT / experiment)
    (expected,) = (method.options for method in compared.methods if method.engine == "aide")
    parser = parsed(ROOT / name, "train", epochs=compared.budget.epochs)
    assert asdict(parser.get_parsed_content("options")) == expected
    assert {key: parser[key] for key in parser.get() if key.startswith("augmentation_")} == {
        key: value for key, value in asdict(compared.budget).items() if key.startswith("augmentation_")
    }


@pytest.mark.parametrize("name", ALL)
def test_the_training_of_every_bundle(name, bundle_of):
    parser = parsed(bundle_of(name), "train")
    options = parser.get_parsed_content("options")
    assert parser["profile"] == "improved"
    assert (options.supervised_floor, options.correction_source) == (1, "mean")
    assert options.warmup_epochs == round(0.4 * parser["epochs"])
    for part in ("pretrain", "train"):
        assert parser.get_parsed_content(f"{part}#augment").probability == parser["augmentation_mix"]


@pytest.mark.parametrize("name", ALL)
def test_the_paper_in_every_bundle(name, bundle_of):
    """What was tuned here is not the paper's; what the data ask for stays."""
    parser = parsed(bundle_of(name), "train", profile="paper")
    asked = {
        key: parser["options"][key]
        for key in ("trusted_share", "largest_component", "random_errors")
        if key in parser["options"]
    }
    assert parser.get_parsed_content("options") == AIDEOptions.for_epochs(parser["epochs"], "paper", **asked)


@pytest.mark.parametrize("name", ALL)
def test_the_configs_of_a_bundle_describe_one_model(name, bundle_of):
    configs = {config: json.loads((bundle_of(name) / "configs" / f"{config}.json").read_text()) for config in CONFIGS}
    for key in ("labels", "slice_axis", "slice_size", "volume_options", "network_class", "network_args"):
        assert configs["train"][key] == configs["evaluate"][key] == configs["inference"][key], key
    for key in ("layout", "folders", "source", "domains", "labeled", "unlabeled", "test", "seed", "classes"):
        assert configs["train"][key] == configs["evaluate"][key], key
    labelling = {key for key, value in configs["train"]["standardized"].items() if value == f"@volume_options#{key}"}
    assert labelling | {"axis", "slice_size", "resample_labels"} == {*configs["train"]["volume_options"]}
    data_format = configs["metadata"]["network_data_format"]
    assert data_format["inputs"]["image"]["num_channels"] == configs["train"]["network_args"]["in_channels"]
    assert data_format["outputs"]["pred"]["channel_def"] == configs["train"]["labels"]
    assert all(size % 16 == 0 for size in configs["train"]["slice_size"])


def sections(page: Path) -> dict[str, str]:
    """Text of a page by heading."""
    return dict(re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", page.read_text(), re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("name", ALL)
def test_metadata_and_pages_are_complete(name, bundle_of):
    """``metadata_schema.json`` is our reading of MONAI's bundle specification: the published one is on the web only."""
    bundle = bundle_of(name)
    schema = HERE / "metadata_schema.json"
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(schema))
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    assert "aide-monai" in metadata["required_packages_version"]
    page = sections(bundle / "docs" / "README.md")
    assert [heading for heading in page if heading != "Use"] == list(HEADINGS)
    template = sections(TEMPLATE / "docs" / "README.md")
    folder = str(bundle) if name == OWN else f"bundles/{name}"
    for heading in ("System Configuration", "Use", "Limitations", "Citation"):
        assert page[heading] == template[heading].replace("{folder}", folder), heading
    private = name.startswith("breast")
    honest = r"Not measured here: the data are not public\." if private else r"Measured here|Not measured yet"
    assert re.match(honest, page["Performance"].strip())
    assert bool(re.search(r"The paper reports.*\d", page["Performance"], re.DOTALL)) == (name not in NOT_IN_THE_PAPER)
    assert (bundle / "LICENSE").read_text() == (ROOT.parent / "LICENSE").read_text()
    assert "contains no data" in (bundle / "docs" / "data_license.txt").read_text()
    assert sum(path.stat().st_size for path in bundle.rglob("*") if path.suffix != ".pt") < 1e5


@pytest.mark.parametrize("name", ALL)
def test_from_pretraining_to_masks_by_both_doors(name, data_of, bundle_of, tmp_path):
    tiny, data, bundle = ALL[name], data_of(name), bundle_of(name)
    run_dirs = {"run_dir": str(tmp_path / "monai")}, {"run_dir": str(tmp_path / "aide")}
    evaluation = {"dataset_dir": str(data), **tiny.model, **tiny.data}
    training = {**evaluation, **TRAINING}
    for done, configs in enumerate((("train", "pretrain"), ("train", "pseudo_label"), ("train",))):
        monai_bundle_run(bundle, *configs, **training, **run_dirs[0])
        left = [(tmp_path / "monai" / file).exists() for file in ("standardized/datalist.json", "models/model.pt")]
        assert left == [done > 0, done > 1]
        assert (tmp_path / "monai" / "pretrained" / "model.pt").exists()
    assert aide("train", bundle, **training, **run_dirs[1]) == 0
    first, second = weights(tmp_path / "monai"), weights(tmp_path / "aide")
    assert all(torch.equal(first[key], second[key]) for key in first | second)
    assert len({(tmp_path / door / "epochs.csv").read_text() for door in ("monai", "aide")}) == 1
    cases = Datalist.load(tmp_path / "monai" / "standardized" / "datalist.json", roots=[tmp_path, data])
    assert all("label" in record for record in cases.split("training"))

    monai_bundle_run(bundle, "evaluate", **evaluation, **run_dirs[0])
    assert aide("train", bundle, "--config", "evaluate", **evaluation, **run_dirs[1]) == 0
    tables = [read_csv(tmp_path / door / "eval" / "per_case.csv") for door in ("monai", "aide")]
    assert tables[0] == tables[1]
    assert {row["case"] for row in tables[0]} == {record["case"] for record in cases.split("test")}

    images = data / tiny.images if tiny.images else tmp_path / "monai" / "standardized" / "datalist.json"
    inference = {**tiny.model, "dataset_dir": str(images), "roots": [str(data)]}
    monai_bundle_run(bundle, "inference", **inference, **run_dirs[0])
    assert aide("predict", bundle, **inference, **run_dirs[1]) == 0
    grids = image_grids(bundle, **inference)
    assert len(grids) == (len(list(images.iterdir())) if tiny.images else len(cases.records))
    masks = sorted((tmp_path / "monai" / "predictions").iterdir())
    assert {path.name for path in masks} == {f"{case}_seg.nii.gz" for case in grids}
    for path in masks:
        case = path.name.removesuffix("_seg.nii.gz")
        mask, other = nibabel.load(path), nibabel.load(tmp_path / "aide" / "predictions" / path.name)
        assert mask.get_data_dtype() == np.uint8
        assert mask.shape == grids[case][0]
        assert np.allclose(mask.affine, grids[case][1], atol=1e-3)
        assert set(np.unique(np.asarray(mask.dataobj)).tolist()) <= set(range(len(cases.labels)))
        assert np.array_equal(mask.dataobj, other.dataobj)

    resumed = {**training, "resume": True}
    runs = (
        (("train",), resumed),
        (("train", "multi_gpu_train"), resumed),
        (("evaluate",), evaluation),
        (("inference",), inference),
    )
    for configs, overrides in runs:
        kind = "train" if "train" in configs else "inference"
        options = {"workflow_type": kind, "bundle_root": str(bundle), **run_dirs[0], **overrides}
        assert create_workflow(config_file=config_files(bundle, *configs), **options).check_properties() == [], configs


@pytest.mark.parametrize("name", ALL)
def test_the_network_is_what_the_metadata_say_and_becomes_torchscript(name, bundle_of, tmp_path):
    bundle = bundle_of(name)
    configs = deployed(bundle)
    verify_net_in_out(device="cpu", n=1, p=1, **configs)
    network = parsed(bundle, "inference").get_parsed_content("network_def").eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    ckpt_export(filepath=str(tmp_path / "model.ts"), ckpt_file=str(tmp_path / "model.pt"), **configs)
    exported = torch.jit.load(str(tmp_path / "model.ts"))
    image = torch.rand(1, parsed(bundle, "inference")["network_args"]["in_channels"], 32, 48)
    with torch.no_grad():
        assert torch.allclose(exported(image), network(image), atol=1e-5)


def deployed(bundle: Path) -> dict[str, Any]:
    """What MONAI's checks and exports ask for."""
    inference, metadata = config_files(bundle, "inference", "metadata")
    return {"net_id": "network_def", "config_file": inference, "meta_file": metadata}


def networks() -> dict[str, str]:
    """One bundle for each network: those with the same class, arguments and labels deploy the same one."""
    keys = ("network_class", "network_args", "network_def")
    by_network = {}
    for name in BUNDLES:
        parser = parsed(ROOT / name, "inference")
        by_network.setdefault(json.dumps([parser[key] for key in keys] + [len(parser["labels"])]), name)
    return by_network


@pytest.mark.parametrize("name", [*networks().values(), OWN])
def test_each_network_becomes_onnx(name, bundle_of, tmp_path):
    """Once for each network, not for each bundle: nothing else of a bundle enters the file. Its width is made small."""
    bundle = bundle_of(name)
    small = {"network_args#features": ALL[name].model["network_args#features"]}
    network = parsed(bundle, "inference", **small).get_parsed_content("network_def").eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    image = torch.rand(1, parsed(bundle, "inference")["network_args"]["in_channels"], 32, 32)
    onnx_export(
        filepath=str(tmp_path / "model.onnx"),
        ckpt_file=str(tmp_path / "model.pt"),
        input_shape=list(image.shape),
        **deployed(bundle),
        **small,
    )
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        assert np.allclose(output, network(image).numpy(), atol=1e-4)


def test_an_untrained_network_of_a_bundle_is_the_one_that_training_starts_from():
    first, second = (initial_network(ROOT / "hippocampus_ssl").state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
