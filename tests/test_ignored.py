"""Partial background by hand: what it says, what it leaves open, and what losses and Dice make of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from aide_monai.algorithm import confusion, mean_dice, unit_dice
from aide_monai.ignored import IGNORED, annotated, as_far_as_known, leaves_open, marked, partial_background
from aide_monai.losses import GeneralisedCrossEntropyLoss, PerSampleDiceCELoss
from aide_monai.metrics import class_scores

LIVER, SPLEEN = 1, 2
NO_LIVER = partial_background([LIVER], 3)  # may be spleen


def test_a_value_says_which_structures_were_looked_for() -> None:
    assert [bool(leaves_open(NO_LIVER, index)) for index in (LIVER, SPLEEN)] == [False, True]
    assert not any(leaves_open(value, SPLEEN) for value in (0, LIVER, SPLEEN, IGNORED))
    assert partial_background([LIVER, SPLEEN], 3) == 0
    six = [partial_background([index], 7) for index in range(1, 7)]
    assert len(set(six)) == 6
    assert max(six) < IGNORED
    assert annotated([NO_LIVER, LIVER, 0], 3) == [LIVER]
    assert annotated([0, LIVER, IGNORED], 3) == [LIVER, SPLEEN]


def test_arrays_and_tensors_of_bytes_alike() -> None:
    label = [0, LIVER, NO_LIVER, IGNORED]
    for values in (np.array(label, np.uint8), torch.tensor(label, dtype=torch.uint8)):
        assert marked(values).tolist() == [False, True, False, False]
        assert leaves_open(values, SPLEEN).tolist() == [False, False, True, False]


def loss_of(probability: list[float], value: int, loss: torch.nn.Module) -> tuple[float, list[float]]:
    logits = torch.tensor(probability).log().view(1, 3, 1, 1).requires_grad_()
    found = loss(logits, torch.full((1, 1, 1, 1), value, dtype=torch.uint8))
    return float(found), torch.autograd.grad(found.sum(), logits)[0].flatten().tolist()


def test_the_marginal_loss_by_hand() -> None:
    # Background and spleen together have 3/4. Dice: of the liver 1 - 1 / (1/4 + 1), of the spleen 0, for it counts as
    # background; their mean is 1/10.
    value, gradient = loss_of([1 / 2, 1 / 4, 1 / 4], NO_LIVER, PerSampleDiceCELoss())
    assert value == pytest.approx(1 / 10 + math.log(4 / 3))
    # the liver is pushed down, background and spleen up alike, in proportion to their probability
    assert gradient[1] > 0
    assert gradient[0] / gradient[2] == pytest.approx(2.0)
    value, _ = loss_of([1 / 2, 1 / 4, 1 / 4], NO_LIVER, GeneralisedCrossEntropyLoss(q=1.0))
    assert value == pytest.approx(1 / 4)


def test_a_label_without_partial_background_costs_what_it_always_does() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (2, 1, 4, 4), dtype=torch.uint8, generator=generator)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    other = label.clone()
    other[1, 0, 0, 0] = NO_LIVER
    first, second = (PerSampleDiceCELoss()(logits, part) for part in (label, other))
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_dice_is_of_what_was_annotated() -> None:
    label = torch.tensor([[LIVER, LIVER, NO_LIVER, NO_LIVER, NO_LIVER]], dtype=torch.uint8)
    prediction = torch.tensor([[LIVER, 0, SPLEEN, 0, LIVER]], dtype=torch.uint8)
    counts = confusion(prediction, label, num_classes=3)
    assert counts[0].tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    # liver: 2 * 1 / (2 + 2); the spleen, of which nothing is known, does not raise the mean
    assert unit_dice(prediction, label, num_classes=3, unit="case").tolist() == [0.5]
    assert mean_dice(counts).tolist() == [0.75]
    assert unit_dice(label, prediction, num_classes=3, unit="case").tolist() == [0.5]


def test_classes_that_were_not_annotated_have_no_score() -> None:
    reference = np.array([[LIVER, LIVER, NO_LIVER, NO_LIVER, IGNORED]], np.uint8)
    prediction = np.array([[LIVER, SPLEEN, SPLEEN, LIVER, LIVER]], np.uint8)
    found = class_scores(prediction, reference, num_classes=3, spacing_mm=(1, 1))
    assert list(found) == [LIVER]
    assert (found[LIVER].tp, found[LIVER].fp, found[LIVER].fn) == (1, 1, 1)


def test_of_two_maps_the_part_that_is_known() -> None:
    assert [part.tolist() for part in as_far_as_known(np.array([SPLEEN, LIVER]), np.array([NO_LIVER, NO_LIVER]))] == [
        [0, LIVER],
        [0, 0],
    ]


def test_what_a_gpu_does_without_asking_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    label, prediction = torch.randint(0, 3, (2, 2, 1, 4, 4), dtype=torch.uint8, generator=generator)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    asked = PerSampleDiceCELoss()(logits, label), confusion(prediction, label, num_classes=3)
    for module in ("algorithm", "losses.dice_ce"):
        monkeypatch.setattr(f"aide_monai.{module}.may_be_special", lambda *labels: True)
    found = PerSampleDiceCELoss()(logits, label), confusion(prediction, label, num_classes=3)
    torch.testing.assert_close(found, asked)
