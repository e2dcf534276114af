"""What all rivals share: they learn from few trusted cases, repeat themselves, and continue bit for bit."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.networks.nets import BasicUNet, UNet
from torch import Tensor

from aide_monai.algorithm import unit_dice
from aide_monai.engines import (
    ConfidentLearningTrainer,
    CopyPasteTrainer,
    CrossPseudoTrainer,
    MeanTeacherTrainer,
    UniMatchTrainer,
)
from aide_monai.handlers import RunCheckpoint
from aide_monai.networks import MeanNetwork, seeded
from aide_monai.stream import SliceDataset, slice_loader
from aide_monai.transforms import CutMix, RandomIntensity, RandomRotateFlip

RIVALS = {
    "mean_teacher": partial(MeanTeacherTrainer, ramp_epochs=2),
    "cross_pseudo": CrossPseudoTrainer,
    "copy_paste": partial(CopyPasteTrainer, pretrain_epochs=2),
    "unimatch": partial(UniMatchTrainer, threshold=0.8),
    "confident_learning": partial(ConfidentLearningTrainer, fit_epochs=2),
}
pytestmark = pytest.mark.parametrize("rival", RIVALS)


@pytest.fixture(scope="module")
def volumes() -> list[dict[str, Any]]:
    """Three trusted cases and three doubtful ones, whose labels are half a disc; discs in noise."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(6):
        x, y = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
        centre = 10 + 12 * torch.rand(2, 6, generator=generator)
        disc = torch.stack([(x - a) ** 2 + (y - b) ** 2 < 49 for a, b in centre.T], dim=-1)[None]
        image = 2 * disc + 0.7 * torch.randn(disc.shape, generator=generator)
        label = disc.to(torch.uint8)
        given = label if number < 3 else label * (x > 15)[None, :, :, None]
        quality = "high" if number < 3 else "low"
        found.append({"case": f"disc{number}", "image": image, "label": given, "quality": quality, "truth": label})
    return found


def train(
    rival: str, volumes: list[dict[str, Any]], *, epochs: int, steps: int = 4, stop: int = 0, **options: Any
) -> MeanNetwork:
    """The mean of both networks of a run; ``stop`` interrupts it after so many steps."""
    build = partial(BasicUNet, 2, 1, 2, features=(8, 8, 8, 8, 8, 8), norm="batch")
    networks = [seeded(build, seed) for seed in (1, 2)]
    optimizers = [torch.optim.Adam(network.parameters(), lr=3e-3) for network in networks]
    loader = slice_loader(SliceDataset(volumes, axis=2), batch_size=8, steps=steps, seed=0, trusted_share=0.5)
    engine = RIVALS[rival](
        "cpu", epochs, loader, networks[0], optimizers[0], networks[1], optimizers[1], average=0.9, **options
    )
    if stop:
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: e.state.iteration == stop and interrupt())
    engine.run()
    return MeanNetwork(*networks)


def interrupt() -> None:
    raise KeyboardInterrupt


def augmentation() -> dict[str, Any]:
    turn = RandomRotateFlip(max_angle=15, seed=3)
    return {"augment": CutMix(turn, probability=0.5), "perturb": RandomIntensity(seed=4)}


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(a[key], b[key]) for key in a)


@torch.no_grad()
def dice(network: torch.nn.Module, volume: dict[str, Any]) -> float:
    network.eval()
    predicted = network(volume["image"].movedim(-1, 0)).argmax(dim=1)
    return float(unit_dice(predicted, volume["truth"][0].movedim(-1, 0), num_classes=2, unit="case"))


def test_it_finds_the_structures_of_cases_without_a_true_label(rival, volumes) -> None:
    network = train(rival, volumes, epochs=5, steps=20, augment=RandomRotateFlip(max_angle=90, seed=3))
    found = [dice(network, volume) for volume in volumes[3:]]
    assert sum(found) / len(found) > 0.8, found  # half a disc has 0.67 and less


def test_an_interrupted_run_continues_bit_for_bit(rival, volumes, tmp_path: Path) -> None:
    run = partial(train, rival, volumes, epochs=4)
    whole = run(train_handlers=[RunCheckpoint(tmp_path / "whole.pt")], **augmentation())
    file = tmp_path / "parts.pt"
    for stop in (7, 13):  # in the second and in the fourth epoch: before and after the method changes its ways
        with pytest.raises(KeyboardInterrupt):
            run(stop=stop, train_handlers=[RunCheckpoint(file, resume=True)], **augmentation())
        torch.rand(3)
    again = run(train_handlers=[RunCheckpoint(file, resume=True)], **augmentation())
    assert same(whole, again)


def test_labels_of_doubtful_cases_matter_where_they_are_learnt_from_alone(rival, volumes) -> None:
    emptied = [v if v["quality"] == "high" else {**v, "label": torch.zeros_like(v["label"])} for v in volumes]
    networks = [train(rival, given, epochs=3) for given in (volumes, emptied)]
    assert same(*networks) == (rival != "confident_learning")


def test_volumes_in_three_dimensions(rival) -> None:
    """The engines know nothing of axes; confident learning predicts slices."""
    if rival == "confident_learning":
        pytest.skip("of slices alone")
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(4, 1, 16, 16, 16, generator=generator)
    batch: dict[str, Tensor] = {
        "image": image,
        "label": (image > 0.5).to(torch.uint8),
        "high_quality": torch.tensor([True, False, True, False]),
    }
    build = partial(UNet, 3, 1, 3, channels=(4, 8, 8), strides=(2, 2))
    networks = [seeded(build, seed) for seed in (1, 2)]
    optimizers = [torch.optim.Adam(network.parameters()) for network in networks]
    engine = RIVALS[rival]("cpu", 3, [batch], networks[0], optimizers[0], networks[1], optimizers[1])
    engine.run()
    assert float(engine.state.output["loss"]) > 0
