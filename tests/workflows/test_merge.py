"""Data sets with different structures annotated become one."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError
from aide_monai.workflows.merge import merge_data_sets
from tests.bundles.doors import aide

AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


def write_case(folder: Path, name: str, values: list[int], *, channels: int = 1) -> np.ndarray:
    random = np.random.default_rng(sum(map(ord, folder.name + name)))
    label = np.zeros((16, 16, 4), np.uint8)
    for number, value in enumerate(values):
        label[3 * number + 2 : 3 * number + 5, 4:9, 1:3] = value
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    for channel in range(channels):
        image = random.normal(100, 20, label.shape).astype(np.float32)
        suffix = f"_{channel:04d}" if channels > 1 else ""
        nibabel.save(nibabel.Nifti1Image(image, AFFINE), folder / "images" / f"{name}{suffix}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(label, AFFINE), folder / "labels" / f"{name}.nii.gz")
    return label


@pytest.fixture
def sets(tmp_path: Path) -> list[Path]:
    """Livers of value 1 with voxels of 4 without a verdict; spleens of value 1 with livers of value 2."""
    write_case(tmp_path / "livers", "p1", [1, 4])
    write_case(tmp_path / "livers", "p2", [1, 4])
    write_case(tmp_path / "abdomen", "p1", [1, 2])
    write_case(tmp_path / "kidneys", "p3", [7])
    for name, names, more in (
        ("livers", "1=liver", ("--ignore", 4)),
        ("abdomen", "1=spleen,2=liver", ()),
        ("kidneys", "7=kidney", ()),
    ):
        words = ("prepare", "folder", tmp_path / name, "--label-names", names, *more)
        assert aide(*words, "--out", tmp_path / name / "datalist.json") == 0
    return [tmp_path / name for name in ("livers", "abdomen", "kidneys")]


def test_structures_are_matched_by_name_and_each_case_says_which_it_has(sets: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "merged"
    assert aide("prepare", "merge", *sets, "--out", out) == 0
    datalist = Datalist.load(out / "datalist.json", roots=sets)
    assert datalist.labels == {0: "background", 1: "liver", 2: "spleen", 3: "kidney"}
    assert datalist.ignore == 255
    found = {case.name: case for case in datalist.cases}
    assert {name: case.annotated for name, case in found.items()} == {
        "livers_p1": ("liver",),
        "livers_p2": ("liver",),
        "abdomen_p1": ("spleen", "liver"),
        "kidneys_p3": ("kidney",),
    }
    assert {case.domain for case in datalist.cases} == {"livers", "abdomen", "kidneys"}
    assert found["livers_p1"].group != found["abdomen_p1"].group  # two patients, though both are called p1
    for name, change in (("livers_p1", {1: 1, 4: 255}), ("abdomen_p1", {1: 2, 2: 1}), ("kidneys_p3", {7: 3})):
        source, case = name.split("_")
        given = np.asarray(nibabel.load(tmp_path / source / "labels" / f"{case}.nii.gz").dataobj)
        written = nibabel.load(out / "labels" / f"{name}.nii.gz")
        expected = np.zeros_like(given)
        for old, new in change.items():
            expected[given == old] = new
        assert np.array_equal(np.asarray(written.dataobj), expected)
        assert np.array_equal(written.affine, AFFINE)
    roots = [word for folder in sets for word in ("--root", folder)]
    assert aide("check", out / "datalist.json", *roots, "--out", tmp_path / "check") == 0
    assert aide("new-bundle", tmp_path / "bundle", "--datalist", out / "datalist.json", *roots) == 0


def test_what_cannot_be_merged_leaves_nothing(sets: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected two or more, in folders of different names"):
        merge_data_sets(sets[:1], tmp_path / "out")
    write_case(tmp_path / "two", "p1", [1], channels=2)
    with pytest.raises(InputError, match="channels: 1 in livers, 2 in two; expected as many in all data sets"):
        merge_data_sets([sets[0], tmp_path / "two"], tmp_path / "out")
    write_case(tmp_path / "many", "p1", [1, 2])
    datalist = Datalist.load(sets[1] / "datalist.json")
    names = {0: "background", **{number: f"organ {number}" for number in range(1, 7)}}
    Datalist("many", names, datalist.modality, datalist.cases).save(sets[1] / "datalist.json")
    with pytest.raises(InputError, match="7 structures: liver, organ 1, organ 2, organ 3, organ 4"):
        merge_data_sets(sets[:2], tmp_path / "out")
    assert not (tmp_path / "out").exists()
