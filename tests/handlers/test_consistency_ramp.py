"""Lambda of each epoch in the state of an engine."""

from __future__ import annotations

import pytest
from ignite.engine import Engine, Events

from aide_monai.handlers import ConsistencyRamp


def ramp_of(epochs: int, warmup: int, *, after: int = 0) -> list[float]:
    engine = Engine(lambda engine, batch: None)
    ConsistencyRamp(warmup).attach(engine)
    values: list[float] = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: values.append(e.state.consistency))
    if after:
        engine.load_state_dict({"epoch": after, "max_epochs": epochs, "epoch_length": 2})
    engine.run([0, 1], max_epochs=epochs)
    return values


def test_lambda_over_forty_epochs() -> None:
    assert ramp_of(40, 20) == pytest.approx([n * n / 400 for n in range(20)] + [1.0] * 20)


def test_without_warm_up() -> None:
    assert ramp_of(3, 0) == [1.0, 1.0, 1.0]


def test_a_resumed_run_goes_on() -> None:
    assert ramp_of(6, 4, after=3) == ramp_of(6, 4)[3:] == [0.5625, 1.0, 1.0]
