"""Scores of predicted volumes: by hand, spacing, file, errors."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from torch import Tensor

from aide_monai.errors import InputError
from aide_monai.handlers import CaseScores
from aide_monai.ignored import IGNORED

NAMES = {"0": "background", "1": "liver", "2": "tumour"}


def volume(values: list[int], *, spacing: tuple[float, float, float] = (1, 1, 1), file: str = "") -> MetaTensor:
    """(1, n, 1, 1) class indices."""
    return MetaTensor(
        torch.tensor(values).view(1, -1, 1, 1),
        affine=np.diag([*spacing, 1.0]),
        meta={"filename_or_obj": file} if file else {},
    )


def run(items: list[tuple[dict, MetaTensor, Tensor]], handler: CaseScores) -> Engine:
    """Evaluator that gives one decollated case after another: (what the batch holds, label, prediction)."""

    def step(engine: Engine, item: tuple[dict, MetaTensor, Tensor]) -> list[dict[str, Any]]:
        engine.state.batch = [item[0]]
        return [{"label": item[1], "pred": item[2]}]

    engine = Engine(step)
    handler.attach(engine)
    engine.run(items)
    return engine


def test_scores_of_each_class_by_hand() -> None:
    handler = CaseScores(NAMES, method="aide", network="mean")
    label, prediction = volume([1, 1, 2, 0, 0], spacing=(2.5, 1, 1)), volume([1, 0, 2, 2, 0])
    engine = run([({"case": "p7"}, label, prediction)], handler)
    liver, tumour = handler.rows
    assert {key: liver[key] for key in ("method", "network", "case", "label", "label_name")} == {
        "method": "aide",
        "network": "mean",
        "case": "p7",
        "label": 1,
        "label_name": "liver",
    }
    assert liver["dsc"] == pytest.approx(2 / 3)
    assert (liver["tp"], liver["fp"], liver["fn"]) == (1, 0, 1)
    assert tumour["label_name"] == "tumour"
    assert tumour["dsc"] == pytest.approx(2 / 3)
    assert tumour["ravd"] == pytest.approx(100)
    assert tumour["mssd"] == pytest.approx(2.5)  # one voxel too long, 2.5 mm each
    assert engine.state.metrics["dsc"] == pytest.approx(2 / 3)


def test_the_mean_is_over_cases_and_classes_and_a_new_run_starts_anew() -> None:
    handler = CaseScores({0: "background", 1: "liver"})
    items = [
        ({"case": "a"}, volume([1, 1, 0]), volume([1, 1, 0])),
        ({"case": "b"}, volume([1, 1, 0]), volume([1, 0, 0])),
    ]
    assert run(items, handler).state.metrics["dsc"] == pytest.approx((1 + 2 / 3) / 2)
    run(items[:1], handler)
    assert [row["case"] for row in handler.rows] == ["a"]
    assert handler.rows[0]["network"] == "single"


def test_a_case_without_a_name_is_named_by_its_file() -> None:
    handler = CaseScores({0: "background", 1: "liver"})
    run([({}, volume([1], file="label_3.nii"), volume([1])), ({}, volume([1]), volume([1]))], handler)
    assert [row["case"] for row in handler.rows] == ["label_3.nii", "1"]


def test_rows_are_written_when_the_evaluator_is_done(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    run([({"case": "a"}, volume([1, 1]), volume([1, 0]))], CaseScores({0: "background", 1: "liver"}, path=path))
    with path.open(newline="") as file:
        (row,) = list(csv.DictReader(file))
    assert (row["case"], row["label_name"], float(row["dsc"])) == ("a", "liver", pytest.approx(2 / 3))


def test_another_grid_is_named() -> None:
    with pytest.raises(InputError, match=r"case 'a': prediction has shape \(3, 1, 1\), label \(2, 1, 1\); expected"):
        run([({"case": "a"}, volume([1, 1]), volume([1, 0, 0]))], CaseScores({0: "background", 1: "liver"}))


def test_post_processing_keeps_the_largest_component_of_each_class() -> None:
    label, prediction = volume([1, 1, 1, 0, 0, 2, 2]), volume([1, 1, 1, 0, 1, 2, 2])
    found = []
    for keep_largest in (False, True):
        handler = CaseScores(NAMES, keep_largest=keep_largest)
        run([({"case": "a"}, label, prediction)], handler)
        found.append([(row["label"], row["tp"], row["fp"], row["pp"]) for row in handler.rows])
    assert found == [[(1, 3, 1, False), (2, 2, 0, False)], [(1, 3, 0, True), (2, 2, 0, True)]]
    assert prediction.flatten().tolist() == [1, 1, 1, 0, 1, 2, 2]  # what others see stays


def test_voxels_without_a_verdict_are_left_out() -> None:
    handler = CaseScores(NAMES)
    run([({"case": "a"}, volume([1, 1, 0, IGNORED, IGNORED]), volume([1, 0, 0, 1, 2]))], handler)
    assert [(row["tp"], row["fp"], row["fn"]) for row in handler.rows] == [(1, 0, 1), (0, 0, 0)]
