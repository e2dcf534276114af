"""The three streams are one kind of thing: whoever trains on one can train on any."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.networks.utils import one_hot
from torch import Tensor, nn

from aide_monai.engines import AIDEOptions, PrepareAugmented, PseudoLabelTrainer
from aide_monai.handlers import GlobalLabelCorrection, Memorisation
from aide_monai.inferers import AutocastInferer
from aide_monai.labels import LabelStore
from aide_monai.stream import AIDECacheDataset, PatchDataset, SliceDataset, TrainingSet, slice_loader

SHAPE = (4, 4, 3)


def volumes() -> list[dict[str, Any]]:
    """The image of each case is 1 in its lower half along x; the label of the doubtful one is empty."""
    image = torch.zeros(1, *SHAPE)
    image[:, :2] = 1
    label = image.byte()
    return [
        {"case": "good", "image": image, "label": label, "quality": "high"},
        {"case": "poor", "image": image, "label": 0 * label, "quality": "low"},
    ]


def slices() -> TrainingSet:
    return SliceDataset(volumes(), store=LabelStore.from_volumes(volumes()), axis=2)


def patches() -> TrainingSet:
    return PatchDataset(volumes(), (2, 4, 3), store=LabelStore.from_volumes(volumes()))


def whole() -> TrainingSet:
    return AIDECacheDataset(volumes(), [], progress=False)


STREAMS = pytest.mark.parametrize("make", [slices, patches, whole])


class Copy(nn.Module):
    """Predicts what the image says."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image: Tensor) -> Tensor:
        return self.weight * one_hot(image, 2, dim=1)


@STREAMS
def test_each_is_a_training_set(make):
    stream = make()
    assert isinstance(stream, TrainingSet)
    assert len(stream.numbers) == len(stream)
    assert (stream.cases, stream.high_quality) == (["good", "poor"], [True, False])
    assert {"image", "label_1", "label_2", "high_quality"} <= set(stream[0])
    assert stream.unit == {slices: "slice", patches: "patch", whole: "case"}[make]


def test_what_lacks_a_part_of_it_is_none():
    assert not isinstance(volumes(), TrainingSet)
    assert not isinstance(torch.utils.data.TensorDataset(torch.zeros(1)), TrainingSet)


@STREAMS
def test_a_case_comes_back_from_its_arrangement(make):
    stream = make()
    image = volumes()[1]["image"][0].byte()
    prediction, classes = stream.predict(1, Copy(), 2)
    assert classes == 2
    assert torch.equal(prediction, stream.arranged(1, image))
    assert torch.equal(stream.labels(1)["label_2"], stream.arranged(1, torch.zeros(SHAPE, dtype=torch.uint8)))
    units = stream.confusion(1, prediction, stream.labels(1)["label_1"], classes)
    assert len(units) == {slices: 3, patches: 2, whole: 1}[make]
    assert units.sum(dim=0).tolist() == [[24, 0], [24, 0]]  # half of 48 voxels predicted, none labelled
    label, index = stream.correction(1, prediction, None)
    stream.store.replace(1, "poor", label, epoch=1, dice_before=0.0, index=index)
    assert torch.equal(stream.store.label(1, "poor"), image)


@STREAMS
def test_the_correction_and_the_study_of_memory_take_it(make):
    stream = make()
    clean = {"poor": volumes()[1]["image"][0].byte()}
    memory = Memorisation(stream, clean, num_classes=2)
    options = AIDEOptions.from_profile("paper", warmup_epochs=1, update_ratio=1.0)
    engine: Any = SimpleNamespace(
        networks=(Copy(), Copy()),
        inferers=(AutocastInferer(), AutocastInferer()),
        state=SimpleNamespace(metrics={}, device=torch.device("cpu"), epoch=1),
    )
    GlobalLabelCorrection(stream, options=options)(engine)
    memory(engine)
    assert engine.state.metrics["corrected"] == 2
    assert torch.equal(stream.store.label(2, "poor"), clean["poor"])
    assert (engine.state.metrics["fit_clean"], engine.state.metrics["fit_given"]) == (1.0, 0.0)


@STREAMS
def test_the_pseudo_label_engine_takes_it(make):
    stream, network = make(), Copy()
    PseudoLabelTrainer(
        "cpu",
        1,
        slice_loader(stream, batch_size=2, steps=1, seed=0, trusted_share=0.5),
        network,
        dataset=stream,
        start=1,
        interval=1,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=lambda logits, label: logits.square().mean(),
        prepare_batch=PrepareAugmented(lambda image, labels: (image, list(labels))),
        decollate=False,
    ).run()
    assert torch.equal(stream.store.label(1, "poor"), volumes()[1]["image"][0].byte())
    assert stream.store.label(2, "poor").sum() == 0
