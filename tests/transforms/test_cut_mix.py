"""Boxes of other images: where they lie, and that labels follow."""

from __future__ import annotations

import pytest
import torch

from aide_monai.errors import InputError
from aide_monai.losses import IGNORED
from aide_monai.transforms import CutMix, RandomRotateFlip

STILL = {"max_angle": 0.0, "flip_probability": 0.0}


def mixed(shape: tuple[int, ...], *, samples: int = 6, **options: float) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Image and two labels of samples that are 0, 1, 2, ... everywhere, and what has become of them."""
    number = torch.arange(samples).view(-1, 1, *[1] * len(shape))
    image = number.expand(samples, 2, *shape).float()
    label = number.expand(samples, 1, *shape).to(torch.uint8)
    image, labels = CutMix(RandomRotateFlip(seed=3, **STILL), **options)(image, [label, label + 100])
    return image.round(), labels  # not turned, but resampled


@pytest.mark.parametrize("shape", [(9, 12), (6, 9, 3)])
def test_a_box_of_one_other_sample_is_pasted_with_its_labels(shape: tuple[int, ...]) -> None:
    image, (first, second) = mixed(shape)
    assert (image.dtype, first.dtype) == (torch.float32, torch.uint8)
    corners = set()
    for number, (pixels, label) in enumerate(zip(image, first[:, 0], strict=True)):
        assert torch.equal(pixels, label.float().expand(2, *shape))
        places = (label != number).nonzero()
        assert len(set(label[label != number].tolist())) == 1
        extent = places.amax(dim=0) - places.amin(dim=0) + 1
        assert extent.tolist() == [2 * n // 3 for n in shape]
        assert len(places) == int(extent.prod())
        corners.add(tuple(places[0].tolist()))
    assert torch.equal(second, first + 100)
    assert len(corners) > 1
    assert sorted(int(label[label != n][0]) for n, label in enumerate(first[:, 0])) == list(range(6))


def test_probability_and_size() -> None:
    assert [int(label.unique().numel()) for label in mixed((6, 6), probability=0.0)[1][0]] == [1] * 6
    changed = [int(label.unique().numel()) for label in mixed((6, 6), samples=400, probability=0.25)[1][0]]
    assert 0.15 < changed.count(2) / 400 < 0.35
    whole, _ = mixed((6, 6), size=1.0)
    assert all(image.unique().tolist() != [number] and len(image.unique()) == 1 for number, image in enumerate(whole))


def test_nothing_to_mix_with() -> None:
    image, labels = mixed((4, 4), samples=1)
    assert not image.any()
    assert not labels[0].any()


def test_the_same_seed_draws_the_same_after_the_turn() -> None:
    image = torch.rand(4, 1, 12, 12)
    once, again = (CutMix(RandomRotateFlip(seed=1))(image, [image])[0] for _ in range(2))
    assert torch.equal(once, again)
    turned = RandomRotateFlip(seed=1)(image, [])[0]
    assert 0.1 < (once == turned).float().mean() < 0.9


def test_a_share_of_a_draw_has_its_turns_and_boxes_and_mixes_among_itself() -> None:
    whole = CutMix(RandomRotateFlip(seed=2), probability=0.7).draw(9)
    share = whole[slice(3, 7)]
    assert torch.equal(share.turn.angle, whole.turn.angle[3:7])
    other, inside = share.boxes((9, 12))
    assert torch.equal(inside, whole.boxes((9, 12))[1][3:7])
    assert sorted(other.tolist()) == [0, 1, 2, 3]
    assert all(one != number for number, one in enumerate(other.tolist()))


@pytest.mark.parametrize("option", ["probability", "size"])
def test_numbers_out_of_range(option: str) -> None:
    with pytest.raises(InputError, match=f"{option} is 1.5; expected a value in 0..1"):
        CutMix(RandomRotateFlip(), **{option: 1.5})


def test_without_a_probability_it_is_what_comes_before() -> None:
    image = torch.rand(3, 1, 8, 8)
    turn, mix = RandomRotateFlip(seed=1), CutMix(RandomRotateFlip(seed=1), probability=0)
    (turned, _), (mixed, labels) = turn(image, [image]), mix(image, [image])
    assert torch.equal(mixed, turned)
    assert len(labels) == 1
    assert torch.equal(mix.generator.get_state(), turn.generator.get_state())  # nothing else was drawn


def test_pixels_without_a_verdict_go_with_their_box() -> None:
    mix = CutMix(RandomRotateFlip(max_angle=0, flip_probability=0, seed=0), size=0.5)
    image = torch.stack([torch.full((1, 4, 4), float(n)) for n in range(2)])
    label = torch.stack([torch.full((1, 4, 4), n, dtype=torch.uint8) for n in (1, IGNORED)])
    mixed, (labels,) = mix(image, [label])
    assert torch.equal(labels == IGNORED, mixed == 1)
    assert torch.equal(labels == 1, mixed == 0)
    assert 0 < int((labels[0] == IGNORED).sum()) < 16
