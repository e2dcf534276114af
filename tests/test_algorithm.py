"""Algorithm 1 with numbers worked out by hand, then properties."""

from __future__ import annotations

import math
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aide_monai.algorithm import (
    _confusion,
    average_views,
    co_correction_loss,
    confidence,
    confusion,
    consistency_ramp,
    correction_due,
    has_verdict,
    mean_dice,
    sharpen,
    small_loss_mask,
    unit_dice,
    worst_units,
)
from aide_monai.ignored import IGNORED, PARTIAL, marked


def pixels(values: list[list[float]]) -> Tensor:
    """(1, C, 1, pixels) from one list of C probabilities per pixel."""
    return torch.tensor(values).T[None, :, None]


# Local label filtering


def test_keeps_the_smaller_half() -> None:
    mask = small_loss_mask(torch.tensor([0.3, 0.1, 0.2, 0.4]), 0.5)
    assert mask.tolist() == [False, True, True, False]
    assert mask.dtype == torch.bool


def test_kept_number_is_the_floor_and_at_least_one() -> None:
    counts = [int(small_loss_mask(torch.rand(size), 0.5).sum()) for size in range(1, 10)]
    assert counts == [1, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(("keep", "expected"), [(0.0, 1), (0.3, 1), (0.6, 3), (0.75, 3), (0.8, 4), (1.0, 5)])
def test_kept_share_is_an_option(keep: float, expected: int) -> None:
    assert int(small_loss_mask(torch.rand(5), keep).sum()) == expected


def test_a_share_that_falls_short_of_a_whole_number_by_rounding_is_not_one_less() -> None:
    assert 0.29 * 100 < 29
    assert int(small_loss_mask(torch.rand(100), 0.29).sum()) == 29
    assert len(worst_units(torch.rand(100), 0.29)) == 29


def test_a_batch_of_one_is_kept() -> None:
    assert small_loss_mask(torch.tensor([1e9]), 0.5).tolist() == [True]


def test_equal_losses_are_taken_by_index() -> None:
    assert small_loss_mask(torch.tensor([2.0, 1.0, 1.0, 1.0]), 0.5).tolist() == [False, True, True, False]
    assert small_loss_mask(torch.ones(64), 0.25).nonzero().flatten().tolist() == list(range(16))


def test_a_loss_that_is_not_a_number_is_suspicious() -> None:
    assert small_loss_mask(torch.tensor([float("nan"), 5.0, 1.0, 9.0]), 0.5).tolist() == [False, True, True, False]


def test_strata_are_ranked_among_their_own_kind() -> None:
    loss = torch.tensor([0.9, 0.8, 0.1, 0.2, 0.7])
    empty = torch.tensor([True, True, False, False, True])
    assert small_loss_mask(loss, 0.5, strata=empty).tolist() == [False, False, True, False, True]
    nobody = torch.zeros(5, dtype=torch.bool)
    assert torch.equal(small_loss_mask(loss, 0.5, strata=nobody), small_loss_mask(loss, 0.5))
    assert torch.equal(small_loss_mask(loss, 0.5, strata=~nobody), small_loss_mask(loss, 0.5))


def test_the_supervised_floor_by_hand() -> None:
    segmentation, kept = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([True, False, False])
    consistency = torch.tensor([0.1, 0.3])
    losses = [
        float(
            co_correction_loss(
                segmentation, kept, consistency=consistency, ramp=ramp, weight=10, supervised_floor=floor
            )
        )
        for ramp, floor in ((1.0, 0.5), (0.2, 0.5), (1.0, 0.0))
    ]
    assert losses == pytest.approx([1 + 0.5 * 3 + 2, 1 + 0.8 * 3 + 0.2 * 2, 1 + 2])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_no_kept_sample_has_a_larger_loss_than_a_suspicious_one(losses: list[int], keep: float) -> None:
    mask = small_loss_mask(torch.tensor(losses, dtype=torch.float32), keep).tolist()
    order = sorted(range(len(losses)), key=lambda b: (losses[b], b))
    kept = set(order[: max(1, math.floor(keep * len(losses)))])
    assert mask == [b in kept for b in range(len(losses))]


# Pseudo-labels


def test_views_count_only_where_they_saw_the_pixel() -> None:
    first, second = pixels([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]), pixels([[0.4, 0.6], [0.2, 0.8], [0.9, 0.1]])
    visible = torch.tensor([[True, True, False], [True, False, False]]).view(2, 1, 1, 1, 3)
    average = average_views(torch.stack([first, second]), visible, pixels([[0.5, 0.5]] * 3))
    # both views: mean; the first alone: its value; none: the plain prediction
    torch.testing.assert_close(average, pixels([[0.6, 0.4], [0.6, 0.4], [0.5, 0.5]]))


def test_what_a_view_did_not_see_cannot_leak() -> None:
    views = torch.tensor([[0.25, 0.75], [float("nan"), float("inf")]]).view(2, 1, 2, 1, 1)
    visible = torch.tensor([True, False]).view(2, 1, 1, 1, 1)
    average = average_views(views, visible, torch.zeros(1, 2, 1, 1))
    assert average.flatten().tolist() == [0.25, 0.75]


def test_each_sample_has_views_of_its_own() -> None:
    views = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).view(2, 2, 1, 1, 1, 1)  # K, N, C and three spatial axes
    visible = torch.tensor([[True, True], [True, False]]).view(2, 2, 1, 1, 1, 1)
    average = average_views(views, visible, torch.zeros(2, 1, 1, 1, 1))
    assert average.flatten().tolist() == [2.0, 2.0]


def test_sharpening_by_power_by_hand() -> None:
    sharpened = sharpen(pixels([[0.6, 0.4], [0.5, 0.5], [1.0, 0.0]]), 0.5)
    torch.testing.assert_close(sharpened, pixels([[9 / 13, 4 / 13], [0.5, 0.5], [1.0, 0.0]]))
    three = sharpen(pixels([[1 / 2, 1 / 4, 1 / 4]]), 0.5)
    torch.testing.assert_close(three, pixels([[2 / 3, 1 / 6, 1 / 6]]))


def test_temperature_one_changes_nothing_with_power() -> None:
    probability = torch.randn(2, 3, 4, 4).softmax(dim=1)
    torch.testing.assert_close(sharpen(probability, 1.0), probability)


def test_sharpening_by_softmax_by_hand() -> None:
    # exp(p / T) with T = 1/2: exp(1.2) and exp(0.8)
    sharpened = sharpen(pixels([[0.6, 0.4]]), 0.5, "softmax")
    torch.testing.assert_close(sharpened, pixels([[1 / (1 + math.exp(-0.4)), 1 / (1 + math.exp(0.4))]]))
    certain = sharpen(pixels([[1.0, 0.0, 0.0]]), 1.0, "softmax")
    rest = 1 / (math.e + 2)
    torch.testing.assert_close(certain, pixels([[math.e * rest, rest, rest]]))


@pytest.mark.parametrize("kind", ["power", "softmax"])
@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 2.0])
def test_sharpened_probabilities_sum_to_one_and_keep_their_order(kind: str, temperature: float) -> None:
    probability = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    sharpened = sharpen(probability, temperature, kind)
    torch.testing.assert_close(sharpened.sum(dim=1), torch.ones(2, 5, 5))
    assert torch.equal(sharpened.argmax(dim=1), probability.argmax(dim=1))


def test_a_very_low_temperature_gives_a_hard_label() -> None:
    sharpened = sharpen(pixels([[0.6, 0.4], [0.3, 0.7]]), 0.001)
    torch.testing.assert_close(sharpened, pixels([[1.0, 0.0], [0.0, 1.0]]))


def test_confidence_by_hand() -> None:
    assert confidence(pixels([[0.9, 0.1]]), "none") is None
    binary = confidence(pixels([[0.9, 0.1], [0.5, 0.5], [0.0, 1.0]]), "binary")
    torch.testing.assert_close(binary, torch.tensor([0.64, 0.0, 1.0]).view(1, 1, 1, 3))
    entropy = confidence(pixels([[1 / 3] * 3, [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]), "entropy")
    expected = torch.tensor([0.0, 1.0, 1 - math.log(2) / math.log(3)]).view(1, 1, 1, 3)
    torch.testing.assert_close(entropy, expected, atol=1e-6, rtol=1e-6)
    two = confidence(pixels([[0.9, 0.1]]), "entropy")
    nats = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    torch.testing.assert_close(two, torch.full((1, 1, 1, 1), 1 - nats / math.log(2)))


def test_binary_confidence_needs_two_classes() -> None:
    with pytest.raises(ValueError, match='needs 2 classes, found 3; use "entropy"'):
        confidence(torch.ones(1, 3, 2, 2) / 3, "binary")


# Loss of one network


SEGMENTATION = [1.0, 2.0, 3.0, 4.0]
KEPT = torch.tensor([True, False, True, False])  # mean of the kept 2, of the suspicious 3


@pytest.mark.parametrize(
    ("ramp", "weight", "expected"),
    [
        (0.0, 2.0, 2 + 3),
        (0.25, 2.0, 2 + 0.75 * 3 + 2 * 0.25 * 0.6),
        (1.0, 2.0, 2 + 2 * 0.6),
        (1.0, 0.0, 2),
        (0.25, 0.0, 2 + 0.75 * 3),
    ],
)
def test_loss_by_hand(ramp: float, weight: float, expected: float) -> None:
    consistency = torch.tensor([0.5, 0.7])
    loss = co_correction_loss(torch.tensor(SEGMENTATION), KEPT, consistency=consistency, ramp=ramp, weight=weight)
    assert float(loss) == pytest.approx(expected)


def test_the_three_parts_are_means_over_their_own_samples() -> None:
    kept = torch.tensor([True, False, False, False])
    consistency = torch.tensor([0.3, 0.6, 0.9])
    loss = co_correction_loss(torch.tensor(SEGMENTATION), kept, consistency=consistency, ramp=0.5, weight=10.0)
    assert float(loss) == pytest.approx(1 + 0.5 * 3 + 10 * 0.5 * 0.6)


def test_a_fully_kept_batch_has_no_other_term() -> None:
    loss = co_correction_loss(torch.tensor(SEGMENTATION), torch.ones(4, dtype=torch.bool), ramp=0.5, weight=1.0)
    assert float(loss) == 2.5


@pytest.mark.parametrize(
    ("ramp", "expected"), [(0.0, [0.5, 0.5, 0.5, 0.5]), (0.25, [0.5, 0.375, 0.5, 0.375]), (1.0, [0.5, 0.0, 0.5, 0.0])]
)
def test_gradient_of_each_sample(ramp: float, expected: list[float]) -> None:
    segmentation = torch.tensor(SEGMENTATION, requires_grad=True)
    consistency = torch.tensor([0.5, 0.7], requires_grad=True)
    co_correction_loss(segmentation, KEPT, consistency=consistency, ramp=ramp, weight=8.0).backward()
    assert segmentation.grad is not None
    assert segmentation.grad.tolist() == expected
    if ramp > 0:
        assert consistency.grad is not None
        assert consistency.grad.tolist() == [4 * ramp, 4 * ramp]


def test_with_a_full_ramp_the_labels_of_suspicious_samples_do_not_matter() -> None:
    segmentation = torch.tensor([1.0, float("inf"), 3.0, float("nan")])
    loss = co_correction_loss(segmentation, KEPT, consistency=torch.tensor([0.5, 0.7]), ramp=1.0, weight=1.0)
    assert float(loss) == pytest.approx(2.6)


# Schedule


def test_ramp_over_forty_epochs() -> None:
    ramp = [consistency_ramp(epoch, 20) for epoch in range(1, 41)]
    assert ramp == pytest.approx([n * n / 400 for n in range(20)] + [1.0] * 20)
    assert ramp[0] == 0.0
    assert (ramp[1], ramp[10], ramp[19], ramp[20]) == pytest.approx((0.0025, 0.25, 0.9025, 1.0))


def test_ramp_without_warm_up_is_one_from_the_start() -> None:
    assert [consistency_ramp(epoch, 0) for epoch in (1, 2, 50)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"warmup_epochs": 20}, [*range(1, 21), 30, 40]),
        ({"warmup_epochs": 20, "start": 5}, [*range(5, 21), 30, 40]),
        ({"warmup_epochs": 20, "start": 25}, [30, 40]),
        ({"warmup_epochs": 20, "start": 30}, [30, 40]),
        ({"warmup_epochs": 0}, [10, 20, 30, 40]),
        ({"warmup_epochs": 3, "interval": 7}, [1, 2, 3, 7, 14, 21, 28, 35]),
        ({"warmup_epochs": 0, "interval": 1, "start": 38}, [38, 39, 40]),
        ({"warmup_epochs": 40, "start": 41}, []),
    ],
)
def test_corrections_over_forty_epochs(options: dict[str, int], expected: list[int]) -> None:
    assert [epoch for epoch in range(1, 41) if correction_due(epoch, **options)] == expected


# Global label correction


def test_worst_quarter_with_ties_by_index() -> None:
    dice = torch.tensor([0.9, 0.1, 0.5, 0.1, 0.7, 0.1, 0.2, 0.8])
    assert worst_units(dice, 0.25).tolist() == [1, 3]
    assert worst_units(torch.full((40,), 0.5), 0.25).tolist() == list(range(10))


def test_number_of_worst_units_is_the_floor_but_at_least_one() -> None:
    counts = [len(worst_units(torch.rand(units), 0.25)) for units in range(10)]
    assert counts == [0, 1, 1, 1, 1, 1, 1, 1, 2, 2]
    dice = torch.tensor([0.3, 0.1, 0.2])
    assert worst_units(dice, 1.0).tolist() == [1, 2, 0]
    assert worst_units(dice, 0.0).tolist() == []


def test_dice_of_a_case_and_of_its_slices_by_hand() -> None:
    prediction = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 0]], [[1, 0], [0, 0]]])
    label = torch.tensor([[[1, 0], [1, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]])
    case = unit_dice(prediction, label, num_classes=2, unit="case")
    assert case.tolist() == [2 * 1 / (3 + 2)]
    assert case.dtype == torch.float64
    slices = unit_dice(prediction, label, num_classes=2, unit="slice")
    assert slices.tolist() == [0.5, 1.0, 0.0]


@pytest.mark.parametrize("unit", ["case", "slice"])
def test_dice_of_two_empty_masks_is_one(unit: str) -> None:
    empty = torch.zeros(2, 3, 3, dtype=torch.uint8)
    assert unit_dice(empty, empty, num_classes=2, unit=unit).tolist() == [1.0] * (1 if unit == "case" else 2)


def test_dice_of_three_classes_is_the_mean_over_the_foreground() -> None:
    prediction = torch.tensor([[[1, 1, 2, 0]], [[0, 0, 0, 0]]], dtype=torch.uint8)
    label = torch.tensor([[[1, 2, 2, 2]], [[0, 0, 0, 1]]], dtype=torch.uint8)
    # slice 0: class 1 has 2 * 1 / (2 + 1), class 2 has 2 * 1 / (1 + 3); slice 1: class 1 has 0, class 2 is absent
    slices = unit_dice(prediction, label, num_classes=3, unit="slice")
    assert slices.tolist() == pytest.approx([(2 / 3 + 1 / 2) / 2, (0 + 1) / 2])
    # case: class 1 has 2 * 1 / (2 + 2), class 2 has 2 * 1 / (1 + 3)
    assert unit_dice(prediction, label, num_classes=3, unit="case").tolist() == pytest.approx([0.5])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 4), st.sampled_from(["case", "slice"]))
def test_dice_agrees_with_sets_of_pixels(seed: int, classes: int, unit: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    prediction, label = torch.randint(0, classes, (2, 3, 2, 3), generator=generator, dtype=torch.uint8)
    units = [(prediction, label)] if unit == "case" else list(zip(prediction, label, strict=True))
    expected = []
    for p, y in units:
        values = []
        for c in range(1, classes):
            a = {i for i, v in enumerate(p.flatten().tolist()) if v == c}
            b = {i for i, v in enumerate(y.flatten().tolist()) if v == c}
            values.append(2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0)
        expected.append(sum(values) / len(values))
    assert unit_dice(prediction, label, num_classes=classes, unit=unit).tolist() == pytest.approx(expected)


# Voxels without a verdict


def test_a_sample_without_any_verdict_is_kept_last() -> None:
    loss, judged = torch.tensor([0.0, 0.3, 0.2, 0.0]), torch.tensor([False, True, True, True])
    assert small_loss_mask(loss, 0.5, judged=judged).tolist() == [False, False, True, True]
    strata = torch.tensor([True, True, False, False])
    assert small_loss_mask(loss, 0.5, strata=strata, judged=judged).tolist() == [False, True, False, True]


def test_voxels_without_a_verdict_are_not_counted() -> None:
    prediction = torch.tensor([[[0, 1, 1, 2]], [[1, 1, 1, 1]]])
    label = torch.tensor([[[0, 1, IGNORED, 1]], [[IGNORED] * 4]])
    counts = confusion(prediction, label, num_classes=3)
    assert counts[0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert int(counts[1].sum()) == 0
    # class 1: 2 * 1 / (1 + 2); class 2: in the prediction alone
    assert unit_dice(prediction[:1], label[:1], num_classes=3, unit="case").tolist() == pytest.approx([1 / 3])


def test_marks_and_verdicts() -> None:
    label = torch.tensor([[0, 1, IGNORED], [IGNORED] * 3], dtype=torch.uint8)
    assert marked(label).tolist() == [[False, True, False], [False] * 3]
    assert has_verdict(label).tolist() == [True, False]


class Allocated(TorchDispatchMode):
    """Counts the bytes that tensors made within it hold at most at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {one.untyped_storage().data_ptr() for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        found = func(*args, **(kwargs or {}))
        for one in tree_leaves(found):
            if isinstance(one, Tensor) and one.untyped_storage().data_ptr() not in given:
                size = one.untyped_storage().nbytes()
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(one, self._gone, size)
        return found

    def _gone(self, size: int) -> None:
        self.now -= size


@pytest.mark.parametrize("shape", [(40, 256, 256), (1, 160, 128, 128)], ids=["slices", "one volume"])
@pytest.mark.parametrize("special", [0, IGNORED, PARTIAL + 1])
def test_ranking_takes_few_bytes_for_a_voxel(shape: tuple[int, ...], special: int) -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, label = (torch.randint(0, 3, shape, generator=generator, dtype=torch.uint8) for _ in range(2))
    label[:, :, 0] = special
    label[..., -1:] = 0  # in the last piece too
    with Allocated() as allocated:
        found = unit_dice(prediction, label, num_classes=3, unit="slice")
    assert allocated.most <= 2 * prediction.numel() + 100 * 2**17
    assert allocated.most > 8 * 2**17  # it is counted
    whole = torch.cat([_confusion(*pair, 3) for pair in zip(prediction.split(1), label.split(1), strict=True)])
    known = [1] if special == PARTIAL + 1 else [1, 2]
    assert torch.equal(confusion(prediction, label, num_classes=3), whole)
    assert torch.equal(found, mean_dice(whole, known))
