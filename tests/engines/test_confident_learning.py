"""Confident learning by hand: the joint of given and true labels, what is pruned, and both parts of training."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from torch import Tensor

from aide_monai.engines import ConfidentLearningTrainer
from aide_monai.engines.label_errors import label_errors, noise_joint
from aide_monai.errors import InputError
from aide_monai.losses import IGNORED
from aide_monai.stream import SliceDataset, slice_loader
from tests.engines.by_hand import squared, trainer

LABELS = ("label_1", "label_2")
LABEL = torch.tensor([0, 0, 0, 0, 1, 1, 1])
PROBABILITY = torch.tensor([0.1, 0.2, 0.9, 0.6, 0.9, 0.7, 0.2])  # of class 1


def both(probability: Tensor) -> Tensor:
    return torch.stack([1 - probability, probability], dim=1)


def test_the_joint_by_hand() -> None:
    # Thresholds: of class 0 the mean of 0.9, 0.8, 0.1, 0.4 = 0.55, of class 1 that of 0.9, 0.7, 0.2 = 0.6.
    # Labelled 0: pixels 0 and 1 are of class 0, 2 and 3 of class 1. Labelled 1: 4 and 5 of class 1, 6 of class 0.
    expected = torch.tensor([[2.0, 2.0], [1.0, 2.0]], dtype=torch.float64) / 7
    torch.testing.assert_close(noise_joint(LABEL, both(PROBABILITY)), expected)


def test_pixels_of_which_nothing_is_sure_do_not_count_and_sizes_stay() -> None:
    # Thresholds: (0.9 + 0.5) / 2 = 0.7 and (0.8 + 0.4) / 2 = 0.6; pixels 1 and 3 reach neither.
    label, probability = torch.tensor([0, 0, 1, 1]), both(torch.tensor([0.1, 0.5, 0.8, 0.4]))
    assert noise_joint(label, probability).tolist() == [[0.5, 0.0], [0.0, 0.5]]


def test_a_class_that_no_pixel_has_is_nobodys_true_one() -> None:
    probability = torch.tensor([[0.6, 0.1, 0.3], [0.2, 0.1, 0.7], [0.1, 0.8, 0.1]])
    joint = noise_joint(torch.tensor([0, 0, 1]), probability)
    assert joint.sum().item() == pytest.approx(1.0)
    assert not joint[:, 2].any()
    assert not joint[2].any()


@pytest.mark.parametrize(
    ("prune", "expected"),
    # Two of the pixels labelled 0 and one of those labelled 1: the least likely ones by either ranking.
    [("class", [2, 3, 6]), ("noise_rate", [2, 3, 6]), ("both", [2, 3, 6])],
)
def test_two_classes_are_pruned_alike_by_all_rankings(prune, expected) -> None:
    joint = noise_joint(LABEL, both(PROBABILITY))
    assert label_errors(LABEL, both(PROBABILITY), joint, prune=prune).nonzero()[:, 0].tolist() == expected


def test_rankings_differ_where_the_wrong_class_is_not_one() -> None:
    label = torch.tensor([0, 0, 0, 0])
    probability = torch.tensor([[0.4, 0.3, 0.3], [0.45, 0.55, 0.0], [0.5, 0.1, 0.4], [0.9, 0.05, 0.05]])
    joint = torch.zeros(3, 3, dtype=torch.float64)
    joint[0] = torch.tensor([0.75, 0.25, 0.0])  # one of the four is truly of class 1
    assert label_errors(label, probability, joint, prune="class").tolist() == [True, False, False, False]
    assert label_errors(label, probability, joint, prune="noise_rate").tolist() == [False, True, False, False]
    assert not label_errors(label, probability, joint, prune="both").any()


def volumes(quality: list[str]) -> list[dict]:
    """Cases of two slices of 4 x 4: the image is 1 where class 1 truly is, and a corner of each label is wrong."""
    truth = torch.zeros(1, 4, 4, 2)
    truth[:, :2] = 1
    label = truth.to(torch.uint8)
    label[:, 3, 3] = 1
    image = 2 * truth - 1
    return [{"case": f"case{n}", "quality": q, "image": image, "label": label} for n, q in enumerate(quality)]


def engine_of(quality: list[str], *, epochs: int = 2, weights=(5.0, 5.0), **options):
    dataset = SliceDataset(volumes(quality), axis=2)
    loader = slice_loader(dataset, batch_size=len(dataset), steps=1, seed=0)
    return trainer(ConfidentLearningTrainer, loader, epochs=epochs, weights=weights, fit_epochs=1, **options)


def test_networks_learn_halves_and_then_all_but_what_is_pruned() -> None:
    engine = engine_of(["low", "low", "high"])
    seen = []

    def look(engine) -> None:
        output, cases = engine.state.output, engine.state.batch["case"]
        seen.append([[int((output[key][cases == c] == IGNORED).sum()) for c in range(3)] for key in LABELS])

    engine.add_event_handler(Events.ITERATION_COMPLETED, look)
    engine.run()
    assert seen[0] == [[0, 32, 0], [32, 0, 0]]
    # Each network is sure of the truth, so that the wrong corner of both slices of the doubtful cases goes.
    assert seen[1] == [[2, 2, 0], [2, 2, 0]]
    assert engine.state.metrics["pruned"] == pytest.approx(1 / 16)
    expected = torch.zeros(2, 4, 4, dtype=torch.bool)
    expected[:, 3, 3] = True
    assert {case: torch.equal(mask, expected) for case, mask in engine.state.pruned.items()} == {0: True, 1: True}


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_networks_go_back_to_their_first_weights_when_labels_are_pruned(average) -> None:
    engine = engine_of(["low", "low"], average=average)
    found = []
    engine.add_event_handler(
        Events.EPOCH_COMPLETED(once=1), lambda e: found.extend(n.weight.item() for n in e.networks)
    )
    engine.add_event_handler(Events.EPOCH_STARTED(once=2), lambda e: found.extend(n.weight.item() for n in e.networks))
    engine.run()
    assert found == [5.0] * 4
    assert engine.networks[0].weight.item() != 5.0


def test_a_loader_without_slices_or_doubtful_cases_is_refused() -> None:
    with pytest.raises(InputError, match="the loader reads NoneType; expected that of a SliceDataset"):
        trainer(ConfidentLearningTrainer, [], epochs=9)
    with pytest.raises(InputError, match="1 cases are doubtful; expected at least two"):
        engine_of(["low", "high"])
    with pytest.raises(InputError, match="fit_epochs is 1; expected fewer than all 1 epochs"):
        engine_of(["low", "low"], epochs=1)


@pytest.mark.parametrize(("name", "value"), [("fit_epochs", 0), ("batch_size", 0), ("prune", "all")])
def test_wrong_options_are_refused(name, value) -> None:
    with pytest.raises(InputError, match=f"{name} is {value!r}"):
        trainer(ConfidentLearningTrainer, [], loss_function=squared, **{name: value})


def test_pixels_without_a_verdict_are_neither_pruned_nor_counted() -> None:
    given = volumes(["low", "low"])
    for volume in given:
        volume["label"][:, 0] = IGNORED  # a quarter of the pixels, all of class 1
    loader = slice_loader(SliceDataset(given, axis=2), batch_size=4, steps=1, seed=0)
    engine = trainer(ConfidentLearningTrainer, loader, epochs=2, weights=(5.0, 5.0), fit_epochs=1)
    engine.run()
    for wrong in engine.state.pruned.values():
        assert wrong.nonzero().tolist() == [[0, 3, 3], [1, 3, 3]]
