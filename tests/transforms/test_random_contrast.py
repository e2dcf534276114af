"""A gamma curve that keeps order, mean and spread, and leaves labels alone."""

from __future__ import annotations

import pytest
import torch

from aide_monai.errors import InputError
from aide_monai.transforms import RandomContrast, RandomRotateFlip
from aide_monai.transforms.random_contrast import change_contrast


def test_by_hand() -> None:
    image = torch.tensor([0.0, 2.0, 4.0]).view(1, 1, 3, 1)
    changed = change_contrast(image, torch.tensor([[2.0]])).flatten()
    # 0, 1/4, 1 has the mean 5/12 and the deviation sqrt(13)/6/sqrt(2); the former ones are 2 and sqrt(8/3)
    curved = torch.tensor([0.0, 0.25, 1.0])
    expected = (curved - 5 / 12) / curved.std(correction=0) * (8 / 3) ** 0.5 + 2
    assert torch.allclose(changed, expected)
    assert torch.allclose(change_contrast(image, torch.ones(1, 1)), image, atol=1e-6)


def test_order_mean_and_spread_stay_and_channels_differ() -> None:
    image = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    label = (image[:, :1] > 0).to(torch.uint8)
    still = RandomRotateFlip(seed=1, max_angle=0.0, flip_probability=0.0)
    changed, (same,) = RandomContrast(still, strength=1.0)(image, [label])
    assert torch.equal(same, label)
    assert torch.equal(changed.flatten(2).argsort(dim=2), image.flatten(2).argsort(dim=2))
    assert torch.allclose(changed.mean(dim=(2, 3)), image.mean(dim=(2, 3)), atol=1e-4)
    assert torch.allclose(changed.std(dim=(2, 3)), image.std(dim=(2, 3)), rtol=1e-3)
    difference = (changed - image).abs().amax(dim=(2, 3))
    assert (difference > 1e-3).all()
    assert not torch.allclose(difference[:, 0], difference[:, 1])


def test_a_constant_channel_and_half_precision() -> None:
    image = torch.full((1, 1, 4, 4), 3.0, dtype=torch.bfloat16)
    changed = change_contrast(image, torch.tensor([[0.5]]))
    assert changed.dtype == torch.bfloat16
    assert torch.equal(changed, image)


def test_strength_is_not_negative() -> None:
    with pytest.raises(InputError, match="strength is -1; expected a number of at least 0"):
        RandomContrast(RandomRotateFlip(), strength=-1)
