"""A loss of a batch as one value per sample."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss
from torch import Tensor, nn

from aide_monai.losses import IGNORED, PerSampleLoss


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 4, 5, 2, generator=generator, requires_grad=True)
    return logits, torch.randint(0, 2, (3, 1, 4, 5, 2), generator=generator).float()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_each_sample_has_the_loss_that_it_has_alone_and_their_mean_is_that_of_the_batch(reduction: str) -> None:
    logits, label = batch()
    loss = DiceLoss(to_onehot_y=True, softmax=True, reduction=reduction)
    values = PerSampleLoss(loss)(logits, label)
    assert values.shape == (3,)
    for value, o, y in zip(values, logits, label, strict=True):
        assert torch.allclose(value, loss(o[None], y[None]).mean())
    assert torch.allclose(values.mean(), loss(logits, label).mean())


def test_gradients_are_those_of_the_batch() -> None:
    logits, label = batch()
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    (expected,) = torch.autograd.grad(loss(logits, label), logits)
    (found,) = torch.autograd.grad(PerSampleLoss(loss)(logits, label).mean(), logits)
    assert torch.allclose(found, expected, atol=1e-7)


def test_a_hand_computed_value() -> None:
    values = PerSampleLoss(nn.L1Loss())(
        torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]]), torch.tensor([[[0.0, 0.0]], [[5.0, 1.0]]])
    )
    assert values.tolist() == [2.0, 3.0]


def test_an_empty_share_of_a_batch_has_no_values_but_a_gradient() -> None:
    logits, label = batch()
    values = PerSampleLoss(DiceLoss(softmax=True))(logits[:0], label[:0])
    assert values.shape == (0,)
    assert values.requires_grad


def test_a_loss_of_monai_that_knows_ignored_voxels_is_finite_for_a_sample_of_them_alone() -> None:
    label = torch.tensor([[[[1, IGNORED]]], [[[IGNORED, IGNORED]]]])
    logits = torch.zeros(2, 2, 1, 2, requires_grad=True)
    dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, ignore_index=IGNORED)
    loss = PerSampleLoss(dice)(logits, label)
    assert loss.tolist() == pytest.approx([1 - 2 * 0.5 / (0.5 + 1), 0.0], abs=1e-4)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient[0, :, 0, 1].tolist() == [0, 0]
    assert (gradient[1] == 0).all()
