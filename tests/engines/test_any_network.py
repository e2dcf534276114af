"""The AIDE engine with MONAI's networks: 2D and 3D, pairs of architectures, modalities, short batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.networks.nets import BasicUNet, FlexibleUNet, SegResNet, UNet
from torch import Tensor, nn
from torch.utils.data import DataLoader

from aide_monai.engines import AIDEOptions, AIDETrainer
from aide_monai.handlers import GlobalLabelCorrection
from aide_monai.labels import LabelStore
from aide_monai.networks import seeded
from aide_monai.stream import SliceDataset

VIEWS = 2


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def basic_unet(dims: int, modalities: int, classes: int) -> nn.Module:
    return BasicUNet(dims, modalities, classes, features=(4, 4, 8, 8, 8, 4))


def unet(dims: int, modalities: int, classes: int) -> nn.Module:
    return UNet(dims, modalities, classes, channels=(4, 8), strides=(2,), norm="batch", dropout=0.1)


def seg_res_net(dims: int, modalities: int, classes: int) -> nn.Module:
    return SegResNet(dims, 8, modalities, classes, blocks_down=(1, 1), blocks_up=(1,))


def flexible_unet(dims: int, modalities: int, classes: int) -> nn.Module:
    return FlexibleUNet(
        modalities, classes, "resnet10", pretrained=False, spatial_dims=dims, decoder_channels=(8, 8, 8, 8, 8)
    )


Build = Callable[[int, int, int], nn.Module]
# the smallest image that leaves two pixels along each axis at the deepest level, as normalisation needs for one sample
SIZES: dict[Build, int] = {basic_unet: 32, unet: 16, seg_res_net: 16, flexible_unet: 64}
NAMES = {"ids": lambda value: getattr(value, "__name__", None)}


def samples(number: int, shape: tuple[int, ...], *, modalities: int, classes: int) -> tuple[Tensor, Tensor]:
    """Images (N, M, spatial...) of noise with a bright block of each foreground class, and the labels of the blocks."""
    generator = torch.Generator().manual_seed(0)
    label = torch.zeros(number, 1, *shape, dtype=torch.uint8)
    for n in range(number):
        for c in range(1, classes):
            corner = torch.randint(0, shape[0] // 2, (len(shape),), generator=generator).tolist()
            label[(n, 0, *(slice(k, k + shape[0] // 2) for k in corner))] = c
    image = label + 0.3 * torch.randn(number, modalities, *shape, generator=generator)
    return image, label


class Watch:
    """What the engine gave to its networks, and the losses it got."""

    def __init__(self) -> None:
        self.plain: list[list[int]] = [[], []]
        self.views: list[list[int]] = [[], []]
        self.losses: list[Tensor] = []

    def attach(self, engine: AIDETrainer) -> None:
        for i, network in enumerate(engine.networks):
            network.register_forward_pre_hook(lambda module, inputs, i=i: self.called(i, module, inputs[0]))
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)

    def called(self, i: int, module: nn.Module, image: Tensor) -> None:
        (self.plain if module.training else self.views)[i].append(len(image))

    def step(self, engine: AIDETrainer) -> None:
        output = engine.state.output
        self.losses.append(torch.stack([output["loss_1"], output["loss_2"]]))
        assert output["logits_1"].shape == output["logits_2"].shape
        assert output["logits_1"].shape[2:] == engine.state.batch["image"].shape[2:]


def train(
    builds: tuple[Build, Build],
    data: Iterable[Any],
    *,
    dims: int,
    modalities: int,
    classes: int,
    epochs: int,
    handlers: tuple[Any, ...] = (),
    profile: str = "paper",
) -> tuple[AIDETrainer, Watch]:
    """Train with lambda = 1 from the start, so that every batch has views."""
    watch = Watch()
    networks = [
        seeded(lambda build=build: build(dims, modalities, classes), seed) for seed, build in enumerate(builds, start=1)
    ]
    before = [[value.detach().clone() for value in network.parameters()] for network in networks]
    optimizers = [torch.optim.Adam(network.parameters(), lr=0.01) for network in networks]
    engine = AIDETrainer(
        "cpu",
        epochs,
        data,
        networks[0],
        optimizers[0],
        networks[1],
        optimizers[1],
        options=AIDEOptions.from_profile(profile, views=VIEWS, warmup_epochs=0),
        train_handlers=[*handlers, watch],
    )
    engine.run()
    for network, values in zip(networks, before, strict=True):
        assert network.training
        moved = [not torch.equal(value, old) for value, old in zip(network.parameters(), values, strict=True)]
        assert sum(moved) > 0.8 * len(moved)  # a bias before a normalisation need not move
        assert all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())
    return engine, watch


def assert_learns(watch: Watch, steps: int) -> None:
    """Both losses fall from the first epoch to the last."""
    losses = torch.stack(watch.losses)
    assert bool(torch.isfinite(losses).all())
    assert bool((losses[-steps:].mean(dim=0) < losses[:steps].mean(dim=0)).all())


@pytest.mark.parametrize(
    ("first", "second", "modalities"),
    [
        (basic_unet, basic_unet, 1),
        (unet, unet, 4),
        (seg_res_net, seg_res_net, 2),
        (flexible_unet, flexible_unet, 3),
        (basic_unet, seg_res_net, 2),
        (unet, flexible_unet, 1),
    ],
    **NAMES,
)
def test_slices_of_volumes(first: Build, second: Build, modalities: int) -> None:
    """Three volumes of three slices in batches of four: the last batch has one slice."""
    size = max(SIZES[first], SIZES[second])
    image, label = samples(9, (size, size), modalities=modalities, classes=2)
    volumes = [
        {
            "case": name,
            "image": image[part].movedim(0, -1),
            "label": label[part].movedim(0, -1),
            "quality": "high" if name == "a" else "low",
        }
        for name, part in {"a": slice(0, 3), "b": slice(3, 6), "c": slice(6, 9)}.items()
    ]
    store = LabelStore.from_volumes(volumes)
    dataset = SliceDataset(volumes, store=store)
    options = AIDEOptions.from_profile("paper", warmup_epochs=1, update_ratio=0.5)
    engine, watch = train(
        (first, second),
        DataLoader(dataset, batch_size=4),
        dims=2,
        modalities=modalities,
        classes=2,
        epochs=1,
        handlers=(GlobalLabelCorrection(dataset, options=options, batch_size=9),),
    )
    assert watch.plain == [[4, 4, 1]] * 2
    # two suspicious samples of four; then the three cases in one piece each
    assert watch.views == [[2 * VIEWS] * 2 + [3] * 3] * 2
    assert bool(torch.isfinite(torch.stack(watch.losses)).all())
    assert 0 <= engine.state.metrics["dsc_train"] <= 1
    assert [(record.epoch, record.network) for record in store.records] == [(1, 2), (1, 1)]


@pytest.mark.parametrize(
    ("first", "second"),
    [(basic_unet, basic_unet), (unet, unet), (seg_res_net, seg_res_net), (seg_res_net, unet)],
    **NAMES,
)
def test_patches_of_volumes(first: Build, second: Build) -> None:
    size = max(SIZES[first], SIZES[second])
    image, label = samples(3, (size,) * 3, modalities=2, classes=3)
    data = [{"image": image[:2], "label": label[:2]}, {"image": image[2:], "label": label[2:]}]
    _, watch = train((first, second), data, dims=3, modalities=2, classes=3, epochs=2)
    assert watch.plain == [[2, 1] * 2] * 2
    assert watch.views == [[VIEWS] * 2] * 2
    assert_learns(watch, 2)


@pytest.mark.parametrize("build", list(SIZES), **NAMES)
def test_batches_of_one(build: Build) -> None:
    """One sample is always trusted, so there is nothing to be consistent with."""
    image, label = samples(2, (SIZES[build],) * 2, modalities=1, classes=2)
    data = [{"image": image[n : n + 1], "label": label[n : n + 1]} for n in range(2)]
    _, watch = train((build, build), data, dims=2, modalities=1, classes=2, epochs=2)
    assert watch.plain == [[1] * 4] * 2
    assert watch.views == [[], []]
    assert_learns(watch, 2)


@pytest.mark.parametrize("build", list(SIZES), **NAMES)
def test_the_profile_original(build: Build) -> None:
    """Views of all samples in training mode, so normalisation and dropout see them."""
    image, label = samples(4, (SIZES[build],) * 2, modalities=1, classes=2)
    _, watch = train(
        (build, build),
        [{"image": image, "label": label}],
        dims=2,
        modalities=1,
        classes=2,
        epochs=2,
        profile="original",
    )
    assert watch.plain == [[4, 4 * VIEWS] * 2] * 2
    assert watch.views == [[], []]
