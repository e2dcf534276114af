"""Which labels are shown."""

from __future__ import annotations

import torch

from aide_monai.labels import LabelStore
from aide_monai.workflows.comparison.pictures import by_gain


def volume(case: str, label: torch.Tensor) -> dict:
    return {"case": case, "quality": "low", "image": torch.zeros(1, 4, 1, 1), "label": label[None]}


def test_the_most_improved_case_comes_first() -> None:
    """Given Dice 2/3 everywhere; it becomes 1, stays, or falls to 0."""
    clean = torch.tensor([1, 1, 0, 0], dtype=torch.uint8).reshape(4, 1, 1)
    given = torch.tensor([1, 0, 0, 0], dtype=torch.uint8).reshape(4, 1, 1)
    wrong = torch.tensor([0, 0, 1, 1], dtype=torch.uint8).reshape(4, 1, 1)
    store = LabelStore.from_volumes([volume(case, given) for case in ("harmed", "kept", "mended")])
    for network in (1, 2):
        store.replace(network, "mended", clean, epoch=1, dice_before=0.5)
        store.replace(network, "harmed", wrong, epoch=1, dice_before=0.5)
    assert by_gain(store, dict.fromkeys(("harmed", "kept", "mended"), clean)) == ["mended", "kept", "harmed"]
