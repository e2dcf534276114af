"""Voxels without a verdict in every engine: nothing that is learnt depends on what would be drawn there."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from monai.networks.nets import BasicUNet

from aide_monai.engines import AIDEOptions, AIDETrainer, CoTeachingTrainer, SideBySideTrainer, rival
from aide_monai.engines.rivals import RIVALS
from aide_monai.handlers import GlobalLabelCorrection
from aide_monai.ignored import IGNORED, PARTIAL, partial_background
from aide_monai.labels import LabelStore
from aide_monai.networks import seeded
from aide_monai.stream import PatchDataset, SliceDataset, slice_loader
from aide_monai.transforms import CutMix, RandomRotateFlip

ENGINES = {
    **{name: rival(name, 3) for name in RIVALS},
    "aide": partial(AIDETrainer, options=AIDEOptions(warmup_epochs=1)),
    "co_teaching": partial(CoTeachingTrainer, warmup_epochs=0),
    "side_by_side": SideBySideTrainer,
}


def volumes() -> list[dict[str, Any]]:
    """Four cases of noise of which a stroke is drawn, the last one without any verdict."""
    generator = torch.Generator().manual_seed(0)
    label = torch.full((1, 32, 32, 2), IGNORED, dtype=torch.uint8)
    label[:, 4:20, 8:10], label[:, 4:20, 20:22] = 1, 0
    labels = [label, label, label, torch.full_like(label, IGNORED)]
    image = [torch.randn(label.shape, generator=generator) for _ in labels]
    quality = ["high", "high", "low", "low"]
    return [
        {"case": f"case{n}", "image": image[n], "label": labels[n], "quality": quality[n]} for n in range(len(labels))
    ]


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_trains_on_strokes(name: str) -> None:
    networks = [seeded(partial(BasicUNet, 2, 1, 2, features=(4, 4, 4, 4, 4, 4), norm="batch"), n) for n in (1, 2)]
    before = [parameter.clone() for network in networks for parameter in network.parameters()]
    optimizers = [torch.optim.Adam(network.parameters(), lr=3e-3) for network in networks]
    loader = slice_loader(SliceDataset(volumes(), axis=2), batch_size=8, steps=2, seed=0)
    augment = CutMix(RandomRotateFlip(max_angle=30, seed=0), probability=0.5)
    engine = ENGINES[name](
        "cpu", 3, loader, networks[0], optimizers[0], networks[1], optimizers[1], average=0.9, augment=augment
    )
    engine.run()
    after = [parameter for network in engine.networks for parameter in network.parameters()]
    assert all(bool(torch.isfinite(parameter).all()) for parameter in after)
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    for key in ("label_1", "label_2"):
        shown = engine.state.output[key]
        assert set(shown.unique().tolist()) <= {0, 1, IGNORED}
        assert float((shown == IGNORED).float().mean()) > (0 if name == "copy_paste" else 0.8)


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_trains_on_cases_with_different_structures(name: str) -> None:
    data = volumes()
    for number, volume in enumerate(data):
        own = 1 + number % 2
        label = torch.full_like(volume["label"], partial_background([own], 3))
        label[:, 8:20, 8:20] = own
        volume["label"] = label
        volume["image"][:, 8:20, 8:20] += 3 if own == 1 else -3
    build = partial(BasicUNet, 2, 1, 3, features=(4, 4, 4, 4, 4, 4), norm="batch")
    networks = [seeded(build, n) for n in (1, 2)]
    optimizers = [torch.optim.Adam(network.parameters(), lr=3e-3) for network in networks]
    loader = slice_loader(SliceDataset(data, axis=2), batch_size=8, steps=2, seed=0)
    augment = CutMix(RandomRotateFlip(max_angle=30, seed=0), probability=0.5)
    engine = ENGINES[name](
        "cpu", 3, loader, networks[0], optimizers[0], networks[1], optimizers[1], average=0.9, augment=augment
    )
    engine.run()
    assert all(bool(torch.isfinite(p).all()) for network in engine.networks for p in network.parameters())
    assert torch.isfinite(engine.state.output["loss_1"])
    shown = engine.state.output["label_1"].unique().tolist()
    assert set(shown) <= {0, 1, 2, 193, 194, IGNORED}
    assert {193, 194} & set(shown)


@pytest.mark.parametrize("name", ["generalised_cross_entropy", "aide", "co_teaching", "side_by_side"])
def test_a_step_does_not_look_at_what_has_no_verdict(name: str) -> None:
    """Logits of the first step that differ there alone give the same loss, where no consistency is asked for."""
    networks = [seeded(partial(BasicUNet, 2, 1, 2, features=(4, 4, 4, 4, 4, 4), norm="batch"), n) for n in (1, 2)]
    optimizers = [torch.optim.Adam(network.parameters()) for network in networks]
    loader = slice_loader(SliceDataset(volumes()[:3], axis=2), batch_size=6, steps=1, seed=0)
    engine = ENGINES[name]("cpu", 1, loader, networks[0], optimizers[0], networks[1], optimizers[1])
    engine.run()
    output = engine.state.output
    labels = output["label_1"], output["label_2"]
    image = torch.zeros(6, 1, 32, 32)
    found = []
    for shift in (0.0, 5.0):
        logits = [output[f"logits_{n}"].clone() for n in (1, 2)]
        for logit, label in zip(logits, labels, strict=True):
            logit[:, 1:] += shift * (label == IGNORED)
        found.append([float(loss) for loss in engine.compute_losses(image, (logits[0], logits[1]), labels)[:2]])
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize("unit", ["case", "patch"])
def test_patches_of_three_dimensions_are_trained_on_corrected_and_filled(unit: str) -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.full((1, 20, 16, 16), IGNORED, dtype=torch.uint8)
    label[:, 4:12, 6:8], label[:, 4:12, 10:12] = 1, partial_background([1], 3)
    volumes = [
        {"case": name, "image": torch.randn(label.shape, generator=generator), "label": label, "quality": quality}
        for name, quality in (("sure", "high"), ("a", "low"), ("b", "low"))
    ]
    store = LabelStore.from_volumes(volumes)
    patches = PatchDataset(volumes, (16, 16, 16), store=store)
    build = partial(BasicUNet, 3, 1, 3, features=(4, 4, 4, 4, 4, 4), norm="batch")
    networks = [seeded(build, n) for n in (1, 2)]
    optimizers = [torch.optim.Adam(network.parameters(), lr=3e-3) for network in networks]
    options = AIDEOptions(warmup_epochs=2, unit=unit, fill_ignored=True, correction_foreground=0)
    engine = AIDETrainer(
        "cpu",
        2,
        slice_loader(patches, batch_size=4, steps=2, seed=0),
        networks[0],
        optimizers[0],
        networks[1],
        optimizers[1],
        options=options,
        train_handlers=[GlobalLabelCorrection(patches, options=options, batch_size=2)],
    )
    engine.run()
    assert engine.state.metrics["corrected"] == 2
    assert 0 <= engine.state.metrics["dsc_train"] <= 1
    given, open_ = store.initial("sure"), label[0] >= PARTIAL
    for network in (1, 2):
        filled = store.label(network, "sure")
        assert torch.equal(filled[~open_], given[~open_])
        assert not (filled == IGNORED).any()
        assert torch.equal(store.judged(network, "sure"), given)
