"""Co-teaching by hand: each network learns from the other's small-loss samples alone."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from torch import Tensor, nn

from aide_monai.algorithm import forget_rate
from aide_monai.engines import CoTeachingTrainer
from aide_monai.errors import InputError
from aide_monai.losses import IGNORED


class Constant(nn.Module):
    """Logits of sample b are (0, weight * image): the loss below depends on the weight in a known way."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(image), self.weight * image], dim=1)


def squared(logits: Tensor, label: Tensor) -> Tensor:
    """(weight * image - label)^2 of each sample."""
    return (logits[:, 1:] - label).square().flatten(1).mean(dim=1)


def batch(images: list[float], labels_1: list[int], labels_2: list[int]) -> dict[str, Tensor]:
    def column(values: list) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)

    return {"image": column(images), "label_1": column(labels_1), "label_2": column(labels_2)}


def trainer(data: list[dict[str, Tensor]], *, epochs: int = 1, **options) -> CoTeachingTrainer:
    networks = Constant(1.0), Constant(2.0)
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.1) for network in networks]
    return CoTeachingTrainer(
        "cpu",
        epochs,
        data,
        networks[0],
        optimizers[0],
        networks[1],
        optimizers[1],
        loss_function=squared,
        **options,
    )


@pytest.mark.parametrize(("epoch", "expected"), [(1, 0.0), (2, 0.125), (3, 0.25), (5, 0.5), (9, 0.5)])
def test_the_forget_rate_rises_linearly(epoch, expected):
    assert forget_rate(epoch, 4, 0.5) == pytest.approx(expected)
    assert forget_rate(epoch, 0, 0.5) == 0.5


def test_each_network_trains_on_what_its_peer_keeps():
    # Network 1 (weight 1) predicts 1, 1, 1, 1: its losses are 0, 1, 4, 9, it keeps samples 0 and 1.
    # Network 2 (weight 2) predicts 2, 2, 2, 2 and has labels 9, 9, 2, 2: it keeps samples 2 and 3.
    data = batch([1, 1, 1, 1], [1, 2, 3, 4], [9, 9, 2, 2])
    engine = trainer([data], max_forget_rate=0.5, warmup_epochs=0)
    engine.run()
    assert engine.state.output["kept_1"].tolist() == [True, True, False, False]
    assert engine.state.output["kept_2"].tolist() == [False, False, True, True]
    # Network 1 on samples 2, 3: loss (4 + 9) / 2, gradient (2 * (1 - 3) + 2 * (1 - 4)) / 2 = -5.
    assert float(engine.state.output["loss_1"]) == pytest.approx(6.5)
    assert engine.networks[0].weight.item() == pytest.approx(1 + 0.1 * 5)
    # Network 2 on samples 0, 1 with labels 9, 9: loss 49, gradient 2 * (2 - 9) = -14.
    assert float(engine.state.output["loss_2"]) == pytest.approx(49.0)
    assert engine.networks[1].weight.item() == pytest.approx(2 + 0.1 * 14)


def test_the_first_epoch_drops_nothing_and_the_dropped_share_grows():
    data = batch([1] * 8, list(range(8)), list(range(8)))
    engine = trainer([data], epochs=4, warmup_epochs=2, max_forget_rate=0.5)
    kept = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: kept.append(int(e.state.output["kept_1"].sum())))
    engine.run()
    assert kept == [8, 6, 4, 4]


def test_one_sample_is_always_kept():
    engine = trainer([batch([1], [3], [3])], warmup_epochs=0, max_forget_rate=0.9)
    engine.run()
    assert float(engine.state.output["loss_1"]) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_forget_rate": 1.0}, "max_forget_rate is 1.0"), ({"warmup_epochs": -1}, "warmup_epochs is -1")],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        trainer([], **options)


def test_a_sample_without_a_verdict_is_dropped_before_any_other() -> None:
    # Its squared loss would be the smallest of network 1, and the label of network 2 has a verdict
    data = batch([1.0, 1.0], [IGNORED, 9], [1, 9])
    data = {key: value if key == "image" else value.to(torch.uint8) for key, value in data.items()}

    def loss(logits: Tensor, label: Tensor) -> Tensor:
        return squared(logits, label).where((label != IGNORED).flatten(1).any(dim=1), 0)

    engine = trainer([data], max_forget_rate=0.5, warmup_epochs=0)
    engine.segmentation_loss = loss
    engine.run()
    assert engine.state.output["kept_1"].tolist() == [False, True]
    assert engine.state.output["kept_2"].tolist() == [True, False]
