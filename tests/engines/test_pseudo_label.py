"""The pseudo-label engine by hand: all low-quality labels become the network's predictions, on a schedule."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from torch import Tensor, nn

from aide_monai.engines import PrepareAugmented, PseudoLabelTrainer
from aide_monai.errors import InputError
from aide_monai.labels import LabelStore
from aide_monai.stream import SliceDataset


class Threshold(nn.Module):
    """Foreground where the image exceeds 0.5; batch normalisation would notice a wrong mode."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.modes: list[bool] = []

    def forward(self, image: Tensor) -> Tensor:
        self.modes.append(self.training)
        return torch.cat([torch.zeros_like(image), 10 * self.scale * (image - 0.5)], dim=1)


def image(value: list[list[float]]) -> Tensor:
    return torch.tensor(value)[None, :, :, None]


def volumes() -> list[dict]:
    zero = torch.zeros(1, 2, 2, 1, dtype=torch.uint8)
    return [
        {"case": "good", "quality": "high", "image": image([[1.0, 1.0], [1.0, 1.0]]), "label": zero},
        {"case": "poor", "quality": "low", "image": image([[1.0, 0.0], [0.0, 0.0]]), "label": zero + 1},
        {"case": "poorer", "quality": "low", "image": image([[0.0, 0.0], [0.0, 1.0]]), "label": zero},
    ]


def trainer(dataset: SliceDataset, epochs: int, **options) -> PseudoLabelTrainer:
    network = Threshold()
    return PseudoLabelTrainer(
        "cpu",
        epochs,
        torch.utils.data.DataLoader(dataset, batch_size=3),
        network,
        dataset=dataset,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=lambda logits, label: logits.square().mean(),
        prepare_batch=PrepareAugmented(lambda image, labels: (image, list(labels))),
        decollate=False,
        **options,
    )


def test_all_low_quality_labels_become_predictions_at_once_and_trusted_ones_never():
    store = LabelStore.from_volumes(volumes())
    engine = trainer(SliceDataset(volumes(), store=store, axis=2), 3, start=2, interval=2)
    corrected = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: corrected.append(e.state.metrics["corrected"]))
    engine.run()
    assert corrected == [0, 2, 0]
    assert store.label(1, "poor")[..., 0].tolist() == [[1, 0], [0, 0]]
    assert store.label(1, "poorer")[..., 0].tolist() == [[0, 0], [0, 1]]
    assert store.label(1, "good").sum() == 0
    assert store.label(2, "poor").sum() == 4  # the other network's label stays as given
    assert store.generation == 1
    # 1 predicted, 4 labelled, 1 in both: 2 / 5; and nothing labelled where one is predicted: 0
    assert [(change.case, change.epoch, round(change.dice_before, 3)) for change in store.records] == [
        ("poor", 2, 0.4),
        ("poorer", 2, 0.0),
    ]


def test_labels_are_not_emptied_by_a_network_that_finds_nothing():
    data = volumes()
    data[1]["image"] = image([[0.0, 0.0], [0.0, 0.0]])  # labelled all over
    store = LabelStore.from_volumes(data)
    engine = trainer(SliceDataset(data, store=store, axis=2), 1, start=1, interval=1)
    engine.run()
    assert (engine.state.metrics["corrected"], engine.state.metrics["withheld"]) == (1, 1)
    assert (store.label(1, "poor").sum(), store.label(1, "poorer").sum()) == (4, 1)


def test_predictions_that_are_no_numbers_change_no_label():
    data = volumes()
    store = LabelStore.from_volumes(data)
    engine = trainer(SliceDataset(data, store=store, axis=2), 1, start=1, interval=1)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: e.network.scale.data.fill_(float("nan")))
    with pytest.raises(InputError, match="epoch 1: found predictions of the network for case 'poor' that are NaN"):
        engine.run()
    assert store.label(1, "poor").sum() == 4
    assert not store.records


def test_predictions_are_made_in_eval_mode_and_training_goes_on():
    dataset = SliceDataset(volumes(), store=LabelStore.from_volumes(volumes()), axis=2)
    engine = trainer(dataset, 1, start=1, interval=1)
    engine.run()
    assert engine.network.modes == [True, False, False]
    assert engine.network.training


@pytest.mark.parametrize(("keep", "expected"), [("none", [1, 1, 0, 0, 1]), ("class", [1, 1, 0, 0, 0])])
def test_the_largest_component_becomes_the_label(keep: str, expected: list[int]) -> None:
    case = {**volumes()[1], "image": image([[1.0, 1.0, 0.0, 0.0, 1.0]]), "label": torch.zeros(1, 1, 5, 1).byte()}
    store = LabelStore.from_volumes([case])
    trainer(SliceDataset([case], store=store, axis=2), 1, start=1, interval=1, largest_component=keep).run()
    assert store.label(1, "poor").flatten().tolist() == expected


def test_nothing_is_replaced_before_the_start():
    store = LabelStore.from_volumes(volumes())
    trainer(SliceDataset(volumes(), store=store, axis=2), 3, start=4, interval=1).run()
    assert not store.records


@pytest.mark.parametrize("name", ["start", "interval", "batch_size"])
def test_wrong_numbers_are_refused(name):
    dataset = SliceDataset(volumes(), store=LabelStore.from_volumes(volumes()), axis=2)
    with pytest.raises(InputError, match=f"{name} is 0; expected a value in 1"):
        trainer(dataset, 1, **{name: 0})
    with pytest.raises(InputError, match="largest_component is True; expected one of none, class, foreground"):
        trainer(dataset, 1, largest_component=True)


def test_a_stream_without_a_store_is_refused():
    with pytest.raises(InputError, match="no label store"):
        trainer(SliceDataset(volumes(), axis=2), 1)
