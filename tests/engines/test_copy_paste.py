"""Bidirectional copy-paste by hand: pairs, mixed labels of teacher and person, both parts of training."""

from __future__ import annotations

import pytest
import torch

from aide_monai.engines import CopyPasteTrainer
from aide_monai.engines.copy_paste import bidirectional_pairs
from aide_monai.errors import InputError
from aide_monai.losses import IGNORED
from tests.engines.by_hand import batch, trainer

ROW = 6


def image(value: float) -> list[list[float]]:
    return [[value] * ROW] * ROW


def rows(value: int) -> list[list[int]]:
    return [[value] * ROW] * ROW


@pytest.mark.parametrize(
    ("trusted", "others", "frames", "boxes"),
    [
        ([0, 1], [2, 3], [0, 1, 2, 3], [2, 3, 1, 0]),
        ([0], [1, 2, 3], [0, 0, 0, 1, 2, 3], [1, 2, 3, 0, 0, 0]),
        ([4, 5, 6], [7], [4, 5, 6, 7, 7, 7], [7, 7, 7, 6, 4, 5]),
    ],
)
def test_every_image_is_frame_and_box_and_every_pair_has_one_of_each(trusted, others, frames, boxes) -> None:
    found = bidirectional_pairs(torch.tensor(trusted), torch.tensor(others))
    assert [part.tolist() for part in found] == [frames, boxes]


def test_boxes_of_two_thirds_and_labels_that_come_with_them() -> None:
    # Trusted: value 1, label 1. Doubtful: value -1, of which teachers of a weight above 0 say class 0.
    data = batch([image(1.0), image(-1.0)], [rows(1), rows(1)], [True, False])
    engine = trainer(CopyPasteTrainer, [data], pretrain_epochs=0, weight=0.5)
    engine.run()
    mixed, label = engine.state.output["image"], engine.state.output["label_1"]
    assert mixed.shape == (2, 1, ROW, ROW)
    assert [int((m == 1).sum()) for m in mixed] == [36 - 16, 16]  # a box of 4 x 4 in a trusted frame, and of one
    assert torch.equal(label, (mixed == 1).to(label))
    # Trusted pixels: prediction 1, label 1, a loss of 0. Others: prediction -1, the teacher's label 0, a loss of 1.
    assert float(engine.state.output["loss_1"]) == pytest.approx(0.5 * 1.0)
    assert float(engine.state.output["loss_2"]) == pytest.approx((2 - 1) ** 2 + 0.5 * (-2 - 0) ** 2)


def test_the_first_part_mixes_trusted_images_alone() -> None:
    data = batch([image(1.0), image(2.0), image(-1.0)], [rows(3), rows(4), rows(9)], [True, True, False])
    engine = trainer(CopyPasteTrainer, [data], pretrain_epochs=1)
    engine.run()
    mixed, label = engine.state.output["image"], engine.state.output["label_1"]
    assert set(mixed.unique().tolist()) == {1.0, 2.0}
    assert torch.equal(label, (mixed + 2).to(label))
    assert len(mixed) == 4


def test_the_teacher_keeps_its_largest_piece() -> None:
    blobs = image(-1.0)
    blobs = [list(row) for row in blobs]
    blobs[0][0] = blobs[0][1] = blobs[5][5] = 1.0
    engine = trainer(CopyPasteTrainer, [], pretrain_epochs=0)
    labels = engine._teacher_labels(1, torch.tensor([blobs])[:, None])
    assert labels.nonzero()[:, 2:].tolist() == [[0, 0], [0, 1]]
    engine.largest_component = "none"
    assert int(engine._teacher_labels(1, torch.tensor([blobs])[:, None]).sum()) == 3


def test_a_label_that_augmentation_lost_is_nobodys() -> None:
    def lost(images, labels):
        return images, [torch.zeros_like(label) for label in labels]

    data = batch([image(1.0), image(-1.0)], [rows(1), rows(1)], [True, False])
    engine = trainer(CopyPasteTrainer, [data], pretrain_epochs=0, augment=lost)
    with pytest.raises(InputError, match="no sample with a label"):
        engine.run()
    mixed, label = engine.state.output["image"], engine.state.output["label_1"]
    assert (label[mixed == 1] == IGNORED).all()
    assert (label[mixed == -1] == 0).all()


@pytest.mark.parametrize("trusted", [[True, True], [False, False]])
def test_a_batch_of_one_kind(trusted) -> None:
    data = batch([image(1.0), image(-1.0)], [rows(1), rows(0)], trusted)
    engine = trainer(CopyPasteTrainer, [data, batch([image(1.0)] * 2, [rows(1)] * 2, [True, False])], pretrain_epochs=0)
    engine.run()
    assert engine.state.iteration == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("weight", -1), ("pretrain_epochs", -1), ("size", 2.0), ("largest_component", "all"), ("average", 0.0)],
)
def test_wrong_options_are_refused(name, value) -> None:
    with pytest.raises(InputError, match=f"{name} is {value!r}"):
        trainer(CopyPasteTrainer, [], **{name: value})
