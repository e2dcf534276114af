"""Eq. 2 per sample: by hand, against a loop over pixels, weights, gradients, errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from aide_monai.losses import ConsistencyLoss


def naive_loss(logits: Tensor, pseudo_label: Tensor, weight: Tensor | None = None) -> list[float]:
    """Eq. 2 pixel by pixel in Python numbers."""
    values = []
    for b in range(len(logits)):
        columns = logits[b].double().flatten(1).T.tolist()
        targets = pseudo_label[b].double().flatten(1).T.tolist()
        weights = [1.0] * len(columns) if weight is None else weight[b].flatten().tolist()
        total = 0.0
        for column, target, factor in zip(columns, targets, weights, strict=True):
            exponentials = [math.exp(v) for v in column]
            distance = sum((e / sum(exponentials) - t) ** 2 for e, t in zip(exponentials, target, strict=True))
            total += factor * distance
        values.append(total / (2 * len(columns)))
    return values


def two_pixels() -> tuple[Tensor, Tensor]:
    """Prediction (3/4, 1/4) in both pixels; pseudo-label (1, 0) in the first, equal to the prediction in the second."""
    logits = torch.tensor([[0.75, 0.75], [0.25, 0.25]]).log()[None, :, None]
    pseudo_label = torch.tensor([[1.0, 0.75], [0.0, 0.25]])[None, :, None]
    return logits, pseudo_label


def test_two_pixels_by_hand() -> None:
    # squared distance 1/16 + 1/16 in one of two pixels, halved
    torch.testing.assert_close(ConsistencyLoss()(*two_pixels()), torch.tensor([1 / 32]))


def test_confidence_weighs_each_pixel_but_not_the_mean() -> None:
    weight = torch.tensor([0.5, 1.0])[None, None, None]
    torch.testing.assert_close(ConsistencyLoss()(*two_pixels(), weight), torch.tensor([1 / 64]))


def test_three_classes_by_hand() -> None:
    logits = torch.tensor([1 / 2, 1 / 4, 1 / 4]).log().view(1, 3, 1, 1, 1).expand(1, 3, 2, 2, 2)
    pseudo_label = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1, 1).expand(1, 3, 2, 2, 2)
    # (1/4 + 9/16 + 1/16) / 2
    torch.testing.assert_close(ConsistencyLoss()(logits, pseudo_label), torch.tensor([7 / 16]))


def test_is_zero_for_agreement_and_one_at_most() -> None:
    logits = torch.tensor([50.0, -50.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    right, wrong = logits.softmax(dim=1), logits.flip(1).softmax(dim=1)
    assert float(ConsistencyLoss()(logits, right)) == 0.0
    assert float(ConsistencyLoss()(logits, wrong)) == pytest.approx(1.0)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("size", [(5, 6), (3, 4, 2)])
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_a_loop_over_pixels(classes: int, size: tuple[int, ...], weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, classes, *size, generator=generator)
    pseudo_label = torch.randn(3, classes, *size, generator=generator).softmax(dim=1)
    weight = torch.rand(3, 1, *size, generator=generator) if weighted else None
    expected = torch.tensor(naive_loss(logits, pseudo_label, weight))
    torch.testing.assert_close(ConsistencyLoss()(logits, pseudo_label, weight), expected, rtol=1e-5, atol=1e-7)


def test_the_value_of_a_sample_does_not_depend_on_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, other = torch.randn(2, 4, 2, 5, 5, generator=generator)
    together = ConsistencyLoss()(logits, other.softmax(dim=1))
    alone = torch.cat([ConsistencyLoss()(logits[b : b + 1], other[b : b + 1].softmax(dim=1)) for b in range(4)])
    torch.testing.assert_close(together, alone)


def test_no_gradient_flows_into_the_pseudo_label() -> None:
    logits, pseudo_label = two_pixels()
    logits.requires_grad_()
    pseudo_label.requires_grad_()
    ConsistencyLoss()(logits, pseudo_label).sum().backward()
    assert logits.grad is not None
    assert bool((logits.grad[..., 0] != 0).all())
    assert pseudo_label.grad is None


def test_refuses_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"pseudo_label has shape \(1, 2, 1, 2\); expected .* \(2, 2, 1, 2\)"):
        ConsistencyLoss()(torch.zeros(2, 2, 1, 2), torch.zeros(1, 2, 1, 2))
