"""What the selection keeps, and the warning when training collapses to background."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from aide_monai.handlers import CollapseWarning


def labels(foreground: list[bool]) -> Tensor:
    """(B, 1, 2, 2) labels with or without one pixel of class 2."""
    result = torch.zeros(len(foreground), 1, 2, 2, dtype=torch.uint8)
    result[torch.tensor(foreground), 0, 1, 1] = 2
    return result


def output(kept_1: list[bool], kept_2: list[bool], *, quality: list[bool] | None = None) -> dict[str, Any]:
    return {
        "kept_1": torch.tensor(kept_1),
        "kept_2": torch.tensor(kept_2),
        "label_1": labels([True, False, False, True]),
        "label_2": labels([False, True, False, True]),
        "high_quality": None if quality is None else torch.tensor(quality),
    }


Ratio = float | tuple[float, float]
"""Of both networks, or of each."""


def ratios_of(ratio: Ratio) -> dict[str, float]:
    first, second = ratio if isinstance(ratio, tuple) else (ratio, ratio)
    return {"foreground_ratio_1": first, "foreground_ratio_2": second}


def run(
    outputs: list[dict], ratios: Sequence[Ratio | None], *, restored: float | None = None, **options: Any
) -> list[dict[str, float]]:
    """Metrics after each epoch; all outputs come in every epoch, the foreground ratio changes with the epochs.

    Of a resumed run, ``restored`` is the ratio of the last epoch before.
    """
    engine = Engine(lambda engine, batch: batch)
    found: list[dict[str, float]] = []

    def set_ratio(engine: Engine) -> None:
        ratio = ratios[engine.state.epoch - 1]
        if ratio is not None:
            engine.state.metrics |= ratios_of(ratio)

    engine.add_event_handler(Events.EPOCH_COMPLETED, set_ratio)
    CollapseWarning(**options).attach(engine)
    if restored is not None:
        engine.state.metrics |= ratios_of(restored)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: found.append(dict(e.state.metrics)))
    engine.run(outputs, max_epochs=len(ratios))
    return found


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("aide_monai")]


PLAIN = output([True, True, False, False], [True, True, False, False])


def test_shares_of_kept_samples_by_hand() -> None:
    outputs = [
        # kept 0 and 1: one of label_1 is empty; kept 1: it is not empty in label_2
        output([True, True, False, False], [False, True, False, False], quality=[True, False, False, False]),
        # kept 1 and 2: both empty; kept 2 and 3: one empty
        output([False, True, True, False], [False, False, True, True], quality=[False, False, True, False]),
    ]
    found = run(outputs, [None, None])
    for metrics in found:  # the second epoch starts from zero
        assert metrics == {"kept_empty": (1 + 0 + 2 + 1) / 7, "kept_high_quality": (1 + 0 + 1 + 1) / 7}


def test_quality_is_left_out_when_the_data_do_not_say_it() -> None:
    assert set(run([PLAIN], [None])[0]) == {"kept_empty"}


def test_a_collapse_is_announced_when_it_begins(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="aide_monai"):
        run([PLAIN], [0.1, 0.9, 0.2, 0.1, 0.1])
    (message,) = warnings(caplog)
    assert message.startswith(
        "Epoch 3: both networks predict only 20 % of the labelled foreground, and 50 % of the kept"
    )
    for option in ("warmup_epochs", "consistency_weight", "unit='slice'"):
        assert option in message


def test_a_second_collapse_is_announced_again(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="aide_monai"):
        run([PLAIN], [0.8, 0.2, 0.7, 0.2])
    assert [message.split(":")[0] for message in warnings(caplog)] == ["Epoch 2", "Epoch 4"]


@pytest.mark.parametrize(("restored", "announced"), [(0.9, ["Epoch 1"]), (0.1, ["Epoch 2"]), (None, ["Epoch 2"])])
def test_a_collapse_is_announced_when_it_begins_with_a_resume(
    caplog: pytest.LogCaptureFixture, restored: float | None, announced: list[str]
) -> None:
    with caplog.at_level(logging.WARNING, logger="aide_monai"):
        run([PLAIN], [0.2, 0.1], restored=restored)
    assert [message.split(":")[0] for message in warnings(caplog)] == announced


@pytest.mark.parametrize(
    "ratios",
    [
        [0.0, 0.1, 0.2, 0.25, 0.3],  # networks that have not found the foreground yet
        [0.9, 0.25, 1.2],
        [None, None, None],
    ],
)
def test_no_other_course_is_announced(caplog: pytest.LogCaptureFixture, ratios: list[float | None]) -> None:
    with caplog.at_level(logging.WARNING, logger="aide_monai"):
        run([PLAIN], ratios)
    assert warnings(caplog) == []


def test_one_network_of_two_that_collapses_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """The other one's foreground would hide it in their sum."""
    with caplog.at_level(logging.WARNING, logger="aide_monai"):
        run([PLAIN], [(0.9, 0.9), (1.1, 0.0)])
    (message,) = warnings(caplog)
    assert message.startswith("Epoch 2: network 2 predicts only 0 % of the labelled foreground")


@pytest.mark.parametrize(("epochs", "announced"), [(1, 1), (3, 3), (5, 5), (8, 5)])
def test_a_network_that_is_empty_from_the_first_epoch_is_announced_once(
    caplog: pytest.LogCaptureFixture, epochs: int, announced: int
) -> None:
    with caplog.at_level(logging.WARNING, logger="aide_monai"):
        run([PLAIN], [(0.0, 0.9)] * epochs)
    (message,) = warnings(caplog)
    assert message.startswith(f"Epoch {announced}: network 1 predicts only 0 % of the labelled foreground, and never")


def test_the_threshold_is_an_option(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="aide_monai"):
        run([PLAIN], [0.9, 0.2], minimum_foreground=0.1)
        assert warnings(caplog) == []
        run([PLAIN], [0.9, 0.8], minimum_foreground=0.85)
    assert len(warnings(caplog)) == 1
