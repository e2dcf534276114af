"""Cross pseudo supervision by hand: each network learns the other's present classes."""

from __future__ import annotations

import math

import pytest
import torch

from aide_monai.engines import CrossPseudoTrainer
from aide_monai.engines.cross_pseudo import cross_pseudo_loss
from aide_monai.errors import InputError
from tests.engines.by_hand import batch, trainer


def test_the_loss_is_the_mean_of_labelled_pixels_plus_that_of_others() -> None:
    # Probabilities of class 1: 1/2, 3/4, 3/4; the other network says 1, 1, 0.
    logits = torch.tensor([[[[0.0, 0.0, 0.0]], [[0.0, math.log(3), math.log(3)]]]], requires_grad=True)
    other = torch.tensor([[[[0.0, 0.0, 1.0]], [[5.0, 1.0, 0.0]]]], requires_grad=True)
    labelled = torch.tensor([[[[True, False, False]]]])
    loss = cross_pseudo_loss(logits, other, labelled)
    assert loss.item() == pytest.approx(math.log(2) + (math.log(4 / 3) + math.log(4)) / 2)
    loss.backward()
    assert other.grad is None
    assert cross_pseudo_loss(logits, other, torch.ones_like(labelled)).item() == pytest.approx(
        (math.log(2) + math.log(4 / 3) + math.log(4)) / 3
    )


def test_each_network_learns_the_classes_of_the_other_one() -> None:
    # Network 1 (weight 1) says class 1, network 2 (weight -2) says class 0, of an image with the trusted label 1 and of
    # a doubtful one of the same kind.
    data = batch([[[1.0]], [[1.0]]], [[[1]], [[0]]], [True, False])
    engine = trainer(CrossPseudoTrainer, [data], weights=(1.0, -2.0), weight=0.5)
    engine.run()
    first = 2 * -math.log(1 - 1 / (1 + math.exp(-1)))  # -log p(0) of network 1, in both parts
    second = 2 * -math.log(1 / (1 + math.exp(2)))  # -log p(1) of network 2
    assert float(engine.state.output["loss_1"]) == pytest.approx(0 + 0.5 * first, rel=1e-5)
    assert float(engine.state.output["loss_2"]) == pytest.approx((-2 - 1) ** 2 + 0.5 * second, rel=1e-5)
    # The gradient of -log p(0) is p(1), and no gradient comes from the label that network 2 learns of it.
    assert engine.networks[0].weight.item() == pytest.approx(1 - 0.1 * 0.5 * 2 / (1 + math.exp(-1)), rel=1e-5)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(InputError, match="weight is -1"):
        trainer(CrossPseudoTrainer, [], weight=-1)
