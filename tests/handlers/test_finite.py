"""Losses, predictions and weights that are no numbers stop a run before labels and files are touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import nn

from aide_monai.engines import CoTeachingTrainer, PrepareAugmented
from aide_monai.errors import InputError
from aide_monai.handlers import BestCheckpoint, FiniteLosses, RunCheckpoint, load_weights
from aide_monai.handlers.finite import not_finite
from aide_monai.networks import MeanNetwork, seeded
from aide_monai.stream import SliceDataset, slice_loader

from .test_checkpoint import assert_same, network, start, volumes

NAN = float("nan")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Spoil:
    """Makes a weight of a network NaN at an event of an epoch."""

    def __init__(self, event: Any, epoch: int, network: int) -> None:
        self.event, self.epoch, self.network = event, epoch, network

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(self.event, self)

    def __call__(self, engine: Any) -> None:
        if engine.state.epoch == self.epoch:
            spoil(engine.networks[self.network - 1])


def spoil(network: nn.Module, value: float = NAN) -> None:
    next(network.parameters()).data.view(-1)[0] = value


def labels_of(run: Any) -> list[Any]:
    return [run.store.label(n, case).clone() for n in (1, 2) for case in run.store.cases]


@pytest.mark.parametrize("network", [1, 2])
def test_a_loss_that_is_no_number_stops_the_run_and_the_last_epoch_is_kept(tmp_path: Path, network: int) -> None:
    whole = start(tmp_path / "whole")
    whole.trainer.run()
    expected = whole.result()
    run = start(tmp_path / "run", first=Spoil(Events.ITERATION_COMPLETED(once=7), 3, network))
    with pytest.raises(
        InputError,
        match=rf"epoch 3, iteration 8: found a loss of network {network} that is NaN or infinite; expected a number\."
        r" The run has stopped; .* lower learning_rate, or with amp off",
    ):
        run.trainer.run()
    assert run.store.epochs == whole.store.epochs[:3]
    resumed = start(tmp_path / "run", resume=True, seed=100)
    resumed.trainer.run()
    assert_same(resumed.result(), expected)


def test_on_a_gpu_it_is_told_when_the_epoch_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FiniteLosses, "_is_free_to_read", staticmethod(lambda numbers: False))
    run = start(tmp_path, first=Spoil(Events.ITERATION_COMPLETED(once=4), 2, 2))
    with pytest.raises(InputError, match="epoch 2, iteration 5: found a loss of network 2"):
        run.trainer.run()
    assert run.store.epochs == [0, 1]


@pytest.mark.parametrize("network", [1, 2])
def test_predictions_that_are_no_numbers_change_no_label(tmp_path: Path, network: int) -> None:
    """The last step of an epoch may spoil the weights after its own loss was a number."""
    seen: list[Any] = []
    run = start(tmp_path, first=Spoil(Events.EPOCH_COMPLETED, 2, network))
    run.trainer.add_event_handler(Events.EPOCH_STARTED(once=2), lambda _: seen.extend(labels_of(run)))
    message = (
        rf"epoch 2: found predictions of network {network} for case 'c0' that are NaN or infinite \(5 of 5 cases\)"
    )
    with pytest.raises(InputError, match=message):
        run.trainer.run()
    assert_same(labels_of(run), seen)
    assert run.store.epochs == [0, 1]
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["engine"]["iteration"] == 3  # of one epoch


def test_weights_that_are_no_numbers_are_never_saved(tmp_path: Path) -> None:
    """Co-teaching predicts nothing after an epoch, which would show it."""
    networks = [seeded(network, seed) for seed in (1, 2)]
    weights, checkpoint = tmp_path / "model.pt", tmp_path / "checkpoint.pt"

    def trainer(*handlers: Any, epochs: int = 3) -> CoTeachingTrainer:
        optimizers = [torch.optim.SGD(model.parameters(), lr=0.01) for model in networks]
        dataset = SliceDataset(volumes(), axis=2)
        return CoTeachingTrainer(
            "cpu",
            epochs,
            slice_loader(dataset, batch_size=4, steps=2, seed=0),
            networks[0],
            optimizers[0],
            networks[1],
            optimizers[1],
            train_handlers=handlers,
        )

    spoiled = Spoil(Events.EPOCH_COMPLETED, 2, 2)
    with pytest.raises(
        InputError, match=r"epoch 2, .*checkpoint\.pt, network_2: found weights that are NaN .*0\.weight"
    ):
        trainer(spoiled, RunCheckpoint(checkpoint)).run()
    assert torch.load(checkpoint, weights_only=True)["engine"]["iteration"] == 2  # of one epoch

    networks = [seeded(network, seed) for seed in (1, 2)]
    best = BestCheckpoint(weights, MeanNetwork(*networks), metric=None)
    with pytest.raises(InputError, match=r"epoch 2, .*model\.pt: found weights that are NaN or infinite \(network_2"):
        trainer(spoiled, best, epochs=2).run()
    assert not weights.exists()


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_checkpoint_whose_weights_are_no_numbers_is_not_resumed(tmp_path: Path, value: float) -> None:
    start(tmp_path, epochs=2).trainer.run()
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    saved["engine"]["network_2"]["0.weight"][0] = value
    torch.save(saved, tmp_path / "checkpoint.pt")
    with pytest.raises(
        InputError, match=r"cannot resume from this checkpoint \(weights of network_2 are NaN or infinite"
    ):
        start(tmp_path, resume=True)


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_model_whose_weights_are_no_numbers_is_not_loaded(tmp_path: Path, value: float) -> None:
    model = nn.Conv2d(1, 1, 1)
    spoil(model, value)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt: found weights that are NaN or infinite \(weight\); expected"):
        load_weights(nn.Conv2d(1, 1, 1), tmp_path / "model.pt")


def test_running_statistics_and_masks() -> None:
    norm = nn.BatchNorm2d(2)
    assert norm.running_mean is not None
    norm.running_mean[1] = NAN
    assert not_finite(nn.Sequential(norm)) == "0.running_mean"
    attention = nn.Linear(1, 1)
    attention.register_buffer("mask", torch.tensor([0.0, -float("inf")]))
    assert not_finite(attention) is None


def one_network(loss: Callable[..., Any], *handlers: Any) -> SupervisedTrainer:
    model = seeded(network, 1)
    return SupervisedTrainer(
        "cpu",
        2,
        slice_loader(SliceDataset(volumes(), axis=2), batch_size=4, steps=2, seed=0),
        model,
        torch.optim.SGD(model.parameters(), lr=0.01),
        loss,
        prepare_batch=PrepareAugmented(lambda image, labels: (image, list(labels))),
        train_handlers=handlers,
        decollate=False,
    )


def test_a_trainer_of_monai_stops_too() -> None:
    losses = iter([1.0, 1.0, NAN])
    engine = one_network(lambda logits, label: next(losses) * logits.square().mean(), FiniteLosses())
    with pytest.raises(InputError, match="epoch 2, iteration 3: found a loss of the network that is NaN or infinite"):
        engine.run()
    assert not_finite(engine.network) is None  # the step was not made
