"""The slice stream: views, axes, current labels, errors, the loader."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor
from torch.utils.data import DataLoader

from aide_monai.errors import InputError
from aide_monai.io.grid import through_plane_axis
from aide_monai.labels import LabelStore
from aide_monai.stream import SliceDataset, slice_loader


def volume(
    case: str, size: tuple[int, int, int], *, spacing: tuple[float, float, float] | None = None, channels: int = 2
) -> dict:
    """Volume whose voxels are all different; a MetaTensor when it has a spacing."""
    image = torch.arange(channels * int(np.prod(size)), dtype=torch.float32).view(channels, *size)
    label = (image[:1] % 3).to(torch.uint8)
    if spacing is not None:
        image = MetaTensor(image, affine=np.diag([*spacing, 1.0]))
    return {"case": case, "image": image, "label": label, "quality": "low"}


def store_of(volumes: list[dict]) -> LabelStore:
    return LabelStore.from_volumes(volumes)


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


# Through-plane axis


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [
        ((1, 1, 5), 2),
        ((5, 1, 1), 0),
        ((1, 3, 1), 1),
        ((1, 1, 1), 2),
        ((2, 2, 1), 1),
        ((1, 1, 0.995), 2),  # equal within one percent
        ((1, 1, 0.98), 1),
    ],
)
def test_slices_lie_across_the_largest_spacing(spacing: tuple[float, float, float], axis: int) -> None:
    assert through_plane_axis(np.diag([*spacing, 1.0])) == axis


def test_a_rotated_affine_has_the_same_axis() -> None:
    turn = np.array([[0.0, -1.0, 0.0], [0.6, 0.0, -0.8], [0.8, 0.0, 0.6]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.0, 4.0, 1.0])
    affine[:3, 3] = [100, -50, 30]
    assert through_plane_axis(affine) == 1
    assert through_plane_axis(torch.as_tensor(affine)) == 1


# Items


@pytest.mark.parametrize(("axis", "count", "size"), [(0, 3, (4, 5)), (1, 4, (3, 5)), (2, 5, (3, 4))])
def test_items_by_index(axis: int, count: int, size: tuple[int, int]) -> None:
    data = volume("a", (3, 4, 5))
    dataset = SliceDataset([data], axis=axis)
    assert len(dataset) == count
    for index in range(count):
        item = dataset[index]
        assert set(item) == {"image", "label", "case", "slice", "high_quality"}
        assert torch.equal(item["image"], data["image"].select(axis + 1, index))
        assert torch.equal(item["label"], data["label"].select(axis + 1, index))
        assert item["image"].shape == (2, *size)
        assert item["label"].shape == (1, *size)
        assert (item["image"].dtype, item["label"].dtype) == (torch.float32, torch.uint8)
        assert (item["case"], item["slice"], item["high_quality"]) == (0, index, False)


def test_cases_follow_one_another() -> None:
    volumes = [volume("a", (4, 4, 2)), volume("b", (4, 4, 3)) | {"quality": "high"}, volume("c", (4, 4, 1))]
    dataset = SliceDataset(volumes, store=store_of(volumes), axis=2)
    places = [(item["case"], item["slice"], item["high_quality"]) for item in dataset]
    expected = [(0, 0, False), (0, 1, False), (1, 0, True), (1, 1, True), (1, 2, True), (2, 0, False)]
    assert places == expected
    assert dataset.cases == ["a", "b", "c"]
    with pytest.raises(IndexError):
        dataset[6]


def test_a_store_gives_each_network_its_label() -> None:
    volumes = [volume("a", (3, 4, 2))]
    store = store_of(volumes)
    store.replace(2, "a", torch.full((3, 4, 2), 9), epoch=1, dice_before=0.0)
    item = SliceDataset(volumes, store=store, axis=2)[1]
    assert set(item) == {"image", "label_1", "label_2", "case", "slice", "high_quality"}
    assert torch.equal(item["label_1"], volumes[0]["label"][..., 1])
    assert bool((item["label_2"] == 9).all())
    assert item["label_1"].dtype == item["label_2"].dtype == torch.uint8


def test_metadata_does_not_travel_with_every_slice() -> None:
    item = SliceDataset([volume("a", (4, 4, 2), spacing=(1, 1, 3))])[0]
    assert type(item["image"]) is Tensor


@pytest.mark.parametrize(
    ("spacing", "axis"), [((1, 1, 6), 2), ((6, 1, 1), 0), ((1, 6, 1), 1), ((1, 1, 1), 2), (None, 2)]
)
def test_auto_takes_the_axis_from_the_affine(spacing: tuple[float, float, float] | None, axis: int) -> None:
    dataset = SliceDataset([volume("a", (4, 4, 4), spacing=spacing)], axis="auto")
    assert dataset.axes == [axis]


def test_axes_may_differ_between_cases() -> None:
    volumes = [
        volume("a", (4, 5, 2), spacing=(1, 1, 6)),
        volume("b", (3, 4, 5), spacing=(6, 1, 1)),
        volume("c", (4, 1, 5), spacing=(1, 6, 1)),
    ]
    dataset = SliceDataset(volumes, store=store_of(volumes))
    assert dataset.axes == [2, 0, 1]
    assert len(dataset) == 2 + 3 + 1
    assert torch.equal(dataset[3]["image"], volumes[1]["image"].as_tensor()[:, 1])
    assert torch.equal(dataset[3]["label_2"], volumes[1]["label"][:, 1])
    assert torch.equal(dataset[5]["image"], volumes[2]["image"].as_tensor()[:, :, 0])
    assert dataset.slices(1).shape == (3, 2, 4, 5)
    assert dataset.slices(2).shape == (1, 2, 4, 5)


def test_whole_cases_have_slices_first() -> None:
    data = volume("a", (3, 4, 5))
    store = store_of([data])
    dataset = SliceDataset([data], store=store, axis=1)
    slices, labels = dataset.slices(0), dataset.labels(0)
    assert slices.shape == (4, 2, 3, 5)
    assert set(labels) == {"label_1", "label_2"}
    assert labels["label_1"].shape == (4, 3, 5)
    for index in range(4):
        assert torch.equal(slices[index], dataset[index]["image"])
        assert torch.equal(labels["label_2"][index], dataset[index]["label_2"][0])
    assert set(SliceDataset([data], axis=1).labels(0)) == {"label"}


# Memory


@pytest.mark.parametrize("spacing", [None, (1, 1, 3)])
def test_slices_are_views_of_the_volume_and_of_the_store(spacing: tuple[float, float, float] | None) -> None:
    data = volume("a", (3, 4, 2), spacing=spacing)
    store = store_of([data])
    dataset = SliceDataset([data], store=store)
    item = dataset[1]
    assert storage(item["image"]) == storage(dataset.slices(0)) == storage(data["image"])
    for network in (1, 2):
        assert storage(item[f"label_{network}"]) == storage(store.label(network, "a"))
        assert storage(dataset.labels(0)[f"label_{network}"]) == storage(store.label(network, "a"))
    without = SliceDataset([data])
    assert storage(without[0]["label"]) == storage(data["label"])


def test_a_correction_is_seen_at_once() -> None:
    volumes = [volume("a", (4, 4, 2))]
    store = store_of(volumes)
    dataset = SliceDataset(volumes, store=store)
    item = dataset[0]
    store.replace(1, "a", torch.full((4, 4), 8), epoch=1, dice_before=0.0, index=(2, 0))
    assert bool((item["label_1"] == 8).all())
    assert bool((dataset[0]["label_1"] == 8).all())
    assert not bool((dataset[1]["label_1"] == 8).any())
    assert not bool((dataset[0]["label_2"] == 8).any())


def test_a_correction_is_seen_by_a_worker_process_that_already_runs() -> None:
    volumes = [volume("a", (4, 4, 2))]
    store = store_of(volumes)
    loader = DataLoader(
        SliceDataset(volumes, store=store),
        batch_size=2,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    (before,) = list(loader)
    assert torch.equal(before["label_2"][:, 0], volumes[0]["label"][0].movedim(2, 0))
    store.replace(2, "a", torch.full((4, 4, 2), 8), epoch=1, dice_before=0.0)
    (after,) = list(loader)
    assert bool((after["label_2"] == 8).all())
    assert torch.equal(after["label_1"], before["label_1"])


def test_an_unknown_quality_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="case 'a' has quality 'High'; expected \"high\" or \"low\""):
        SliceDataset([volume("a", (4, 4, 2)) | {"quality": "High"}])


def test_items_make_a_batch() -> None:
    volumes = [volume("a", (4, 4, 2)), volume("b", (4, 4, 1)) | {"quality": "high"}]
    (batch,) = list(DataLoader(SliceDataset(volumes, store=store_of(volumes)), batch_size=3))
    assert batch["image"].shape == (3, 2, 4, 4)
    assert batch["label_1"].shape == (3, 1, 4, 4)
    assert batch["high_quality"].tolist() == [False, False, True]
    assert batch["high_quality"].dtype == torch.bool
    assert batch["case"].tolist() == [0, 0, 1]
    assert batch["slice"].tolist() == [0, 1, 0]


def test_the_transform_sees_each_item() -> None:
    dataset = SliceDataset([volume("a", (4, 4, 2))], transform=lambda item: item | {"image": item["image"] * 0 - 1})
    assert bool((dataset[1]["image"] == -1).all())
    assert dataset[1]["slice"] == 1
    assert bool((dataset.slices(0) >= 0).all())  # whole cases are not augmented


# Errors


def test_no_volumes() -> None:
    with pytest.raises(InputError, match="the slice data set got no volumes"):
        SliceDataset([])


def test_no_label() -> None:
    data = volume("a", (4, 4, 2))
    with pytest.raises(InputError, match="case 'a' has no label; give every training case a label or a label store"):
        SliceDataset([{key: value for key, value in data.items() if key != "label"}])
    with pytest.raises(InputError, match="case 'b' has no label in the label store"):
        SliceDataset([volume("b", (4, 4, 2))], store=store_of([data]))


def test_an_image_that_is_not_a_volume() -> None:
    with pytest.raises(InputError, match=r"image of case '0' has shape \(1, 4, 4\); expected \(channels, X, Y, Z\)"):
        SliceDataset([{"image": torch.zeros(1, 4, 4), "label": torch.zeros(1, 4, 4)}])


def test_slices_of_different_size() -> None:
    volumes = [volume("a", (4, 4, 2)), volume("b", (4, 5, 2))]
    with pytest.raises(
        InputError, match=r"slices of case 'b' have size \(4, 5\), those of case 'a' \(4, 4\); expected one size"
    ):
        SliceDataset(volumes, axis=2)


# The loader


def order(loader: DataLoader) -> list[list[tuple[int, int]]]:
    return [list(zip(batch["case"].tolist(), batch["slice"].tolist(), strict=True)) for batch in loader]


def test_an_epoch_has_the_steps_asked_for_and_no_slice_twice_before_all_came_once() -> None:
    dataset = SliceDataset([volume("a", (4, 4, 5)), volume("b", (4, 4, 2))], axis=2)  # 7 slices
    epoch = order(slice_loader(dataset, batch_size=3, steps=6, seed=0))
    assert [len(batch) for batch in epoch] == [3] * 6
    drawn = [place for batch in epoch for place in batch]
    for start in (0, 7):
        assert len(set(drawn[start : start + 7])) == 7
    assert len(set(drawn[14:])) == 4
    first, second = order(slice_loader(dataset, batch_size=2, steps=2, seed=0))
    assert len({*first, *second}) == 4


def test_the_order_depends_on_the_seed_alone_and_changes_every_epoch() -> None:
    dataset = SliceDataset([volume("a", (4, 4, 20))], axis=2)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    loaders = [slice_loader(dataset, batch_size=4, steps=5, seed=seed) for seed in (1, 1, 2)]
    first = [order(loader) for loader in loaders]
    assert torch.equal(state, torch.get_rng_state())
    assert first[0] == first[1]
    assert first[0] != first[2]
    assert order(loaders[0]) != first[0]


def qualities(*depths: int, trusted: int) -> SliceDataset:
    """Cases of so many slices, the first ``trusted`` ones of high quality."""
    volumes = [volume(f"case {n}", (4, 4, depth)) for n, depth in enumerate(depths)]
    for v in volumes[:trusted]:
        v["quality"] = "high"
    return SliceDataset(volumes, axis=2)


def test_every_batch_has_its_share_of_trusted_slices() -> None:
    dataset = qualities(3, 10, 9, trusted=1)
    loader = slice_loader(dataset, batch_size=4, steps=6, seed=0, trusted_share=0.3)  # two of four
    epoch = order(loader)
    trusted = [[place for place in batch if place[0] == 0] for batch in epoch]
    assert [len(batch) for batch in epoch] == [4] * 6
    assert [len(places) for places in trusted] == [2] * 6
    drawn = [place for places in trusted for place in places]
    assert all(drawn.count((0, n)) == 4 for n in range(3))
    others = [place for batch in epoch for place in batch if place[0] > 0]
    assert len(set(others)) == 12
    assert order(loader) != epoch
    assert order(slice_loader(dataset, batch_size=4, steps=6, seed=0, trusted_share=0.3)) == epoch
    places = [batch.index(place) for batch, places in zip(epoch, trusted, strict=True) for place in places]
    assert set(places) == {0, 1, 2, 3}  # not always first: processes would have all of one kind


@pytest.mark.parametrize("trusted", [0, 3], ids=["none trusted", "all trusted"])
def test_one_kind_of_slices_is_drawn_as_without_a_share(trusted: int) -> None:
    dataset = qualities(3, 10, 9, trusted=trusted)
    plain, shared = (order(slice_loader(dataset, batch_size=4, steps=6, seed=0, trusted_share=s)) for s in (0, 0.5))
    assert plain == shared


@pytest.mark.parametrize(("others", "share", "least"), [(12, 0.5, 2), (8, 0.5, 2), (1, 0.75, 3), (30, 0.75, 3)])
def test_every_batch_has_the_share_also_where_as_many_are_trusted_anyway(others: int, share: float, least: int) -> None:
    """Twelve trusted slices: drawn from all alike, single batches would have fewer than the share."""
    dataset = qualities(12, others, trusted=1)
    loader = slice_loader(dataset, batch_size=4, steps=12, seed=0, trusted_share=share)
    epochs = [order(loader) for _ in range(6)]
    assert min(sum(number == 0 for number, _ in batch) for epoch in epochs for batch in epoch) == least
    drawn = [number for epoch in epochs for batch in epoch for number, _ in batch]
    assert drawn.count(1) / len(drawn) == pytest.approx(min(others / (12 + others), 1 - least / 4), abs=0.02)
    for epoch in epochs:  # none of a kind comes again before all have come
        seen: Counter[tuple[int, int]] = Counter(
            {(k, n): 0 for k, size in enumerate((12, others)) for n in range(size)}
        )
        for batch in epoch:
            seen.update(batch)
            for kind in (0, 1):
                counts = [count for place, count in seen.items() if place[0] == kind]
                assert max(counts) - min(counts) <= 1


def test_drawn_from_all_alike_some_batches_have_fewer() -> None:
    """The test above can fail."""
    loader = slice_loader(qualities(12, 12, trusted=1), batch_size=4, steps=12, seed=0)
    assert min(sum(number == 0 for number, _ in batch) for batch in order(loader)) < 2


@pytest.mark.parametrize(("batch_size", "trusted"), [(1, 0), (2, 1)])
def test_a_share_leaves_room_for_others(batch_size: int, trusted: int) -> None:
    dataset = qualities(3, 30, trusted=1)
    epoch = order(slice_loader(dataset, batch_size=batch_size, steps=15, seed=0, trusted_share=0.9))
    assert {number for batch in epoch for number, _ in batch} == {0, 1}
    assert min(sum(number == 0 for number, _ in batch) for batch in epoch) == trusted


def test_all_of_a_batch_can_be_trusted() -> None:
    epoch = order(slice_loader(qualities(3, 10, 9, trusted=1), batch_size=4, steps=6, seed=0, trusted_share=1))
    assert {number for batch in epoch for number, _ in batch} == {0}
