"""Grids by hand: places, shear, what two of them share."""

from __future__ import annotations

import numpy as np
import pytest

from aide_monai.errors import InputError
from aide_monai.io.grid import Grid, require_inside

IMAGE = Grid((4, 4, 4), np.diag([2.0, 2, 5, 1]))


def moved(x: float = 0, y: float = 0, z: float = 0, *, scale: float = 1, shape: tuple = (4, 4, 4)) -> Grid:
    """The image's grid, its first voxel (x, y, z) mm further, its voxels ``scale`` times as large."""
    affine = IMAGE.affine @ np.diag([scale, scale, scale, 1])
    affine[:3, 3] = x, y, z
    return Grid(shape, affine)


def test_indices_of_a_label_as_indices_of_the_image() -> None:
    assert IMAGE.index_of(moved(4, 0, -5), [[0, 0, 0], [1, 2, 3]]).tolist() == [[2, 0, -1], [3, 2, 2]]
    mirrored = np.array([[0, 2.0, 0, 0], [-2, 0, 0, 6], [0, 0, 5, 0], [0, 0, 0, 1]])
    assert IMAGE.index_of(Grid((4, 4, 4), mirrored), [[1, 0, 0]]).tolist() == [[0, 2, 0]]


@pytest.mark.parametrize(
    ("label", "share"),
    [
        (moved(), 1.0),
        (moved(shape=(4, 4, 2)), 1.0),  # the label has half of the slices, all of them inside
        (moved(x=4), 0.5),
        (moved(x=4, z=10), 0.25),
        (moved(x=8), 0.0),
        (moved(x=80), 0.0),
        # half as large voxels, from -0.5 to 3.5 in their own index: 2 voxels of the image, a quarter of one outside
        (moved(scale=0.5), (1.75 / 2 + 0.25 / 2) ** 3),
    ],
)
def test_the_part_that_two_volumes_share(label: Grid, share: float) -> None:
    assert IMAGE.shared_part(label) == pytest.approx(share)


def test_marks_outside_of_the_image(caplog: pytest.LogCaptureFixture) -> None:
    voxels = np.zeros((4, 4, 4), dtype=np.uint8)
    voxels[0, 0, :] = 1

    def check(z_mm: float) -> None:
        require_inside(IMAGE, moved(z=z_mm), voxels, label_name="label", image_name="image")

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
    require_inside(IMAGE, moved(x=500), np.zeros((2, 2, 2)), label_name="label", image_name="image")


def test_the_distance_of_a_small_rotation_grows_with_the_volume() -> None:
    turned = np.eye(4)
    turned[0, 1] = 0.001
    for size, distance in ((11, 0.01), (501, 0.5)):
        shape = (size, size, 11)
        assert Grid(shape, np.eye(4)).distance_mm(Grid(shape, turned)) == pytest.approx(distance)


def test_a_mismatch_says_what_differs() -> None:
    assert IMAGE.mismatch(moved(x=0.04)) is None
    shape = IMAGE.mismatch(moved(x=1, shape=(4, 4, 3)))
    assert shape is not None
    assert (shape.found, shape.expected, shape.distance_mm) == ("shape 4 x 4 x 3", "shape 4 x 4 x 4", None)
    affine = IMAGE.mismatch(moved(x=1))
    assert affine is not None
    assert (affine.found, affine.distance_mm) == ("affine [2 0 0 1; 0 2 0 0; 0 0 5 0]", 1)
    assert affine.expected == "affine [2 0 0 0; 0 2 0 0; 0 0 5 0]"


@pytest.mark.parametrize(("lean", "sheared"), [(0.0, False), (0.004, False), (0.1, True)])
def test_axes_that_are_not_at_right_angles(lean: float, sheared: bool) -> None:
    affine = IMAGE.affine.copy()
    affine[1, 2] = lean
    grid = Grid((4, 4, 4), affine)
    assert grid.sheared is sheared
    assert grid.spacing_mm == pytest.approx((2, 2, np.hypot(5, lean)))


@pytest.mark.parametrize("wrong", [0.0, np.nan])
def test_an_affine_without_a_volume(wrong: float) -> None:
    with pytest.raises(InputError, match="an affine without a volume"):
        Grid((4, 4, 4), np.diag([1, 1, wrong, 1])).require_sound()


def test_axes_that_lie_nearly_in_one_plane_span_no_volume() -> None:
    affine = np.eye(4)
    affine[1, 0] = 1e9
    with pytest.raises(InputError, match="an affine without a volume"):
        Grid((4, 4, 4), affine).require_sound()
    affine[1, 0] = 100.0  # sheared beyond use, yet each voxel has a place of its own
    Grid((4, 4, 4), affine).require_sound()
