"""The AIDE engine: exchange, views, normalisation, sources, determinism, and a naive implementation beside it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import Tensor, nn

from aide_monai.engines import AIDEOptions, AIDETrainer
from aide_monai.losses import IGNORED, PerSampleDiceCELoss
from aide_monai.transforms import RotateFlip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(seed: int, *, classes: int = 2, dims: int = 2, normalised: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
    layers: list[nn.Module] = [conv(1, 4, 3, padding=1), nn.ReLU(), conv(4, classes, 1)]
    return nn.Sequential(*layers[:1], norm(4), *layers[1:]) if normalised else nn.Sequential(*layers)


def batch(size: int, *, classes: int = 2, shape: tuple[int, ...] = (7, 6), seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randn(size, 1, *shape, generator=generator),
        "label_1": torch.randint(0, classes, (size, 1, *shape), generator=generator, dtype=torch.uint8),
        "label_2": torch.randint(0, classes, (size, 1, *shape), generator=generator, dtype=torch.uint8),
    }


def trainer(
    data: list[dict[str, Tensor]], networks: tuple[nn.Module, nn.Module], *, epochs: int = 1, **options: Any
) -> AIDETrainer:
    seed = options.pop("seed", 0)
    first, second = networks
    return AIDETrainer(
        "cpu",
        epochs,
        data,
        first,
        torch.optim.SGD(first.parameters(), lr=0.2),
        second,
        torch.optim.SGD(second.parameters(), lr=0.2),
        options=AIDEOptions.from_profile("paper", **options),
        seed=seed,
    )


class Pixels(nn.Module):
    """Predicts the same foreground probability everywhere, and records how it was called.

    Args:
        plain: foreground probability in train mode.
        views: foreground probability of each view of the one suspicious sample in eval mode, or None for ``plain``.

    Attributes:
        calls: of each pass; views that are predicted in several parts are one pass.
    """

    def __init__(self, plain: float = 0.5, views: list[float] | None = None) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.plain = plain
        self.views = views
        self.calls: list[dict[str, Any]] = []

    def forward(self, image: Tensor) -> Tensor:
        values = sorted(image.flatten(1).mean(dim=1).round().int().tolist())
        call = {"values": values, "training": self.training, "gradient": torch.is_grad_enabled()}
        part = not self.training and self.calls and not self.calls[-1]["training"]
        seen = len(self.calls[-1]["values"]) if part else 0
        if part:
            call["values"] = sorted(self.calls.pop()["values"] + values)
        self.calls.append(call)
        probability = torch.full((len(image),), self.plain)
        if self.views is not None and not self.training:
            probability = torch.tensor(self.views)[seen : seen + len(image)]
        logits = torch.stack([1 - probability, probability], dim=1).log()
        return logits.view(-1, 2, *[1] * (image.ndim - 2)) + 0 * image[:, :1] + self.bias


# A naive implementation in double precision, sample by sample, pixel sum by pixel sum


def naive_segmentation(logits: Tensor, label: Tensor) -> Tensor:
    """Eq. 1 of one sample: logits (C, spatial...), label (spatial...)."""
    probability = logits.exp() / logits.exp().sum(dim=0)
    classes = len(logits)
    dice, entropy = torch.tensor(0.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    for c in range(classes):
        truth = (label == c).double()
        entropy = entropy - (truth * probability[c].log()).sum() / truth.numel()
        if c > 0:
            overlap = (probability[c] * truth).sum()
            dice = dice + (1 - (2 * overlap + 1) / (probability[c].sum() + truth.sum() + 1)) / (classes - 1)
    return dice + entropy


def naive_pseudo_label(logits: Tensor, temperature: float, sharpening: str) -> Tensor:
    probability = logits.exp() / logits.exp().sum(dim=0)
    raised = (probability / temperature).exp() if sharpening == "softmax" else probability ** (1 / temperature)
    return (raised / raised.sum(dim=0)).detach()


def naive_confidence(pseudo: Tensor, kind: str) -> Tensor:
    if kind == "none":
        return torch.ones_like(pseudo[0])
    if kind == "binary":
        return 1 - 4 * pseudo[0] * pseudo[1]
    return 1 + (pseudo * pseudo.log()).sum(dim=0) / math.log(len(pseudo))


def naive_epoch(
    networks: list[nn.Module],
    data: list[dict[str, Tensor]],
    ramp: float,
    *,
    weight: float,
    source: str,
    temperature: float,
    sharpening: str,
    confidence: str,
) -> None:
    """One epoch of Algorithm 1 when every view is the image itself, with plain gradient descent (rate 0.2)."""
    for item in data:
        samples = range(len(item["image"]))
        outputs = [model(item["image"].double()) for model in networks]
        losses = [[naive_segmentation(outputs[i][b], item[f"label_{i + 1}"][b, 0]) for b in samples] for i in (0, 1)]
        selected = []
        for i in (0, 1):
            order = sorted(samples, key=lambda b: losses[i][b].detach().item())
            selected.append(order[: max(1, len(samples) // 2)])
        gradients = []
        for i in (0, 1):
            kept = selected[1 - i]
            rest = [b for b in samples if b not in kept]
            loss = sum(losses[i][b] for b in kept) / len(kept)
            for b in rest:
                loss = loss + (1 - ramp) * losses[i][b] / len(rest)
                pseudo = naive_pseudo_label(outputs[i if source == "own" else 1 - i][b], temperature, sharpening)
                probability = outputs[i][b].exp() / outputs[i][b].exp().sum(dim=0)
                distance = ((probability - pseudo) ** 2).sum(dim=0) * naive_confidence(pseudo, confidence)
                loss = loss + weight * ramp * distance.sum() / (2 * distance.numel()) / len(rest)
            assert isinstance(loss, Tensor)
            gradients.append(torch.autograd.grad(loss, list(networks[i].parameters())))
        for model, gradient in zip(networks, gradients, strict=True):
            for parameter, step in zip(model.parameters(), gradient, strict=True):
                parameter.data -= 0.2 * step


@pytest.mark.parametrize(
    ("classes", "shape", "source", "sharpening", "confidence"),
    [
        (2, (7, 6), "own", "power", "none"),
        (2, (7, 6), "other", "power", "binary"),
        (3, (7, 6), "other", "softmax", "entropy"),
        (3, (5, 4, 3), "own", "power", "entropy"),
        (2, (5, 4, 3), "other", "power", "none"),
    ],
)
def test_agrees_with_a_naive_implementation(
    classes: int, shape: tuple[int, ...], source: str, sharpening: str, confidence: str
) -> None:
    # a last batch of two, and one of one
    data = [batch(size, classes=classes, shape=shape, seed=size) for size in (5, 4, 2, 1)]
    networks = network(1, classes=classes, dims=len(shape)), network(2, classes=classes, dims=len(shape))
    naive = [copy.deepcopy(model).double() for model in networks]
    options = {"sharpening": sharpening, "confidence": confidence, "temperature": 0.6}
    trainer(
        data,
        networks,
        epochs=4,
        warmup_epochs=2,
        consistency_weight=10,
        pseudo_label_source=source,
        views=2,
        max_angle=0,
        flip_probability=0,
        **options,
    ).run()
    for ramp in (0.0, 0.25, 1.0, 1.0):
        naive_epoch(naive, data, ramp, weight=10, source=source, **options)
    start = network(1, classes=classes, dims=len(shape)), network(2, classes=classes, dims=len(shape))
    for model, expected, before in zip(networks, naive, start, strict=True):
        for name, value in expected.named_parameters():
            found = model.get_parameter(name)
            torch.testing.assert_close(found.double(), value, atol=2e-5, rtol=1e-4)
            assert float((found - before.get_parameter(name)).detach().abs().max()) > 1e-3


# Exchange


def certain_logits(labels: Tensor, right: list[bool]) -> Tensor:
    """(B, 2, H, W) logits that hit the label of the samples in ``right`` and miss the others."""
    hit = nn.functional.one_hot(labels[:, 0].long(), 2).movedim(-1, 1).float()
    sign = torch.tensor([1.0 if r else -1.0 for r in right]).view(-1, 1, 1, 1)
    return (sign * (4 * hit - 2)).requires_grad_()


@pytest.mark.parametrize("ramp", [0.0, 0.25, 1.0])
def test_each_network_learns_from_what_the_other_one_trusts(ramp: float) -> None:
    data = batch(4)
    engine = trainer([data], (Pixels(), Pixels()), consistency_weight=0)
    engine.state.consistency = ramp
    logits_1 = certain_logits(data["label_1"], [True, True, False, False])
    logits_2 = certain_logits(data["label_2"], [False, False, True, True])
    labels = data["label_1"], data["label_2"]
    loss_1, loss_2, extra = engine.compute_losses(data["image"], (logits_1, logits_2), labels)
    assert extra["kept_1"].tolist() == [True, True, False, False]
    assert extra["kept_2"].tolist() == [False, False, True, True]

    first = engine.segmentation_loss(logits_1, labels[0]).tolist()
    second = engine.segmentation_loss(logits_2, labels[1]).tolist()
    # network 2 trusts samples 2 and 3, which network 1 gets wrong, and the other way round
    assert max(first[:2]) < min(first[2:])
    assert float(loss_1.detach()) == pytest.approx(sum(first[2:]) / 2 + (1 - ramp) * sum(first[:2]) / 2)
    assert float(loss_2.detach()) == pytest.approx(sum(second[:2]) / 2 + (1 - ramp) * sum(second[2:]) / 2)
    gradients = torch.autograd.grad(loss_1 + loss_2, [logits_1, logits_2])
    reached = [[bool((sample != 0).any()) for sample in gradient] for gradient in gradients]
    if ramp < 1:
        assert reached == [[True] * 4] * 2
    else:
        assert reached == [[False, False, True, True], [True, True, False, False]]
    plain = torch.autograd.grad(engine.segmentation_loss(logits_1, labels[0])[[2, 3]].mean(), logits_1)[0]
    torch.testing.assert_close(gradients[0][2:], plain[2:])


def test_the_loss_of_one_network_does_not_reach_the_other() -> None:
    data = batch(4)
    engine = trainer([data], (Pixels(), Pixels()), max_angle=0)
    engine.state.consistency = 0.5
    first, second = (torch.randn(4, 2, 7, 6, requires_grad=True) for _ in range(2))
    loss_1, loss_2, _ = engine.compute_losses(data["image"], (first, second), (data["label_1"], data["label_2"]))
    assert torch.autograd.grad(loss_1, second, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(loss_2, first, allow_unused=True) == (None,)


# Views


def numbered(size: int) -> dict[str, Tensor]:
    """Images that hold their number, and labels of which the first half is empty for both networks.

    A network that predicts 1/10 foreground everywhere trusts the first half.
    """
    image = torch.arange(float(size)).view(-1, 1, 1, 1).expand(size, 1, 4, 4).clone()
    label = (image >= size // 2).to(torch.uint8)
    return {"image": image, "label": label}


@pytest.mark.parametrize(("size", "views"), [(4, 3), (5, 2), (3, 1)])
@pytest.mark.parametrize("source", ["own", "other"])
def test_only_suspicious_samples_have_views(size: int, views: int, source: str) -> None:
    networks = Pixels(0.1), Pixels(0.1)
    options = {"views": views, "pseudo_label_source": source, "max_angle": 0, "flip_probability": 0}
    trainer([numbered(size)], networks, warmup_epochs=0, **options).run()
    suspicious = list(range(max(1, size // 2), size))
    for model in networks:
        plain, seen = model.calls
        assert plain == {"values": list(range(size)), "training": True, "gradient": True}
        assert seen == {"values": sorted(suspicious * views), "training": False, "gradient": False}
        assert model.training


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (4, {"warmup_epochs": 5}),  # lambda is 0 in the first epoch
        (4, {"warmup_epochs": 0, "consistency_weight": 0}),
        (4, {"warmup_epochs": 0, "keep": 1.0}),
        (1, {"warmup_epochs": 0}),
    ],
)
def test_no_view_is_computed_in_vain(size: int, options: dict[str, Any]) -> None:
    networks = Pixels(0.1), Pixels(0.1)
    trainer([numbered(size)], networks, **options).run()
    for model in networks:
        assert [len(call["values"]) for call in model.calls] == [size]


def test_views_begin_with_the_second_epoch() -> None:
    networks = Pixels(0.1), Pixels(0.1)
    engine = trainer([numbered(4)], networks, epochs=4, warmup_epochs=2, max_angle=0)
    ramp: list[float] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: ramp.append(e.state.consistency))
    engine.run()
    assert ramp == [0.0, 0.25, 1.0, 1.0]
    assert [len(call["values"]) for call in networks[0].calls] == [4, 4, 8, 4, 8, 4, 8]


@pytest.mark.parametrize(("max_angle", "flip", "moved"), [(0, 0.0, False), (60, 0.0, True), (0, 1.0, True)])
def test_views_are_rotated_and_flipped(max_angle: float, flip: float, moved: bool) -> None:
    images: list[Tensor] = []

    class Looks(Pixels):
        def forward(self, image: Tensor) -> Tensor:
            images.append(image)
            return super().forward(image)

    data = batch(2)
    options = {"max_angle": max_angle, "flip_probability": flip, "flip_axis": 1, "views": 3}
    trainer([data], (Looks(), Pixels()), warmup_epochs=0, **options).run()
    plain, *parts = images
    assert [len(part) for part in parts] == [2, 1]  # three views, never more at a time than the batch has samples
    views = torch.cat(parts)
    distances = [float((view - sample).abs().max()) for view in views for sample in plain]
    assert (min(distances) > 1e-2) == moved
    if flip:
        assert min(float((views[0] - sample.flip(2)).abs().max()) for sample in plain) < 1e-4


# Pseudo-labels by hand


def consistency_of(networks: tuple[Pixels, Pixels], drawn: RotateFlip | None = None, **options: Any) -> list[float]:
    """w * lambda * L_con of both networks with w = lambda = 1, for two 16 x 16 images with empty labels."""
    data = {"image": torch.zeros(2, 1, 16, 16), "label": torch.zeros(2, 1, 16, 16, dtype=torch.uint8)}
    settings = {"warmup_epochs": 0, "temperature": 1.0, "max_angle": 0, "flip_probability": 0} | options
    losses = []
    for weight in (1.0, 0.0):
        engine = trainer([data], networks, consistency_weight=weight, **settings)
        if drawn is not None:
            engine.random_views.draw = lambda samples: drawn
        engine.run()
        losses.append([float(engine.state.output[f"loss_{i}"]) for i in (1, 2)])
        for model in networks:
            model.bias.data.zero_()
    return [with_views - without for with_views, without in zip(*losses, strict=True)]


def test_a_network_agrees_with_its_own_pseudo_label() -> None:
    assert consistency_of((Pixels(0.75), Pixels(0.25)), pseudo_label_source="own") == pytest.approx([0, 0], abs=1e-6)


def test_the_pseudo_label_may_come_from_the_other_network() -> None:
    # ((3/4 - 1/4)^2 + (1/4 - 3/4)^2) / 2
    found = consistency_of((Pixels(0.75), Pixels(0.25)), pseudo_label_source="other")
    assert found == pytest.approx([0.25, 0.25], abs=1e-5)


def test_which_network_is_asked_by_hand() -> None:
    networks = Pixels(0.5, views=[0.8]), Pixels(0.5, views=[0.6])
    own = consistency_of(networks, views=1, pseudo_label_source="own")
    other = consistency_of(networks, views=1, pseudo_label_source="other")
    assert own == pytest.approx([0.3**2, 0.1**2], abs=1e-5)
    assert other == pytest.approx([0.1**2, 0.3**2], abs=1e-5)


def test_views_are_averaged_then_sharpened() -> None:
    networks = Pixels(0.5, views=[0.9, 0.6, 0.3]), Pixels(0.5)  # mean 0.6
    plain = consistency_of(networks, views=3)
    assert plain == pytest.approx([0.1**2, 0], abs=1e-5)
    sharpened = consistency_of(networks, views=3, temperature=0.5)  # 0.36 / (0.36 + 0.16)
    assert sharpened == pytest.approx([(9 / 13 - 0.5) ** 2, 0], abs=1e-5)
    softmax = consistency_of(networks, views=3, temperature=0.5, sharpening="softmax")
    assert softmax == pytest.approx([(1 / (1 + math.exp(-0.4)) - 0.5) ** 2, 0], abs=1e-5)


def test_confidence_weighs_the_consistency() -> None:
    networks = Pixels(0.5, views=[0.8]), Pixels(0.5)
    binary = consistency_of(networks, views=1, confidence="binary")
    assert binary == pytest.approx([(1 - 4 * 0.8 * 0.2) * 0.3**2, 0], abs=1e-5)
    entropy = consistency_of(networks, views=1, confidence="entropy")
    certainty = 1 + (0.8 * math.log(0.8) + 0.2 * math.log(0.2)) / math.log(2)
    assert entropy == pytest.approx([certainty * 0.3**2, 0], abs=1e-5)


def test_a_view_does_not_count_where_it_did_not_see() -> None:
    """Of two views, the first is rotated by 45 degrees and cannot see the corners."""
    drawn = RotateFlip(angle=torch.tensor([math.pi / 4, 0.0]), flip=torch.zeros(2, dtype=torch.bool))
    corners = 1 - float(drawn.visible(torch.zeros(2, 1, 16, 16))[0].float().mean())
    assert 0.1 < corners < 0.2
    networks = Pixels(0.5, views=[0.9, 0.7]), Pixels(0.5)  # 0.8 where both saw, 0.7 in the corners
    found = consistency_of(networks, drawn, views=2)
    assert found[0] == pytest.approx((1 - corners) * 0.3**2 + corners * 0.2**2, abs=1e-5)


def test_a_pixel_that_no_view_saw_keeps_the_plain_prediction() -> None:
    drawn = RotateFlip(angle=torch.tensor([math.pi / 4]), flip=torch.zeros(1, dtype=torch.bool))
    corners = 1 - float(drawn.visible(torch.zeros(1, 1, 16, 16)).float().mean())
    networks = Pixels(0.6, views=[0.9]), Pixels(0.6)
    own = consistency_of(networks, drawn, views=1)
    assert own[0] == pytest.approx((1 - corners) * 0.3**2, abs=1e-5)  # its own prediction: no distance
    networks = Pixels(0.6), Pixels(0.4, views=[0.9])
    other = consistency_of(networks, drawn, views=1, pseudo_label_source="other")
    assert other[0] == pytest.approx((1 - corners) * 0.3**2 + corners * 0.2**2, abs=1e-5)  # that of its source


def test_inverted_logits_are_zero_where_a_view_did_not_see() -> None:
    drawn = RotateFlip(angle=torch.tensor([math.pi / 4, 0.0]), flip=torch.zeros(2, dtype=torch.bool))
    corners = 1 - float(drawn.visible(torch.zeros(2, 1, 16, 16))[0].float().mean())
    networks = Pixels(0.5, views=[0.9, 0.7]), Pixels(0.5)  # in the corners 1/2 and 0.7
    found = consistency_of(networks, drawn, views=2, view_inverse="logits")
    assert found[0] == pytest.approx((1 - corners) * 0.3**2 + corners * 0.1**2, abs=1e-5)


def test_empty_slices_are_filtered_among_themselves() -> None:
    """0.2 foreground everywhere: the loss grows with the labelled area, ties break by index."""
    data = batch(4)
    for key in ("label_1", "label_2"):
        data[key] = torch.zeros(4, 1, 10, 10, dtype=torch.uint8)
        data[key][2, :, :2], data[key][3, :, :5] = 1, 1  # two empty slices, one with 20 and one with 50 percent
    data["image"] = torch.zeros(4, 1, 10, 10)
    kept = {}
    for strata in ("none", "foreground"):
        engine = trainer([data], (Pixels(0.2), Pixels(0.2)), filter_strata=strata)
        engine.run()
        kept[strata] = engine.state.output["kept_1"].tolist()
    assert kept == {"none": [True, True, False, False], "foreground": [True, False, True, False]}


def test_samples_without_a_verdict_are_suspicious_and_their_pixels_cost_nothing() -> None:
    data = batch(4)
    for key in ("label_1", "label_2"):
        data[key][1] = IGNORED
        data[key][3, :, 2:] = IGNORED
    data["image"] = torch.zeros(4, 1, 7, 6)
    networks = Pixels(0.2), Pixels(0.2)
    engine = trainer([data], networks, keep=0.75)
    engine.run()
    assert engine.state.output["kept_1"].tolist() == [True, False, True, True]
    counted = PerSampleDiceCELoss()(engine.state.output["logits_1"], data["label_1"])
    assert counted[1] == 0
    # lambda is 0 in the first epoch: the mean of the three and that of the suspicious one
    torch.testing.assert_close(engine.state.output["loss_1"], counted[[0, 2, 3]].mean())


# Normalisation layers


@pytest.mark.parametrize(("statistics", "batches"), [("running", 1), ("batch", 2)])
def test_views_and_the_running_statistics(statistics: str, batches: int) -> None:
    networks = network(1, normalised=True), network(2, normalised=True)
    data = batch(4)
    expected = [copy.deepcopy(model) for model in networks]
    for model in expected:
        model.train()(data["image"])
    trainer([data], networks, warmup_epochs=0, view_statistics=statistics).run()
    for model, once in zip(networks, expected, strict=True):
        assert int(model[1].num_batches_tracked) == batches
        same = torch.equal(model[1].running_mean, once[1].running_mean)
        assert same == (statistics == "running")
        assert model.training


@pytest.mark.parametrize(("samples", "viewed"), [("suspicious", 2), ("all", 4)])
@pytest.mark.parametrize("view_inverse", ["probabilities", "logits"])
def test_views_of_all_samples_change_the_result_only_with_statistics_of_the_batch(
    samples: str, viewed: int, view_inverse: str
) -> None:
    seen: list[int] = []
    runs = []
    for name in ("suspicious", samples):
        networks = network(1), network(2)
        engine = trainer(
            [batch(4)],
            networks,
            warmup_epochs=0,
            max_angle=0,
            flip_probability=0,
            view_samples=name,
            view_inverse=view_inverse,
        )
        engine.add_event_handler(Events.STARTED, seen.clear)
        handle = networks[0].register_forward_pre_hook(
            lambda module, inputs: None if module.training else seen.append(len(inputs[0]))
        )
        engine.run()
        handle.remove()
        runs.append(weights(networks))
    assert seen == [4] * viewed
    for one, other in zip(*runs, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


# Runs


@pytest.mark.parametrize(
    ("classes", "shape", "sizes"),
    [(3, (6, 6), [4, 3]), (2, (6, 5, 4), [2, 2]), (4, (4, 4, 4), [1]), (2, (8, 8), [5, 1])],
)
@pytest.mark.parametrize("view_inverse", ["probabilities", "logits"])
def test_any_number_of_classes_dimensions_and_samples(
    classes: int, shape: tuple[int, ...], sizes: list[int], view_inverse: str
) -> None:
    data = [batch(size, classes=classes, shape=shape, seed=size) for size in sizes]
    networks = [network(i, classes=classes, dims=len(shape), normalised=True) for i in (1, 2)]
    engine = trainer(data, (networks[0], networks[1]), epochs=2, warmup_epochs=1, view_inverse=view_inverse)
    engine.run()
    assert engine.state.iteration == 2 * len(sizes)
    for model in networks:
        assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


def test_one_label_for_both_networks() -> None:
    data = batch(4)
    networks = network(1), network(2)
    shared = {"image": data["image"], "label": data["label_1"]}
    trainer([shared], networks, epochs=2, warmup_epochs=1).run()
    twice = network(1), network(2)
    both = shared | {"label_1": data["label_1"], "label_2": data["label_1"]}
    trainer([both], twice, epochs=2, warmup_epochs=1).run()
    assert weights(networks) == weights(twice)


def weights(networks: tuple[nn.Module, ...]) -> list[list[float]]:
    return [value.flatten().tolist() for model in networks for value in model.state_dict().values()]


def test_the_same_seed_gives_the_same_weights_bit_by_bit() -> None:
    data = [batch(4, seed=seed) for seed in (1, 2)]
    runs = []
    for seed, noise in ((3, 0), (3, 99), (4, 0)):
        networks = network(1, normalised=True), network(2, normalised=True)
        torch.manual_seed(noise)  # the views have a generator of their own
        trainer(data, networks, epochs=2, warmup_epochs=0, seed=seed).run()
        runs.append(weights(networks))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_the_generator_of_the_views_belongs_to_a_checkpoint() -> None:
    engine = trainer([batch(2)], (Pixels(), Pixels()))
    assert engine.generators == {"views": engine.random_views.generator}


def test_another_segmentation_loss() -> None:
    data = numbered(2)
    networks = Pixels(), Pixels()
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in networks]
    engine = AIDETrainer(
        "cpu",
        1,
        [data],
        networks[0],
        optimizers[0],
        networks[1],
        optimizers[1],
        options=AIDEOptions.from_profile("paper"),
        loss_function=lambda logits, label: label.flatten(1).float().mean(dim=1) + 3 + 0 * logits.sum(),
    )
    engine.run()
    assert float(engine.state.output["loss_1"]) == pytest.approx(3 + 4)  # kept: 3 + 0; suspicious: 3 + 1


def test_the_options_by_default() -> None:
    networks = Pixels(), Pixels()
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in networks]
    engine = AIDETrainer("cpu", 1, [numbered(2)], networks[0], optimizers[0], networks[1], optimizers[1])
    assert engine.options == AIDEOptions()


# Errors


def test_errors_are_sentences() -> None:
    same = network(1)
    with pytest.raises(ValueError, match="network_1 and network_2 are the same object"):
        trainer([batch(2)], (same, same))
    with pytest.raises(ValueError, match='confidence="binary" needs 2 classes, found 3'):
        trainer(
            [batch(2, classes=3)],
            (network(1, classes=3), network(2, classes=3)),
            warmup_epochs=0,
            confidence="binary",
        ).run()
    with pytest.raises(ValueError, match=r"label has shape \(2, 1, 5, 5\); expected \(2, 1, 7, 6\)"):
        trainer([batch(2) | {"label_2": torch.zeros(2, 1, 5, 5)}], (network(1), network(2))).run()
    with pytest.raises(KeyError, match=r"image'? is missing"):
        trainer([{"label": torch.zeros(2, 1, 5, 5)}], (network(1), network(2))).run()
