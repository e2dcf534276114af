"""Rotation and flip: exact cases, the inverse, what is visible, random draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from aide_monai.losses import IGNORED
from aide_monai.transforms import RandomRotateFlip, RotateFlip


def turned(degrees: float | list[float], *, flip: bool | list[bool] = False, axis: int = 0) -> RotateFlip:
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32).reshape(-1))
    flips = torch.tensor(flip).reshape(-1).expand(len(angles))
    return RotateFlip(angle=angles, flip=flips, flip_axis=axis)


def random_image(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def coordinates(height: int, width: int) -> Tensor:
    """(1, 2, H, W): each pixel holds its offset from the image centre; linear, so interpolation keeps it exact."""
    rows = torch.arange(height) - (height - 1) / 2
    columns = torch.arange(width) - (width - 1) / 2
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]


def smooth_image(*size: int) -> Tensor:
    """(1, 1, spatial...): a few broad waves."""
    axes = torch.meshgrid(*[torch.linspace(0, 2, n) for n in size], indexing="ij")
    waves = torch.sin(3 * axes[0] + 0.4) + torch.cos(2 * axes[1])
    return (waves + sum(axes[2:]))[None, None]


# Exact cases


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (6, 10), (5, 8), (4, 6, 3)])
def test_angle_zero_is_the_identity(size: tuple[int, ...]) -> None:
    image = random_image(2, 3, *size)
    drawn = turned([0.0, 0.0])
    torch.testing.assert_close(drawn.apply(image), image, atol=1e-5, rtol=0)
    torch.testing.assert_close(drawn.invert(image), image, atol=1e-5, rtol=0)
    assert torch.equal(drawn.apply(image, mode="nearest"), image)
    assert bool(drawn.visible(image).all())
    assert drawn.visible(image).shape == (2, 1, *size)
    assert drawn.visible(image).dtype == torch.bool


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (4, 6, 3)])
def test_a_flip_is_exact(axis: int, size: tuple[int, ...]) -> None:
    image = random_image(1, 2, *size)
    drawn = turned(0.0, flip=True, axis=axis)
    assert torch.equal(drawn.apply(image, mode="nearest"), image.flip(axis + 2))
    torch.testing.assert_close(drawn.apply(image), image.flip(axis + 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(drawn.invert(drawn.apply(image)), image, atol=1e-5, rtol=0)
    assert bool(drawn.visible(image).all())


@pytest.mark.parametrize("size", [4, 7, 16])
@pytest.mark.parametrize("quarters", [-2, -1, 1, 2, 3])
def test_quarter_turns_of_a_square_are_exact(size: int, quarters: int) -> None:
    image = random_image(1, 2, size, size)
    drawn = turned(90.0 * quarters)
    # +90 degrees takes the first axis onto the second: view[r, c] = image[n - 1 - c, r]
    expected = torch.rot90(image, -quarters, dims=(2, 3))
    assert torch.equal(drawn.apply(image, mode="nearest"), expected)
    torch.testing.assert_close(drawn.apply(image), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(drawn.invert(expected), image, atol=1e-4, rtol=0)
    assert bool(drawn.visible(image).all())


@pytest.mark.parametrize(("axis", "dims"), [(0, 2), (1, 3)])
def test_the_flip_comes_after_the_rotation(axis: int, dims: int) -> None:
    image = random_image(1, 1, 6, 6)
    drawn = turned(90.0, flip=True, axis=axis)
    expected = torch.rot90(image, -1, dims=(2, 3)).flip(dims)
    assert torch.equal(drawn.apply(image, mode="nearest"), expected)
    assert torch.equal(drawn.invert(expected, mode="nearest"), image)


def test_a_quarter_turn_of_a_wide_image_keeps_its_middle() -> None:
    image = random_image(1, 1, 4, 10)
    drawn = turned(90.0)
    view = drawn.apply(image, mode="nearest")
    assert torch.equal(view[..., 3:7], torch.rot90(image[..., 3:7], -1, dims=(2, 3)))
    assert bool((view[..., :3] == 0).all())  # what lies outside the image is zero
    assert bool((view[..., 7:] == 0).all())
    visible = drawn.visible(image)[0, 0]
    assert bool(visible[:, 3:7].all())
    assert not bool(visible[:, :3].any())
    assert not bool(visible[:, 7:].any())


def test_the_padding_is_an_option() -> None:
    ones = torch.ones(1, 1, 8, 8)
    assert float(turned(45.0).apply(ones)[0, 0, 0, 0]) == 0.0
    assert bool((turned(45.0).apply(ones, padding_mode="border") == 1).all())


# The inverse


@pytest.mark.parametrize("degrees", [-60.0, -33.0, 10.0, 45.0, 60.0, 179.0])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [(40, 40), (40, 56), (41, 33)])
def test_both_maps_compose_to_the_identity(degrees: float, flip: bool, axis: int, size: tuple[int, int]) -> None:
    """Interpolation keeps a linear image exactly, so the maps themselves can be read off the pixel values."""
    drawn = turned(degrees, flip=flip, axis=axis)
    offsets = coordinates(*size)
    view = drawn.apply(offsets, padding_mode="border")
    restored = drawn.invert(view)
    near = offsets.norm(dim=1) < min(size) / 2 - 2  # the disc that no rotation takes out of the image
    torch.testing.assert_close(restored[0][:, near[0]], offsets[0][:, near[0]], atol=1e-4, rtol=0)

    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    r, c = offsets[0, 0][near[0]], offsets[0, 1][near[0]]
    r, c = (-r, c) if flip and axis == 0 else (r, -c) if flip else (r, c)
    expected = torch.stack([cos * r - sin * c, sin * r + cos * c])
    torch.testing.assert_close(view[0][:, near[0]], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("degrees", [-60.0, -17.0, 5.0, 45.0])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (48, 80), (48, 48, 4)])
def test_the_inverse_restores_a_smooth_image_where_it_was_seen(
    degrees: float, flip: bool, size: tuple[int, ...]
) -> None:
    drawn = turned(degrees, flip=flip)
    image = smooth_image(*size)
    restored, visible = drawn.invert(drawn.apply(image)), drawn.visible(image)
    margin = torch.ones(1, 1, 5, 5)
    seen = visible.float() if image.ndim == 4 else visible[..., 0].float()
    interior = torch.nn.functional.conv2d(seen, margin, padding=2) == 25
    interior = interior if image.ndim == 4 else interior[..., None].expand_as(visible)
    assert float(interior.float().mean()) > 0.4
    # two interpolations, each off by at most h^2 / 8 times the sum of the second derivatives, 9 and 4
    assert float((restored - image)[interior].abs().max()) < 2 * (2 / 47) ** 2 / 8 * 13


def test_pixels_out_of_view_get_the_nearest_value_of_the_view() -> None:
    assert bool((turned(45.0).invert(torch.ones(1, 1, 8, 8)) == 1).all())


# Visibility


@pytest.mark.parametrize("size", [9, 16])
def test_a_view_at_45_degrees_does_not_see_the_corners_of_a_square(size: int) -> None:
    visible = turned(45.0).visible(torch.zeros(1, 1, size, size))[0, 0]
    assert not any(bool(visible[r, c]) for r in (0, -1) for c in (0, -1))
    middle = slice((size - 1) // 2, size // 2 + 1)
    assert bool(visible[middle, middle].all())
    assert torch.equal(visible, visible.flip(0))
    assert torch.equal(visible, visible.T)


@pytest.mark.parametrize("degrees", [-60.0, 13.0, 45.0, 90.0])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(12, 12), (9, 20), (20, 9)])
def test_a_pixel_is_visible_when_its_place_in_the_view_is_inside(
    degrees: float, flip: bool, size: tuple[int, int]
) -> None:
    visible = turned(degrees, flip=flip).visible(torch.zeros(1, 1, *size))[0, 0].numpy()
    angle, (height, width) = math.radians(degrees), size
    for row, column in np.ndindex(*size):
        r, c = row - (height - 1) / 2, column - (width - 1) / 2
        # the transposed rotation takes a place in the image to its place in the view; a flip moves no border
        v = abs(math.cos(angle) * r + math.sin(angle) * c) - height / 2
        w = abs(-math.sin(angle) * r + math.cos(angle) * c) - width / 2
        if min(abs(v), abs(w)) > 1e-3:
            assert visible[row, column] == (v < 0 and w < 0)


# Volumes, types, batches


@pytest.mark.parametrize("flip", [False, True])
def test_a_volume_turns_in_its_first_two_axes(flip: bool) -> None:
    volume = random_image(1, 2, 10, 12, 5)
    drawn = turned(37.0, flip=flip)
    slices = [drawn.apply(volume[..., z]) for z in range(5)]
    torch.testing.assert_close(drawn.apply(volume), torch.stack(slices, dim=-1), atol=1e-5, rtol=0)
    slices = [drawn.invert(volume[..., z]) for z in range(5)]
    torch.testing.assert_close(drawn.invert(volume), torch.stack(slices, dim=-1), atol=1e-5, rtol=0)
    seen = [drawn.visible(volume[..., z]) for z in range(5)]
    assert torch.equal(drawn.visible(volume), torch.stack(seen, dim=-1))


def test_samples_do_not_depend_on_each_other() -> None:
    images = random_image(3, 2, 9, 9)
    drawn = turned([10.0, -50.0, 90.0], flip=[True, False, True])
    for b, (degrees, flip) in enumerate([(10.0, True), (-50.0, False), (90.0, True)]):
        alone, image = turned(degrees, flip=flip), images[b : b + 1]
        torch.testing.assert_close(drawn.apply(images)[b : b + 1], alone.apply(image))
        torch.testing.assert_close(drawn.invert(images)[b : b + 1], alone.invert(image))
        assert torch.equal(drawn.visible(images)[b : b + 1], alone.visible(image))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_type_is_kept_and_the_sampling_exact(dtype: torch.dtype) -> None:
    image = random_image(1, 1, 128, 128).to(dtype)
    drawn = turned(90.0)
    assert drawn.apply(image).dtype == dtype
    assert drawn.invert(image).dtype == dtype
    assert torch.equal(drawn.apply(image, mode="nearest"), torch.rot90(image, -1, dims=(2, 3)))


def test_refuses_another_number_of_samples() -> None:
    with pytest.raises(ValueError, match="the batch has 3 samples; expected 2, one per drawn rotation"):
        turned([1.0, 2.0]).apply(torch.zeros(3, 1, 4, 4))


# Random draws


def test_draws_depend_on_the_seed_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draws = [RandomRotateFlip(seed=seed).draw(8) for seed in (5, 5, 6)]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(draws[0].angle, draws[1].angle)
    assert torch.equal(draws[0].flip, draws[1].flip)
    assert not torch.equal(draws[0].angle, draws[2].angle)


def test_draws_follow_one_another() -> None:
    random = RandomRotateFlip(seed=1)
    first, second = random.draw(4), random.draw(4)
    assert not torch.equal(first.angle, second.angle)


def test_angles_are_uniform_and_half_are_flipped() -> None:
    drawn = RandomRotateFlip(max_angle=60, flip_probability=0.5, flip_axis=1).draw(20_000)
    degrees = torch.rad2deg(drawn.angle)
    assert drawn.flip_axis == 1
    assert float(degrees.abs().max()) <= 60 + 1e-4
    share = torch.histc(degrees, bins=6, min=-60, max=60) / len(degrees)
    torch.testing.assert_close(share, torch.full((6,), 1 / 6), atol=0.02, rtol=0)
    assert float(drawn.flip.float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(degrees[drawn.flip].mean()) == pytest.approx(0, abs=1.5)  # the two are independent


@pytest.mark.parametrize(("probability", "flipped"), [(0.0, 0), (1.0, 100)])
def test_flips_never_or_always(probability: float, flipped: int) -> None:
    assert int(RandomRotateFlip(flip_probability=probability).draw(100).flip.sum()) == flipped


def test_no_angle_and_no_flip_leaves_a_batch_as_it_is() -> None:
    image, label = random_image(3, 1, 6, 6), torch.randint(0, 5, (3, 1, 6, 6))
    turned_image, (turned_label,) = RandomRotateFlip(max_angle=0, flip_probability=0)(image, [label])
    torch.testing.assert_close(turned_image, image, atol=1e-5, rtol=0)
    assert torch.equal(turned_label, label)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
@pytest.mark.parametrize("size", [(32, 32), (24, 24, 3)])
def test_labels_turn_with_their_image_and_stay_integers(dtype: torch.dtype, size: tuple[int, ...]) -> None:
    first = torch.zeros(4, 1, *size, dtype=dtype)
    first[:, :, 6:20, 9:15] = 150 if dtype == torch.uint8 else 3
    second = (first > 0).to(dtype)
    image, (one, two) = RandomRotateFlip(seed=3)(first.float(), [first, second])
    assert one.dtype == two.dtype == dtype
    assert set(one.unique().tolist()) == set(first.unique().tolist())
    assert torch.equal(one > 0, two > 0)
    assert not torch.equal(one, first)
    value = float(first.max())
    assert float(((image > value / 2) == (one > 0)).float().mean()) > 0.98


def test_labels_outside_the_image_become_background() -> None:
    random = RandomRotateFlip(max_angle=60, seed=0)
    _, (label,) = random(torch.ones(8, 1, 16, 16), [torch.ones(8, 1, 16, 16, dtype=torch.uint8)])
    assert int((label == 0).sum()) > 0
    assert bool((label[:, :, 6:10, 6:10] == 1).all())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_angle": -1}, r"max_angle is -1; expected a value in 0\.\.180"),
        ({"max_angle": 200}, "max_angle is 200"),
        ({"flip_probability": 2}, "flip_probability is 2"),
        ({"flip_axis": 2}, "flip_axis is 2; expected 0 or 1"),
    ],
)
def test_refuses_options_out_of_range(options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        RandomRotateFlip(**options)


# Zoom


def test_twice_as_large_shows_the_middle_and_half_as_large_all() -> None:
    image = coordinates(8, 8)
    zoomed = RotateFlip(angle=torch.zeros(2), flip=torch.zeros(2, dtype=torch.bool), zoom=torch.tensor([2.0, 0.5]))
    large, small = zoomed.apply(image.repeat(2, 1, 1, 1))
    torch.testing.assert_close(large, image[0] / 2)
    torch.testing.assert_close(small[:, 2:6, 2:6], 2 * image[0][:, 2:6, 2:6])
    assert bool((small[:, :1] == 0).all())
    visible = zoomed.visible(torch.zeros(2, 1, 8, 8))
    assert visible[0, 0].nonzero().unique().tolist() == [2, 3, 4, 5]
    assert bool(visible[1].all())


@pytest.mark.parametrize("size", [(40, 40), (40, 56), (40, 40, 3)])
def test_the_inverse_undoes_turn_flip_and_zoom(size: tuple[int, ...]) -> None:
    drawn = RandomRotateFlip(max_angle=60, max_zoom=1.5, seed=4).draw(6)
    offsets = coordinates(*size[:2]) if len(size) == 2 else coordinates(*size[:2])[..., None].expand(1, 2, *size)
    offsets = offsets.repeat(6, *[1] * (offsets.ndim - 1))
    restored = drawn.invert(drawn.apply(offsets, padding_mode="border"))
    near = offsets.norm(dim=1, keepdim=True) < min(size[:2]) / 2 / 1.5 - 2
    assert float(((restored - offsets) * near).abs().max()) < 1e-4
    part = drawn[torch.tensor([1, 4])]
    assert torch.equal(part.apply(offsets[:2]), drawn.apply(offsets)[[1, 4]])


def test_zooms_are_drawn_up_and_down_alike() -> None:
    drawn = RandomRotateFlip(max_zoom=1.25).draw(20_000)
    assert drawn.zoom is not None
    assert float(drawn.zoom.min()) == pytest.approx(0.8, abs=0.001)
    assert float(drawn.zoom.max()) == pytest.approx(1.25, abs=0.001)
    assert float(drawn.zoom.log().mean()) == pytest.approx(0, abs=0.005)
    assert RandomRotateFlip().draw(1).zoom is None


@pytest.mark.parametrize("zoom", [0.9, math.inf, math.nan])
def test_a_zoom_out_of_range_is_refused(zoom: float) -> None:
    with pytest.raises(ValueError, match=r"max_zoom is .*; expected a value in 1\.\.10"):
        RandomRotateFlip(max_zoom=zoom)


@pytest.mark.parametrize("max_zoom", [1.0, 1.5])
def test_labels_of_a_thin_line_keep_its_size_and_place_in_the_mean(max_zoom: float) -> None:
    """One pixel wide; the largest share of each pixel would leave 94 % of it."""
    label = torch.zeros(1, 1, 48, 40)
    label[:, :, 23, 10:30] = 1
    drawn = RandomRotateFlip(max_zoom=max_zoom, seed=1).draw(400)
    views = drawn.apply_to_batch(label.expand(400, -1, -1, -1), [label.expand(400, -1, -1, -1)])[1][0][:, 0]
    zoom = torch.ones(400) if drawn.zoom is None else drawn.zoom
    assert views.sum((1, 2)).div(20 * zoom**2).mean() == pytest.approx(1, abs=0.02)
    shares = views / views.sum((1, 2), keepdim=True)
    centre = (shares[:, None] * coordinates(48, 40)).sum((2, 3))
    offset = torch.stack([drawn.angle.cos(), -drawn.angle.sin()], dim=1) * zoom[:, None] * -0.5  # of row 23
    offset[:, 0] *= 1 - 2 * drawn.flip.float()
    assert (centre - offset).mean(dim=0).abs().max() < 0.05


@pytest.mark.parametrize("size", [(8, 8), (8, 8, 3)])
def test_what_comes_in_around_a_label_with_voxels_without_a_verdict_has_none(size: tuple[int, ...]) -> None:
    image = torch.ones(2, 1, *size)
    partly, wholly = torch.ones(2, 1, *size, dtype=torch.uint8)
    partly[0, 4, 4] = IGNORED
    _, (label,) = turned([45.0, 45.0]).apply_to_batch(image, [torch.stack([partly, wholly])])
    corner = (0, 0, 0)
    assert int(label[(0, *corner[: label.ndim - 1])].max()) == IGNORED
    assert int(label[(1, *corner[: label.ndim - 1])].max()) == 0
    assert label[0].unique().tolist() == [1, IGNORED]
    assert label[1].unique().tolist() == [0, 1]
    assert label.dtype == torch.uint8
    # the marks are those that a label without such voxels has
    assert torch.equal((label[0] == 1) | (label[0] == IGNORED), torch.ones_like(label[0], dtype=torch.bool))
    assert bool((label[1][label[0] == 1] == 1).all())
