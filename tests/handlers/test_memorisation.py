"""What a network fits: the labels it was given, or the clean ones."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from aide_monai.handlers import Memorisation
from aide_monai.inferers import AutocastInferer
from aide_monai.labels import LabelStore
from aide_monai.stream import SliceDataset


class Copy(nn.Module):
    """Predicts foreground where the image is 1."""

    def forward(self, image: Tensor) -> Tensor:
        assert not self.training
        return torch.cat([1 - image, image], dim=1)


def volume(case: str, image: list[int], given: list[int]) -> dict:
    def column(values: list[int]) -> Tensor:
        return torch.tensor(values).view(1, -1, 1, 1)

    return {"case": case, "quality": "low", "image": column(image).float(), "label": column(given).byte()}


VOLUMES = [volume("a", [1, 1, 0, 0], [1, 0, 0, 0]), volume("b", [0, 0, 1, 1], [0, 0, 1, 1])]
CLEAN = {"a": torch.tensor([1, 1, 1, 1]).view(4, 1, 1), "b": torch.tensor([1, 1, 0, 0]).view(4, 1, 1)}


@pytest.mark.parametrize("store", [None, LabelStore.from_volumes(VOLUMES)])
def test_both_fits_by_hand(store):
    dataset = SliceDataset(VOLUMES, store=store, axis=2)
    handler = Memorisation(dataset, CLEAN, num_classes=2)
    if store is not None:  # a correction does not change what was given
        store.replace(1, "a", CLEAN["a"], epoch=1, dice_before=0.0)
    inferer = AutocastInferer()
    state = SimpleNamespace(metrics={}, device="cpu")
    handler(SimpleNamespace(networks=(Copy(), Copy()), inferers=(inferer, inferer), state=state))
    # case a: 2 * 1 / 3 with the given label, 2 * 2 / 6 with the clean one; case b: 1 and 0
    assert state.metrics["fit_given"] == pytest.approx((2 / 3 + 1) / 2)
    assert state.metrics["fit_clean"] == pytest.approx((2 / 3 + 0) / 2)


def test_it_takes_one_network_and_only_some_cases():
    state = SimpleNamespace(metrics={}, device="cpu")
    handler = Memorisation(SliceDataset(VOLUMES, axis=2), CLEAN, num_classes=2, cases=1)
    network = Copy().train()
    handler(SimpleNamespace(network=network, inferer=AutocastInferer(), state=state))
    assert state.metrics["fit_clean"] == pytest.approx(2 / 3)
    assert network.training


def test_without_clean_labels_there_is_nothing_to_log():
    state = SimpleNamespace(metrics={}, device="cpu")
    Memorisation(SliceDataset(VOLUMES, axis=2), {}, num_classes=2)(
        SimpleNamespace(network=Copy(), inferer=AutocastInferer(), state=state)
    )
    assert state.metrics == {}
