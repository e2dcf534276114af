"""Quality of the current labels by hand."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine

from aide_monai.handlers import LabelQuality
from aide_monai.labels import LabelStore


def mask(*pixels: int) -> torch.Tensor:
    return torch.tensor(pixels, dtype=torch.uint8).view(1, -1, 1)


def test_mean_dice_of_both_networks_after_each_epoch() -> None:
    clean = {"a": mask(1, 1, 0, 0), "b": mask(0, 0, 0, 0)}
    store = LabelStore({"a": mask(1, 0, 0, 0), "b": mask(0, 0, 0, 0), "without": mask(1, 1, 1, 1)})
    store.replace(2, "a", mask(1, 1, 0, 0), epoch=1, dice_before=0.0)
    store.replace(2, "b", mask(1, 0, 0, 0), epoch=1, dice_before=0.0)
    engine = Engine(lambda engine, batch: None)
    LabelQuality(store, clean, num_classes=2).attach(engine)
    engine.run([0])
    assert engine.state.metrics["label_quality_1"] == pytest.approx((2 / 3 + 1) / 2)
    assert engine.state.metrics["label_quality_2"] == pytest.approx((1 + 0) / 2)
    store.replace(1, "a", mask(1, 1, 0, 0), epoch=2, dice_before=0.0)
    engine.run([0])
    assert engine.state.metrics["label_quality_1"] == 1.0


def test_three_classes_by_hand() -> None:
    store = LabelStore({"a": mask(1, 1, 2, 0)})
    engine = Engine(lambda engine, batch: None)
    LabelQuality(store, {"a": mask(1, 2, 2, 2)}, num_classes=3).attach(engine)
    engine.run([0])
    assert engine.state.metrics["label_quality_1"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_quality_of_any_labels() -> None:
    quality = LabelQuality(LabelStore({"a": mask(0, 0)}), {"a": mask(1, 1)}, num_classes=2)
    assert quality.of({"a": mask(1, 0)}) == pytest.approx(2 / 3)
