"""What the processes of a torchrun launch do for ``test_many_processes.py``; the tests do the same in one process.

``torchrun --nproc_per_node N processes.py FOLDER`` runs every setting of ``RUNS`` in turn, and each process leaves what
it saw as ``FOLDER/<name>_<rank>.pt``. In the last run, in ``FOLDER/death``, process 1 kills itself.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.networks.nets import UNet
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from aide_monai.engines import AIDEOptions, AIDETrainer
from aide_monai.errors import InputError
from aide_monai.handlers import (
    BestCheckpoint,
    CollapseWarning,
    Disagreement,
    EpochLog,
    GlobalLabelCorrection,
    RunCheckpoint,
)
from aide_monai.labels import LabelStore
from aide_monai.networks import MeanNetwork, seeded, synchronise_batch_norm
from aide_monai.stream import PatchDataset, ShareBatchSampler, SliceDataset, collate_share
from aide_monai.stream.share_sampler import share_files
from aide_monai.transforms import CutMix, RandomIntensity, RandomRotateFlip
from aide_monai.utils import distributed
from aide_monai.utils.share import Share
from aide_monai.workflows.bundle import history_folder

EPOCHS = 3
DEPTHS = (3, 2, 4, 3, 2)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is trained."""

    profile: str = "paper"
    options: tuple[tuple[str, Any], ...] = ()
    norm: Any = ("instance", {"affine": True})
    dropout: float = 0.0
    classes: int = 2
    batch_size: int = 4
    seed: int = 3
    global_batch_norm: bool = False
    patches: bool = False
    perturbed: bool = False
    mixed: bool = False


RUNS = {
    "even shares": Run(),
    "uneven shares": Run(batch_size=13, perturbed=True),
    "foreground strata": Run(profile="improved", batch_size=5),
    "single slices": Run(options=(("unit", "slice"),), classes=3, batch_size=5),
    "the released code": Run(profile="original", batch_size=5),
    "patches of volumes": Run(patches=True, options=(("unit", "patch"),)),
    "global batch norm": Run(norm="batch", global_batch_norm=True),
    "global batch norm, released code": Run(profile="original", norm="batch", batch_size=5, global_batch_norm=True),
    "batch norm": Run(norm="batch"),
    "dropout": Run(dropout=0.2),
    "boxes of other samples": Run(batch_size=13, perturbed=True, mixed=True),
}


def volumes(run: Run) -> list[dict[str, Any]]:
    """Five volumes with a bright square per class, the first with a trusted label; the other labels are shifted."""
    generator = torch.Generator().manual_seed(run.seed)
    made = []
    for number, depth in enumerate(DEPTHS):
        truth = torch.zeros(16, 16, depth, dtype=torch.uint8)
        for c in range(1, run.classes):
            x, y = torch.randint(1, 7, (2,), generator=generator).tolist()
            truth[x : x + 6, y : y + 5 + c] = c
        truth[..., 0] = 0
        image = truth[None] + 0.5 * torch.randn(1, *truth.shape, generator=generator)
        label = truth if number == 0 else truth.roll(1 + number // 2, dims=0)
        quality = "low" if number else "high"
        made.append({"case": f"case {number}", "image": image, "label": label[None], "quality": quality})
    return made


def network(run: Run) -> nn.Module:
    made = UNet(
        3 if run.patches else 2, 1, run.classes, channels=(4, 8), strides=(2,), norm=run.norm, dropout=run.dropout
    )
    return synchronise_batch_norm(made, "cpu") if run.global_batch_norm else made


class Recorder:
    """What a trainer did, step by step and epoch by epoch; the kept samples are those of the whole batch."""

    def __init__(self, store: LabelStore) -> None:
        self.store = store
        self.seen: dict[str, Any] = {"kept": [], "losses": [], "ramp": [], "dsc_train": [], "share": []}

    def attach(self, engine: AIDETrainer) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch)

    def step(self, engine: AIDETrainer) -> None:
        output = engine.state.output
        share = Share.of(len(output["kept_1"]))
        self.seen["share"].append(share.sizes)
        self.seen["kept"].append([share.gather(output[f"kept_{n}"]).tolist() for n in (1, 2)])
        self.seen["losses"].append([float(output["loss_1"]), float(output["loss_2"])])

    def epoch(self, engine: AIDETrainer) -> None:
        self.seen["ramp"].append(engine.state.consistency)
        self.seen["dsc_train"].append(engine.state.metrics["dsc_train"])


def train(run: Run, folder: Path, *, epochs: int = EPOCHS, resume: bool = False) -> dict[str, Any]:
    """A whole run, or the rest of one, with all handlers; returns what it did and what it ended with."""
    torch.manual_seed(run.seed + distributed.rank() + 100 * resume)
    data = volumes(run)
    store = LabelStore.from_volumes(data, folder=folder / "labels", resume=resume)
    if run.patches:
        dataset: SliceDataset | PatchDataset = PatchDataset(data, (8, 8, 2), store=store)
    else:
        dataset = SliceDataset(data, store=store, axis=2)
    generator = torch.Generator().manual_seed(run.seed)
    sampler = RandomSampler(dataset, generator=generator)
    loader = DataLoader(
        dataset,
        batch_sampler=ShareBatchSampler(BatchSampler(sampler, run.batch_size, drop_last=False)),
        collate_fn=collate_share,
        generator=generator,
    )
    # only the weights of the main process count
    networks = [seeded(lambda: network(run), 10 * distributed.rank() + i) for i in (1, 2)]
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.01, amsgrad=True, eps=1e-3) for model in networks]
    short = {"warmup_epochs": 2, "update_interval": 1, "update_ratio": 0.5, "views": 2}
    options = AIDEOptions.from_profile(run.profile, **(short | dict(run.options)))
    recorder = Recorder(store)
    turn = RandomRotateFlip(max_angle=10, seed=run.seed)
    log = EpochLog(folder / "epochs.csv")
    AIDETrainer(
        "cpu",
        epochs,
        loader,
        networks[0],
        optimizers[0],
        networks[1],
        optimizers[1],
        options=options,
        seed=run.seed,
        augment=CutMix(turn) if run.mixed else turn,
        perturb=RandomIntensity(probability=0.3, seed=run.seed) if run.perturbed else None,
        train_handlers=[
            GlobalLabelCorrection(dataset, options=options),
            recorder,
            Disagreement(),
            CollapseWarning(),
            log,
            BestCheckpoint(folder / "model.pt", MeanNetwork(networks[0], networks[1])),
            RunCheckpoint(folder / "checkpoint.pt", store=store, resume=resume),
        ],
    ).run()
    return recorder.seen | {
        "records": [asdict(record) for record in store.records],
        "labels": {f"{n}/{case}": store.label(n, case).clone() for n in (1, 2) for case in store.cases},
        "weights": [model.state_dict() for model in networks],
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "rows": log.rows,
        "random": torch.rand(3),
    }


def die(folder: Path) -> None:
    """Process 1 is killed in the middle of the second epoch."""
    run = RUNS["even shares"]
    if distributed.rank() == 1:
        step = Recorder.step

        def last(recorder: Recorder, engine: AIDETrainer) -> None:
            step(recorder, engine)
            if engine.state.iteration == 6:
                os.kill(os.getpid(), signal.SIGKILL)

        Recorder.step = last  # type: ignore[method-assign]
    train(run, folder)


def lose_a_number(folder: Path) -> None:
    """A weight of network 2 of process 1 becomes NaN in the second epoch; each process leaves how it ended."""
    folder.mkdir(exist_ok=True)
    step, ended = Recorder.step, ""

    def spoil(recorder: Recorder, engine: AIDETrainer) -> None:
        step(recorder, engine)
        if engine.state.iteration == 6:
            next(engine.networks[1].parameters()).data.fill_(float("nan"))

    if distributed.rank() == 1:
        Recorder.step = spoil  # type: ignore[method-assign]
    try:
        train(RUNS["even shares"], folder / "run")
    except InputError as error:
        ended = f"{type(error).__name__}: {error}"
    Recorder.step = step  # type: ignore[method-assign]
    torch.save(ended, folder / f"ended_{distributed.rank()}.pt")


def exchange_files(folder: Path) -> None:
    """Each process in a folder of its own, where the same relative paths are other files, as on two machines."""
    place = folder / "machines" / str(distributed.rank())
    place.mkdir(parents=True)
    contents = {"new/both": b"same", "new/only main": bytes(range(256)), "new/stale": b"today"}
    for name, content in contents.items():
        if distributed.is_main() or name == "new/both":
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(content)
    before = os.getcwd()
    os.chdir(place)
    if not distributed.is_main():
        Path("new/stale").write_bytes(b"yesterday")
    os.environ["LOCAL_RANK"] = "0"  # the first process of its machine
    share_files(contents)
    os.chdir(before)


def choose_history(folder: Path) -> None:
    """Only the main process sees the training that was made in its bundle; what it says next, the others hear."""
    bundle = folder / "bundle" / str(distributed.rank())
    if distributed.is_main():
        (bundle / "runs" / "001" / "labels").mkdir(parents=True)
    chosen = history_folder(bundle, bundle)
    torch.save([chosen, distributed.broadcast("next")], folder / f"history_{distributed.rank()}.pt")


def run_all(folder: Path, train: Callable[..., dict[str, Any]] = train, names: Iterable[str] = tuple(RUNS)) -> None:
    """Each process has a folder of its own, as on machines that share none."""
    for name in names:
        place = folder / name / str(distributed.rank())
        place.mkdir(parents=True)
        torch.save(train(RUNS[name], place), folder / f"{name}_{distributed.rank()}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.initialize(timeout_minutes=1)
    run_all(Path(sys.argv[1]))
    exchange_files(Path(sys.argv[1]))
    choose_history(Path(sys.argv[1]))
    lose_a_number(Path(sys.argv[1]) / "number")
    die(Path(sys.argv[1]) / "death")
