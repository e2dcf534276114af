"""Moving averages of weights: the numbers, and where an engine shows them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import Tensor, nn

from aide_monai.engines.weight_average import WeightAverage

from .test_two_network import batches, network, trainer


def test_the_decay_rises_to_its_final_value() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage([model], 0.25)
    with torch.no_grad():
        model.weight.fill_(10)
    average.update(1)
    assert average.averages[0].weight.item() == pytest.approx(9)  # one tenth of the past
    average.update(2)
    assert average.averages[0].weight.item() == pytest.approx(9 * 2 / 11 + 10 * 9 / 11)
    before = average.averages[0].weight.item()
    average.update(100)
    assert average.averages[0].weight.item() == pytest.approx(0.25 * before + 0.75 * 10)
    assert model.weight.item() == 10


def test_statistics_are_averaged_and_counts_copied() -> None:
    model = nn.BatchNorm2d(1)
    average = WeightAverage([model], 0.9)
    model.running_mean.fill_(10)
    model.num_batches_tracked.fill_(7)
    average.update(1)
    assert average.averages[0].running_mean.item() == pytest.approx(9)
    assert average.averages[0].num_batches_tracked.item() == 7


def test_swapped_twice_all_is_as_before() -> None:
    model = network(1, normalised=True)
    average = WeightAverage([model], 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    trained, kept = copied(model), copied(average.averages[0])
    average.swap()
    assert same(copied(model), kept)
    assert same(copied(average.averages[0]), trained)
    average.swap()
    assert same(copied(model), trained)


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], value) for name, value in second.items())


def test_handlers_see_the_average_and_training_goes_on_without_it() -> None:
    """Steps are those of a run without averages; after an epoch the networks hold the averages."""
    plain = [network(seed, normalised=True) for seed in (1, 2)]
    steps: list[list[dict[str, Tensor]]] = []
    run = trainer(batches(3), networks=plain, epochs=2)
    run.add_event_handler(Events.ITERATION_COMPLETED, lambda _: steps.append([copied(n) for n in plain]))
    run.run()

    pair = [network(seed, normalised=True) for seed in (1, 2)]
    expected, now, shown = [copied(n) for n in pair], [], []
    averaging = trainer(batches(3), networks=pair, epochs=2, average=0.15)
    averaging.add_event_handler(Events.ITERATION_COMPLETED, lambda _: now.append([copied(n) for n in pair]))
    averaging.add_event_handler(Events.EPOCH_COMPLETED, lambda _: shown.append([copied(n) for n in pair]))
    averaging.run()

    assert all(same(a, b) for found, wanted in zip(now, steps, strict=True) for a, b in zip(found, wanted, strict=True))
    for number, weights in enumerate(steps, start=1):
        past = min(0.15, number / (number + 9))
        for average, present in zip(expected, weights, strict=True):
            for name, value in present.items():
                moves = value.is_floating_point()
                average[name] = past * average[name] + (1 - past) * value if moves else value.clone()
        if number % 3 == 0:
            for found, average in zip(shown[number // 3 - 1], expected, strict=True):
                for name, value in average.items():
                    torch.testing.assert_close(found[name], value)
    assert all(same(copied(n), last) for n, last in zip(pair, shown[-1], strict=True))


def test_during_an_epoch_the_average_predicts() -> None:
    image = batches(1)[0]["image"]
    seen: list[tuple[Tensor, Tensor]] = []

    def look(engine: Any) -> None:
        average = engine.state.average_2
        seen.append((engine.predict(2, image), average(image)))

    pair = [network(seed, normalised=True) for seed in (1, 2)]
    run = trainer(networks=pair, average=0.5)
    run.add_event_handler(Events.ITERATION_COMPLETED, look)
    run.run()
    for found, expected in seen:
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(seen[-1][0], run.forward(2, image), atol=1e-3)
