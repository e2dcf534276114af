"""A thin sheet keeps its volume and its centre through every door by which a label comes to another grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from aide_monai.data.checks.voxels import on_grid
from aide_monai.labels.file_grid import LabelGrid
from aide_monai.reports.tables import read_csv
from aide_monai.stream.preprocessing import volume_transforms
from aide_monai.utils.tensors import plain
from aide_monai.workflows.evaluate import to_file_grid
from aide_monai.workflows.evaluate_folders import EvaluationSettings, evaluate_folders
from tests.bundles.doors import aide

FINE = np.diag([0.5, 0.5, 2.0, 1.0])
COARSE = np.diag([1.0, 1.0, 2.0, 1.0])  # voxel centres at every second one of the fine grid


def sheet(first: int, thickness: int, size: int = 12) -> np.ndarray:
    label = np.zeros((size, size, 4), dtype=np.uint8)
    label[first : first + thickness] = 1
    return label


def write(path: Path, voxels: np.ndarray, affine: np.ndarray) -> str:
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return str(path)


def extent_mm(label: Any, affine: Any) -> tuple[float, float]:
    """Thickness and centre along x; every row of the sheet must be alike."""
    voxels, steps = np.asarray(label), np.asarray(affine, dtype=float)
    assert (voxels == voxels[:, :1, :1]).all()
    places = np.flatnonzero(voxels[:, 0, 0])
    return len(places) * abs(steps[0, 0]), float(steps[0, 3] + steps[0, 0] * places.mean())


def require_kept(found: tuple[float, float], thickness_mm: float, centre_mm: float, voxel_mm: float) -> None:
    assert found[0] == pytest.approx(thickness_mm)
    assert abs(found[1] - centre_mm) <= voxel_mm / 2 + 1e-6


@pytest.mark.parametrize("first", [4, 5])
@pytest.mark.parametrize(
    "options",
    [{"spacing": (0.5, 1.0)}, {"slice_size": (24, 12), "fit": "resize"}, {"slice_size": (36, 12), "fit": "resize"}],
    ids=["spacing", "resized to twice", "resized to three times"],
)
def test_to_the_networks_grid_and_back(tmp_path: Path, first: int, options: dict[str, Any]) -> None:
    label = sheet(first, 1)
    record = {
        "image": write(tmp_path / "image.nii", label.astype(np.float32), COARSE),
        "label": write(tmp_path / "label.nii", label, COARSE),
    }
    transform = volume_transforms(axis=2, **options)
    volume = transform(record)
    there = volume["label"]
    step = abs(float(there.affine[0, 0]))
    assert step < 0.6
    require_kept(extent_mm(plain(there)[0], there.affine), 1.0, first, step)
    grid = LabelGrid.of(there)
    assert grid is not None
    np.testing.assert_array_equal(grid.to_original(plain(there)[0].numpy()), label)  # as corrected labels are exported
    shares = torch.cat([1 - plain(there).float(), plain(there).float()]) * 0.8 + 0.1
    item = {"image": volume["image"], "pred": MetaTensor(shares)}
    back = plain(Compose(to_file_grid("pred", transform))(item)["pred"]).argmax(dim=0)
    np.testing.assert_array_equal(back.numpy(), label)  # as predictions come back


@pytest.mark.parametrize("first", [4, 5])
def test_labels_of_another_grid_than_their_image(tmp_path: Path, first: int) -> None:
    """One of one voxel on a finer image, and one of two fine voxels on a coarser image."""
    transform = volume_transforms(axis=2, resample_labels=True)
    cases = [
        (sheet(first, 1), COARSE, 23, FINE, 1.0, first),
        (sheet(2 * first, 2, 24), FINE, 12, COARSE, 1.0, first + 0.25),
    ]
    for label, affine, size, image_affine, thickness, centre in cases:
        record = {
            "image": write(tmp_path / "image.nii", np.arange(size * size * 4.0).reshape(size, size, 4), image_affine),
            "label": write(tmp_path / "label.nii", label, affine),
        }
        moved = transform(record)["label"]
        step = abs(image_affine[0, 0])
        require_kept(extent_mm(plain(moved)[0], moved.affine), thickness, centre, step)
        checked, beyond = on_grid(label, affine, image_affine, (size, size, 4))  # as ``aide check`` looks at them
        np.testing.assert_array_equal(checked, plain(moved)[0].numpy())
        assert beyond == 0


@pytest.mark.parametrize("first", [4, 5])
@pytest.mark.parametrize("thickness", [1, 2])
def test_evaluation_on_the_grid_of_the_reference(tmp_path: Path, first: int, thickness: int) -> None:
    """The reference is what the same sheet is on its own grid; even and odd places count alike."""
    write(tmp_path / "pred" / "a.nii", sheet(first, thickness), COARSE)
    write(tmp_path / "ref" / "a.nii", sheet(2 * first - 1, 2 * thickness, 23), FINE)
    (row,) = evaluate_folders(tmp_path / "pred", tmp_path / "ref", EvaluationSettings(resample=True)).rows
    assert row["tp"] + row["fp"] == row["tp"] + row["fn"] == 2 * thickness * 23 * 4
    assert row["dsc"] == 1.0


@pytest.mark.parametrize("first", [4, 5])
@pytest.mark.parametrize("finer", ["reference", "prediction"])
def test_the_command_keeps_a_sheet(tmp_path: Path, first: int, finer: str) -> None:
    """Scored on the reference's grid: the sheet has as many mm there, and lies where it lies in the prediction."""
    files = {"coarse": (sheet(first, 1), COARSE), "fine": (sheet(2 * first - 1, 2, 23), FINE)}
    order = ("coarse", "fine") if finer == "reference" else ("fine", "coarse")
    for folder, grid in zip(("pred", "ref"), order, strict=True):
        write(tmp_path / folder / "a.nii", *files[grid])
    folders = ["--pred", tmp_path / "pred", "--ref", tmp_path / "ref"]
    assert aide("evaluate", *folders, "--resample", "--out", tmp_path / "scores") == 0
    (row,) = read_csv(tmp_path / "scores" / "per_case.csv")
    across = 2 * 23 * 4 if finer == "reference" else 12 * 4
    assert row["tp"] + row["fp"] == row["tp"] + row["fn"] == across
    assert row["dsc"] == 1.0
    assert row["mssd"] == 0.0
    assert aide("evaluate", *folders, "--out", tmp_path / "refused") == 2
