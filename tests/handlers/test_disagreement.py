"""Disagreement of two networks, and the warning when it vanishes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from aide_monai.handlers import Disagreement


def logits(classes: list[int], count: int = 2) -> Tensor:
    """(1, C, 1, pixels) logits that predict ``classes``."""
    return torch.nn.functional.one_hot(torch.tensor(classes), count).T[None, :, None].float()


def run(
    outputs: Callable[[int], tuple[Tensor, Tensor]], *, epochs: int = 1, steps: int = 1, minimum: float = 1e-4
) -> list[float]:
    """Disagreement after each epoch, with the outputs of both networks by iteration (from 0)."""

    def step(engine: Engine, batch: object) -> dict[str, Tensor]:
        first, second = outputs(engine.state.iteration - 1)
        return {"logits_1": first, "logits_2": second}

    engine = Engine(step)
    Disagreement(minimum).attach(engine)
    values: list[float] = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: values.append(e.state.metrics["disagreement"]))
    engine.run(range(steps), max_epochs=epochs)
    return values


def test_one_minus_the_mean_dice_of_each_epoch_by_hand() -> None:
    pairs = [
        (logits([1, 1, 0, 0]), logits([1, 0, 0, 0])),  # Dice 2/3
        (logits([1, 1, 0, 0]), logits([0, 0, 1, 1])),  # Dice 0
        (logits([1, 1, 0, 0]), logits([1, 0, 1, 0])),  # Dice 1/2
        (logits([0, 0, 0, 0]), logits([0, 0, 0, 0])),  # Dice 1
    ]
    values = run(lambda iteration: pairs[iteration], epochs=2, steps=2)
    assert values == pytest.approx([(1 / 3 + 1) / 2, (1 / 2 + 0) / 2])


def test_three_classes_by_hand() -> None:
    pair = logits([1, 1, 2, 0], 3), logits([1, 2, 2, 2], 3)  # Dice 2/3 and 1/2
    assert run(lambda _: pair) == pytest.approx([1 - (2 / 3 + 1 / 2) / 2])


def test_twins_are_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    same = logits([1, 0, 1, 0])
    with caplog.at_level(logging.WARNING, logger="aide_monai"):
        assert run(lambda _: (same, same), epochs=3) == [0.0, 0.0, 0.0]
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("aide_monai")]
    assert len(warnings) == 1
    assert warnings[0].startswith("The two networks predict the same everywhere")
    assert "Start them from different seeds" in warnings[0]


def test_networks_that_differ_are_not_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="aide_monai"):
        run(lambda _: (logits([1, 0, 1, 0]), logits([1, 1, 1, 0])), epochs=2)
    assert not [record for record in caplog.records if record.name.startswith("aide_monai")]


def test_the_minimum_is_an_option(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="aide_monai"):
        run(lambda _: (logits([1, 0, 1, 0]), logits([1, 1, 1, 0])), minimum=0.3)  # disagreement 0.2
    assert len(caplog.records) == 1
