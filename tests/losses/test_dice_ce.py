"""Eq. 1 per sample: by hand, against a loop over pixels, independence of the batch, errors."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor

from aide_monai.losses import IGNORED, PerSampleDiceCELoss


def logits_of(probability: list) -> Tensor:
    """(1, C, 1, pixels) logits whose softmax is ``probability``, given as one list of C numbers per pixel."""
    return torch.tensor(probability).log().T[None, :, None]


def label_of(classes: list[int]) -> Tensor:
    return torch.tensor(classes, dtype=torch.uint8)[None, None, None]


def naive_loss(logits: Tensor, label: Tensor, alpha: float = 1.0, smooth: float = 1.0) -> list[float]:
    """Eq. 1 pixel by pixel in Python numbers; for two classes with the cross-entropy as printed."""
    values = []
    for sample, truth in zip(logits.double(), label, strict=True):
        columns = sample.flatten(1).T.tolist()
        truths = truth.flatten().tolist()
        probability = []
        for column in columns:
            exponentials = [math.exp(v) for v in column]
            probability.append([e / sum(exponentials) for e in exponentials])
        dice = []
        for c in range(1, len(columns[0])):
            both = sum(p[c] for p, y in zip(probability, truths, strict=True) if y == c)
            total = sum(p[c] for p in probability) + truths.count(c)
            dice.append(1 - (2 * both + smooth) / (total + smooth))
        if len(columns[0]) == 2:
            logs = [y * math.log(p[1]) + (1 - y) * math.log(1 - p[1]) for p, y in zip(probability, truths, strict=True)]
        else:
            logs = [math.log(p[y]) for p, y in zip(probability, truths, strict=True)]
        values.append(sum(dice) / len(dice) - alpha * sum(logs) / len(logs))
    return values


def test_two_pixels_by_hand() -> None:
    # Dice: (2 * 3/4 + 1) / (1 + 1 + 1) = 5/6; cross-entropy: ln 4/3 in both pixels
    loss = PerSampleDiceCELoss()(logits_of([[1 / 4, 3 / 4], [3 / 4, 1 / 4]]), label_of([1, 0]))
    torch.testing.assert_close(loss, torch.tensor([1 / 6 + math.log(4 / 3)]))


def test_an_empty_mask_is_finite_by_hand() -> None:
    # (0 + 1) / (1/4 + 1/4 + 0 + 1) = 2/3
    loss = PerSampleDiceCELoss()(logits_of([[3 / 4, 1 / 4]] * 2), label_of([0, 0]))
    torch.testing.assert_close(loss, torch.tensor([1 / 3 + math.log(4 / 3)]))


def test_an_empty_mask_predicted_empty_costs_nothing() -> None:
    logits = torch.tensor([60.0, -60.0]).view(1, 2, 1, 1).expand(1, 2, 5, 5)
    assert float(PerSampleDiceCELoss()(logits, torch.zeros(1, 1, 5, 5, dtype=torch.uint8))) == 0.0


@pytest.mark.parametrize(
    ("classes", "dice", "entropy"),
    [
        ([1, 0, 2], 5 / 11, 5 / 3 * math.log(2)),  # both foreground classes: 1 - (2 * 1/4 + 1) / (3/4 + 1 + 1)
        ([1, 0, 0], 34 / 77, 4 / 3 * math.log(2)),  # class 2 absent: 1 - 1 / (3/4 + 1) = 3/7; mean of 5/11 and 3/7
        ([0, 0, 0], 3 / 7, math.log(2)),
    ],
)
def test_three_classes_by_hand(classes: list[int], dice: float, entropy: float) -> None:
    logits = logits_of([[1 / 2, 1 / 4, 1 / 4]] * 3)
    torch.testing.assert_close(PerSampleDiceCELoss()(logits, label_of(classes)), torch.tensor([dice + entropy]))
    cube = PerSampleDiceCELoss()(logits.unsqueeze(2), label_of(classes).unsqueeze(2))
    torch.testing.assert_close(cube, torch.tensor([dice + entropy]))


@pytest.mark.parametrize(
    ("alpha", "smooth", "expected"),
    [
        (0.0, 1.0, 1 / 6),
        (3.0, 1.0, 1 / 6 + 3 * math.log(4 / 3)),
        (0.0, 2.0, 1 - 3.5 / 4),
    ],
)
def test_alpha_weighs_the_cross_entropy_and_smooth_is_in_both_parts(
    alpha: float, smooth: float, expected: float
) -> None:
    loss = PerSampleDiceCELoss(alpha=alpha, smooth=smooth)
    value = loss(logits_of([[1 / 4, 3 / 4], [3 / 4, 1 / 4]]), label_of([1, 0]))
    torch.testing.assert_close(value, torch.tensor([expected]))


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("size", [(6, 5), (4, 3, 2)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_agrees_with_a_loop_over_pixels(classes: int, size: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = 2 * torch.randn(3, classes, *size, generator=generator)
    label = torch.randint(0, classes, (3, 1, *size), generator=generator).to(dtype)
    label[1] = 0
    found = PerSampleDiceCELoss(alpha=0.7)(logits, label)
    torch.testing.assert_close(found, torch.tensor(naive_loss(logits, label, alpha=0.7)), rtol=1e-5, atol=1e-6)


def test_the_value_of_a_sample_does_not_depend_on_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 7, 6, generator=generator, requires_grad=True)
    label = torch.randint(0, 3, (4, 1, 7, 6), generator=generator)
    loss = PerSampleDiceCELoss()
    together = loss(logits, label)
    alone = torch.cat([loss(logits[b : b + 1], label[b : b + 1]) for b in range(4)])
    torch.testing.assert_close(together, alone)
    (gradient,) = torch.autograd.grad(together[2], logits)
    assert bool((gradient[[0, 1, 3]] == 0).all())
    assert bool((gradient[2] != 0).any())


def test_half_precision_logits_give_a_float32_loss() -> None:
    logits = logits_of([[1 / 4, 3 / 4], [3 / 4, 1 / 4]])
    loss = PerSampleDiceCELoss()(logits.half(), label_of([1, 0]))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.tensor([1 / 6 + math.log(4 / 3)]), atol=1e-3, rtol=0)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1).expand(1, 2, 2, 2).clone().requires_grad_()
    loss = PerSampleDiceCELoss()(logits, torch.ones(1, 1, 2, 2, dtype=torch.uint8))
    loss.sum().backward()
    assert bool(torch.isfinite(loss).all())
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


@pytest.mark.parametrize(("options", "text"), [({"alpha": -1}, "alpha is -1"), ({"smooth": 0}, "smooth is 0")])
def test_refuses_options_out_of_range(options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        PerSampleDiceCELoss(**options)


@pytest.mark.parametrize(
    ("logits", "label", "text"),
    [
        ((2, 1, 4, 4), (2, 1, 4, 4), r"logits have shape \(2, 1, 4, 4\); expected .* C >= 2"),
        ((2, 2), (2, 1), r"logits have shape \(2, 2\)"),
        ((2, 2, 4, 4), (2, 4, 4), r"label has shape \(2, 4, 4\); expected \(2, 1, 4, 4\)"),
        ((2, 2, 4, 4), (1, 1, 4, 4), r"label has shape \(1, 1, 4, 4\)"),
        ((2, 2, 4, 4), (2, 2, 4, 4), r"label has shape \(2, 2, 4, 4\)"),
    ],
)
def test_refuses_shapes_that_do_not_fit(logits: tuple[int, ...], label: tuple[int, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        PerSampleDiceCELoss()(torch.zeros(logits), torch.zeros(label, dtype=torch.uint8))


def test_ignored_pixels_count_nowhere() -> None:
    loss = PerSampleDiceCELoss(ignore=255)
    logits = logits_of([[1 / 4, 3 / 4], [3 / 4, 1 / 4], [1 / 2, 1 / 2]])
    torch.testing.assert_close(loss(logits, label_of([1, 0, 255])), loss(logits[..., :2], label_of([1, 0])))
    torch.testing.assert_close(loss(logits[..., :2], label_of([1, 0])), torch.tensor([1 / 6 + math.log(4 / 3)]))
    assert loss(logits, label_of([255] * 3)).tolist() == [0.0]


def test_without_ignored_pixels_nothing_changes() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 3, 5, 5, generator=generator)
    label = torch.randint(0, 3, (3, 1, 5, 5), generator=generator)
    torch.testing.assert_close(PerSampleDiceCELoss(ignore=255)(logits, label), PerSampleDiceCELoss()(logits, label))


def test_pixels_without_a_verdict_are_left_out_by_hand_and_move_nothing() -> None:
    # The two pixels of the first test, and one that would cost much
    logits = logits_of([[1 / 4, 3 / 4], [3 / 4, 1 / 4], [1 / 1000, 999 / 1000]]).requires_grad_()
    loss = PerSampleDiceCELoss()(logits, label_of([1, 0, IGNORED]))
    torch.testing.assert_close(loss, torch.tensor([1 / 6 + math.log(4 / 3)]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert (gradient[..., 2] == 0).all()
    assert (gradient[..., :2] != 0).all()


def test_a_sample_without_any_verdict_costs_nothing() -> None:
    logits = logits_of([[1 / 4, 3 / 4]] * 2).requires_grad_()
    loss = PerSampleDiceCELoss()(logits, label_of([IGNORED, IGNORED]))
    assert loss.tolist() == [0.0]
    assert (torch.autograd.grad(loss.sum(), logits)[0] == 0).all()


def test_what_monai_takes_out_of_dice_with_an_ignored_index_is_taken_out_here() -> None:
    label = torch.randint(0, 3, (2, 1, 6, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    label[:, :, :2] = IGNORED
    logits = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    dice = DiceLoss(
        include_background=False,
        to_onehot_y=True,
        softmax=True,
        smooth_nr=1,
        smooth_dr=1,
        reduction="none",
        ignore_index=IGNORED,
    )
    expected = dice(logits, label).flatten(1).mean(dim=1)
    torch.testing.assert_close(PerSampleDiceCELoss(alpha=0)(logits, label), expected)
