"""Generalised cross-entropy by hand, and its two limits."""

from __future__ import annotations

import pytest
import torch

from aide_monai.losses import IGNORED, GeneralisedCrossEntropyLoss


def logits_of(*probability: float) -> torch.Tensor:
    """(1, 2, 1, pixels) logits whose softmax has these probabilities of class 1."""
    p = torch.tensor(probability, dtype=torch.float64)
    return torch.stack([1 - p, p]).log()[None, :, None].float()


def label_of(*classes: int) -> torch.Tensor:
    return torch.tensor(classes, dtype=torch.uint8)[None, None, None]


@pytest.mark.parametrize(
    ("q", "expected"),
    [(1.0, (0.25 + 0.9) / 2), (0.5, (2 * (1 - 0.75**0.5) + 2 * (1 - 0.1**0.5)) / 2), (0.7, 0.6973)],
)
def test_two_pixels_by_hand(q, expected) -> None:
    # 0.7: (1 - 0.75^0.7) / 0.7 = 0.26058, (1 - 0.1^0.7) / 0.7 = 1.14354
    expected = (0.26058 + 1.14354) / 2 if q == 0.7 else expected
    loss = GeneralisedCrossEntropyLoss(q=q)(logits_of(0.75, 0.9), label_of(1, 0))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_towards_0_it_is_the_cross_entropy() -> None:
    logits, label = logits_of(0.75, 0.001), label_of(1, 1)
    expected = torch.nn.functional.cross_entropy(logits, label[:, 0].long())
    assert GeneralisedCrossEntropyLoss(q=1e-6)(logits, label).item() == pytest.approx(float(expected), rel=1e-4)


def test_its_gradient_is_that_of_the_cross_entropy_times_a_power_of_the_probability() -> None:
    gradients = []
    for loss in (GeneralisedCrossEntropyLoss(q=0.7), lambda o, y: torch.nn.functional.cross_entropy(o, y[:, 0].long())):
        logits = logits_of(0.1).requires_grad_()
        loss(logits, label_of(1)).sum().backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(gradients[0], gradients[1] * 0.1**0.7)


def test_each_sample_has_its_own_value_and_what_is_ignored_has_none() -> None:
    logits = torch.cat([logits_of(0.75, 0.5), logits_of(0.5, 0.5)])
    label = torch.cat([label_of(1, IGNORED), label_of(IGNORED, IGNORED)])
    assert GeneralisedCrossEntropyLoss(q=1.0, ignore=IGNORED)(logits, label).tolist() == pytest.approx([0.25, 0.0])


def test_an_impossible_label_has_a_finite_loss_and_gradient() -> None:
    logits = torch.tensor([200.0, -200.0]).view(1, 2, 1, 1).requires_grad_()
    loss = GeneralisedCrossEntropyLoss()(logits, torch.ones(1, 1, 1, 1, dtype=torch.uint8))
    loss.sum().backward()
    assert loss.item() == pytest.approx(1 / 0.7)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("q", [0.0, -1.0, 1.1])
def test_q_out_of_range_is_refused(q) -> None:
    with pytest.raises(ValueError, match=f"q is {q}; expected a number above 0, at most 1"):
        GeneralisedCrossEntropyLoss(q=q)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="label has shape"):
        GeneralisedCrossEntropyLoss()(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3))
