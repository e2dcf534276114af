"""Random changes of intensities: seeds repeat, samples differ, strength stays in its bounds."""

from __future__ import annotations

import pytest
import torch

from aide_monai.errors import InputError
from aide_monai.transforms import RandomIntensity


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("shape", [(6, 2, 12, 10), (4, 1, 8, 9, 5)])
def test_each_image_changes_in_its_way(shape: tuple[int, ...]) -> None:
    image = images(1, *shape[1:]).repeat(shape[0], *[1] * (len(shape) - 1))
    before = image.clone()
    changed = RandomIntensity(probability=1.0)(image)
    assert (changed.shape, changed.dtype, type(changed)) == (image.shape, image.dtype, torch.Tensor)
    assert len({float(one.sum()) for one in changed}) == shape[0]
    assert bool(changed.isfinite().all())
    assert torch.equal(image, before)


def test_probability_zero_changes_nothing_and_half_spares_some() -> None:
    image = images(400, 1, 6, 6)
    torch.testing.assert_close(RandomIntensity(probability=0.0)(image), image, atol=1e-5, rtol=0)
    some = RandomIntensity(probability=0.5)(image)
    untouched = (some - image).abs().amax(dim=(1, 2, 3)) < 1e-5
    # none of the six changes: 0.5 ** 4 * 0.7 * 0.75
    assert float(untouched.float().mean()) == pytest.approx(0.033, abs=0.025)


def test_brightness_and_contrast_stay_in_their_bounds() -> None:
    ramp = torch.linspace(-1.7, 1.7, 32).expand(200, 1, 32, 32)
    changed = RandomIntensity(probability=1.0)(ramp)
    means, deviations = changed.mean(dim=(1, 2, 3)), changed.std(dim=(1, 2, 3))
    assert 0.3 < float(means.abs().max()) < 0.35 + 0.05
    assert float(deviations.min()) == pytest.approx(0.65, abs=0.05)
    assert float(deviations.max()) == pytest.approx(1.35, abs=0.05)


def test_the_same_seed_changes_alike_and_calls_follow_one_another() -> None:
    image = images(3, 1, 8, 8)
    before = torch.get_rng_state()
    random = RandomIntensity(seed=5)
    first, second = random(image), random(image)
    assert torch.equal(first, RandomIntensity(seed=5)(image))
    assert not torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_a_stored_generator_continues() -> None:
    image = images(3, 1, 8, 8)
    random = RandomIntensity(seed=5)
    random(image)
    state = random.generator.get_state()
    expected = random(image)
    resumed = RandomIntensity(seed=9)
    resumed.generator.set_state(state)
    assert torch.equal(resumed(image), expected)


def test_a_share_changes_as_it_does_in_the_whole() -> None:
    image = images(5, 1, 8, 8)
    drawn = RandomIntensity(seed=1).draw(5)
    random = RandomIntensity()
    assert torch.equal(random.apply(image[2:4], drawn[2:4]), random.apply(image, drawn)[2:4])
    assert len(random.apply(image[:0], drawn[:0])) == 0


def test_probability_out_of_range() -> None:
    with pytest.raises(InputError, match=r"probability is 1\.5; expected a value in 0\.\.1"):
        RandomIntensity(probability=1.5)
