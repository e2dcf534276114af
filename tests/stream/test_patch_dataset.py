"""Patches of volumes: where they lie, what they hold, and how they are predicted, ranked and corrected."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aide_monai.engines import AIDEOptions
from aide_monai.errors import InputError
from aide_monai.handlers import GlobalLabelCorrection
from aide_monai.labels import LabelStore
from aide_monai.stream import PatchDataset
from aide_monai.stream.slice_dataset import SliceDataset


def volume(case: str, shape: tuple[int, int, int] = (4, 6, 5), *, quality: str = "low") -> dict[str, Any]:
    """Image channel 0 numbers the voxels; the label is where the number is odd."""
    number = torch.arange(float(np.prod(shape))).view(1, *shape)
    return {
        "case": case,
        "image": torch.cat([number, -number]),
        "label": (number % 2).to(torch.uint8),
        "quality": quality,
    }


def test_patches_are_views_that_cover_the_volume() -> None:
    data = [volume("a"), volume("b", (2, 3, 4), quality="high")]
    dataset = PatchDataset(data, (2, 3, 4))
    assert len(dataset) == 2 * 2 * 2 + 1
    assert dataset.numbers == [0] * 8 + [1]
    seen = torch.zeros(4, 6, 5)
    for index in range(8):
        item = dataset[index]
        assert item["image"].shape == (2, 2, 3, 4)
        assert item["image"].untyped_storage().data_ptr() == data[0]["image"].untyped_storage().data_ptr()
        assert torch.equal(item["label"].float(), item["image"][:1] % 2)
        assert (item["case"], item["patch"], item["high_quality"]) == (0, index, False)
        seen.view(-1)[item["image"][0].long().flatten()] += 1
    # along the last axis, of 5 voxels, the second patch starts at 1
    expected = torch.tensor([1.0, 2.0, 2.0, 2.0, 1.0])
    assert torch.equal(seen, expected.expand(4, 6, 5))
    assert (dataset[8]["case"], dataset[8]["patch"], dataset[8]["high_quality"]) == (1, 0, True)


def test_units_cover_every_voxel_once() -> None:
    dataset = PatchDataset([volume("a")], (3, 4, 5))
    assert dataset.units(0) == [
        (slice(0, 3), slice(0, 4), slice(0, 5)),
        (slice(0, 3), slice(4, 6), slice(0, 5)),
        (slice(3, 4), slice(0, 4), slice(0, 5)),
        (slice(3, 4), slice(4, 6), slice(0, 5)),
    ]


def test_whole_volumes_are_predicted_from_overlapping_windows() -> None:
    dataset = PatchDataset([volume("a")], (2, 3, 4), overlap=0.5)
    sizes = set()

    def network(image: Tensor) -> Tensor:
        sizes.add(tuple(image.shape[1:]))
        return torch.nn.functional.one_hot((image[:, 0] % 3).long(), 3).movedim(-1, 1).float()

    prediction, classes = dataset.predict(0, network, 2)
    assert classes == 3
    assert sizes == {(2, 2, 3, 4)}
    assert torch.equal(prediction.flatten().long(), torch.arange(120) % 3)
    assert prediction.dtype == torch.uint8


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"patch_size": (5, 6, 5)}, r"'a' has shape \(2, 4, 6, 5\); .*at least \(5, 6, 5\) voxels: pad"),
        ({}, {"patch_size": (2, 2)}, r"patch_size is \[2, 2\]; expected three numbers"),
        ({}, {"patch_size": (2, 2, 2), "overlap": 1.0}, r"overlap is 1.0; expected a share from 0 to below 1"),
        ({"label": torch.zeros(1, 4, 6, 4, dtype=torch.uint8)}, {"patch_size": (2, 2, 2)}, r"expected one grid"),
        ({"image": torch.zeros(2, 4, 6)}, {"patch_size": (2, 2, 2)}, r"expected \(channels, X, Y, Z\)"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PatchDataset([volume("a") | change], **options)


def test_volumes_and_labels_are_needed() -> None:
    with pytest.raises(InputError, match="no volumes"):
        PatchDataset([], (2, 2, 2))
    unlabelled = {key: value for key, value in volume("a").items() if key != "label"}
    with pytest.raises(InputError, match="case 'a' has no label; give"):
        PatchDataset([unlabelled], (2, 2, 2))
    with pytest.raises(InputError, match="case 'a' has no label in the label store"):
        PatchDataset([unlabelled], (2, 2, 2), store=LabelStore({"b": torch.zeros(4, 6, 5, dtype=torch.uint8)}))


class Reads(torch.nn.Module):
    """A network that predicts what stands in one channel."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, image: Tensor) -> Tensor:
        return 9 * torch.nn.functional.one_hot(image[:, self.channel].long(), 2).movedim(-1, 1).float()


class Engine:
    """What the handler needs of a trainer."""

    def __init__(self) -> None:
        self.networks = Reads(0), Reads(1)
        self.state = SimpleNamespace(epoch=1, metrics={}, device=torch.device("cpu"))


def half_full(*full: int) -> Tensor:
    """(4, 2, 2) in two patches of (2, 2, 2), with so many of 8 voxels of each set."""
    return torch.cat([(torch.arange(8) < n).view(2, 2, 2) for n in full]).to(torch.uint8)


def case(name: str, label: Tensor, first: Tensor, second: Tensor, quality: str = "low") -> dict[str, Any]:
    return {"case": name, "image": torch.stack([first, second]).float(), "label": label[None], "quality": quality}


def test_single_patches_are_ranked_and_replaced(tmp_path: Path) -> None:
    data = [
        case("a", half_full(8, 8), half_full(8, 2), half_full(6, 8)),
        case("b", half_full(8, 8), half_full(7, 8), half_full(8, 1)),
        case("sure", half_full(8, 8), half_full(0, 0), half_full(0, 0), "high"),
    ]
    store = LabelStore.from_volumes(data, folder=tmp_path)
    dataset = PatchDataset(data, (2, 2, 2), store=store, overlap=0)
    engine = Engine()
    handler = GlobalLabelCorrection(dataset, options=AIDEOptions.from_profile("paper", unit="patch"))  # one of four
    handler(engine)
    found = [(r.network, r.case, r.slice, r.patch, r.dice_before, r.voxels_changed) for r in store.records]
    assert found == [
        (2, "a", None, "2:4,0:2,0:2", pytest.approx(2 * 2 / 10), 6),
        (1, "b", None, "2:4,0:2,0:2", pytest.approx(2 * 1 / 9), 7),
    ]
    assert torch.equal(store.label(2, "a"), half_full(8, 2))
    assert torch.equal(store.label(1, "b"), half_full(8, 1))
    assert torch.equal(store.label(1, "a"), half_full(8, 8))
    first = [1, 2 * 2 / 10, 2 * 7 / 15, 1, 0, 0]
    second = [2 * 6 / 14, 1, 1, 2 * 1 / 9, 0, 0]
    assert engine.state.metrics["dsc_train"] == pytest.approx(sum(first + second) / 12)
    again = LabelStore.from_volumes(data, folder=tmp_path, resume=True)
    assert again.records == store.records
    assert torch.equal(again.label(2, "a"), half_full(8, 2))


def test_whole_cases_are_ranked_and_replaced() -> None:
    data = [
        case("a", half_full(8, 8), half_full(8, 2), half_full(6, 8)),
        case("b", half_full(8, 8), half_full(7, 8), half_full(8, 1)),
    ]
    store = LabelStore.from_volumes(data)
    handler = GlobalLabelCorrection(
        PatchDataset(data, (2, 2, 2), store=store),
        options=AIDEOptions.from_profile("paper", unit="case", update_ratio=0.5),
    )
    handler(Engine())
    assert [(r.network, r.case, r.patch, r.dice_before) for r in store.records] == [
        (2, "a", None, pytest.approx(2 * 10 / 26)),
        (1, "b", None, pytest.approx(2 * 9 / 25)),
    ]
    assert torch.equal(store.label(2, "a"), half_full(8, 2))


def test_slices_are_no_patches() -> None:
    data = [volume("a")]
    store = LabelStore.from_volumes(data)
    with pytest.raises(InputError, match=r'unit is "slice"; expected "case" or "patch"'):
        GlobalLabelCorrection(
            PatchDataset(data, (2, 2, 2), store=store), options=AIDEOptions.from_profile("paper", unit="slice")
        )
    with pytest.raises(InputError, match=r'unit is "patch"; expected "case" or "slice"'):
        GlobalLabelCorrection(SliceDataset(data, store=store), options=AIDEOptions.from_profile("paper", unit="patch"))
