"""From downloads to datalists, as the command does it: splits, options, derived files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from aide_monai.data.checks.datalist import check_datalist
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.data.split import SplitSettings
from aide_monai.errors import InputError
from aide_monai.io.location import open_location
from aide_monai.workflows.prepare import write_datalist

from ..data.sources.breast_files import write_centres
from ..data.sources.qubiq_files import write_qubiq


def test_later_phases_minus_the_first_become_modalities(tmp_path: Path) -> None:
    write_centres(tmp_path / "breast", {"GGH": 2, "GPPH": 2})
    out = tmp_path / "datalist.json"
    datalist = write_datalist(
        "breast", [tmp_path / "breast"], out, times_s=[0, 90, 180], subtraction_dir=tmp_path / "derived"
    )
    assert list(datalist.modality.values()) == ["0 s", "90 s", "180 s", "90 s minus 0 s", "180 s minus 0 s"]
    for record in Datalist.load(out).records:
        images = [open_location(path).decode()[..., 0] for path in record["image"]]
        label = open_location(record["label"]).decode()[..., 0]
        assert images[4].dtype == np.int16
        assert np.array_equal(images[4], label * 180)  # what the generator adds until then
        assert np.array_equal(images[3], images[1] - images[0])
        assert len(record["sha256"]["image"]) == 5


def test_one_phase_leaves_nothing_to_subtract(tmp_path: Path) -> None:
    write_centres(tmp_path / "breast", {"GPPH": 1})
    with pytest.raises(InputError, match="one phase, which leaves nothing to subtract"):
        write_datalist("breast", [tmp_path / "breast"], tmp_path / "x.json", phases=[0], subtraction_dir=tmp_path / "d")
    assert not (tmp_path / "x.json").exists()


def test_held_out_cases_of_each_centre(tmp_path: Path) -> None:
    write_centres(tmp_path / "breast", {"GGH": 3, "GPPH": 4})
    out = tmp_path / "datalist.json"
    datalist = write_datalist("breast", [tmp_path / "breast"], out, split=SplitSettings(test=2))
    assert Counter(record["domain"] for record in datalist.split("test")) == {"GGH": 2, "GPPH": 2}
    assert all("label" in record for record in datalist.records)
    with pytest.raises(InputError, match="test=100 of 3 cases"):
        write_datalist("breast", [tmp_path / "breast"], tmp_path / "paper.json", paper_split=True)
    with pytest.raises(InputError, match="found --paper-split with another split"):
        write_datalist(
            "breast", [tmp_path / "breast"], tmp_path / "paper.json", paper_split=True, split=SplitSettings(labeled=1)
        )


def test_soft_labels_pass_the_check_and_hard_ones_are_still_checked(tmp_path: Path) -> None:
    write_qubiq(tmp_path / "qubiq", "prostate", cases=(3, 1))
    options = {"task": "prostate", "rater": "mean", "fused_dir": tmp_path / "fused"}
    out = tmp_path / "datalist.json"
    write_datalist("qubiq", [tmp_path / "qubiq"], out, **options)
    assert json.loads(out.read_text())["soft_labels"] is True
    datalist = Datalist.load(out)
    assert open_location(datalist.records[0]["label"]).decode().max() == 1
    datalist.soft_labels = False
    assert "not whole numbers" in check_datalist(datalist)[0].found


def test_only_a_datalist_is_replaced_and_only_when_asked(tmp_path: Path) -> None:
    data = write_phantoms(tmp_path / "phantoms", cases=3, shape=(16, 16, 4))
    before = (data / "dataset.json").read_bytes()
    with pytest.raises(InputError, match=r"dataset\.json: found a file that is no datalist and would be lost"):
        write_datalist("decathlon", [data], data / "dataset.json", split=SplitSettings(labeled=1))
    assert (data / "dataset.json").read_bytes() == before
    out = data / "datalist.json"
    write_datalist("decathlon", [data], out, split=SplitSettings(labeled=1))
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"found a datalist; choose another name, or replace it \(--force\)"):
        write_datalist("decathlon", [data], out, split=SplitSettings(labeled=2))
    assert out.read_bytes() == before
    write_datalist("decathlon", [data], out, split=SplitSettings(labeled=2), force=True)
    assert out.read_bytes() != before
    with pytest.raises(InputError, match="found a folder; expected the name of a file"):
        write_datalist("decathlon", [data], data, split=SplitSettings(labeled=1))


def test_options_and_layouts_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--zones is an option of nci-isbi, not of chaos"):
        write_datalist("chaos", [tmp_path], tmp_path / "x.json", merge_zones=False)
    with pytest.raises(InputError, match="the paper has no data set of the layout folder"):
        write_datalist("folder", [tmp_path], tmp_path / "x.json", paper_split=True)
