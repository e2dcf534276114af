"""A bundle for one's own data, from the template that all bundles share; ``tests/bundles`` trains it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from aide_monai.cli.main import app, run
from aide_monai.data.datalist import Datalist
from aide_monai.data.folders import image_records
from aide_monai.errors import InputError
from aide_monai.workflows.literals import literal
from aide_monai.workflows.new_bundle import differences, new_bundle, refresh_bundle, write_bundle
from tests.bundles.layouts import write_chaos, write_own_data


@pytest.fixture
def datalist(tmp_path) -> Path:
    """See ``write_own_data``."""
    (tmp_path / "data").mkdir()
    write_own_data(tmp_path / "data")
    return tmp_path / "data" / "datalist.json"


def test_one_command_makes_a_bundle(datalist, tmp_path):
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


def test_it_finds_the_channels_of_new_studies_as_it_does_in_the_datalist(tmp_path):
    """Inference has a folder of studies and no datalist, so the bundle keeps what selects a channel in each."""
    write_chaos(tmp_path)
    studies = {case: tmp_path / "Train_Sets" / "MR" / case / "T1DUAL" / "DICOM_anon" for case in ("1", "3", "10")}

    def channels(*selections: dict[str, str]) -> list[str]:
        records = [
            {"case": case, "image": [f"{studies[case]}#echo={echo}" for echo in echoes.values()], "split": "training"}
            for case, echoes in zip(studies, selections, strict=True)
        ]
        datalist = tmp_path / "datalist.json"
        Datalist("Mine", {0: "background", 1: "liver"}, {0: "in", 1: "out"}, records).save(datalist)
        bundle = new_bundle(tmp_path / f"mine_{len(list(tmp_path.iterdir()))}", datalist)
        return json.loads((bundle / "configs" / "inference.json").read_text())["dicom_channels"]

    in_and_out = {"in": "4.6", "out": "2.3"}
    found = channels(in_and_out, in_and_out, in_and_out)
    assert found == ["echo=4.6", "echo=2.3"]
    assert image_records(studies["3"], dicom_channels=found)[0]["image"] == [f"{studies['3']}#{one}" for one in found]
    assert channels(in_and_out, in_and_out, {"in": "2.3", "out": "4.6"}) == []


def test_a_refreshed_bundle_keeps_its_parameters(datalist, tmp_path):
    bundle = new_bundle(tmp_path / "mine", datalist)
    path = bundle / "configs" / "train.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps({**before, "epochs": 7, "initialize": []}))
    assert differences(bundle) == [f"{path}: initialize differs"]
    refresh_bundle(bundle)
    assert json.loads(path.read_text()) == {**before, "epochs": 7}
    assert differences(bundle) == []


def test_a_bundle_keeps_the_options_it_was_written_with(datalist, tmp_path):
    bundle = new_bundle(tmp_path / "mine", datalist)
    path = bundle / "configs" / "train.json"
    options = {"_target_": "aide_monai.engines.AIDEOptions.from_profile", "profile": "@profile", "keep": 0.25}
    earlier = {**json.loads(path.read_text()), "profile": "paper", "options": options}
    path.write_text(json.dumps(earlier))
    overlay = path.with_name("improved.json")  # which bundles had before it became the default
    overlay.write_text('{"profile": "improved"}')
    refresh_bundle(bundle)
    assert json.loads(path.read_text()) == earlier
    assert json.loads(overlay.read_text()) == {"profile": "improved"}
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


@pytest.mark.parametrize(
    "text", ["$open('marker', 'w').close()", "$import os", "@run", "%trap.json", "%trap.json::a", "scan#1 {x}"]
)
def test_no_text_of_a_datalist_is_code(text, tmp_path, monkeypatch):
    """Each text is one that MONAI would evaluate, look up, replace by a file, or change."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trap.json").write_text('{"a": "from a file"}')
    folder = tmp_path / f"{text} data"
    folder.mkdir()
    write_own_data(folder)
    content = json.loads((folder / "datalist.json").read_text())
    content |= {"name": text, "labels": {"0": "background", "1": text}, "modality": {"0": text, "1": f"{text} 2"}}
    for number, record in enumerate([*content["training"], *content["test"]]):
        record |= {"case": f"{text} {number}", "patient": f"{text} {number}", "domain": text}
        record |= {"rater": text} if "label" in record else {}
        for key in {"image", "label"} & {*record}:
            new = f"{text} {key} {number}.nii.gz"
            (folder / record[key]).rename(folder / new)
            record[key] = new
    (folder / "datalist.json").write_text(json.dumps(content))
    before = sorted(path.name for path in tmp_path.iterdir())
    bundle = tmp_path / "mine"
    assert (
        run(
            lambda: app(
                ["new-bundle", str(bundle), "--datalist", str(folder / "datalist.json"), "--root", str(folder)],
                standalone_mode=False,
            )
        )
        == 0
    )
    assert differences(bundle) == []
    refresh_bundle(bundle)
    for config in ("train", "inference", "evaluate"):
        parser = ConfigParser()
        parser.read_config(bundle / "configs" / f"{config}.json")
        parser.read_meta(bundle / "configs" / "metadata.json")
        parser["dataset_dir"] = literal(folder)
        meta = parser.get_parsed_content("_meta_")
        assert all(
            text.replace("#", "::") in meta[key] for key in ("task", "description", "data_source", "label_classes")
        )
        assert parser.get_parsed_content("labels") == {"0": "background", "1": text}
        assert parser.get_parsed_content("roots") == [str(folder)]
        if config == "inference":
            assert len(parser.get_parsed_content("dataset")) == 4
        else:
            assert {record["domain"] for record in parser.get_parsed_content("datalist").records} == {text}
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    shown = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]["1"]  # which MONAI Label shows
    assert shown in (text, f'"{text}"')
    assert text in (bundle / "docs" / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "mine"])


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
