"""What makes a step fast changes no result, and does not make a GPU wait for the host."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from aide_monai.engines import AIDEOptions, AIDETrainer
from aide_monai.handlers import CollapseWarning, Disagreement
from aide_monai.networks import MultiStreamUNet, seeded

WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.equal", "aten.masked_select")


def network(seed: int) -> nn.Module:
    return seeded(lambda: MultiStreamUNet(2, 2, 2, features=(4, 8, 16)), seed)


def batches(number: int = 3) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(number, 4, 2, 24, 20, generator=generator)
    return [{"image": x, "label": (x[:, :1] + x[:, 1:] > 0.5).byte()} for x in image]


def trainer(networks: list[nn.Module], *, epochs: int = 1, **arguments: Any) -> AIDETrainer:
    optimizers = [torch.optim.SGD(n.parameters(), lr=0.05) for n in networks]
    options = {"warmup_epochs": 0, "consistency_weight": 10.0, "pseudo_label_source": "other"}
    options |= arguments.pop("options", {})
    return AIDETrainer(
        "cpu",
        epochs,
        batches(),
        networks[0],
        optimizers[0],
        networks[1],
        optimizers[1],
        options=AIDEOptions.from_profile("paper", **options),
        **arguments,
    )


class PlainTrainer(AIDETrainer):
    """Predicts the views with the network itself."""

    @torch.no_grad()
    def predict(self, index: int, image: Tensor, *, batch_size: int | None = None) -> Tensor:
        model = self.networks[index - 1]
        logits = model.eval()(image)
        model.train()
        return logits


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_fast_path_equals_the_plain_one(channels_last: bool) -> None:
    networks = [network(1), network(2)]
    plain = copy.deepcopy(networks)
    fast = trainer(networks, channels_last=channels_last)
    fast.run()
    slow = trainer(plain)
    slow.__class__ = PlainTrainer
    slow.run()
    assert fast.predictors[0].folded.folded == 16
    for first, second in zip(networks, plain, strict=True):
        moved = 0.0
        for name, value in second.state_dict().items():
            torch.testing.assert_close(first.state_dict()[name], value, atol=1e-5, rtol=1e-5)
            if name.endswith("weight"):
                moved = max(moved, float((value - network(1).state_dict()[name]).abs().max()))
        assert moved > 1e-2


class Waits(TorchDispatchMode):
    """Counts what a GPU would have to finish first: the host asks for a number, or for a size that depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function).rsplit(".", 1)[0]
        indices = args[1] if name == "aten.index" else ()
        if name in WAITS or any(i is not None and i.dtype == torch.bool for i in indices):
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


def test_a_step_and_its_handlers_do_not_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("algorithm", "losses.dice_ce"):  # as for a GPU, which is not asked
        monkeypatch.setattr(f"aide_monai.{module}.may_be_special", lambda *labels: True)
    # plain gradient descent: its only parameter is a number of the host
    engine = trainer([network(1), network(2)])
    for handler in (Disagreement(), CollapseWarning()):
        handler.attach(engine)
    engine.state.consistency = 1.0
    engine._iteration(engine, batches()[0])
    with Waits() as waits:
        engine.state.output = engine._iteration(engine, batches()[1])
        engine.fire_event(Events.ITERATION_COMPLETED)
    # the views' random numbers are drawn and chosen on the CPU
    assert set(waits.found) <= {"aten.index"}
    assert waits.found["aten.index"] == 4


def test_compiled_training_is_an_option() -> None:
    networks = [network(1), network(2)]
    plain = copy.deepcopy(networks)
    trainer(networks, compile={"backend": "eager"}).run()
    trainer(plain).run()
    for first, second in zip(networks, plain, strict=True):
        for name, value in second.state_dict().items():
            torch.testing.assert_close(first.state_dict()[name], value, atol=1e-5, rtol=1e-5)


def test_no_view_is_predicted_while_it_weighs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    engine = trainer([network(1), network(2)], epochs=2, options={"warmup_epochs": 2})
    predict = engine.predict

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(engine.state.epoch)
        return predict(*args, **kwargs)

    monkeypatch.setattr(engine, "predict", counted)
    engine.run()
    assert calls == [2] * 6  # lambda is 0 in the first epoch; then each network in each of three steps
