"""What the handlers log arrives in TensorBoard and MLflow through MONAI's own handlers, from any MONAI engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.handlers import MLFlowHandler, TensorBoardStatsHandler
from torch import nn
from torch.utils.data import DataLoader

from aide_monai.engines import AIDEOptions, AIDETrainer, PrepareAugmented
from aide_monai.handlers import (
    ConsistencyRamp,
    Disagreement,
    EpochLog,
    GlobalLabelCorrection,
    LabelQuality,
    Memorisation,
)
from aide_monai.labels import LabelStore
from aide_monai.stream import SliceDataset

TOLD = {"dsc_train", "corrected", "label_quality_1", "label_quality_2", "fit_given", "fit_clean", "consistency", "loss"}


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def stream() -> tuple[SliceDataset, dict[str, torch.Tensor]]:
    """Two volumes of four slices with bright foreground; the given labels are noise."""
    torch.manual_seed(0)
    clean = {case: (torch.rand(8, 8, 4) > 0.5).byte() for case in ("a", "b")}
    volumes = [
        {"case": case, "image": mask[None].float(), "label": (torch.rand(1, 8, 8, 4) > 0.5).byte(), "quality": "low"}
        for case, mask in clean.items()
    ]
    return SliceDataset(volumes, store=LabelStore.from_volumes(volumes)), clean


def handlers(tmp_path: Path, dataset: SliceDataset, clean: dict[str, torch.Tensor]) -> list[Any]:
    options = AIDEOptions.from_profile("paper", update_ratio=0.5, unit="slice")
    return [
        GlobalLabelCorrection(dataset, options=options),
        LabelQuality(dataset.store, clean, num_classes=2),
        Memorisation(dataset, clean, num_classes=2),
        EpochLog(tmp_path / "epochs.csv"),
    ]


def supervised(tmp_path: Path, logs: list[Any]) -> SupervisedTrainer:
    """MONAI's trainer of one network, with our handlers."""
    dataset, clean = stream()
    model = network()
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=DataLoader(dataset, batch_size=4),
        network=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=0.01),
        loss_function=lambda logits, label: nn.functional.cross_entropy(logits, label[:, 0].long()),
        prepare_batch=PrepareAugmented(lambda image, labels: (image, labels)),
        decollate=False,
        train_handlers=[ConsistencyRamp(2), *handlers(tmp_path, dataset, clean), *logs],
    )


def test_one_network_of_monai_arrives_in_tensorboard(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer = supervised(tmp_path, [TensorBoardStatsHandler(log_dir=str(tmp_path / "events"), iteration_log=False)])
    trainer.run()
    events = reader.EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= TOLD
    assert [(event.step, event.value) for event in events.Scalars("consistency")] == [(1, 0.0), (2, 0.25)]
    assert events.Scalars("dsc_train")[-1].value == pytest.approx(trainer.state.metrics["dsc_train"])
    # the one network corrects the labels that it trains on, half of the slices after each epoch
    assert [event.value for event in events.Scalars("corrected")] == [4, 4]
    store = trainer.data_loader.dataset.store
    assert {change.network for change in store.records} == {1}


def test_two_networks_arrive_in_mlflow(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    dataset, clean = stream()
    first, second = network(), network()
    where = f"sqlite:///{tmp_path / 'mlruns.db'}"
    AIDETrainer(
        "cpu",
        2,
        DataLoader(dataset, batch_size=4),
        first,
        torch.optim.Adam(first.parameters()),
        second,
        torch.optim.Adam(second.parameters()),
        options=AIDEOptions.from_profile("paper", warmup_epochs=2),
        train_handlers=[
            Disagreement(),
            *handlers(tmp_path, dataset, clean),
            MLFlowHandler(tracking_uri=where, iteration_log=False, close_on_complete=True, optimizer_param_names=[]),
        ],
    ).run()
    client = mlflow.MlflowClient(tracking_uri=where)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert set(run.data.metrics) >= TOLD | {"disagreement", "loss_1", "loss_2"}
    history = client.get_metric_history(run.info.run_id, "consistency")
    assert [(entry.step, entry.value) for entry in history] == [(1, 0.0), (2, 0.25)]


def test_disagreement_of_any_two_outputs() -> None:
    logits = torch.zeros(1, 2, 1, 4)
    logits[:, 1, :, :2] = 1  # foreground in two pixels of four
    other = torch.zeros(1, 2, 1, 4)
    other[:, 1, :, 1:3] = 1

    class Output:
        metrics: dict[str, float] = {}  # noqa: RUF012
        output = {"mine": logits, "theirs": other}  # noqa: RUF012

    class Engine:
        state = Output()

    handler = Disagreement(output_transform=lambda output: (output["mine"], output["theirs"]))
    handler._add(Engine())
    handler._log(Engine())
    assert Output.metrics["disagreement"] == pytest.approx(0.5)
