"""Mean teacher by hand: the ramp, the teacher's weights, and the students' losses."""

from __future__ import annotations

import math

import pytest
import torch

from aide_monai.engines import MeanTeacherTrainer
from aide_monai.engines.mean_teacher import gaussian_ramp
from aide_monai.errors import InputError
from tests.engines.by_hand import batch, trainer

DATA = batch([[[1.0]], [[2.0]]], [[[3]], [[0]]], [True, False])


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize(
    ("step", "length", "expected"),
    [(0, 10, math.exp(-5)), (5, 10, math.exp(-1.25)), (10, 10, 1), (20, 10, 1), (1, 0, 1)],
)
def test_the_ramp(step, length, expected) -> None:
    assert gaussian_ramp(step, length) == pytest.approx(expected)


def test_a_student_learns_its_trusted_labels_and_to_agree_with_its_teacher() -> None:
    # Step 1: the teacher is the student, so only (1 - 3)^2 counts, and the weight becomes 1 + 0.1 * 4.
    # Then the teacher's becomes 0.1 * 1 + 0.9 * 1.4 = 1.36, for the first decay is 1 / 10.
    engine = trainer(MeanTeacherTrainer, [DATA], noise=0.0, weight=3.0, ramp_epochs=0)
    engine.run()
    assert float(engine.state.output["loss_1"]) == pytest.approx(4.0)
    assert engine.networks[0].weight.item() == pytest.approx(1.36)  # after an epoch, the teacher's
    engine = trainer(MeanTeacherTrainer, [DATA, DATA], noise=0.0, weight=3.0, ramp_epochs=0)
    engine.run()
    # Step 2, with both classes alike: the mean over samples of (sigmoid(1.4 x) - sigmoid(1.36 x))^2.
    distance = [(sigmoid(1.4 * x) - sigmoid(1.36 * x)) ** 2 for x in (1, 2)]
    assert float(engine.state.output["loss_1"]) == pytest.approx((1.4 - 3) ** 2 + 3 * sum(distance) / 2, rel=1e-5)


def test_the_consistency_rises_with_the_steps() -> None:
    found = {}
    for ramp in (0, 2):
        # Trusted labels that fit: what is left is the consistency, between noises that are the same in both runs.
        data = batch([[[1.0]], [[2.0]]], [[[1]], [[2]]], [True, False])
        engine = trainer(MeanTeacherTrainer, [data], weights=(1.0, 1.0), weight=1e-6, ramp_epochs=ramp, noise=1.0)
        engine.segmentation_loss = lambda logits, label: logits.new_zeros(len(logits))
        engine.run()
        found[ramp] = float(engine.state.output["loss_1"])
    assert found[0] > 0
    assert found[2] / found[0] == pytest.approx(math.exp(-5 * 0.25), rel=1e-4)


def test_student_and_teacher_see_different_noise() -> None:
    data = batch([[[0.0] * 100] * 100], [[[0] * 100] * 100], [True])
    engine = trainer(MeanTeacherTrainer, [data], noise=0.5)
    seen = []
    engine.networks[0].register_forward_hook(lambda _, arguments, __: seen.append(arguments[0]))
    predict = engine.predict
    engine.predict = lambda index, image, **kwargs: seen.append(image) or predict(index, image, **kwargs)
    engine.run()
    assert [round(float(image.std()), 1) for image in seen] == [0.5, 0.5, 0.5]
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2])  # both teachers see the same


@pytest.mark.parametrize(
    ("name", "value"), [("weight", -1), ("noise", -1), ("ramp_epochs", 0.5), ("average", 0.0), ("average", 1.0)]
)
def test_wrong_options_are_refused(name, value) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}"):
        trainer(MeanTeacherTrainer, [], **{name: value})
