"""Validation while training."""

from __future__ import annotations

import pytest
from ignite.engine import Engine

from aide_monai.handlers import Validation


class FakeEvaluator:
    """Remembers the epochs it ran in; its DSC is a tenth of the epoch."""

    def __init__(self, cases: int) -> None:
        self.data_loader = range(cases)
        self.epochs: list[int] = []
        self.state = Engine(lambda *_: None).state

    def run(self, epoch: int) -> None:
        self.epochs.append(epoch)
        self.state.metrics = {"dsc": epoch / 10}


def train(evaluator: FakeEvaluator, interval: int) -> dict[str, float]:
    engine = Engine(lambda *_: None)
    Validation(evaluator, interval=interval).attach(engine)
    engine.run([0], max_epochs=5)
    return engine.state.metrics


def test_every_epoch_gets_the_mean_dsc():
    evaluator = FakeEvaluator(2)
    assert train(evaluator, 1) == {"dsc_validation": 0.5}
    assert evaluator.epochs == [1, 2, 3, 4, 5]


def test_between_two_validations_the_value_stays():
    evaluator = FakeEvaluator(2)
    assert train(evaluator, 2) == {"dsc_validation": 0.4}
    assert evaluator.epochs == [1, 2, 4]


def test_without_cases_nothing_happens():
    evaluator = FakeEvaluator(0)
    assert train(evaluator, 1) == {}
    assert evaluator.epochs == []


def test_an_interval_below_one_is_refused():
    with pytest.raises(ValueError, match="interval is 0; expected a number of epochs, at least 1"):
        Validation(FakeEvaluator(1), interval=0)
