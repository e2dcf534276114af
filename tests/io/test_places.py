"""Labels and images on different grids: hand-computed places."""

from __future__ import annotations

import numpy as np
import pytest

from aide_monai.errors import InputError
from aide_monai.io.grid import require_inside, shared_part, to_index

IMAGE = np.diag([2.0, 2, 5, 1])


def moved(x: float = 0, y: float = 0, z: float = 0, *, scale: float = 1) -> np.ndarray:
    """The image's affine, its first voxel (x, y, z) mm further, its voxels ``scale`` times as large."""
    affine = IMAGE @ np.diag([scale, scale, scale, 1])
    affine[:3, 3] = x, y, z
    return affine


def test_indices_of_a_label_as_indices_of_the_image() -> None:
    assert to_index(IMAGE, moved(4, 0, -5), [[0, 0, 0], [1, 2, 3]]).tolist() == [[2, 0, -1], [3, 2, 2]]
    mirrored = np.array([[0, 2.0, 0, 0], [-2, 0, 0, 6], [0, 0, 5, 0], [0, 0, 0, 1]])
    assert to_index(IMAGE, mirrored, [[1, 0, 0]]).tolist() == [[0, 2, 0]]


@pytest.mark.parametrize(
    ("affine", "shape", "share"),
    [
        (moved(), (4, 4, 4), 1.0),
        (moved(), (4, 4, 2), 1.0),  # the label has half of the slices, all of them inside
        (moved(x=4), (4, 4, 4), 0.5),
        (moved(x=4, z=10), (4, 4, 4), 0.25),
        (moved(x=8), (4, 4, 4), 0.0),
        (moved(x=80), (4, 4, 4), 0.0),
        # half as large voxels, from -0.5 to 3.5 in their own index: 2 voxels of the image, a quarter of one outside
        (moved(scale=0.5), (4, 4, 4), (1.75 / 2 + 0.25 / 2) ** 3),
    ],
)
def test_the_part_that_two_volumes_share(affine: np.ndarray, shape: tuple[int, ...], share: float) -> None:
    assert shared_part(IMAGE, (4, 4, 4), affine, shape) == pytest.approx(share)


def test_marks_outside_of_the_image(caplog: pytest.LogCaptureFixture) -> None:
    voxels = np.zeros((4, 4, 4), dtype=np.uint8)
    voxels[0, 0, :] = 1

    def check(z_mm: float) -> None:
        require_inside(IMAGE, (4, 4, 4), moved(z=z_mm), voxels, label="label", image="image")

    check(0)
    check(2.4)  # half a voxel: still nearest to the last slice
    assert caplog.text == ""
    check(5)
    assert "label: found 1 of 4 label voxels outside of the image image, up to 0.5 voxels; resampling" in caplog.text
    check(-10)
    assert "found 2 of 4 label voxels outside" in caplog.text
    with pytest.raises(
        InputError, match=r"found 3 of 4 label voxels outside .* up to 2\.5 voxels; expected the label of"
    ):
        check(15)


def test_a_label_without_marks_is_inside() -> None:
    require_inside(IMAGE, (4, 4, 4), moved(x=500), np.zeros((2, 2, 2)), label="label", image="image")
