"""The bundles of the data sets at hand on their real files, in the sizes of their configs; only networks are small."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from aide_monai.data.datalist import Datalist
from aide_monai.reports.tables import read_csv
from tests.bundles.doors import ROOT, TRAINING, aide, image_grids, monai_bundle_run
from tests.bundles.layouts import BUNDLES


def whole(folder: str) -> Callable[[Path, Path], Path]:
    return lambda data, _: data / folder


def few_hearts(data: Path, target: Path) -> Path:
    """Two patients of each part, as all of them take a minute to resample."""
    for part in ("acdc/images", "acdc/labels", "mscmr_lge/images", "mscmr_lge/labels", "mscmr_lge/unlabeled"):
        (target / part).mkdir(parents=True)
        for file in sorted((data / part).iterdir())[:2]:
            shutil.copy(file, target / part)
    return target


REAL: dict[str, tuple[Callable[[Path, Path], Path], dict[str, Any], str, int]] = {
    # data, overrides of the data, folder of volumes to segment (else the run's datalist), number of masks
    "hippocampus_ssl": (whole("msd_hippocampus"), {"labeled": 1, "unlabeled": 2, "test": 2}, "", 5),
    "chaos_liver_ssl": (whole("chaos"), {}, "Train_Sets/MR", 2),
    "qubiq_brain_growth": (whole("qubiq"), {}, "", 39),
    "cardiac_uda": (few_hearts, {}, "mscmr_lge/images", 2),
}


@pytest.mark.parametrize("name", REAL)
def test_from_pretraining_to_masks_on_real_scans(name, aide_data, tmp_path):
    place, options, images, count = REAL[name]
    data = place(aide_data, tmp_path / "data")
    model = {key: value for key, value in BUNDLES[name].model.items() if key != "slice_size"}
    run = {"run_dir": str(tmp_path / "run")}
    training = {"dataset_dir": str(data), **model, **options, **TRAINING, **run}
    for configs in (("train", "pretrain"), ("train", "pseudo_label")):
        monai_bundle_run(ROOT / name, *configs, **training)
    assert aide("train", ROOT / name, **training) == 0
    evaluation = {"dataset_dir": str(data), **model, **options, **run}
    assert aide("train", ROOT / name, "--config", "evaluate", **evaluation) == 0

    found = tmp_path / "run" / "standardized" / "datalist.json"
    cases = Datalist.load(found, roots=[tmp_path, aide_data])
    scores = read_csv(tmp_path / "run" / "eval" / "per_case.csv")
    assert {row["case"] for row in scores} == {record["case"] for record in cases.split("test")}
    assert all(0 <= row["dsc"] <= 1 for row in scores)

    volumes = {"dataset_dir": str(data / images if images else found), "roots": [str(data)]}
    monai_bundle_run(ROOT / name, "inference", **model, **run, **volumes)
    grids = image_grids(ROOT / name, **model, **volumes)
    assert len(grids) == count
    for case, (shape, affine) in grids.items():
        mask = nibabel.load(tmp_path / "run" / "predictions" / f"{case}_seg.nii.gz")
        assert mask.shape == shape
        assert np.allclose(mask.affine, affine, atol=1e-3)
        assert mask.get_data_dtype() == np.uint8
