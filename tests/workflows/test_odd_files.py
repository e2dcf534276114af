"""Valid files that libraries take differently go through all commands, and what they say comes back.

Units of micron and metre, no orientation codes, and stored values with a gap, one of them a sheet one voxel thick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.reports.tables import read_csv
from tests.bundles.doors import TRAINING, aide, as_options, write_undecided_weights
from tests.bundles.layouts import UNET

UNITS_MM = {"mm": 1.0, "micron": 0.001, "meter": 1000.0}
NAMES = {1: "organ", 2: "core", 4: "sheet"}


def write_case(place: Path, name: str, image: Any, unit: str, *, coded: bool) -> None:
    """An image and its label with lengths in a unit; without codes nothing but the voxel size is said of the place."""
    label = np.zeros(image.shape, dtype=np.uint8)
    number = int(name[-1])
    label[6 : 14 + number, 8:20, 1:5], label[8:12, 10:14, 2:4], label[20 + number, 6:22, 1:5] = 1, 2, 4
    scale = np.diag([*[1 / UNITS_MM[unit]] * 3, 1.0])
    for folder, voxels in (("images", np.asarray(image.dataobj)), ("labels", label)):
        (place / folder).mkdir(parents=True, exist_ok=True)
        file = nibabel.Nifti1Image(voxels, scale @ image.affine)
        file.header.set_xyzt_units(unit)
        file.set_sform(file.affine, code=1)
        file.set_qform(file.affine, code=2)
        if not coded:
            file.set_sform(None, code=0)
            file.set_qform(None, code=0)
        nibabel.save(file, place / folder / f"{name}.nii.gz")


def require_place_of(source: Path, mask: Path) -> np.ndarray:
    """Unit, codes and both affines are those of the source, and ITK sees both at one place; the voxels of the mask."""
    one, other = nibabel.load(source), nibabel.load(mask)
    assert other.header.get_xyzt_units()[0] == one.header.get_xyzt_units()[0]
    for read in (lambda file: file.header.get_sform(coded=True), lambda file: file.header.get_qform(coded=True)):
        (affine, code), (expected, expected_code) = read(other), read(one)
        assert code == expected_code
        if code:
            np.testing.assert_allclose(affine, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(other.header["pixdim"][1:4], one.header["pixdim"][1:4], rtol=1e-5)
    seen, expected = sitk.ReadImage(str(mask)), sitk.ReadImage(str(source))
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(seen, what)(), getattr(expected, what)(), rtol=1e-4, atol=1e-4)
    return np.asarray(other.dataobj)


@pytest.mark.parametrize(
    ("unit", "coded"), [("mm", True), ("micron", True), ("meter", True), ("mm", False)], ids=lambda value: str(value)
)
def test_every_command(unit: str, coded: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = write_phantoms(tmp_path / "made", cases=4, shape=(32, 30, 6), spacing_mm=(3, 3, 8))
    data = tmp_path / "set"
    for file in sorted((made / "imagesTr").iterdir()):
        write_case(data, file.name.removesuffix(".nii.gz"), nibabel.load(file), unit, coded=coded)
    listed, bundle, run = tmp_path / "list.json", tmp_path / "mine", tmp_path / "run"
    named = ",".join(f"{value}={name}" for value, name in NAMES.items())
    prepare = ["prepare", "folder", data, "--label-names", named, "--labeled", 2, "--unlabeled", 1]
    assert aide(*prepare, "--out", listed) == 0
    assert aide("check", listed, "--root", data, "--out", tmp_path / "report") == 0
    told = capsys.readouterr()
    assert coded or "no orientation codes" in told.out + told.err
    assert aide("new-bundle", bundle, "--datalist", listed, "--root", data) == 0
    options = {**UNET, "volume_options#spacing": [1.5, 1.5], "slice_size": [64, 64]}
    given = as_options({**options, **TRAINING})
    assert aide("train", bundle, *given, "--dataset_dir", listed, "--run_dir", run) == 0

    assert aide("labels", run, "--export", 0, tmp_path / "exported") == 0
    kept = sorted((tmp_path / "exported" / "network_1").iterdir())
    assert len(kept) == 3
    given_labels = 0
    for file in kept:
        label = data / "labels" / file.name
        voxels = require_place_of(label, file)
        same = np.array_equal(voxels, np.asarray(nibabel.load(label).dataobj))
        assert same or set(np.unique(voxels)) <= {0, *NAMES}
        given_labels += same
    assert given_labels == 2  # the third is what a network made of it

    options["dataset_dir"] = str(data / "images")
    write_undecided_weights(bundle, run, index=3, **options)
    assert aide("predict", bundle, **options, run_dir=str(run)) == 0
    for file in sorted((run / "predictions").iterdir()):
        voxels = require_place_of(data / "images" / file.name.replace("_seg", ""), file)
        assert 4 in voxels
        assert set(np.unique(voxels)) <= {0, *NAMES}

    out = tmp_path / "scores"
    command = ["evaluate", "--ref", data / "labels", "--labels", named]
    assert aide(*command, "--pred", tmp_path / "exported" / "network_1", "--subset", "--out", out) == 0
    scored = [row["label_name"] for row in read_csv(out / "per_case.csv") if row["dsc"] == 1.0]
    assert {name for name in scored if scored.count(name) == 2} == set(NAMES.values())


@pytest.mark.parametrize("unit", UNITS_MM)
@pytest.mark.parametrize("reference_unit", UNITS_MM)
def test_distances_are_mm_whatever_the_unit(unit: str, reference_unit: str, tmp_path: Path) -> None:
    """A box that is shifted by one voxel of 3 mm is at most 3 mm away, in every unit and between two of them."""
    box = np.zeros((16, 16, 4), dtype=np.uint8)
    box[4:10, 5:11, 1:3] = 1
    folders = {"pred": (np.roll(box, 1, axis=0), unit), "ref": (box, reference_unit)}
    for folder, (voxels, written) in folders.items():
        (tmp_path / folder).mkdir()
        file = nibabel.Nifti1Image(voxels, np.diag([*[size / UNITS_MM[written] for size in (3, 2, 8)], 1]))
        file.header.set_xyzt_units(written)
        nibabel.save(file, tmp_path / folder / "a.nii.gz")
    both = ["--pred", tmp_path / "pred", "--ref", tmp_path / "ref"]
    assert aide("evaluate", *both, "--out", tmp_path / "scores") == 0
    (row,) = read_csv(tmp_path / "scores" / "per_case.csv")
    assert row["mssd"] == pytest.approx(3.0, rel=1e-6)
    assert row["dsc"] == pytest.approx(5 / 6)
