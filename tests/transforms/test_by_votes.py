"""Labels on another grid by shares."""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from monai.transforms import Resize

from aide_monai.transforms import ByVotesd


def test_the_largest_share_wins() -> None:
    label = torch.zeros(1, 4, 4, 1, dtype=torch.uint8)
    label[0, :2, :2] = 7  # all of the first quarter
    label[0, :2, 2:] = torch.tensor([[3, 3], [3, 0]], dtype=torch.uint8)[..., None]  # three fourths
    label[0, 2:, :2] = torch.tensor([[3, 7], [0, 0]], dtype=torch.uint8)[..., None]  # half of it background
    label[0, 2:, 2:] = torch.tensor([[0, 7], [7, 7]], dtype=torch.uint8)[..., None]
    image = MetaTensor(label, affine=torch.eye(4))
    result = ByVotesd("label", Resize((2, 2, 1), mode="area"))({"label": image, "case": "a"})
    assert result["label"][0, ..., 0].tolist() == [[7, 3], [0, 7]]
    assert result["label"].dtype == torch.uint8
    assert result["label"].affine.diagonal().tolist() == [2, 2, 1, 1]
    assert result["case"] == "a"


def test_an_empty_label_stays_empty_and_missing_keys_may_be_skipped() -> None:
    transform = ByVotesd("label", Resize((8, 8, 2), mode="trilinear"), allow_missing_keys=True)
    assert not bool(transform({"label": torch.zeros(1, 4, 4, 2, dtype=torch.uint8)})["label"].any())
    assert transform({"image": 1}) == {"image": 1}
