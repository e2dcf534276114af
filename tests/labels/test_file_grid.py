"""Stored labels back on the grid of their file: hand-made affines, and MONAI's own transforms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    Flipd,
    LoadImaged,
    Orientationd,
    Resized,
    Spacingd,
    SpatialPadd,
)

from aide_monai.labels.file_grid import LabelGrid
from aide_monai.stream.preprocessing import volume_transforms

OBLIQUE = np.array([[0.0, 1.9, 0.3, -20.0], [-1.8, 0.0, 0.1, 30.0], [0.1, 0.3, -5.0, 7.0], [0.0, 0.0, 0.0, 1.0]])


def labels(shape: Sequence[int] = (5, 6, 7)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, shape).astype(np.uint8)


def write(path: Path, array: np.ndarray, affine: np.ndarray = OBLIQUE) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def loaded(path: Path, *transforms: Any) -> MetaTensor:
    return Compose([LoadImaged("label", image_only=True, ensure_channel_first=True), *transforms])(
        {"label": str(path)}
    )["label"]


def grid_of(label: MetaTensor) -> LabelGrid:
    grid = LabelGrid.of(label)
    assert grid is not None
    return grid


def stored(label: MetaTensor) -> np.ndarray:
    return label[0].as_tensor().numpy().astype(np.uint8)


def hand_made(offset: Sequence[float], shape: Sequence[int], *, factors: Sequence[float] = (1, 1)) -> LabelGrid:
    """A 2D grid whose stored pixel 0 lies ``offset`` mm from that of the file, with pixels of ``factors`` mm."""
    affine = np.diag([*factors, 1.0, 1.0])
    affine[:2, 3] = offset
    rows = [tuple(map(tuple, matrix.tolist())) for matrix in (affine, np.eye(4))]
    return LabelGrid(affine=rows[0], original_affine=rows[1], original_shape=tuple(shape))


def test_padding_is_taken_off() -> None:
    grid = hand_made((-1, 0), (2, 2))  # one row was added in front
    label = np.array([[9, 9], [1, 2], [3, 4], [9, 9]], dtype=np.uint8)
    assert grid.to_original(label).tolist() == [[1, 2], [3, 4]]
    assert grid.voxel_exact()
    assert grid.covers((4, 2))
    assert not grid.covers((2, 2))


def test_what_was_cropped_is_background() -> None:
    grid = hand_made((1, 0), (3, 2))  # the first row was cut off
    assert grid.to_original(np.array([[1, 2], [3, 4]], dtype=np.uint8)).tolist() == [[0, 0], [1, 2], [3, 4]]
    assert grid.voxel_exact()
    assert not grid.covers((2, 2))


def test_a_coarser_label_is_spread_to_the_nearest_pixels() -> None:
    grid = hand_made((0.5, 0), (4, 2), factors=(2, 1))  # pairs of rows were merged
    assert grid.to_original(np.array([[1, 2], [3, 4]], dtype=np.uint8)).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]
    assert not grid.voxel_exact()
    assert grid.covers((2, 2))


@pytest.mark.parametrize("shift", [0.02, 0.3, 0.5])
def test_a_grid_shifted_by_part_of_a_voxel_is_not_exact(shift: float) -> None:
    assert not hand_made((shift, 0), (2, 2)).voxel_exact()
    assert hand_made((shift / 100, 0), (2, 2)).voxel_exact()


@pytest.mark.parametrize(
    "transforms",
    [
        [],
        [SpatialPadd("label", (9, 10, -1))],
        [Orientationd("label", axcodes="LPS", labels=None)],
        [Flipd("label", spatial_axis=2), SpatialPadd("label", (9, 9, 9))],
        [Orientationd("label", axcodes="SRA", labels=None), SpatialPadd("label", (16, 16, 16))],
        [SpatialPadd("label", (9, 10, 8)), CenterSpatialCropd("label", (7, 8, 8))],
    ],
    ids=["nothing", "padding", "reorientation", "flip and padding", "all", "padding and less cropping"],
)
def test_lossless_transforms_are_undone_voxel_by_voxel(tmp_path: Path, transforms: list[Any]) -> None:
    array = labels()
    label = loaded(write(tmp_path / "label.nii.gz", array), *transforms)
    grid = grid_of(label)
    assert grid.voxel_exact()
    assert grid.covers(tuple(label.shape[1:]))
    assert np.array_equal(grid.to_original(stored(label)), array)
    assert np.allclose(grid.original_affine, OBLIQUE, atol=1e-5)


def test_cropping_loses_what_lies_outside(tmp_path: Path) -> None:
    array = labels() + 1
    label = loaded(write(tmp_path / "label.nii.gz", array), CenterSpatialCropd("label", (3, 4, 7)))
    grid = grid_of(label)
    assert grid.voxel_exact()
    assert not grid.covers(tuple(label.shape[1:]))
    expected = np.zeros_like(array)
    expected[1:4, 1:5] = array[1:4, 1:5]
    assert np.array_equal(grid.to_original(stored(label)), expected)


@pytest.mark.parametrize(
    "transform",
    [Spacingd("label", (1, 1, 2), mode="nearest"), Resized("label", (10, 18, 14), mode="nearest-exact")],
    ids=["spacing", "size"],
)
def test_resampling_is_known_and_undone_to_the_nearest_voxel(tmp_path: Path, transform: Any) -> None:
    array = np.zeros((12, 12, 8), dtype=np.uint8)
    array[3:8, 2:9, 2:6] = 1
    label = loaded(write(tmp_path / "label.nii.gz", array), transform)
    grid = grid_of(label)
    assert not grid.voxel_exact()
    back = grid.to_original(stored(label))
    assert back.shape == array.shape
    assert 2 * (back & array).sum() / (back.sum() + array.sum()) > 0.9


def test_the_training_pipeline_can_be_undone(tmp_path: Path) -> None:
    array = (labels() > 1).astype(np.uint8)
    image = write(tmp_path / "image.nii.gz", labels().astype(np.float32))
    record = {"image": str(image), "label": str(write(tmp_path / "label.nii.gz", array))}
    volume = volume_transforms(keys=["image", "label"], axis=2, slice_size=(16, 16))(record)
    grid = grid_of(volume["label"])
    assert volume["label"].shape == (1, 16, 16, 7)
    assert np.array_equal(grid.to_original(stored(volume["label"])), array)


def test_a_flat_file_keeps_its_two_axes(tmp_path: Path) -> None:
    array = labels((5, 6))
    label = loaded(write(tmp_path / "label.nii.gz", array), SpatialPadd("label", (8, 8)))
    assert np.array_equal(grid_of(label).to_original(stored(label)), array)


@pytest.mark.parametrize(
    "label",
    [
        np.zeros((1, 2, 2)),
        torch.zeros(1, 2, 2),
        MetaTensor(torch.zeros(1, 2, 2)),
        MetaTensor(torch.zeros(1, 2, 2), meta={"spatial_shape": [2, 2], "original_affine": np.zeros((4, 4))}),
        MetaTensor(torch.zeros(1, 2, 2), meta={"spatial_shape": [2, 2], "original_affine": np.eye(3)}),
        MetaTensor(torch.zeros(1, 2, 2), meta={"spatial_shape": [2, 2, 2], "original_affine": np.eye(4)}),
        MetaTensor(torch.zeros(1, 2, 2), meta={"spatial_shape": [2, 0], "original_affine": np.eye(4)}),
        MetaTensor(torch.zeros(1, 2, 2), meta={"spatial_shape": [2, 2], "original_affine": np.full((4, 4), np.nan)}),
    ],
    ids=["array", "tensor", "without a file", "singular", "too small", "other axes", "empty", "NaN"],
)
def test_labels_without_a_known_grid(label: Any) -> None:
    assert LabelGrid.of(label) is None


def test_a_grid_survives_json() -> None:
    grid = LabelGrid(
        affine=tuple(map(tuple, OBLIQUE.tolist())),
        original_affine=tuple(map(tuple, (OBLIQUE / 3).tolist())),
        original_shape=(5, 6, 7),
    )
    assert LabelGrid.from_json(json.loads(json.dumps(asdict(grid)))) == grid


@pytest.mark.parametrize(
    "change", [{"affine": [[1, 2], [3, 4]]}, {"affine": np.zeros((4, 4)).tolist()}, {"original_shape": [0]}]
)
def test_a_damaged_grid_is_refused(change: dict[str, Any]) -> None:
    content = asdict(hand_made((0, 0), (2, 2)))
    assert LabelGrid.from_json(content)
    with pytest.raises(ValueError, match="a grid that is no grid"):
        LabelGrid.from_json(content | change)
