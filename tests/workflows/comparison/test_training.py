"""Supervised and AIDE training under one budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Events

from aide_monai.engines import RIVALS, AIDEOptions
from aide_monai.errors import InputError
from aide_monai.workflows.comparison.budget import TrainingSettings
from aide_monai.workflows.comparison.networks import build_network
from aide_monai.workflows.comparison.training import (
    clean_labels,
    train_aide,
    train_co_teaching,
    train_pseudo_label,
    train_rival,
    train_supervised,
)

SETTINGS = TrainingSettings(epochs=2, steps_per_epoch=3, batch_size=4, features=(4, 4, 4, 8, 8, 4), seed=7)
OPTIONS = AIDEOptions.from_profile("paper", warmup_epochs=2, views=2)


def train(volumes, run_dir, *, resume=False, on_step=None, **changes):
    return train_aide(
        volumes,
        TrainingSettings(**{**vars(SETTINGS), **changes}),
        options=OPTIONS,
        num_classes=2,
        axis=2,
        run_dir=run_dir,
        clean=clean_labels(volumes),
        resume=resume,
        on_step=on_step,
    )


def equal(first, second) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(a[key], b[key]) for key in a)


def test_same_seed_same_weights_and_labels_bit_for_bit(moved_labels, tmp_path):
    first, store_1, log_1 = train(moved_labels, tmp_path / "a")
    torch.rand(5)  # the global generator plays no part
    second, store_2, log_2 = train(moved_labels, tmp_path / "b")
    other, _, _ = train(moved_labels, tmp_path / "c", seed=8)
    assert equal(first, second)
    assert store_1.records == store_2.records
    assert log_1 == log_2
    assert not equal(first, other)


def test_the_two_networks_start_from_different_seeds(moved_labels, tmp_path):
    mean, store, log = train(moved_labels, tmp_path / "run")
    assert not equal(mean.network_1, mean.network_2)
    assert log[0]["disagreement"] > 0
    assert store.high_quality == {moved_labels[0]["case"]}
    assert {change.case for change in store.records} <= set(store.cases) - store.high_quality
    assert log[0]["consistency"] == 0
    assert log[1]["consistency"] == 0.25
    assert 0 < log[1]["label_quality_1"] < 1
    saved = torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(saved[key], value) for key, value in mean.state_dict().items())


def test_a_used_run_folder_is_refused(moved_labels, tmp_path):
    train(moved_labels, tmp_path / "run", epochs=1)
    with pytest.raises(InputError, match=r"already holds the labels of a run.*--resume"):
        train(moved_labels, tmp_path / "run")


@pytest.mark.parametrize("steps", [2, 4, 8])
def test_an_interrupted_run_continues_as_if_nothing_had_happened(moved_labels, tmp_path, steps):
    left = [steps]

    def interrupt():
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    whole, store, log = train(moved_labels, tmp_path / "whole", epochs=3)
    with pytest.raises(KeyboardInterrupt):
        train(moved_labels, tmp_path / "parts", epochs=3, on_step=interrupt)
    again, store_again, log_again = train(moved_labels, tmp_path / "parts", epochs=3, resume=True)
    assert equal(whole, again)
    assert store.records == store_again.records
    assert [float(row["loss"]) for row in log_again] == [row["loss"] for row in log]


@pytest.mark.parametrize("damage", [Path.unlink, lambda log: log.write_text("epoch,loss\n1,half\n")])
def test_a_lost_or_damaged_log_comes_back_with_the_resumed_run(moved_labels, tmp_path, damage):
    def interrupt():
        if (tmp_path / "parts" / "epochs.csv").exists():
            raise KeyboardInterrupt

    train(moved_labels, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(moved_labels, tmp_path / "parts", on_step=interrupt)
    damage(tmp_path / "parts" / "epochs.csv")
    train(moved_labels, tmp_path / "parts", resume=True)
    whole, again = ((tmp_path / name / "epochs.csv").read_text() for name in ("whole", "parts"))
    assert again == whole


def test_supervised_training_takes_the_same_number_of_steps_on_one_case(moved_labels, tmp_path):
    steps = []
    network, log = train_supervised(
        moved_labels[:1], SETTINGS, num_classes=2, axis=2, run_dir=tmp_path / "run", on_step=lambda: steps.append(1)
    )
    assert len(steps) == SETTINGS.epochs * SETTINGS.steps_per_epoch
    assert [row["epoch"] for row in log] == [1, 2]
    assert log[1]["iteration"] == 6
    saved = torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(saved[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("trainer", "options"),
    [
        (train_supervised, {}),
        (train_pseudo_label, {"start": 2, "interval": 1, "largest_component": "none"}),
        (train_co_teaching, {"max_forget_rate": 0.5, "warmup_epochs": 1}),
    ],
)
def test_rivals_whose_batches_are_of_trusted_cases_alone_do_not_see_other_labels(
    moved_labels, tmp_path, trainer, options
):
    emptied = [v if v["quality"] == "high" else {**v, "label": torch.zeros_like(v["label"])} for v in moved_labels]
    network = {}
    for share in (0.0, 1.0):
        for name, volumes in (("moved", moved_labels), ("emptied", emptied)):
            found = trainer(
                volumes,
                SETTINGS,
                num_classes=2,
                axis=2,
                run_dir=tmp_path / f"{name}_{share}",
                trusted_share=share,
                **options,
            )
            network[name, share] = found[0]
    assert equal(network["moved", 1.0], network["emptied", 1.0])
    assert not equal(network["moved", 0.0], network["emptied", 0.0])


@pytest.mark.parametrize("trainer", ["plain", "pseudo-label"])
def test_one_network_with_an_average_is_the_first_of_two(moved_labels, tmp_path, trainer, monkeypatch):
    monkeypatch.setattr(AIDEOptions, "correction_foreground", 0.0)  # the second network finds too little yet
    found = {}
    for networks in (1, 2):
        settings = TrainingSettings(**{**vars(SETTINGS), "networks": networks, "average": 0.9})
        shared = {"num_classes": 2, "axis": 2, "run_dir": tmp_path / f"{networks}"}
        if trainer == "plain":
            found[networks], _ = train_supervised(moved_labels, settings, **shared)
        else:
            schedule = {"start": 1, "interval": 1, "largest_component": "none"}
            found[networks], store, _ = train_pseudo_label(moved_labels, settings, **schedule, **shared)
            assert {change.network for change in store.records} == set(range(1, networks + 1))
    assert all(
        torch.allclose(value, found[1].state_dict()[key], atol=1e-5)
        for key, value in found[2].network_1.state_dict().items()
    )
    assert not equal(found[2].network_1, found[2].network_2)
    raw, _ = train_supervised(moved_labels, SETTINGS, num_classes=2, axis=2, run_dir=tmp_path / "raw")
    assert not torch.allclose(next(raw.parameters()), next(found[1].parameters()), atol=1e-5)


def test_the_control_is_aide_where_aide_trusts_all_and_changes_nothing(moved_labels, tmp_path):
    settings = TrainingSettings(**{**vars(SETTINGS), "networks": 2, "average": 0.9, "kept": "last"})
    shared = {"num_classes": 2, "axis": 2}
    control, _ = train_supervised(moved_labels, settings, trusted_share=0.5, run_dir=tmp_path / "control", **shared)
    options = AIDEOptions.from_profile("paper", keep=1.0, correction_start=99, average=0.9, trusted_share=0.5)
    aide, _, _ = train_aide(moved_labels, settings, options=options, run_dir=tmp_path / "aide", **shared)
    assert equal(control, aide)


def test_the_last_epoch_is_kept_whatever_the_labels_say(moved_labels, tmp_path, monkeypatch):
    """A ramp that ends in the best epoch hides what is kept, so the labels get worse here."""
    kept = {}
    for choice in ("best", "last"):
        better = iter([0.9, 0.1])

        def worsen(engine, better=better):
            engine.state.metrics["dsc_train"] = next(better)

        monkeypatch.setattr("aide_monai.workflows.comparison.training.CollapseWarning", lambda w=worsen: Epochwise(w))
        kept[choice], _, _ = train(moved_labels, tmp_path / choice, kept=choice)
    assert not equal(kept["best"], kept["last"])


class Epochwise:
    def __init__(self, function):
        self.function = function

    def attach(self, engine):
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.function)


def test_two_networks_with_pseudo_labels_go_on_after_an_interruption(moved_labels, tmp_path):
    left = [4]

    def interrupt():
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    settings = TrainingSettings(**{**vars(SETTINGS), "networks": 2, "average": 0.9})
    options = {"start": 1, "interval": 1, "largest_component": "none", "num_classes": 2, "axis": 2}
    whole, store, _ = train_pseudo_label(moved_labels, settings, run_dir=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train_pseudo_label(moved_labels, settings, run_dir=tmp_path / "parts", on_step=interrupt, **options)
    again, store_again, _ = train_pseudo_label(
        moved_labels, settings, run_dir=tmp_path / "parts", resume=True, **options
    )
    assert equal(whole, again)
    assert store.records == store_again.records


@pytest.mark.parametrize("average", [None, 0.9])
@pytest.mark.parametrize("engine", RIVALS)
def test_rivals_of_today_train_under_the_budget_and_continue_as_if_nothing_had_happened(
    moved_labels, tmp_path, engine, average
):
    def run(folder, **options):
        settings = TrainingSettings(**{**vars(SETTINGS), "epochs": 4, "augmentation_mix": 0.5, "average": average})
        return train_rival(
            moved_labels,
            settings,
            engine=engine,
            trusted_share=0.5,
            num_classes=2,
            axis=2,
            run_dir=tmp_path / folder,
            clean=clean_labels(moved_labels),
            **options,
        )

    left = [8]

    def interrupt():
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    whole, log = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", on_step=interrupt)
    again, log_again = run("parts", resume=True)
    assert equal(whole, again)
    assert [float(row["loss"]) for row in log_again] == [row["loss"] for row in log]
    assert [row["iteration"] for row in log] == [3, 6, 9, 12]
    assert not equal(whole.network_1, whole.network_2)


def test_building_a_network_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = build_network(SETTINGS, in_channels=2, num_classes=3, seed=5)
    assert torch.equal(torch.rand(3), expected)
    assert equal(first, build_network(SETTINGS, in_channels=2, num_classes=3, seed=5))
    assert first(torch.zeros(1, 2, 32, 32)).shape == (1, 3, 32, 32)
