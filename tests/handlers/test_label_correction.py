"""Global label correction with networks whose predictions are known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aide_monai.engines import AIDEOptions, AIDETrainer
from aide_monai.handlers import GlobalLabelCorrection
from aide_monai.labels import LabelChange, LabelStore
from aide_monai.losses import IGNORED
from aide_monai.stream import SliceDataset


class Reads(nn.Module):
    """Predicts what stands in one channel of the image, so that a test decides it."""

    def __init__(self, channel: int, classes: int) -> None:
        super().__init__()
        self.channel = channel
        self.classes = classes
        self.calls: list[tuple[int, bool, bool]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.calls.append((len(image), self.training, torch.is_grad_enabled()))
        indices = image[:, self.channel].round().long()
        return 9 * nn.functional.one_hot(indices, self.classes).movedim(-1, 1).float()


class Engine:
    """What the handler needs of a trainer."""

    def __init__(self, classes: int = 2) -> None:
        self.networks = Reads(0, classes), Reads(1, classes)
        self.state = SimpleNamespace(epoch=1, metrics={}, device=torch.device("cpu"))

    def forward(self, index: int, image: Tensor) -> Tensor:
        return self.networks[index - 1](image)


def row(*counts: int) -> Tensor:
    """(1, 10, slices): in each slice the first so many of ten pixels are foreground."""
    return torch.stack([(torch.arange(10) < n).to(torch.uint8)[None] for n in counts], dim=-1)


def case(name: str, label: Tensor, first: Tensor, second: Tensor, *, quality: str = "low") -> dict[str, Any]:
    """Volume with slices along its last axis, and the predictions of both networks for it."""
    image = torch.stack([first, second]).float()
    return {"case": name, "image": image, "label": label[None], "quality": quality}


def dice(predicted: int, labelled: int) -> float:
    """Dice of ``row(predicted)`` with ``row(labelled)``."""
    return 2 * min(predicted, labelled) / (predicted + labelled)


def simple(name: str, first: int, second: int, *, label: int = 10, quality: str = "low") -> dict[str, Any]:
    """Case of one slice."""
    return case(name, row(label), row(first), row(second), quality=quality)


def correction(
    volumes: list[dict],
    *,
    folder: Path | None = None,
    scratch: Path | None = None,
    batch_size: int = 32,
    axis: int = 2,
    **options: Any,
) -> tuple[GlobalLabelCorrection, LabelStore]:
    store = LabelStore.from_volumes(volumes, folder=folder, scratch=scratch)
    dataset = SliceDataset(volumes, store=store, axis=axis)
    return GlobalLabelCorrection(
        dataset, options=AIDEOptions.from_profile("paper", **options), batch_size=batch_size
    ), store


def sizes(store: LabelStore, network: int) -> dict[str, int]:
    """Foreground pixels of each label."""
    return {name: int((store.label(network, name) > 0).sum()) for name in store.cases}


FIVE = [
    simple("a", 10, 9),
    simple("b", 2, 8),  # the worst of network 1
    simple("c", 9, 10),
    simple("d", 8, 3),  # the worst of network 2
    simple("sure", 0, 0, quality="high"),  # worse than all others
]


# Selection and exchange


def test_each_network_replaces_the_worst_label_of_the_other_one() -> None:
    handler, store = correction(FIVE)
    engine = Engine()
    handler(engine)
    assert sizes(store, 1) == {"a": 10, "b": 10, "c": 10, "d": 3, "sure": 10}
    assert sizes(store, 2) == {"a": 10, "b": 2, "c": 10, "d": 10, "sure": 10}
    expected = [
        LabelChange(epoch=1, network=2, case="b", slice=None, dice_before=pytest.approx(dice(2, 10)), voxels_changed=8),
        LabelChange(epoch=1, network=1, case="d", slice=None, dice_before=pytest.approx(dice(3, 10)), voxels_changed=7),
    ]
    assert store.records == expected
    assert store.epochs == [0, 1]
    assert engine.state.metrics["corrected"] == 2


def test_without_a_share_of_labels_to_replace_none_is_due() -> None:
    handler, store = correction(FIVE, update_ratio=0)
    engine = Engine()
    handler(engine)
    assert store.epochs == [0]
    assert engine.state.metrics["corrected"] == 0
    assert engine.state.metrics["dsc_train"] < 1  # it still tells how predictions and labels agree
    handler.every_epoch = False
    networks = engine.networks
    calls = len(networks[0].calls)
    handler(engine)
    assert len(networks[0].calls) == calls


@pytest.mark.parametrize("unit", ["case", "slice"])
def test_predictions_lie_where_the_labels_do(unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With labels in files, predictions are files for as long as they are needed, and the outcome is the same."""
    volumes = [
        case("a", row(10, 10, 10), row(10, 2, 9), row(9, 9, 3)),
        case("b", row(10, 10, 10), row(1, 10, 9), row(9, 9, 9)),
        *FIVE[-1:],
    ]
    stores = []
    for scratch in (None, tmp_path):
        handler, store = correction(volumes, scratch=scratch, unit=unit, update_ratio=0.5)
        before = sorted(tmp_path.rglob("*"))
        seen: set[int] = set()

        def looks(
            *args: Any, of: LabelStore = store, seen: set[int] = seen, before: list = before, **kwargs: Any
        ) -> Any:
            seen.add(len(list(tmp_path.rglob("*"))) - len(before))
            return LabelStore.replace(of, *args, **kwargs)

        monkeypatch.setattr(store, "replace", looks)
        handler(Engine())
        assert seen == {
            0 if scratch is None else 2 + 2 * len(volumes)
        }  # a folder with its lock and a file per prediction
        assert sorted(tmp_path.rglob("*")) == before
        stores.append(store)
    in_memory, in_files = stores
    assert in_memory.records == in_files.records
    for name in in_memory.cases:
        for network in (1, 2):
            assert torch.equal(in_memory.label(network, name), in_files.label(network, name))


class Probable(Reads):
    """Foreground with the probability that stands in one channel of the image."""

    def forward(self, image: Tensor) -> Tensor:
        foreground = image[:, self.channel : self.channel + 1]
        return torch.cat([1 - foreground, foreground], dim=1).log()


def test_the_mean_of_both_networks_ranks_and_replaces_the_labels_of_both() -> None:
    """Three columns: both see a structure; network 1 alone, quite surely; network 2 alone, hardly."""
    first, second = torch.tensor([0.9, 0.9, 0.2]).view(1, 3, 1), torch.tensor([0.8, 0.3, 0.6]).view(1, 3, 1)
    empty = torch.zeros(1, 3, 1, dtype=torch.uint8)
    full = case("b", empty + 1, first, second)
    handler, store = correction([case("a", empty, first, second), full], correction_source="mean", update_ratio=0.5)
    engine = Engine()
    engine.networks = Probable(0, 2), Probable(1, 2)
    handler(engine)
    for network in (1, 2):
        assert store.label(network, "a").flatten().tolist() == [1, 1, 0]
        assert store.label(network, "b").flatten().tolist() == [1, 1, 1]
    assert [(r.network, r.case, r.dice_before) for r in store.records] == [(2, "a", 0), (1, "a", 0)]
    assert engine.state.metrics["dsc_train"] == pytest.approx((0 + 0.8) / 2)


def test_metrics_by_hand() -> None:
    handler, _ = correction(FIVE)
    engine = Engine()
    handler(engine)
    means = [sum(dice(n, 10) for n in counts) / 5 for counts in ((10, 2, 9, 8, 0), (9, 8, 10, 3, 0))]
    assert engine.state.metrics["dsc_train"] == pytest.approx(sum(means) / 2)
    predicted = (10 + 2 + 9 + 8) + (9 + 8 + 10 + 3)
    assert engine.state.metrics["foreground_ratio"] == pytest.approx(predicted / 100)
    assert engine.state.metrics["foreground_ratio_1"] == pytest.approx((10 + 2 + 9 + 8) / 50)
    assert engine.state.metrics["foreground_ratio_2"] == pytest.approx((9 + 8 + 10 + 3) / 50)


def test_one_case_can_be_the_worst_of_both() -> None:
    handler, store = correction([simple("a", 1, 2), *(simple(name, 9, 9) for name in "bcd")])
    handler(Engine())
    assert (sizes(store, 1)["a"], sizes(store, 2)["a"]) == (2, 1)
    # both were ranked before anything was replaced
    assert [record.dice_before for record in store.records] == pytest.approx([dice(1, 10), dice(2, 10)])


def test_the_second_epoch_ranks_against_the_corrected_labels() -> None:
    handler, store = correction([simple("a", 1, 1), simple("b", 2, 2), simple("c", 9, 9), simple("d", 9, 9)])
    engine = Engine()
    for epoch in (1, 2, 3):
        engine.state.epoch = epoch
        handler(engine)
    assert [(r.epoch, r.network, r.case) for r in store.records] == [
        (1, 2, "a"),
        (1, 1, "a"),
        (2, 2, "b"),  # "a" agrees with its label now
        (2, 1, "b"),
        (3, 2, "c"),
        (3, 1, "c"),
    ]
    assert engine.state.metrics["dsc_train"] == pytest.approx((1 + 1 + 2 * dice(9, 10)) / 4)  # before the correction


def test_the_share_is_of_the_low_quality_units_and_rounded_down_to_one_at_least() -> None:
    high = [simple(f"h{n}", 0, 0, quality="high") for n in range(4)]
    for count, replaced in ((1, 1), (3, 1), (4, 1), (7, 1), (8, 2)):
        volumes = [*high, *(simple(f"l{n}", 1 + n, 1 + n) for n in range(count))]
        handler, store = correction(volumes)
        engine = Engine()
        handler(engine)
        assert engine.state.metrics["corrected"] == 2 * replaced
        assert {record.case for record in store.records} == {f"l{n}" for n in range(replaced)}


def test_the_ratio_is_an_option_and_ties_break_by_index() -> None:
    handler, store = correction([simple(name, 5, 5) for name in "abcd"], update_ratio=0.5)
    handler(Engine())
    assert [(record.network, record.case) for record in store.records] == [(2, "a"), (2, "b"), (1, "a"), (1, "b")]


def test_high_quality_labels_never_change() -> None:
    volumes = [simple(name, 0, 0, quality="high") for name in "ab"] + [simple("c", 9, 9), simple("d", 8, 8)]
    for options in ({}, {"rank_high_quality": True}, {"unit": "slice", "rank_high_quality": True}):
        handler, store = correction(volumes, update_ratio=1.0, **options)
        engine = Engine()
        for epoch in (1, 2):
            engine.state.epoch = epoch
            handler(engine)
        for network in (1, 2):
            assert {name: n for name, n in sizes(store, network).items() if name in "ab"} == {"a": 10, "b": 10}
        assert {record.case for record in store.records} == {"c", "d"}


def test_high_quality_units_may_take_places_in_the_ranking() -> None:
    volumes = [simple("h", 0, 0, quality="high"), *(simple(f"l{n}", 2 + n, 2 + n) for n in range(7))]
    handler, store = correction(volumes, rank_high_quality=True)  # two of eight: the trusted one and the next
    engine = Engine()
    handler(engine)
    assert {record.case for record in store.records} == {"l0"}
    assert engine.state.metrics["corrected"] == 2
    handler, store = correction(volumes, rank_high_quality=False)  # one of seven
    handler(Engine())
    assert {record.case for record in store.records} == {"l0"}
    handler, store = correction(volumes, rank_high_quality=True, update_ratio=0.125)  # one of eight: the trusted one
    engine = Engine()
    handler(engine)
    assert store.generation == 0
    assert engine.state.metrics["corrected"] == 0


@pytest.mark.parametrize(("rank_high_quality", "replaced"), [(False, {"l0"}), (True, set())])
def test_a_place_in_the_ranking_is_lost_to_a_high_quality_unit(rank_high_quality: bool, replaced: set[str]) -> None:
    """A quarter of four, or of five, is one unit: the worst of low quality, or the trusted one, which stays."""
    volumes = [simple("h", 0, 0, quality="high"), *(simple(f"l{n}", 2 + n, 2 + n) for n in range(4))]
    handler, store = correction(volumes, rank_high_quality=rank_high_quality)
    engine = Engine()
    handler(engine)
    assert {record.case for record in store.records} == replaced
    assert engine.state.metrics["corrected"] == 2 * len(replaced)


def test_without_low_quality_cases_nothing_is_corrected() -> None:
    handler, store = correction([simple("a", 0, 0, quality="high")], update_ratio=1.0)
    engine = Engine()
    handler(engine)
    assert (store.generation, engine.state.metrics["corrected"]) == (0, 0)
    assert engine.state.metrics["dsc_train"] == 0.0


# Labels that networks would empty


def test_a_label_is_not_emptied_by_networks_that_find_nothing(caplog: pytest.LogCaptureFixture) -> None:
    handler, store = correction([simple("a", 0, 9), simple("b", 9, 0), simple("c", 0, 1)], update_ratio=1.0)
    engine = Engine()
    with caplog.at_level("WARNING", logger="aide_monai"):
        handler(engine)
    assert sizes(store, 2) == {"a": 10, "b": 9, "c": 10}
    assert sizes(store, 1) == {"a": 9, "b": 10, "c": 1}
    assert (engine.state.metrics["corrected"], engine.state.metrics["withheld"]) == (3, 3)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("Epoch 1: 3 of 6 corrections were not made, because they would have left less than 10 %")
    assert "(cases a, c, b; option correction_foreground)" in message


@pytest.mark.parametrize(("least", "left"), [(0.0, 0), (0.1, 10), (1.0, 10)])
def test_the_least_foreground_is_an_option(least: float, left: int) -> None:
    handler, store = correction([simple("a", 0, 0)], update_ratio=1.0, correction_foreground=least)
    handler(Engine())
    assert sizes(store, 1) == {"a": left}


def test_labels_do_not_shrink_to_nothing_by_and_by() -> None:
    """The share is that of the given label, not of the last one."""
    handler, store = correction([simple("a", 5, 5)], update_ratio=1.0, correction_foreground=0.5)
    engine = Engine()
    handler(engine)
    assert sizes(store, 1) == {"a": 5}
    handler.dataset._images[0] = handler.dataset._images[0].__class__(torch.stack([row(4), row(3)]).float(), 2)
    handler(engine)
    assert sizes(store, 1) == {"a": 5}
    assert engine.state.metrics["withheld"] == 2


def test_slices_may_be_emptied_as_long_as_their_case_keeps_its_share() -> None:
    """Three slices of ten pixels, all of which both networks find empty: two may be, the third is not."""
    handler, store = correction(
        [case("a", row(10, 10, 10), row(0, 0, 0), row(0, 0, 0))], unit="slice", update_ratio=1.0
    )
    engine = Engine()
    handler(engine)
    assert sizes(store, 1) == sizes(store, 2) == {"a": 10}
    assert (engine.state.metrics["corrected"], engine.state.metrics["withheld"]) == (4, 2)


def test_a_label_that_was_given_empty_may_become_empty_again() -> None:
    handler, store = correction([simple("a", 3, 3, label=0)], update_ratio=1.0)
    engine = Engine()
    handler(engine)
    assert sizes(store, 1) == {"a": 3}
    handler.dataset._images[0] = handler.dataset._images[0].__class__(torch.stack([row(0), row(0)]).float(), 2)
    handler(engine)
    assert sizes(store, 1) == {"a": 0}


# What the ranking compares with


def with_three_labels(**options: Any) -> tuple[GlobalLabelCorrection, LabelStore]:
    """Given labels of 10 pixels, of which network 1 has "a" cut to 1, and network 2 has "b" cut to 1.

    Network 1 predicts (2, 9, 9, 4) pixels, network 2 (2, 3, 9, 9).
    """
    volumes = [simple("a", 2, 2), simple("b", 9, 3), simple("c", 9, 9), simple("d", 4, 9)]
    handler, store = correction(volumes, **options)
    store.replace(1, "a", row(1), epoch=1, dice_before=0.0)
    store.replace(2, "b", row(1), epoch=1, dice_before=0.0)
    store.commit(1)
    return handler, store


def test_each_network_is_ranked_against_the_label_it_trains_on() -> None:
    handler, store = with_three_labels()
    engine = Engine()
    engine.state.epoch = 2
    handler(engine)
    # network 1 against (1, 10, 10, 10): "d" is worst; network 2 against (10, 1, 10, 10): "a" is worst
    values = [(r.network, r.case, r.dice_before) for r in store.records[2:]]
    assert values == [(2, "d", pytest.approx(dice(4, 10))), (1, "a", pytest.approx(dice(2, 10)))]


def test_the_released_code_ranks_against_other_labels() -> None:
    handler, store = with_three_labels(ranking_reference="released")
    engine = Engine()
    engine.state.epoch = 2
    handler(engine)
    # network 1 against the given labels: "a" is worst; network 2 against network 1's (1, 10, 10, 10): "b" is worst
    values = [(r.network, r.case, r.dice_before) for r in store.records[2:]]
    assert values == [(2, "a", pytest.approx(dice(2, 10))), (1, "b", pytest.approx(dice(3, 10)))]
    # DSC_train stays what each network makes of the label it trains on
    means = [
        (dice(2, 1) + dice(9, 10) + dice(9, 10) + dice(4, 10)) / 4,
        (dice(2, 10) + dice(3, 1) + dice(9, 10) + dice(9, 10)) / 4,
    ]
    assert engine.state.metrics["dsc_train"] == pytest.approx(sum(means) / 2)


# Voxels without a verdict


def scribbled(name: str, label: list[int], first: list[int], second: list[int], *, quality: str = "low") -> dict:
    """Case of one slice with a row of pixels."""
    drawn = [torch.tensor(values, dtype=torch.uint8).view(1, -1, 1) for values in (label, first, second)]
    return case(name, *drawn, quality=quality)


X = IGNORED
SCRIBBLED = [
    scribbled("fits", [1, 1, 0, X, X], [1, 1, 0, 0, 0], [1, 1, 0, 1, 1]),
    scribbled("half", [1, 1, 0, X, X], [1, 0, 0, 1, 1], [1, 0, 1, 0, 0]),
    scribbled("nothing", [X, X, X, X, X], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]),
    scribbled("sure", [1, 0, X, X, X], [0, 0, 1, 0, 0], [1, 1, 0, 0, 1], quality="high"),
]


def labels_of(store: LabelStore) -> dict[str, list[list[int]]]:
    return {name: [store.label(network, name).flatten().tolist() for network in (1, 2)] for name in store.cases}


def test_voxels_without_a_verdict_do_not_rank_and_stay_as_they_are() -> None:
    handler, store = correction(SCRIBBLED)
    engine = Engine()
    handler(engine)
    # of three doubtful cases one has no verdict: a quarter of two is one. Dice: 2/3 of network 1, 2/4 of network 2.
    assert [(r.network, r.case, r.voxels_changed, r.filled) for r in store.records] == [
        (2, "half", 1, False),
        (1, "half", 2, False),
    ]
    assert [r.dice_before for r in store.records] == pytest.approx([2 / 3, 1 / 2])
    assert labels_of(store) == {
        "fits": [[1, 1, 0, X, X]] * 2,
        "half": [[1, 0, 1, X, X], [1, 0, 0, X, X]],
        "nothing": [[X] * 5] * 2,
        "sure": [[1, 0, X, X, X]] * 2,
    }
    metrics = engine.state.metrics
    assert metrics["dsc_train"] == pytest.approx((1 + 2 / 3 + 0 + 1 + 1 / 2 + 2 / 3) / 6)
    assert metrics["dsc_trusted"] == pytest.approx((0 + 2 / 3) / 2)
    # of network 1 two, one and no voxel are predicted where five are labelled; of network 2 two, two and two
    assert metrics["foreground_ratio_1"] == pytest.approx(3 / 5)
    assert metrics["foreground_ratio_2"] == pytest.approx(6 / 5)


def test_voxels_without_a_verdict_take_the_prediction_if_asked_and_still_rank_nothing(tmp_path: Path) -> None:
    handler, store = correction(SCRIBBLED, folder=tmp_path / "labels", fill_ignored=True, update_ratio=0.0)
    engine = Engine()
    handler(engine)
    filled = {
        "fits": [[1, 1, 0, 1, 1], [1, 1, 0, 0, 0]],  # each network has the prediction of the other one
        "half": [[1, 1, 0, 0, 0], [1, 1, 0, 1, 1]],
        "nothing": [[1, 0, 0, 0, 0], [0, 0, 1, 1, 1]],
        "sure": [[1, 0, 0, 0, 1], [1, 0, 1, 0, 0]],  # what is trusted stays
    }
    assert labels_of(store) == filled
    assert {(r.case, r.filled) for r in store.records} == {(name, True) for name in filled}
    first = dict(engine.state.metrics)
    assert first["corrected"] == 0
    assert store.records[4].dice_before is None
    engine.state.epoch = 2
    handler(engine)
    assert {key: engine.state.metrics[key] for key in first} == first
    assert LabelStore.from_volumes(SCRIBBLED, folder=tmp_path / "labels", resume=True).records == store.records


def test_a_label_keeps_its_share_of_the_foreground_that_has_a_verdict(caplog: pytest.LogCaptureFixture) -> None:
    volumes = [scribbled("a", [1, 1, 0, X, X], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1])]
    handler, store = correction(volumes, update_ratio=1.0)
    handler(Engine())
    assert store.records == []
    assert "2 of 2 corrections were not made" in caplog.text


@pytest.mark.parametrize("unit", ["case", "slice"])
def test_slices_without_a_verdict_are_not_ranked(unit: str) -> None:
    label, wrong = row(10, 10, 10), row(9, 1, 9)
    label[..., 1] = IGNORED
    volumes = [case("a", label, wrong, wrong), case("b", row(10, 10), row(8, 9), row(8, 9))]
    handler, store = correction(volumes, unit=unit)
    handler(Engine())
    assert {(r.case, r.slice) for r in store.records} == {("b", 0 if unit == "slice" else None)}


# Slices


def test_single_slices_are_ranked_and_replaced() -> None:
    volumes = [
        case("a", row(10, 10, 10), row(9, 1, 9), row(9, 9, 9)),
        case("b", row(10, 10), row(9, 9), row(9, 2)),
        case("sure", row(10, 10, 10), row(0, 0, 0), row(0, 0, 0), quality="high"),
    ]
    handler, store = correction(volumes, unit="slice")  # one of five
    engine = Engine()
    handler(engine)
    assert [(r.network, r.case, r.slice, r.voxels_changed) for r in store.records] == [(2, "a", 1, 9), (1, "b", 1, 8)]
    assert [record.dice_before for record in store.records] == pytest.approx([dice(1, 10), dice(2, 10)])
    assert torch.equal(store.label(2, "a"), row(10, 1, 10))
    assert torch.equal(store.label(1, "b"), row(10, 2))
    assert torch.equal(store.label(1, "a"), row(10, 10, 10))
    means = [(4 * dice(9, 10) + dice(n, 10)) / 8 for n in (1, 2)]  # eight slices, three of them at Dice 0
    assert engine.state.metrics["dsc_train"] == pytest.approx(sum(means) / 2)


def test_empty_slices_that_are_predicted_empty_are_the_best() -> None:
    volumes = [case("a", row(0, 0, 0, 10), row(0, 0, 0, 9), row(0, 0, 0, 9))]
    handler, store = correction(volumes, unit="slice")
    handler(Engine())
    assert [(record.network, record.slice) for record in store.records] == [(2, 3), (1, 3)]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("unit", ["case", "slice"])
def test_predictions_are_written_in_the_axes_of_the_volume(axis: int, unit: str) -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.zeros(3, 4, 5, dtype=torch.uint8)
    first, second = torch.randint(0, 2, (2, 3, 4, 5), generator=generator, dtype=torch.uint8)
    handler, store = correction([case("a", label, first, second)], axis=axis, unit=unit, update_ratio=1.0)
    handler(Engine())
    assert torch.equal(store.label(2, "a"), first)
    assert torch.equal(store.label(1, "a"), second)


# Classes and components


def test_three_classes() -> None:
    label = torch.tensor([[[1], [1], [2], [2]]], dtype=torch.uint8)
    first = torch.tensor([[[1], [2], [2], [0]]], dtype=torch.uint8)  # 2 * 1 / 3 and 2 * 1 / 4
    second = torch.tensor([[[1], [1], [0], [0]]], dtype=torch.uint8)  # 1 and 0
    handler, store = correction([case("a", label, first, second)], update_ratio=1.0)
    engine = Engine(classes=3)
    handler(engine)
    assert torch.equal(store.label(2, "a"), first)
    assert torch.equal(store.label(1, "a"), second)
    assert engine.state.metrics["dsc_train"] == pytest.approx(((2 / 3 + 1 / 2) / 2 + 1 / 2) / 2)
    assert engine.state.metrics["foreground_ratio"] == pytest.approx((3 + 2) / 8)


def test_the_largest_component_is_kept_before_ranking_and_writing() -> None:
    label = torch.zeros(6, 6, 3, dtype=torch.uint8)
    label[0:2, 0:2] = 1  # 12 voxels
    prediction = label.clone()
    prediction[5, 5, :] = 1  # a second component
    prediction[2, 2, 2] = 1  # touches the first by a corner only
    for keep, voxels in (("none", 16), ("class", 12)):
        handler, store = correction(
            [case("a", label, prediction, prediction)], update_ratio=1.0, largest_component=keep
        )
        engine = Engine()
        handler(engine)
        assert int(store.label(1, "a").sum()) == int(store.label(2, "a").sum()) == voxels
        assert store.records[0].dice_before == pytest.approx(2 * 12 / (12 + voxels))
        assert engine.state.metrics["dsc_train"] == pytest.approx(2 * 12 / (12 + voxels))


def test_the_largest_component_of_each_class_across_slices() -> None:
    prediction = torch.zeros(5, 5, 3, dtype=torch.uint8)
    prediction[0, 0, :] = 1  # three voxels along the slices: larger than the two in one slice
    prediction[3, 3:5, 0] = 1
    prediction[0, 4, 0] = 2
    prediction[2, 0, 1:] = 2
    handler, store = correction(
        [case("a", torch.zeros_like(prediction), prediction, prediction)], update_ratio=1.0, largest_component="class"
    )
    handler(Engine(classes=3))
    expected = torch.zeros_like(prediction)
    expected[0, 0, :] = 1
    expected[2, 0, 1:] = 2
    assert torch.equal(store.label(1, "a"), expected)


def test_an_empty_prediction_has_no_component() -> None:
    handler, store = correction(
        [simple("a", 0, 0)], update_ratio=1.0, largest_component="class", correction_foreground=0.0
    )
    handler(Engine())
    assert sizes(store, 1) == {"a": 0}


# Schedule


@pytest.mark.parametrize(("needed", "replaced"), [(0.0, 2), (0.82, 2), (0.83, 0)])
@pytest.mark.parametrize("quality", ["high", "low"])
def test_labels_are_corrected_when_the_networks_are_good_enough(needed: float, replaced: int, quality: str) -> None:
    """Both networks find 7 of 10 trusted pixels, Dice 14 / 17, and less of the others; or that is the mean of all."""
    others = [2, 3, 2, 4] if quality == "high" else [7, 7, 7, 7]
    volumes = [simple("t", 7, 7, label=10, quality=quality), *(simple(f"l{n}", k, k) for n, k in enumerate(others))]
    handler, store = correction(volumes, correction_dice=needed)
    engine = Engine()
    handler(engine)
    assert engine.state.metrics["corrected"] == replaced == len(store.records)
    assert engine.state.metrics.get("dsc_trusted") == (pytest.approx(14 / 17) if quality == "high" else None)


LEAVING = [simple("t", 10, 4, quality="high"), simple("a", 6, 5), simple("b", 5, 5)]
"""Network 1 finds all of the trusted label; network 2 finds 4 of 10 pixels, Dice 8 / 14, and less of the others."""


def followed(engine: Engine, handler: GlobalLabelCorrection, channels: str) -> list[tuple[int, int]]:
    """Both networks predict the channels one after another; how many labels are corrected, and what "a" has then."""
    seen = []
    for epoch, channel in enumerate(channels, start=engine.state.epoch):
        engine.networks = Reads(int(channel), 2), Reads(int(channel), 2)
        engine.state.epoch = epoch
        handler(engine)
        seen.append((engine.state.metrics["corrected"], sizes(handler.store, 1)["a"]))
    engine.state.epoch += 1
    return seen


MINDFUL = {"trusted_share": 0.5, "trusted_drop": 0.05, "update_ratio": 1.0}


@pytest.mark.parametrize("kept", [True, False])
def test_labels_return_when_the_networks_leave_the_trusted_ones(
    kept: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler, store = correction(LEAVING, folder=tmp_path if kept else None, **MINDFUL)
    engine = Engine()
    assert followed(engine, handler, "010") == [(4, 6), (0, 10), (0, 10)]
    assert {key: engine.state.metrics[key] for key in ("taken_back", "sound_generation", "dsc_trusted_best")} == {
        "taken_back": 2,
        "sound_generation": 0,
        "dsc_trusted_best": 1.0,
    }
    assert (store.epochs, sizes(store, 1), sizes(store, 2)) == ([0, 1, 2], *[{"t": 10, "a": 10, "b": 10}] * 2)
    assert "fallen from 1.000 to 0.571" in caplog.text
    given = "those of generation 0" if kept else "what they were given as"
    assert f"return to {given}, and no more are corrected (option trusted_drop)" in caplog.text


def test_labels_that_the_networks_agreed_with_stay(tmp_path: Path) -> None:
    """Two epochs are sound: the labels of the first correction stay, those of the second are undone."""
    volumes = [
        case("t", row(10, 10), row(10, 10), row(4, 4), quality="high"),
        case("a", row(9, 9), row(6, 7), row(5, 5)),
    ]
    handler, _ = correction(volumes, folder=tmp_path, **MINDFUL, correction_start=1)
    engine = Engine()
    assert followed(engine, handler, "0") == [(2, 13)]
    volumes[1]["image"][0] = row(8, 8)  # the networks find more, and are right about the trusted label still
    assert followed(engine, handler, "01") == [(2, 16), (0, 13)]
    assert engine.state.metrics["sound_generation"] == 1


def test_nothing_is_undone_where_nothing_was_corrected() -> None:
    handler, store = correction(LEAVING, **MINDFUL, correction_start=9)
    engine = Engine()
    followed(engine, handler, "010")
    assert (engine.state.metrics["taken_back"], store.epochs) == (0, [0])


@pytest.mark.parametrize("options", [{"trusted_drop": 1.0}, {"trusted_share": 0.0}, {"trusted_drop": 0.5}])
def test_labels_stay_where_nobody_minds(options: dict[str, float]) -> None:
    """Without the option, without a share of the batch that the networks would have to agree with, or within it."""
    handler, _ = correction(LEAVING, **MINDFUL | options)
    assert followed(Engine(), handler, "010") == [(4, 6), (4, 5), (4, 6)]


def test_what_a_run_knows_of_the_trusted_labels_comes_back_with_its_metrics() -> None:
    handler, _ = correction(LEAVING, **MINDFUL)
    engine = Engine()
    followed(engine, handler, "0")
    resumed = Engine()
    resumed.state.epoch = 2
    resumed.state.metrics.update(engine.state.metrics)  # as RunCheckpoint does
    again = GlobalLabelCorrection(handler.dataset, options=handler.options)
    assert followed(resumed, again, "1") == [(0, 10)]
    assert resumed.state.metrics["taken_back"] == 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, *range(1, 21), 30, 40]),
        ({"warmup_epochs": 3, "update_interval": 15}, [0, 1, 2, 3, 15, 30]),
        ({"warmup_epochs": 6, "correction_start": 5}, [0, 5, 6, 10, 20, 30, 40]),
    ],
)
def test_committed_generations_over_forty_epochs(tmp_path: Path, options: dict, expected: list[int]) -> None:
    handler, store = correction([simple(name, 5, 5) for name in "abcd"], folder=tmp_path, **options)
    engine = Engine()
    corrected = []
    for epoch in range(1, 41):
        engine.state.epoch = epoch
        handler(engine)
        corrected.append(engine.state.metrics["corrected"])
    assert store.epochs == expected
    assert [epoch for epoch, count in enumerate(corrected, start=1) if count] == expected[1:]
    assert LabelStore.from_volumes([simple(n, 5, 5) for n in "abcd"], folder=tmp_path, resume=True).epochs == expected


# Prediction


def test_networks_predict_in_eval_mode_without_gradient_and_get_their_mode_back() -> None:
    handler, _ = correction([case("a", row(1, 2, 3, 4, 5), row(1, 2, 3, 4, 5), row(1, 2, 3, 4, 5))], batch_size=2)
    engine = Engine()
    engine.networks[1].eval()
    handler(engine)
    for model in engine.networks:
        assert model.calls == [(2, False, False), (2, False, False), (1, False, False)]
    assert [model.training for model in engine.networks] == [True, False]


def test_the_batch_size_changes_nothing() -> None:
    volumes = [case("a", row(10, 3), row(4, 3), row(2, 1)), case("b", row(5), row(2), row(4))]
    results = []
    for batch_size in (1, 2, 32):
        handler, store = correction(volumes, batch_size=batch_size, unit="slice", update_ratio=0.5)
        engine = Engine()
        handler(engine)
        results.append((store.records, engine.state.metrics))
    assert results[0] == results[1] == results[2]


def test_a_data_set_without_a_store_is_refused() -> None:
    with pytest.raises(ValueError, match="the data set has no label store; build it with SliceDataset"):
        GlobalLabelCorrection(SliceDataset([simple("a", 1, 1)]))


def test_it_runs_after_every_epoch_of_a_trainer() -> None:
    volumes = [simple(name, 3, 4) for name in "abcd"]
    handler, store = correction(volumes)
    torch.manual_seed(0)
    networks = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in networks]
    data = torch.utils.data.DataLoader(handler.dataset, batch_size=2)
    engine = AIDETrainer(
        "cpu", 3, data, networks[0], optimizers[0], networks[1], optimizers[1], train_handlers=[handler]
    )
    engine.run()
    assert store.epochs == [0, 1, 2, 3]
    assert len(store.records) == 6
    assert 0 <= engine.state.metrics["dsc_train"] <= 1
