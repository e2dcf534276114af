"""Volumes in files: formats, geometry, label values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from aide_monai.errors import InputError
from aide_monai.io.volumes import label_values, open_volume

SHAPE = (6, 5, 4)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mhd", ".mha", ".nrrd"])
@pytest.mark.parametrize("vector", [False, True])
def test_formats_agree_on_voxels_and_affine(tmp_path: Path, suffix: str, vector: bool) -> None:
    voxels = np.random.default_rng(0).normal(size=(4, 5, 6, 2) if vector else (4, 5, 6)).astype(np.float32)
    image = sitk.GetImageFromArray(voxels, isVector=vector)
    image.SetSpacing((1.5, 2, 3))
    image.SetOrigin((10, 20, 30))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / f"x{suffix}"))
    volume = open_volume(str(tmp_path / f"x{suffix}"))
    assert (volume.shape, volume.channels) == ((6, 5, 4), 2 if vector else 1)
    # LPS columns (0, -1, 0) 1.5, (1, 0, 0) 2 and (0, 0, 1) 3 in RAS, by hand
    expected = [[0, -2, 0, -10], [1.5, 0, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-5)
    by_hand = voxels.transpose(2, 1, 0, 3) if vector else voxels.transpose(2, 1, 0)[..., None]
    np.testing.assert_array_equal(volume.decode(), by_hand)


def test_a_two_dimensional_image_of_another_format(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    image.SetSpacing((2, 3))
    sitk.WriteImage(image, str(tmp_path / "x.nrrd"))
    volume = open_volume(str(tmp_path / "x.nrrd"))
    assert volume.shape == (4, 3, 1)
    np.testing.assert_array_equal(volume.affine, np.diag([-2, -3, 1, 1]))
    assert volume.decode()[1, 2, 0, 0] == 9


@given(st.sets(st.integers(-5, 300), min_size=1), st.floats(-9e-4, 9e-4))
def test_label_values_are_rounded(values: set[int], offset: float) -> None:
    assert label_values(np.array(sorted(values)) + offset) == sorted(values)


@given(st.integers(0, 255), st.floats(2e-3, 0.5))
def test_label_values_are_not_rounded_far(value: int, offset: float) -> None:
    with pytest.raises(InputError, match="not whole numbers"):
        label_values(np.array([value + offset, 1.0]))
