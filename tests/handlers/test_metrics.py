"""The metrics as handlers, built by name as a bundle does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator

# (y_pred, y) of two cases, as one row of 6 voxels 2 mm apart: 2 voxels against 4, and a perfect one
CASES = [([0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0]), ([0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0])]


def one_hot(row: list[int]) -> MetaTensor:
    mask = torch.tensor(row).view(-1, 1, 1)
    return MetaTensor(torch.stack([1 - mask, mask]).float(), affine=np.diag([2.0, 1.0, 1.0, 1.0]))


def built(target: str, **options: Any) -> Any:
    config = {
        "handler": {
            "_target_": f"aide_monai.handlers.{target}",
            "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
            **options,
        }
    }
    return ConfigParser(config, globals={"monai": "monai"}).get_parsed_content("handler")


def metrics_of(handler: Any, name: str) -> Engine:
    engine = Engine(lambda _, case: [{"pred": one_hot(case[0]), "label": one_hot(case[1])}])
    handler.attach(engine, name)
    engine.run(CASES)
    return engine


# First case: borders {1, 2} and {1, 4}, for outside the image is no background; 2 is one voxel off, 4 two.
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("RelativeVolumeDifference", [50.0, 0.0]),
        ("AverageSymmetricSurfaceDistance", [(0 + 2 + 0 + 4) / 4, 0.0]),
        ("MaximumSymmetricSurfaceDistance", [4.0, 0.0]),
    ],
)
def test_single_metrics_by_hand(target: str, expected: list[float]) -> None:
    state = metrics_of(built(target), "value").state
    assert state.metrics["value"] == pytest.approx(np.mean(expected))
    assert state.metric_details["value"].flatten().tolist() == pytest.approx(expected)


def test_options_reach_the_metric() -> None:
    state = metrics_of(built("RelativeVolumeDifference", signed=True, reduction="sum"), "value").state
    assert state.metrics["value"] == pytest.approx(-50.0)


def test_all_metrics_in_one_pass() -> None:
    state = metrics_of(built("MeanSegmentationMetrics"), "all").state
    assert state.metrics["dsc"] == pytest.approx((2 * 2 / 6 + 1) / 2)
    assert state.metrics["ravd"] == pytest.approx(25.0)
    assert state.metrics["mssd"] == pytest.approx(2.0)
    assert state.metrics["all"].keys() == {"dsc", "ravd", "ravd_signed", "assd", "mssd", "hd95", "nsd"}


def test_an_epoch_starts_anew() -> None:
    handler = built("MaximumSymmetricSurfaceDistance")
    engine = metrics_of(handler, "value")
    engine.run(CASES[1:])
    assert engine.state.metrics["value"] == 0.0


def test_the_qubiq_score() -> None:
    handler = built("QUBIQScore")
    engine = Engine(lambda _, item: item)
    handler.attach(engine, "qubiq")
    raters = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])  # mean 1, 0.5, 0
    engine.run([[{"pred": torch.tensor([[1.0, 0.0, 0.0]]), "label": raters}]])
    # thresholds 0.1 to 0.5 find one of two voxels (Dice 2/3), 0.6 to 0.9 the only one
    assert engine.state.metrics["qubiq"] == pytest.approx((5 * 2 / 3 + 4) / 9)


def test_a_metric_as_the_key_metric_of_an_evaluator() -> None:
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[{"image": one_hot(pred)[None], "label": one_hot(label)[None]} for pred, label in CASES],
        network=torch.nn.Identity(),
        key_val_metric={"mssd": built("MaximumSymmetricSurfaceDistance")},
        metric_cmp_fn=lambda current, best: current < best,
        decollate=False,
    )
    evaluator.run()
    assert evaluator.state.metrics["mssd"] == 2.0
