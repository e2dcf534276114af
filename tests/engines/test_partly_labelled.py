"""Labels that are hidden: which, how they move with augmentation, and what is refused."""

from __future__ import annotations

import pytest
import torch

from aide_monai.engines import CrossPseudoTrainer
from aide_monai.errors import InputError
from aide_monai.losses import IGNORED
from tests.engines.by_hand import batch, trainer


def test_labels_of_doubtful_samples_are_hidden_and_nothing_is_learnt_of_them() -> None:
    # Samples of weight 1: (1 - 3)^2 = 4 with a gradient of -4, and a doubtful one, whose label would pull elsewhere.
    data = batch([[[1.0]], [[1.0]]], [[[3]], [[0]]], [True, False])
    engine = trainer(CrossPseudoTrainer, [data], weight=0.0)
    engine.run()
    assert float(engine.state.output["loss_1"]) == pytest.approx(4.0)
    assert engine.networks[0].weight.item() == pytest.approx(1 + 0.1 * 4)
    assert engine.state.output["label_1"].flatten().tolist() == [3, IGNORED]
    assert data["label"].flatten().tolist() == [3, 0]


def test_a_hidden_label_moves_with_the_image_and_what_comes_from_outside_is_hidden() -> None:
    def pasted(image, labels):
        """The last column becomes that of the other sample, and the first one comes from outside."""
        moved = []
        for values in (image, *labels):
            values = values.clone()
            values[..., 2] = values.flip(0)[..., 2]
            values[..., 0] = 0
            moved.append(values)
        return moved[0], moved[1:]

    data = batch([[[1, 1, 1]], [[1, 1, 1]]], [[[1, 2, 0]], [[1, 1, 1]]], [True, False])
    engine = trainer(CrossPseudoTrainer, [data], weight=0.0, augment=pasted)
    engine.run()
    assert engine.state.output["label_1"].flatten().tolist() == [IGNORED, 2, IGNORED, IGNORED, IGNORED, 0]
    # Predictions are 1: (1 - 2)^2 in the first sample, (1 - 0)^2 in the second.
    assert float(engine.state.output["loss_1"]) == pytest.approx(1.0)


def test_a_batch_that_does_not_say_what_is_trusted_is_refused() -> None:
    data = batch([[[1.0]]], [[[1]]], [True])
    del data["high_quality"]
    with pytest.raises(InputError, match=r"has keys .'image', 'label'.; expected .high_quality."):
        trainer(CrossPseudoTrainer, [data]).run()


def test_an_epoch_without_a_trusted_label_is_refused_and_a_batch_is_not() -> None:
    doubtful, trusted = (batch([[[1.0]]], [[[1]]], [quality]) for quality in (False, True))
    trainer(CrossPseudoTrainer, [doubtful, trusted]).run()
    with pytest.raises(InputError, match=r"epoch 1: found no sample with a label .* expected trusted cases"):
        trainer(CrossPseudoTrainer, [doubtful, doubtful]).run()


def test_many_processes_are_refused(monkeypatch) -> None:
    monkeypatch.setattr("aide_monai.utils.distributed.world_size", lambda: 2)
    with pytest.raises(InputError, match="started in 2 processes; expected one"):
        trainer(CrossPseudoTrainer, [])


def test_labels_that_are_hidden_from_one_network_alone() -> None:
    class Halves(CrossPseudoTrainer):
        def hidden(self, batchdata, labels, trusted):
            shape = torch.tensor([True, False]).view(-1, 1, 1, 1)
            return shape, ~shape

    data = batch([[[1.0]], [[1.0]]], [[[3]], [[5]]], [True, True])
    engine = trainer(Halves, [data], weight=0.0, weights=(1.0, 1.0))
    engine.run()
    assert float(engine.state.output["loss_1"]) == pytest.approx((1 - 5) ** 2)
    assert float(engine.state.output["loss_2"]) == pytest.approx((1 - 3) ** 2)


def test_pixels_without_a_verdict_are_hidden_too() -> None:
    # (1 - 3)^2 of the first pixel; the second has no label, nor has any of a doubtful sample
    data = batch([[[1, 1]], [[1, 1]]], [[[3, IGNORED]], [[1, IGNORED]]], [True, False])
    engine = trainer(CrossPseudoTrainer, [data], weight=0.0)
    engine.run()
    assert engine.state.output["label_1"].flatten().tolist() == [3, IGNORED, IGNORED, IGNORED]
    assert float(engine.state.output["loss_1"]) == pytest.approx(4.0)
    assert engine.networks[0].weight.item() == pytest.approx(1 + 0.1 * 4)
