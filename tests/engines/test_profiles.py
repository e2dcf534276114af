"""Whole runs of both profiles beside a naive Algorithm 1: every loss, weight, ranking and label of three epochs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import Tensor, nn
from torch.utils.data import DataLoader

from aide_monai.engines import AIDEOptions, AIDETrainer
from aide_monai.handlers import GlobalLabelCorrection
from aide_monai.labels import LabelStore
from aide_monai.stream import SliceDataset

from ..naive_aide import Case, Change, Epoch, NaiveAide

EPOCHS = 3
DEPTHS = (3, 2, 4, 3)
HIGH_QUALITY = 1  # number of the case whose label is trusted


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained, apart from the options."""

    profile: str
    options: tuple[tuple[str, Any], ...] = ()
    classes: int = 2
    modalities: int = 1
    normalised: bool = True
    empty_slices: bool = False
    batch_size: int = 4
    seed: int

    def chosen(self) -> AIDEOptions:
        # lambda is 0, 1/4 and 1; labels change after every epoch; half of three units is one of them
        short = {"warmup_epochs": 2, "update_interval": 1, "update_ratio": 0.5}
        return AIDEOptions.from_profile(self.profile, **(short | dict(self.options)))


# The seeds keep away from ties: no two losses of a batch, no two logits of a voxel are within 2e-4 of each other and no
# pixel is that close to the rim of a view, a thousand times what single precision loses.
PAPER = Setting(profile="paper", batch_size=5, seed=13)  # 5, 5 and 2 of 12 slices
THREE_CLASSES = Setting(profile="paper", classes=3, modalities=2, normalised=False, seed=5)
SLICES = Setting(profile="paper", options=(("unit", "slice"), ("update_ratio", 0.25)), seed=8)
ORIGINAL = Setting(profile="original", seed=13)
UNNORMALISED = Setting(profile="original", normalised=False, seed=0)
MINDFUL = Setting(profile="improved", empty_slices=True, batch_size=5, seed=5)
IMPROVED = replace(MINDFUL, options=(("trusted_drop", 1.0),))  # corrects labels to the end
AVERAGED = Setting(profile="paper", options=(("average", 0.6), ("correction_source", "mean")), batch_size=5, seed=13)
TWO_VIEWS = Setting(profile="paper", options=(("views", 2),), empty_slices=True, batch_size=5, seed=5)


def volumes(setting: Setting) -> list[dict[str, Any]]:
    """Four volumes with a bright square per class; labels of low quality are shifted and have holes."""
    generator = torch.Generator().manual_seed(setting.seed)
    made = []
    for number, depth in enumerate(DEPTHS):
        truth = torch.zeros(8, 7, depth, dtype=torch.uint8)
        for c in range(1, setting.classes):
            x, y = torch.randint(0, 4, (2,), generator=generator).tolist()
            truth[x : x + 4, y : y + 3 + c] = c
        if setting.empty_slices:
            truth[..., 0] = 0
        noise = torch.randn(setting.modalities, *truth.shape, generator=generator)
        label = truth
        if number != HIGH_QUALITY:
            label = truth.roll(number, dims=0)
            label[torch.rand(truth.shape, generator=generator) < 0.1 * number] = 0
        made.append(
            {
                "case": f"case {number}",
                "image": truth[None] + 0.7 * noise,
                "label": label[None],
                "quality": "high" if number == HIGH_QUALITY else "low",
            }
        )
    return made


def networks(setting: Setting) -> list[nn.Module]:
    made = []
    for seed in (1, 2):
        torch.manual_seed(10 * setting.seed + seed)
        layers = [nn.Conv2d(setting.modalities, 4, 3, padding=1, bias=not setting.normalised)]
        layers += [nn.BatchNorm2d(4)] if setting.normalised else []
        made.append(nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(4, setting.classes, 1)))
    return made


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam that does not blow up the rounding errors of gradients near zero to whole steps."""
    return torch.optim.Adam(parameters, lr=0.05, amsgrad=True, eps=1e-3)


@dataclass
class Recorder:
    """What a trainer did, in the words of the naive implementation."""

    store: LabelStore
    batches: list[list[list[tuple[int, int]]]] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)

    def attach(self, engine: AIDETrainer) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.finish)

    def start(self, engine: AIDETrainer) -> None:
        self.batches.append([])
        self.epochs.append(Epoch())

    def step(self, engine: AIDETrainer) -> None:
        batch, output = engine.state.batch, engine.state.output
        self.batches[-1].append(list(zip(batch["case"].tolist(), batch["slice"].tolist(), strict=True)))
        self.epochs[-1].losses.append([float(output["loss_1"]), float(output["loss_2"])])
        self.epochs[-1].kept.append([output[f"kept_{n}"].nonzero().flatten().tolist() for n in (1, 2)])

    def finish(self, engine: AIDETrainer) -> None:
        epoch = self.epochs[-1]
        epoch.ramp = engine.state.consistency
        epoch.dsc_train = engine.state.metrics["dsc_train"]
        epoch.weights = [copied(network.state_dict()) for network in engine.networks]
        records = [asdict(record) for record in self.store.records if record.epoch == engine.state.epoch]
        assert all(record.pop("patch") is None and not record.pop("filled") for record in records)
        epoch.changes = [Change(**(r | {"slice": -1 if r["slice"] is None else r["slice"]})) for r in records]
        epoch.labels = [{case: self.store.label(n, case).numpy().copy() for case in self.store.cases} for n in (1, 2)]
        returned = engine.state.metrics.get("taken_back") == engine.state.epoch
        assert returned or engine.state.metrics["corrected"] == len(epoch.changes)


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


@cache
def trained(setting: Setting) -> Recorder:
    """Three epochs of the package."""
    options, data = setting.chosen(), volumes(setting)
    store = LabelStore.from_volumes(data)
    dataset = SliceDataset(data, store=store)
    loader = DataLoader(
        dataset, batch_size=setting.batch_size, shuffle=True, generator=torch.Generator().manual_seed(setting.seed)
    )
    pair = networks(setting)
    optimizers = [adam(model.parameters()) for model in pair]
    recorder = Recorder(store)
    AIDETrainer(
        "cpu",
        EPOCHS,
        loader,
        pair[0],
        optimizers[0],
        pair[1],
        optimizers[1],
        options=options,
        seed=setting.seed,
        train_handlers=[GlobalLabelCorrection(dataset, options=options, batch_size=3), recorder],
    ).run()
    return recorder


def naive(setting: Setting, **changes: Any) -> Iterator[Epoch]:
    """The same three epochs by the naive implementation, one after the other."""
    cases = [
        Case(name=v["case"], image=v["image"], label=v["label"][0], trusted=v["quality"] == "high")
        for v in volumes(setting)
    ]
    return NaiveAide(
        networks(setting),
        cases,
        options=replace(setting.chosen(), **changes),
        make_optimizer=adam,
        seed=setting.seed,
    ).run(trained(setting).batches)


def compare(found: Epoch, expected: Epoch) -> None:
    assert found.ramp == expected.ramp
    assert found.kept == expected.kept
    for losses, naive_losses in zip(found.losses, expected.losses, strict=True):
        assert losses == pytest.approx(naive_losses, abs=1e-5, rel=0)
    for state, naive_state in zip(found.weights, expected.weights, strict=True):
        assert state.keys() == naive_state.keys()
        for name, value in naive_state.items():
            torch.testing.assert_close(state[name].double(), value.double(), atol=1e-4, rtol=0)
    assert found.dsc_train == pytest.approx(expected.dsc_train, abs=1e-12)
    changes, naive_changes = sorted(found.changes), sorted(expected.changes)
    assert [replace(change, dice_before=0) for change in changes] == [
        replace(change, dice_before=0) for change in naive_changes
    ]
    dice = [change.dice_before for change in naive_changes]
    assert [change.dice_before for change in changes] == pytest.approx(dice, abs=1e-12)
    for labels, naive_labels in zip(found.labels, expected.labels, strict=True):
        assert labels.keys() == naive_labels.keys()
        for case, label in naive_labels.items():
            assert (labels[case] == label).all()


def run_both(setting: Setting, **changes: Any) -> list[Epoch]:
    """Compare the epochs one after the other and return those of the naive implementation, its options changed."""
    compared = []
    for found, expected in zip(trained(setting).epochs, naive(setting, **changes), strict=True):
        compare(found, expected)
        compared.append(expected)
    assert len(compared) == EPOCHS
    return compared


@pytest.mark.parametrize("setting", [PAPER, THREE_CLASSES, SLICES], ids=["two classes", "three classes", "slices"])
def test_the_profile_paper(setting: Setting) -> None:
    epochs = run_both(setting)
    assert [epoch.ramp for epoch in epochs] == [0, 0.25, 1]
    assert_rich(epochs)
    assert not any(epoch.skipped_high_quality for epoch in epochs)
    assert not any(epoch.voxels_outside_the_largest_component for epoch in epochs)


@pytest.mark.parametrize("setting", [ORIGINAL, UNNORMALISED], ids=["normalised", "unnormalised"])
def test_the_profile_original(setting: Setting) -> None:
    epochs = run_both(setting)
    assert [epoch.ramp for epoch in epochs] == [0, 0.25, 1]
    assert_rich(epochs)
    assert any(epoch.skipped_high_quality for epoch in epochs)
    assert any(epoch.voxels_outside_the_largest_component for epoch in epochs)


def test_the_largest_component_of_the_foreground() -> None:
    setting = replace(THREE_CLASSES, options=(*THREE_CLASSES.options, ("largest_component", "foreground")))
    assert any(epoch.voxels_outside_the_largest_component for epoch in run_both(setting))


def test_averaged_weights_and_labels_of_both_networks() -> None:
    epochs = run_both(AVERAGED)
    assert [epoch.ramp for epoch in epochs] == [0, 0.25, 1]
    assert {change.network for epoch in epochs for change in epoch.changes} == {1, 2}
    for first, second in [epoch.labels for epoch in epochs]:
        assert all((first[case] == second[case]).all() for case in first)


def test_the_profile_improved() -> None:
    epochs = run_both(IMPROVED)
    assert [epoch.ramp for epoch in epochs] == [0, 0.25, 1]
    assert_rich(epochs, one_label=True)
    sizes = {len(selected) for epoch in epochs for pair in epoch.kept for selected in pair}
    assert 3 in sizes  # of a batch of 5, where the paper keeps 2


def test_labels_return_where_the_networks_leave_the_trusted_ones() -> None:
    """In the second epoch they do; the third changes nothing, where it would have without the option."""
    epochs = run_both(MINDFUL)
    assert [bool(epoch.changes) for epoch in epochs] == [True, True, False]
    first = epochs[0].changes
    assert {(c.network, c.case) for c in epochs[1].changes} == {(c.network, c.case) for c in first}
    assert all((epochs[1].labels[i][case] == volume).all() for i in (0, 1) for case, volume in given(MINDFUL).items())
    with pytest.raises(AssertionError):
        run_both(MINDFUL, trusted_drop=1.0)


def given(setting: Setting) -> dict[str, Any]:
    """The labels that a training begins with."""
    return {volume["case"]: volume["label"][0].numpy() for volume in volumes(setting)}


def assert_rich(epochs: list[Epoch], *, one_label: bool = False) -> None:
    """That a comparison of these epochs says something; with ``one_label`` both networks have the same labels."""
    for epoch in epochs:
        assert {change.network for change in epoch.changes} == {1, 2}
        assert any(0 < change.dice_before < 1 and change.voxels_changed for change in epoch.changes)
    changes = [change for epoch in epochs for change in epoch.changes]
    assert len({change.case for change in changes}) > 1
    assert any(first != second for epoch in epochs for first, second in epoch.kept)
    first, second = epochs[-1].labels
    assert any((first[case] != second[case]).any() for case in first) != one_label


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("keep", 0.25),
        ("filter_strata", "foreground"),
        ("supervised_floor", 0.5),
        ("consistency_weight", 1.1),
        ("confidence", "entropy"),
        ("confidence", "binary"),
        ("temperature", 0.6),
        ("sharpening", "softmax"),
        ("pseudo_label_source", "other"),
        ("views", 3),
        ("max_angle", 59.0),
        ("flip_probability", 0.0),
        ("flip_axis", 1),
        ("view_samples", "all"),
        ("view_statistics", "batch"),
        ("view_inverse", "logits"),
        ("warmup_epochs", 3),
        ("average", 0.5),
        ("unit", "slice"),
        ("correction_source", "mean"),
        ("update_ratio", 1.0),
        ("update_interval", 2),
        ("correction_start", 2),
        ("correction_dice", 1.0),
        ("correction_foreground", 1.0),
        ("ranking_reference", "released"),
        ("rank_high_quality", True),
        ("largest_component", "class"),
        ("largest_component", "foreground"),
    ],
)
def test_the_comparison_notices_every_option(option: str, value: Any) -> None:
    assert getattr(TWO_VIEWS.chosen(), option) != value
    with pytest.raises(AssertionError):
        run_both(TWO_VIEWS, **{option: value})


def test_the_comparison_without_a_change() -> None:
    run_both(TWO_VIEWS)


def test_every_option_is_among_them() -> None:
    (mark,) = test_the_comparison_notices_every_option.pytestmark
    # "trusted_share" decides which batches there are, and those are given; "fill_ignored" is for labels with gaps
    assert {option for option, _ in mark.args[1]} | {"trusted_share", "trusted_drop", "fill_ignored"} == {
        o.name for o in fields(AIDEOptions)
    }


# Four samples with losses 0, 1, 2 and 3, by hand


def numbered_run(**options: Any) -> AIDETrainer:
    """One step for four images that hold their number, which is also their segmentation loss."""
    number = torch.arange(4).view(4, 1, 1, 1).expand(4, 1, 6, 6)
    pair = [nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 1)) for _ in range(2)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.0) for model in pair]
    engine = AIDETrainer(
        "cpu",
        1,
        [{"image": number.float(), "label": number}],
        pair[0],
        optimizers[0],
        pair[1],
        optimizers[1],
        options=AIDEOptions.from_profile("paper", max_angle=0, flip_probability=0, **options),
        loss_function=lambda logits, label: label.flatten(1).float().mean(dim=1) + 0 * logits.sum(),
    )
    engine.run()
    return engine


@pytest.mark.parametrize(
    ("keep", "floor", "expected"),
    [(0.5, 0.0, 0.5), (0.5, 0.2, 0.5 + 0.2 * 2.5), (0.75, 0.2, 1 + 0.2 * 3), (0.25, 1.0, 2.0), (1.0, 0.2, 1.5)],
)
def test_the_kept_share_and_the_supervised_floor(keep: float, floor: float, expected: float) -> None:
    engine = numbered_run(keep=keep, supervised_floor=floor, consistency_weight=0, warmup_epochs=0)
    for n in (1, 2):
        assert float(engine.state.output[f"loss_{n}"]) == pytest.approx(expected)


@pytest.mark.parametrize("ramp", [0, 1])
@pytest.mark.parametrize(
    ("statistics", "samples", "expected"),
    [
        # a tenth of the mean of 0, 1, 2 and 3, then nine tenths of that and a tenth of the mean of the views, which
        # are all four or the suspicious 2 and 3
        ("running", "suspicious", 0.15),
        ("running", "all", 0.15),
        ("batch", "suspicious", 0.9 * 0.15 + 0.1 * 2.5),
        ("batch", "all", 0.9 * 0.15 + 0.1 * 1.5),
    ],
)
def test_what_moves_the_running_statistics(ramp: int, statistics: str, samples: str, expected: float) -> None:
    """Also where lambda = 0 gives the views no weight."""
    engine = numbered_run(view_statistics=statistics, view_samples=samples, warmup_epochs=0 if ramp else 5)
    assert engine.state.consistency == ramp
    for model in engine.networks:
        assert float(model[0].running_mean) == pytest.approx(expected, abs=1e-6)
