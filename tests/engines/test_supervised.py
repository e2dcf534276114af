"""AIDE with the arguments of a ``SupervisedTrainer``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader
from monai.inferers import SimpleInferer
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import Tensor, nn

from aide_monai.engines import AIDEOptions, AIDESupervisedTrainer
from aide_monai.errors import InputError
from aide_monai.handlers import RunCheckpoint
from aide_monai.stream import AIDECacheDataset


def data(kind: Any = AIDECacheDataset, *, count: int = 4) -> Any:
    generator = torch.Generator().manual_seed(0)
    records = []
    for number in range(count):
        label = torch.zeros(1, 16, 16)
        label[:, 4:12, 2 + number : 10 + number] = 1
        image = label + 0.1 * torch.randn(1, 16, 16, generator=generator)
        records.append({"image": image, "label": label, "case": str(number)})
    return kind(records, progress=False)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return UNet(2, 1, 2, channels=(4, 8), strides=(2,), norm="batch")


def trainer(first: nn.Module | None = None, *, dataset: Any = None, **options: Any) -> AIDESupervisedTrainer:
    first = first or network()
    return AIDESupervisedTrainer(
        device="cpu",
        max_epochs=options.pop("max_epochs", 2),
        train_data_loader=DataLoader(dataset or data(), batch_size=2),
        network=first,
        optimizer=options.pop("optimizer", None) or torch.optim.Adam(first.parameters(), lr=1e-2),
        loss_function=DiceCELoss(to_onehot_y=True, softmax=True),
        **options,
    )


def test_the_second_network_has_weights_of_its_own_from_the_seed() -> None:
    first = network()
    engines = [trainer(first), trainer(first), trainer(first, seed=5)]
    weights = [torch.cat([p.flatten() for p in engine.network_2.parameters()]) for engine in engines]
    assert engines[0].network is first
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], torch.cat([p.flatten() for p in first.parameters()]))


def test_pretrained_networks_are_taken_as_they_are() -> None:
    first, second = network(0), network(1)
    engine = trainer(first, network_2=second)
    assert engine.network_2 is second
    (group,) = engine.state.optimizer_2.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in second.parameters()]


def test_the_optimiser_of_the_second_network_is_a_twin_with_a_memory_of_its_own() -> None:
    first = network()
    body, head = list(first.parameters())[:-2], list(first.parameters())[-2:]
    groups = [{"params": body, "lr": 1e-3}, {"params": head, "lr": 1e-2, "weight_decay": 0.1}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    engine = trainer(first, optimizer=optimizer)
    twin = engine.state.optimizer_2
    assert type(twin) is torch.optim.SGD
    assert engine.optimizer is optimizer
    assert [(group["lr"], group["weight_decay"], len(group["params"])) for group in twin.param_groups] == [
        (1e-3, 0, len(body)),
        (1e-2, 0.1, 2),
    ]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: scheduler.step())
    before = [p.clone() for p in engine.network_2.parameters()]
    engine.run()
    assert [group["lr"] for group in twin.param_groups] == [5e-4, 5e-3]  # of the last steps
    assert all(p in twin.state and p not in optimizer.state for p in engine.network_2.parameters())
    assert not all(torch.equal(a, b) for a, b in zip(before, engine.network_2.parameters(), strict=True))


def test_a_twin_does_not_remember_the_steps_of_the_first_optimiser() -> None:
    first = network()
    optimizer = torch.optim.Adam(first.parameters())
    sum(p.sum() for p in first.parameters()).backward()
    optimizer.step()
    engine = trainer(first, optimizer=optimizer)
    assert len(optimizer.state) == len(list(first.parameters()))
    assert not engine.state.optimizer_2.state


@pytest.mark.parametrize("decollate", [True, False])
def test_handlers_find_image_label_prediction_and_loss(decollate: bool) -> None:
    outputs: list[Any] = []
    engine = trainer(decollate=decollate)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: outputs.append(e.state.output))
    engine.run()
    assert len(outputs) == 4
    for output in outputs:
        items = output if decollate else [output]
        assert len(items) == (2 if decollate else 1)
        for item in items:
            size = () if decollate else (2,)
            assert item["image"].shape == item["label"].shape == (*size, 1, 16, 16)
            assert item["pred"].shape == (*size, 2, 16, 16)
            assert not item["pred"].requires_grad
            assert float(item["loss"]) > 0
    assert 0 < engine.state.metrics["disagreement"] < 1


def test_volumes_are_predicted_only_when_labels_are_due() -> None:
    predicted = []
    dataset = data()
    whole = dataset.predict
    dataset.predict = lambda number, *rest: (predicted.append(number), whole(number, *rest))[1]
    schedule = {"correction_start": 5, "update_interval": 2, "correction_source": "other"}
    engine = trainer(dataset=dataset, max_epochs=10, options=AIDEOptions.for_epochs(10, **schedule))
    corrected = []
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda e: corrected.append((e.state.metrics["corrected"], len(predicted)))
    )
    engine.run()
    # warm-up until epoch 4, then every second epoch, from epoch 5 on: after 6, 8 and 10, a quarter of four cases
    assert [count for count, _ in corrected] == [0, 0, 0, 0, 0, 2, 0, 2, 0, 2]
    assert [seen for _, seen in corrected] == [0, 0, 0, 0, 0, 8, 8, 16, 16, 24]
    assert {record.epoch for record in dataset.store.records} <= {6, 8, 10}
    assert engine.state.metrics["dsc_train"] > 0.5


def test_options_reach_the_algorithm_and_the_correction() -> None:
    dataset = data()
    trainer(dataset=dataset, options=AIDEOptions.from_profile("paper", update_ratio=0.5, warmup_epochs=2)).run()
    corrected = [(record.epoch, record.network) for record in dataset.store.records]
    assert corrected == [(epoch, network) for epoch in (1, 2) for network in (2, 2, 1, 1)]


def test_the_inferer_of_the_pipeline_calls_both_networks_in_the_given_precision() -> None:
    seen = set()

    class Noting(SimpleInferer):
        def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
            seen.add((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
            return super().__call__(inputs, network, *args, **kwargs)

    own = Noting()
    engine = trainer(inferer=own, amp="bf16", max_epochs=1)
    assert [inferer.inferer for inferer in engine.inferers] == [own, own]
    engine.run()
    assert seen == {(True, torch.bfloat16)}
    seen.clear()
    trainer(inferer=Noting(), amp=True, max_epochs=1).run()  # MONAI's flag is for CUDA alone
    assert {enabled for enabled, _ in seen} == {False}


def test_a_run_continues_with_its_networks_and_labels(tmp_path: Path) -> None:
    def run(epochs: int, *, resume: bool = False) -> tuple[AIDESupervisedTrainer, AIDECacheDataset]:
        dataset = data(lambda *args, **kw: AIDECacheDataset(*args, **kw, folder=tmp_path / "labels", resume=resume))
        checkpoint = RunCheckpoint(tmp_path / "checkpoint.pt", store=dataset.store, resume=resume)
        engine = trainer(
            dataset=dataset,
            max_epochs=epochs,
            options=AIDEOptions.from_profile("paper", warmup_epochs=9),
            train_handlers=[checkpoint],
        )
        engine.run()
        return engine, dataset

    first, labels = run(2)
    second, resumed = run(2, resume=True)  # nothing left to do
    for mine, other in zip(first.networks, second.networks, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), other.parameters(), strict=True))
    assert [(r.epoch, r.case) for r in resumed.store.records] == [(r.epoch, r.case) for r in labels.store.records]
    _, continued = run(3, resume=True)
    assert [r.epoch for r in continued.store.records] == [1, 1, 2, 2, 3, 3]


def test_another_data_set_is_refused() -> None:
    with pytest.raises(InputError, match="reads CacheDataset, whose labels cannot be corrected; expected a DataLoader"):
        trainer(dataset=data(CacheDataset))


def test_a_foreign_optimiser_is_refused() -> None:
    with pytest.raises(InputError, match="optimizer has parameters that are not those of network"):
        trainer(optimizer=torch.optim.Adam(network(1).parameters()))


def test_another_architecture_is_refused() -> None:
    with pytest.raises(InputError, match="expected the same architecture"):
        trainer(network_2=UNet(2, 1, 2, channels=(8, 16), strides=(2,)))


def test_a_network_that_cannot_be_initialised_anew_needs_its_second() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 1, 1))

        def forward(self, image: Tensor) -> Tensor:
            return image * self.weight

    with pytest.raises(InputError, match=r"Scale has no layer with reset_parameters.*\(network_2\)"):
        trainer(Scale())
