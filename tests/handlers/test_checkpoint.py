"""Best weights, and runs that are killed and resumed bit by bit."""

from __future__ import annotations

import csv
import errno
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import LrScheduleHandler
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, PolynomialLR, StepLR

from aide_monai.engines import AIDEOptions, AIDETrainer
from aide_monai.errors import InputError
from aide_monai.handlers import (
    BestCheckpoint,
    CollapseWarning,
    Disagreement,
    EpochLog,
    GlobalLabelCorrection,
    RunCheckpoint,
    load_weights,
)
from aide_monai.labels import LabelStore
from aide_monai.networks import MeanNetwork, seeded
from aide_monai.stream import SliceDataset, slice_loader
from aide_monai.transforms import RandomRotateFlip


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Sums over several threads depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Best weights


def run_with_metric(values: list[float], handler: BestCheckpoint, network: nn.Module, *others: Any) -> Engine:
    """Engine whose network holds the number of the epoch and whose metric takes the given values."""
    engine = Engine(lambda engine, batch: None)
    engine.state.best_metric, engine.state.best_metric_epoch = -1, -1

    @engine.on(Events.EPOCH_COMPLETED)
    def set_metric(engine: Engine) -> None:
        engine.state.metrics["dsc_train"] = values[engine.state.epoch - 1]
        network.bias.data.fill_(engine.state.epoch)

    for each in (*others, handler):
        each.attach(engine)
    engine.run([0], max_epochs=len(values))
    return engine


@pytest.mark.parametrize(
    ("values", "best"), [([0.2, 0.5, 0.4, 0.5], 2), ([0.9, 0.1], 1), ([0.0, 0.0], 1), ([-3.0, -2.0], 2)]
)
def test_the_first_of_the_best_epochs_is_kept(tmp_path: Path, values: list[float], best: int) -> None:
    network = nn.Conv2d(1, 1, 1)
    path = tmp_path / "models" / "model.pt"
    engine = run_with_metric(values, BestCheckpoint(path, network), network)
    saved = torch.load(path, weights_only=True)
    assert float(saved["bias"]) == best
    assert (engine.state.best_metric, engine.state.best_metric_epoch) == (values[best - 1], best)
    assert [entry.name for entry in path.parent.iterdir()] == ["model.pt"]


@pytest.mark.parametrize(
    ("ratios", "values", "best"),
    [
        ([0.9, 0.9, 0.0], [0.5, 0.6, 1.0], 2),  # all background agrees best with labels that have become so
        ([0.0, 0.9, 0.0], [0.9, 0.6, 1.0], 2),
        ([0.0, 0.0, 0.0], [0.5, 1.0, 0.6], 2),  # where there is no other
        ([0.9, 0.0, 0.9], [0.5, 0.9, 0.6], 3),
    ],
)
def test_a_collapsed_epoch_is_not_preferred(
    tmp_path: Path, ratios: list[float], values: list[float], best: int
) -> None:
    class Ratio:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.EPOCH_STARTED, self)

        def __call__(self, engine: Engine) -> None:
            engine.state.metrics |= {"foreground_ratio_1": 0.9, "foreground_ratio_2": ratios[engine.state.epoch - 1]}
            engine.state.metrics["dsc_validation"] = values[engine.state.epoch - 1]

    network = nn.Conv2d(1, 1, 1)
    engine = run_with_metric(values, BestCheckpoint(tmp_path / "model.pt", network), network, Ratio())
    assert (engine.state.best_metric, engine.state.best_metric_epoch) == (values[best - 1], best)
    assert float(torch.load(tmp_path / "model.pt", weights_only=True)["bias"]) == best
    # a validation has labels of its own
    validated = BestCheckpoint(tmp_path / "validated.pt", network, metric="dsc_validation")
    engine = run_with_metric(values, validated, network, Ratio())
    assert engine.state.best_metric == max(values)


def test_without_a_metric_the_last_epoch_of_a_finished_run_is_kept(tmp_path: Path) -> None:
    network = nn.Conv2d(1, 1, 1)
    path = tmp_path / "model.pt"
    run_with_metric([0.9, 0.1, 0.2], BestCheckpoint(path, network, metric=None), network)
    assert float(torch.load(path, weights_only=True)["bias"]) == 3

    path.unlink()
    engine = Engine(lambda engine, batch: 1 / 0)
    BestCheckpoint(path, network, metric=None).attach(engine)
    with pytest.raises(ZeroDivisionError):
        engine.run([0])
    assert not path.exists()

    engine = Engine(lambda engine, batch: engine.terminate())
    BestCheckpoint(path, network, metric=None).attach(engine)
    engine.run([0], max_epochs=2)
    assert path.exists()


def test_weights_come_back(tmp_path: Path) -> None:
    first, second = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)
    torch.save(first.state_dict(), tmp_path / "model.pt")
    assert load_weights(second, tmp_path / "model.pt") is second
    assert torch.equal(first.weight, second.weight)


class Harmful:
    def __reduce__(self) -> tuple[Callable, tuple]:
        return print, ("this must not run",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no weights",
        nn.Conv2d(1, 3, 3).state_dict(),
        nn.Linear(2, 2).state_dict(),
        [1, 2, 3],
        Harmful(),
        nn.Conv2d(1, 2, 3),
    ],
    ids=["empty", "text", "other size", "other layers", "list", "code", "whole network"],
)
def test_files_that_are_no_weights_of_the_network_are_named(
    tmp_path: Path, content: Any, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "model.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"model\.pt: not the weights of this network \(.*\); use the file of its own"):
        load_weights(nn.Conv2d(1, 2, 3), path)
    assert "must not run" not in capsys.readouterr().out


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.pt: there are no weights here; train the model first"):
        load_weights(nn.Conv2d(1, 2, 3), tmp_path / "model.pt")


# Resume


class Killed(Exception):
    """Stands for the signal that ends a process."""


class Kill:
    """Ends the run at an event of an epoch; where it is attached among the other handlers matters."""

    def __init__(self, event: Any, epoch: int) -> None:
        self.event = event
        self.epoch = epoch

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(self.event, self)

    def __call__(self, engine: Engine) -> None:
        last = self.event != Events.ITERATION_COMPLETED or engine.state.iteration % 3 == 2
        if engine.state.epoch == self.epoch and last:
            raise Killed


@dataclass
class Run:
    """Everything that a process has in memory."""

    trainer: AIDETrainer
    store: LabelStore
    networks: list[nn.Module]
    optimizers: list[torch.optim.Optimizer]
    folder: Path

    def result(self) -> dict[str, Any]:
        """What must not depend on whether the run was interrupted."""
        return {
            "weights": [model.state_dict() for model in self.networks],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "labels": [
                self.store.read(generation, network, case)
                for generation in range(self.store.generation + 1)
                for network in (1, 2)
                for case in self.store.cases
            ],
            "current": [self.store.label(network, case) for network in (1, 2) for case in self.store.cases],
            "records": self.store.records,
            "epochs": self.store.epochs,
            "log": (self.folder / "epochs.csv").read_text(),
            "best": torch.load(self.folder / "model.pt", weights_only=True),
            "best metric": (self.trainer.state.best_metric, self.trainer.state.best_metric_epoch),
            "random": [torch.rand(2), np.random.random(), random.random()],  # noqa: NPY002
        }


def volumes() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    result = []
    for number in range(5):
        image = torch.randn(1, 8, 8, 3, generator=generator)
        label = (image > 0.5).to(torch.uint8)
        result.append({"case": f"c{number}", "image": image, "label": label, "quality": "low" if number else "high"})
    return result


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.2), nn.Conv2d(4, 2, 1))


def start(
    folder: Path,
    *,
    resume: bool = False,
    seed: int = 0,
    epochs: int = 4,
    batch_size: int = 4,
    kill: tuple[Any, int, str] | None = None,
    first: Any = None,
    schedule: Callable[[torch.optim.Optimizer], Any] = lambda optimizer: StepLR(optimizer, 3, 0.5),
    **options_of_trainer: Any,
) -> Run:
    """A new process: seeds, data, networks and handlers from nothing. ``kill`` is (event, epoch, place)."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    data = volumes()
    store = LabelStore.from_volumes(data, folder=folder / "labels", resume=resume)
    dataset = SliceDataset(data, store=store, axis=2)
    networks = [seeded(network, seed + i) for i in (1, 2)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam(model.parameters(), lr=0.02, amsgrad=True) for model in networks
    ]
    schedulers = [schedule(optimizer) for optimizer in optimizers]
    options = AIDEOptions.from_profile("paper", warmup_epochs=2, update_interval=1, views=2)
    places: dict[str, list[Any]] = {"first": [] if first is None else [first], "after correction": [], "last": []}
    if kill is not None:
        places[kill[2]].append(Kill(kill[0], kill[1]))
    trainer = AIDETrainer(
        "cpu",
        epochs,
        slice_loader(dataset, batch_size=batch_size, steps=3, seed=seed),
        networks[0],
        optimizers[0],
        networks[1],
        optimizers[1],
        options=options,
        seed=seed,
        augment=RandomRotateFlip(max_angle=20, seed=seed),
        train_handlers=[
            *places["first"],
            *(LrScheduleHandler(scheduler, print_lr=False) for scheduler in schedulers),
            GlobalLabelCorrection(dataset, options=options),
            *places["after correction"],
            Disagreement(),
            CollapseWarning(),
            EpochLog(folder / "epochs.csv"),
            # largest in the first epoch, so that the best weights are older than every kill
            BestCheckpoint(folder / "model.pt", MeanNetwork(networks[0], networks[1]), metric="disagreement"),
            RunCheckpoint(
                folder / "checkpoint.pt",
                store=store,
                schedulers={"scheduler_1": schedulers[0], "scheduler_2": schedulers[1]},
                resume=resume,
            ),
            *places["last"],
        ],
        **options_of_trainer,
    )
    return Run(trainer, store, networks, optimizers, folder)


def assert_same(found: Any, expected: Any, where: str = "result") -> None:
    """Equal bit by bit, through containers."""
    assert type(found) is type(expected), where
    if isinstance(expected, Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key, value in expected.items():
            assert_same(found[key], value, f"{where}, {key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            assert_same(found[number], value, f"{where}, {number}")
    else:
        assert found == expected, where


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of four epochs without a break."""
    run = start(tmp_path_factory.mktemp("whole"))
    run.trainer.run()
    return run.result()


@pytest.mark.parametrize(
    "kill",
    [
        (Events.EPOCH_STARTED, 3, "first"),
        (Events.ITERATION_COMPLETED, 3, "first"),
        (Events.EPOCH_COMPLETED, 3, "first"),
        (Events.EPOCH_COMPLETED, 3, "after correction"),  # labels are committed, the checkpoint is not written
        (Events.EPOCH_COMPLETED, 2, "last"),
    ],
    ids=["between epochs", "within an epoch", "before the correction", "after the correction", "after the checkpoint"],
)
def test_a_killed_run_resumes_bit_by_bit(
    tmp_path: Path, uninterrupted: dict[str, Any], kill: tuple[Any, int, str]
) -> None:
    run = start(tmp_path, kill=kill)
    with pytest.raises(Killed):
        run.trainer.run()
    # a new process: other seeds everywhere, all state comes from the folder
    resumed = start(tmp_path, resume=True, seed=100)
    resumed.trainer.run()
    assert_same(resumed.result(), uninterrupted)


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 5}, {"batch_size": 10}, {"batch_size": 11}, {"epoch_length": 2}, {"epoch_length": 5}],
    ids=["every slice once", "every slice twice", "some slices thrice", "short epochs", "long epochs"],
)
def test_a_resumed_run_draws_the_same_slices(tmp_path: Path, options: dict[str, int]) -> None:
    """There are 15 slices, and the loader has three batches."""
    whole = start(tmp_path / "whole", **options)
    whole.trainer.run()
    expected = whole.result()
    with pytest.raises(Killed):
        start(tmp_path / "killed", kill=(Events.EPOCH_STARTED, 3, "first"), **options).trainer.run()
    resumed = start(tmp_path / "killed", resume=True, seed=100, **options)
    resumed.trainer.run()
    assert_same(resumed.result(), expected)


def test_a_run_with_averaged_weights_resumes_bit_by_bit(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole", average=0.9)
    whole.trainer.run()
    expected = whole.result()
    with pytest.raises(Killed):
        start(tmp_path / "killed", average=0.9, kill=(Events.ITERATION_COMPLETED, 3, "first")).trainer.run()
    resumed = start(tmp_path / "killed", resume=True, seed=100, average=0.9)
    resumed.trainer.run()
    assert_same(resumed.result(), expected)


def test_killed_in_the_first_epoch_it_starts_again(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    run = start(tmp_path, kill=(Events.EPOCH_COMPLETED, 1, "after correction"))
    with pytest.raises(Killed):
        run.trainer.run()
    assert run.store.generation == 1
    resumed = start(tmp_path, resume=True)
    assert resumed.store.generation == 0
    resumed.trainer.run()
    assert_same(resumed.result(), uninterrupted)


def test_killed_twice(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    for seed, kill in ((0, (Events.EPOCH_STARTED, 2, "first")), (50, (Events.EPOCH_COMPLETED, 3, "after correction"))):
        with pytest.raises(Killed):
            start(tmp_path, resume=seed > 0, seed=seed, kill=kill).trainer.run()
    resumed = start(tmp_path, resume=True, seed=100)
    resumed.trainer.run()
    assert_same(resumed.result(), uninterrupted)


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    start(tmp_path).trainer.run()
    resumed = start(tmp_path, resume=True, seed=100)
    resumed.trainer.run()
    assert_same(resumed.result(), uninterrupted)


def test_a_finished_run_can_be_continued_for_more_epochs(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    start(tmp_path, epochs=2).trainer.run()
    resumed = start(tmp_path, resume=True, seed=100)
    resumed.trainer.run()
    assert resumed.trainer.state.epoch == 4
    assert_same(resumed.result(), uninterrupted)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer, epochs: PolynomialLR(optimizer, total_iters=epochs),
        lambda optimizer, epochs: CosineAnnealingLR(optimizer, T_max=epochs),
        lambda optimizer, epochs: OneCycleLR(optimizer, 0.02, total_steps=epochs),
    ],
    ids=["polynomial", "cosine", "one cycle"],
)
@pytest.mark.parametrize("epochs", [2, 4])
def test_a_schedule_of_another_length_is_refused(tmp_path: Path, schedule: Callable, epochs: int) -> None:
    with pytest.raises(Killed):
        start(
            tmp_path, kill=(Events.EPOCH_STARTED, 2, "first"), schedule=lambda optimizer: schedule(optimizer, 3)
        ).trainer.run()
    message = rf"checkpoint\.pt: cannot resume .*scheduled for 3 epochs, and that of this run for {epochs}; expected"
    with pytest.raises(InputError, match=message):
        start(tmp_path, resume=True, epochs=epochs, schedule=lambda optimizer: schedule(optimizer, epochs))
    start(tmp_path, resume=True, epochs=3, schedule=lambda optimizer: schedule(optimizer, 3))


def test_another_seed_gives_another_result(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    """The comparisons above can fail."""
    run = start(tmp_path, seed=1)
    run.trainer.run()
    with pytest.raises(AssertionError, match="result, weights"):
        assert_same(run.result(), uninterrupted)


def test_the_checkpoint_holds_data_only(tmp_path: Path) -> None:
    run = start(tmp_path, epochs=1)
    run.trainer.run()
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["generation"] == run.store.generation == 1
    assert set(saved["generators"]) == {"augmentation", "loader", "sampler", "views"}
    assert set(saved["schedulers"]) == {"scheduler_1", "scheduler_2"}
    assert not list(tmp_path.glob("*.tmp"))


def test_a_used_folder_is_refused_unless_resumed(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"checkpoint\.pt belongs to an earlier run; .* pass --resume"):
        RunCheckpoint(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"half"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    start(tmp_path, epochs=1).trainer.run()
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == b"half" else content)
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot resume from this checkpoint \(.*"):
        start(tmp_path, resume=True)


def test_a_checkpoint_of_another_network_is_named(tmp_path: Path) -> None:
    start(tmp_path, epochs=1).trainer.run()
    networks = [nn.Conv2d(1, 2, 1) for _ in range(2)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in networks]
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot resume from this checkpoint"):
        AIDETrainer(
            "cpu",
            1,
            [],
            networks[0],
            optimizers[0],
            networks[1],
            optimizers[1],
            train_handlers=[RunCheckpoint(tmp_path / "checkpoint.pt", resume=True)],
        )


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Killed):
        start(tmp_path, kill=(Events.EPOCH_STARTED, 2, "first")).trainer.run()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    run = start(tmp_path, resume=True)

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("aide_monai.utils.files.os.replace", fail)
    with pytest.raises(InputError, match=r"cannot be written \(no space left on device\)"):
        run.trainer.run()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_run_that_cannot_be_saved_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(tmp_path)
    epochs: list[int] = []
    run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: epochs.append(engine.state.epoch))

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as broken:
        broken.setattr("pathlib.Path.open", refuse)
        with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be written \(Read-only file system\); expected"):
            run.trainer.run()
    assert epochs == []
    assert not list(tmp_path.rglob("*.tmp"))


def test_training_goes_on_from_labels_that_were_rolled_back(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        start(tmp_path, kill=(Events.EPOCH_COMPLETED, 3, "after correction")).trainer.run()
    store = LabelStore.from_volumes(volumes(), folder=tmp_path / "labels", resume=True)
    assert store.epochs == [0, 1, 2, 3]
    assert store.rollback(1) == 4
    expected = [store.read(1, network, case) for network in (1, 2) for case in store.cases]
    resumed = start(tmp_path, resume=True, seed=100)
    assert resumed.trainer.state.epoch == 2
    assert resumed.store.epochs == [0, 1, 2, 3, 1]
    assert_same([resumed.store.label(network, case) for network in (1, 2) for case in store.cases], expected)
    resumed.trainer.run()
    assert resumed.store.epochs == [0, 1, 2, 3, 1, 3, 4]


@pytest.mark.parametrize(
    ("generation", "words"), [(7, "generation 7"), (None, "generation None"), (-1, "generation -1")]
)
def test_a_checkpoint_of_other_labels_is_named(tmp_path: Path, generation: int | None, words: str) -> None:
    start(tmp_path, epochs=1).trainer.run()
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save(saved | {"generation": generation}, tmp_path / "checkpoint.pt")
    message = rf"checkpoint\.pt: cannot resume .*\(it belongs to {words} of the labels, and they end with 1\)"
    with pytest.raises(InputError, match=message):
        start(tmp_path, resume=True)


def test_what_killed_writes_have_left_is_removed(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        start(tmp_path, kill=(Events.EPOCH_STARTED, 3, "first")).trainer.run()
    for name in (".checkpoint.pt.tmp", ".model.pt.tmp", ".epochs.csv.tmp", "labels/.journal.jsonl.tmp"):
        (tmp_path / name).write_bytes(b"half a fi")
    start(tmp_path, resume=True)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_metric_of_an_earlier_epoch_is_still_known(tmp_path: Path) -> None:
    class Sometimes:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.EPOCH_COMPLETED(once=1), self)

        def __call__(self, engine: Engine) -> None:
            engine.state.metrics["validation"] = 0.75

    with pytest.raises(Killed):
        start(tmp_path, kill=(Events.EPOCH_STARTED, 3, "first"), first=Sometimes()).trainer.run()
    resumed = start(tmp_path, resume=True, seed=100)
    assert resumed.trainer.state.metrics["validation"] == 0.75
    resumed.trainer.run()
    with (tmp_path / "epochs.csv").open(newline="") as file:
        assert [row["validation"] for row in csv.DictReader(file)] == ["0.75"] * 4
