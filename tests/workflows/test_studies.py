"""``aide prepare ... --as studies``: what a MONAI Label server is given, file by file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aide_monai.data.datalist import Datalist
from aide_monai.data.sources import find_datalist
from aide_monai.errors import InputError
from aide_monai.io.location import open_location
from aide_monai.workflows.studies import write_studies
from tests.bundles.doors import aide
from tests.bundles.layouts import write_chaos
from tests.data.sources.nnunet_files import write_nnunet


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.nii.gz")}


def test_channels_are_an_axis_and_held_out_cases_stay_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw, out = write_nnunet(tmp_path / "raw", test=2), tmp_path / "studies"
    assert aide("prepare", "nnunet", raw, "--out", out, "--as", "studies") == 0
    labels = {f"labels/final/phantom_00{k}.nii.gz" for k in (2, 3, 4)}
    assert files(out) == labels | {f"phantom_00{k}.nii.gz" for k in (0, 2, 3, 4, 5)}
    assert "1 held-out cases are left out: phantom_001" in caplog.text
    written = open_location(str(out / "phantom_002.nii.gz")).decode()
    for channel in (0, 1):
        given = open_location(str(raw / f"imagesTr/phantom_002_000{channel}.nii.gz")).decode()
        assert np.array_equal(written[..., channel], given[..., 0])
    assert aide("prepare", "nnunet", raw, "--out", out, "--as", "studies") == 2


def test_labels_keep_their_values_and_doubtful_ones_are_proposals(tmp_path: Path) -> None:
    write_chaos(tmp_path / "chaos")
    assert aide("prepare", "chaos", tmp_path / "chaos", "--out", tmp_path / "list.json") == 0
    datalist = Datalist.load(tmp_path / "list.json", roots=[tmp_path])
    datalist.cases[0] = replace(datalist.cases[0], quality="low")
    write_studies(datalist, tmp_path / "studies")
    doubtful, trusted, *_ = (case.name for case in datalist.cases)
    assert f"labels/original/{doubtful}.nii.gz" in files(tmp_path / "studies")
    label = open_location(str(tmp_path / f"studies/labels/final/{trusted}.nii.gz"))
    assert np.unique(label.decode()).tolist() == [0, 63]
    assert label.grid.mismatch(open_location(str(tmp_path / f"studies/{trusted}.nii.gz")).grid) is None


def test_what_monai_label_cannot_be_told_is_refused(tmp_path: Path) -> None:
    datalist = find_datalist(write_nnunet(tmp_path / "raw"))
    with pytest.raises(InputError, match="found labels with voxels that nobody has judged"):
        write_studies(replace(datalist, ignore=255), tmp_path / "out")
    with pytest.raises(InputError, match="no training case; expected at least one"):
        write_studies(replace(datalist, cases=[]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
