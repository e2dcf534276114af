"""Two networks on one stream: separate steps, state, precision, batch preparation, errors."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from monai.inferers import SimpleInferer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from aide_monai.engines import PrepareAugmented, TwoNetworkTrainer, prepare_two_labels
from aide_monai.transforms import RandomIntensity, RandomRotateFlip


class CrossEntropyTrainer(TwoNetworkTrainer):
    """Each network learns its own label; the second loss counts double."""

    def compute_losses(
        self, image: Tensor, logits: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        losses = [nn.functional.cross_entropy(o, y[:, 0].long()) for o, y in zip(logits, labels, strict=True)]
        return losses[0], 2 * losses[1], {"seen": image}


def network(seed: int, *, normalised: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 4, 3, padding=1), *([nn.BatchNorm2d(4)] if normalised else []), nn.Conv2d(4, 2, 1)]
    return nn.Sequential(*layers)


def batches(count: int = 2) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.randn(3, 1, 6, 6, generator=generator),
            "label_1": torch.randint(0, 2, (3, 1, 6, 6), generator=generator, dtype=torch.uint8),
            "label_2": torch.randint(0, 2, (3, 1, 6, 6), generator=generator, dtype=torch.uint8),
            "high_quality": torch.tensor([True, False, True]),
        }
        for _ in range(count)
    ]


def trainer(
    data: Any = None,
    *,
    networks: Sequence[nn.Module] | None = None,
    epochs: int = 1,
    adam: bool = False,
    **options: Any,
) -> CrossEntropyTrainer:
    first, second = networks or (network(1), network(2))
    optimizer: Any = torch.optim.Adam if adam else torch.optim.SGD
    return CrossEntropyTrainer(
        "cpu",
        epochs,
        batches() if data is None else data,
        first,
        optimizer(first.parameters(), lr=0.1),
        second,
        optimizer(second.parameters(), lr=0.1),
        **options,
    )


# Training


def test_each_network_takes_a_step_of_its_own_loss() -> None:
    networks = network(1), network(2)
    expected = [copy.deepcopy(n) for n in networks]
    trainer(networks=networks, epochs=2).run()
    for i, (model, factor) in enumerate(zip(expected, (1, 2), strict=True)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for batch in batches() * 2:
            optimizer.zero_grad()
            label = batch[f"label_{i + 1}"][:, 0].long()
            (factor * nn.functional.cross_entropy(model(batch["image"]), label)).backward()
            optimizer.step()
        for found, value in zip(networks[i].parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(found, value)


def test_output_of_an_iteration() -> None:
    engine = trainer(batches(1))
    networks = [copy.deepcopy(n) for n in engine.networks]
    engine.run()
    output, batch = engine.state.output, batches(1)[0]
    assert set(output) == {
        "loss",
        "loss_1",
        "loss_2",
        "logits_1",
        "logits_2",
        "label_1",
        "label_2",
        "high_quality",
        "seen",
    }
    for i in (1, 2):
        torch.testing.assert_close(output[f"logits_{i}"], networks[i - 1](batch["image"]).detach())
        assert torch.equal(output[f"label_{i}"], batch[f"label_{i}"])
        assert not output[f"logits_{i}"].requires_grad
    assert float(output["loss"]) == pytest.approx((float(output["loss_1"]) + float(output["loss_2"])) / 2)
    assert output["high_quality"].tolist() == [True, False, True]


def test_networks_train_in_train_mode() -> None:
    networks = network(1, normalised=True), network(2, normalised=True)
    for model in networks:
        model.eval()
    engine = trainer(networks=networks)
    engine.run()
    assert all(model.training for model in networks)
    assert int(networks[0][1].num_batches_tracked) == 2


def test_events_come_in_order() -> None:
    engine, fired = trainer(batches(1)), []
    for event in (
        IterationEvents.FORWARD_COMPLETED,
        IterationEvents.LOSS_COMPLETED,
        IterationEvents.BACKWARD_COMPLETED,
        IterationEvents.MODEL_COMPLETED,
        Events.ITERATION_COMPLETED,
    ):
        engine.add_event_handler(event, lambda _, name: fired.append(name), event.name)
    engine.run()
    names = ["FORWARD_COMPLETED", "LOSS_COMPLETED", "BACKWARD_COMPLETED", "MODEL_COMPLETED", "ITERATION_COMPLETED"]
    assert fired == names


def test_handlers_find_the_networks_when_they_are_attached() -> None:
    class Looks:
        def attach(self, engine: Any) -> None:
            self.found = engine.networks

    handler, networks = Looks(), (network(1), network(2))
    trainer(networks=networks, train_handlers=[handler])
    assert handler.found[0] is networks[0]
    assert handler.found[1] is networks[1]


def test_the_augmentation_gets_the_image_with_both_labels() -> None:
    calls = []

    def augment(image: Tensor, labels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        calls.append((image, list(labels)))
        return image * 0 + 7, [1 - label for label in labels]

    engine = trainer(batches(1), augment=augment)
    engine.run()
    batch = batches(1)[0]
    assert torch.equal(calls[0][0], batch["image"])
    assert torch.equal(calls[0][1][1], batch["label_2"])
    assert bool((engine.state.output["seen"] == 7).all())
    assert torch.equal(engine.state.output["label_1"], 1 - batch["label_1"])
    assert torch.equal(engine.state.output["label_2"], 1 - batch["label_2"])


def test_networks_see_the_perturbed_image_and_the_losses_the_augmented_one() -> None:
    passed = []

    class Counts(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            passed.append(input.detach())
            return super().forward(input)

    networks = (Counts(1, 2, 1), Counts(1, 2, 1))
    engine = trainer(
        batches(1),
        networks=networks,
        augment=lambda image, labels: (image * 0 + 7, list(labels)),
        perturb=lambda image: image + 1,
    )
    engine.run()
    assert all(bool((image == 8).all()) for image in passed)
    assert len(passed) == 2
    assert bool((engine.state.output["seen"] == 7).all())


# State


def test_the_state_holds_both_networks_and_their_optimisers() -> None:
    engine = trainer(adam=True)
    engine.run()
    state = engine.state_dict()
    assert {"network_1", "network_2", "optimizer_1", "optimizer_2", "scaler_1", "scaler_2"} <= set(state)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)

    other = trainer(networks=(network(8), network(9)), adam=True)
    networks, optimizers = other.networks, (other.state.optimizer_1, other.state.optimizer_2)
    other.load_state_dict(saved)
    assert other.networks[0] is networks[0]  # the optimisers must go on with the same parameters
    assert other.networks[1] is networks[1]
    assert (other.state.optimizer_1, other.state.optimizer_2) == optimizers
    for i in (0, 1):
        for name, value in engine.networks[i].state_dict().items():
            assert torch.equal(networks[i].state_dict()[name], value)
        moments = optimizers[i].state_dict()["state"][0]
        expected = (engine.state.optimizer_1, engine.state.optimizer_2)[i].state_dict()["state"][0]
        assert torch.equal(moments["exp_avg_sq"], expected["exp_avg_sq"])
        assert float(moments["step"]) == 2
    assert (other.state.epoch, other.state.iteration) == (1, 2)


def test_generators_that_training_draws_from() -> None:
    assert trainer().generators == {}
    generator = torch.Generator()
    augment, perturb = RandomRotateFlip(), RandomIntensity()
    loader = DataLoader(batches(), shuffle=True, generator=generator)
    engine = trainer(loader, augment=augment, perturb=perturb)
    assert engine.generators == {
        "augmentation": augment.generator,
        "perturbation": perturb.generator,
        "loader": generator,
        "sampler": generator,
    }


# Precision and layout


@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_logits_are_float32_in_any_precision_and_layout(amp: str, channels_last: bool) -> None:
    seen = []

    class Records(nn.Conv2d):
        def forward(self, image: Tensor) -> Tensor:
            output = super().forward(image)
            seen.append((output.dtype, image.is_contiguous(memory_format=torch.channels_last)))
            return output

    torch.manual_seed(0)
    data = [{"image": torch.randn(2, 3, 8, 8), "label": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)}]
    networks = Records(3, 2, 3, padding=1), Records(3, 2, 3, padding=1)
    engine = trainer(data, networks=networks, amp=amp, channels_last=channels_last)
    engine.run()
    assert seen[0] == (torch.bfloat16 if amp == "bf16" else torch.float32, channels_last)
    assert engine.state.output["logits_1"].dtype == torch.float32
    assert networks[0].weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_each_network_can_have_an_inferer_of_its_own() -> None:
    class Doubles(SimpleInferer):
        def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
            return 2 * network(inputs)

    engine = trainer(inferer_2=Doubles())
    image = batches(1)[0]["image"]
    torch.testing.assert_close(engine.forward(1, image), engine.networks[0](image))
    torch.testing.assert_close(engine.forward(2, image), 2 * engine.networks[1](image))


# Batches


def test_one_label_serves_both_networks() -> None:
    label = torch.ones(2, 1, 4, 4, dtype=torch.uint8)
    image, first, second, quality = prepare_two_labels({"image": torch.zeros(2, 1, 4, 4), "label": label})
    assert first is second
    assert torch.equal(first, label)
    assert quality is None
    assert image.dtype == torch.float32


def test_metadata_is_left_behind_and_conversions_touch_the_image_only() -> None:
    batch = {
        "image": MetaTensor(torch.zeros(1, 1, 2, 2)),
        "label_1": MetaTensor(torch.zeros(1, 1, 2, 2, dtype=torch.uint8)),
        "label_2": torch.ones(1, 1, 2, 2, dtype=torch.uint8),
        "high_quality": torch.tensor([True]),
    }
    image, first, second, quality = prepare_two_labels(batch, torch.device("cpu"), dtype=torch.float64)
    assert type(image) is type(first) is Tensor
    assert (image.dtype, first.dtype, second.dtype) == (torch.float64, torch.uint8, torch.uint8)
    assert quality is not None
    assert quality.tolist() == [True]


@pytest.mark.parametrize(
    ("keys", "missing"), [(["label"], "image"), (["image"], "label"), (["image", "label_1"], "label_2"), ([], "image")]
)
def test_a_missing_key_is_named(keys: list[str], missing: str) -> None:
    with pytest.raises(KeyError, match=rf"the batch has keys .*; expected 'image' and .*{missing}'? is missing"):
        prepare_two_labels({key: torch.zeros(1, 1, 2, 2) for key in keys})


def test_one_network_gets_an_augmented_image_and_its_label() -> None:
    batch = {"image": torch.ones(1, 1, 2, 2), "label": torch.zeros(1, 1, 2, 2)}
    prepare = PrepareAugmented(lambda image, labels: (image + 1, [label + 5 for label in labels]))
    image, label = prepare(batch, torch.device("cpu"))
    assert bool((image == 2).all())
    assert bool((label == 5).all())
    prepare = PrepareAugmented(
        lambda image, labels: (image + 1, [label + 5 for label in labels]), lambda image: image * 3
    )
    image, label = prepare(batch, torch.device("cpu"))
    assert bool((image == 6).all())
    assert bool((label == 5).all())


# Errors


def test_the_networks_must_be_two() -> None:
    same = network(1)
    with pytest.raises(ValueError, match="network_1 and network_2 are the same object; expected two networks"):
        trainer(networks=(same, same))


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(ValueError, match="amp is 'half'; expected one of off, bf16, fp16"):
        trainer(amp="half")


def test_the_base_class_has_no_loss() -> None:
    first, second = network(1), network(2)
    optimizers = [torch.optim.SGD(n.parameters(), lr=0.1) for n in (first, second)]
    engine = TwoNetworkTrainer("cpu", 1, batches(1), first, optimizers[0], second, optimizers[1])
    with pytest.raises(NotImplementedError, match="TwoNetworkTrainer must implement compute_losses"):
        engine.run()
