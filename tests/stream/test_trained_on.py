"""What is known of a training's volumes, and what later volumes are brought to."""

from __future__ import annotations

import itertools
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from aide_monai.handlers.settings import save_settings
from aide_monai.stream.trained_on import TrainedOn, TurnLikeTrainingd, other_units, through_plane

AXES = [
    np.array([(axis, flip) for axis, flip in zip(order, flips, strict=True)])
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
"""All 48 ways to store a volume."""


def turned(voxels: np.ndarray, affine: np.ndarray, ornt: np.ndarray) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(voxels, affine).as_reoriented(ornt)


def oblique(degrees: float, spacing: tuple[float, ...]) -> np.ndarray:
    """Axes turned about x and then about z."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine[:3, :3] *= spacing
    affine[:3, 3] = (5, -7, 11)
    return affine


@pytest.mark.parametrize(
    "known",
    [
        TrainedOn({"RAS": 3}, through_plane=2),
        TrainedOn({"LPS": 2, "RAS": 1, "PSR": 1}, through_plane=2),
        TrainedOn({"ASL": 2}, through_plane=2),
        TrainedOn({"SAR": 2}, through_plane=None),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 1)])
@pytest.mark.parametrize("spacing", [(1.0, 1.1, 6.0), (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("degrees", [0, 10, 38])
def test_one_scan_comes_to_the_same_voxels_however_it_is_stored(known, shape, spacing, degrees, tmp_path):
    save_settings(tmp_path / "model.pt", known.as_settings())
    turn = TurnLikeTrainingd("image", weights=tmp_path / "model.pt")
    voxels, affine = np.arange(np.prod(shape), dtype=np.int16).reshape(shape), oblique(degrees, spacing)
    seen = set()
    for ornt in AXES:
        image = turned(voxels, affine, ornt)
        given = MetaTensor(torch.from_numpy(np.array(image.dataobj))[None], affine=torch.tensor(image.affine))
        result = turn({"image": given})
        seen.add((tuple(result["image"].shape), tuple(result["image"].flatten().tolist())))
        back = turn.inverse(result)["image"]
        assert torch.equal(back.as_tensor(), given.as_tensor())
        assert np.allclose(back.affine, image.affine, atol=1e-5)
    assert len(seen) == 1


def test_the_most_common_orientation_with_slices_in_this_direction():
    axial, sagittal = np.diag([1.0, 1, 5, 1]), np.diag([5.0, 1, 1, 1])
    known = TrainedOn({"LPS": 5, "RAS": 4, "PSR": 2, "ASR": 1}, through_plane=2)
    assert known.target(axial, (9, 9, 9)) == "LPS"
    assert known.target(sagittal, (9, 9, 9)) == "PSR"
    assert known.target(np.diag([1.0, 1, 1, 1]), (9, 9, 9)) == "LPS"
    # no training volume has coronal slices: the body lies as it lay in most
    assert known.target(np.diag([1.0, 5, 1, 1]), (9, 9, 9)) == "LPS"
    # a heart's short axis keeps its slices
    short_axis = oblique(35, (1.0, 1, 8))[:, [2, 0, 1, 3]]
    assert through_plane(short_axis, (9, 9, 9)) == 0
    only_sagittal = TrainedOn({"PSR": 2}, through_plane=2).target(short_axis, (9, 9, 9))
    assert only_sagittal == "PRS"
    assert TrainedOn().target(axial, (9, 9, 9)) is None


@pytest.mark.parametrize(
    ("spacing", "shape", "axis"),
    [((1, 1, 3), (9, 9, 9), 2), ((3, 1, 1), (9, 9, 9), 0), ((1, 1, 1.2), (9, 9, 9), None), ((1, 1, 1), (9, 1, 9), 1)],
)
def test_direction_of_slices(spacing, shape, axis):
    assert through_plane(np.diag([*spacing, 1.0]), shape) == axis


def image(low: float, high: float, *, spacing: tuple[float, ...] = (1, 1, 3), **meta: Any) -> MetaTensor:
    values = torch.linspace(low, high, 1000).view(1, 10, 10, 10)
    meta = {"intensity_range": [[low, high]], **meta}
    return MetaTensor(values, affine=torch.diag(torch.tensor([*spacing, 1.0])), meta=meta)


def test_the_record_of_volumes():
    images = [image(-1000, 300, modality="CT"), image(-900, 500, spacing=(2, 1, 3)), image(0, 1, oriented=False)]
    images[1].affine[0, 0] = -2
    known = TrainedOn.of([{"image": one} for one in images])
    assert known.orientations == {"LAS": 1, "RAS": 1}
    assert known.through_plane in (0, 2)
    assert known.spacing == [[1, 2], [1, 1], [3, 3]]
    assert known.intensity == [[-1000, 0, 1, 500]]
    assert known.modality == ["CT"]
    assert TrainedOn.of([{"image": image(0, 9)}], modality={0: "MRI (T2)"}).modality == ["MR"]
    assert TrainedOn.of([{"image": image(0, 9)}], modality={0: "channel 0"}).modality == []
    assert TrainedOn.of([]) == TrainedOn()


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (image(-1000, 400, modality="CT"), None),
        (image(-1024, 1500, spacing=(1.9, 0.6, 5.9)), None),
        (image(0, 255), "intensities from 0 to 255; expected about -1010 to 900: are they in other units?"),
        (image(24, 2024), "intensities from 24 to 2024"),
        (image(-1000, 400, modality="MR"), "modality MR; expected CT"),
        (image(-1000, 400, spacing=(1, 1, 6.5)), "spacing 1 x 1 x 6.5 mm; expected about 1 x 1 x 3 mm"),
        (image(-1000, 400, spacing=(0.4, 1, 3)), "spacing 0.4 x 1 x 3 mm"),
        (image(-1000, 400, oriented=False), "the file does not say its orientation"),
    ],
)
def test_what_cannot_be_brought_is_named(volume, message):
    known = TrainedOn({"RAS": 3}, 2, [[1, 1], [1, 1], [3, 3]], [[-1010, -990, 300, 900]], ["CT"])
    found = known.differences(volume)
    assert found == [] if message is None else found[0].startswith(message)


@pytest.mark.parametrize(
    ("low", "high", "known", "other"),
    [
        (0, 255, (0, 0, 600, 4000), False),  # MR of any scanner
        (0, 255, (0, 5, 3000, 4000), True),
        (0, 1, (0, 0, 200, 255), True),
        (-3, 300, (0, 0, 200, 255), False),  # the ringing of an interpolation
        (-1000, 1000, (-1000, 0, 255, 900), False),  # mixed data
        (-2.5, 4.0, (0, 0, 200, 255), True),
    ],
)
def test_other_units(low, high, known, other):
    assert other_units(low, high, known) is other
