"""Labels on the grid of their image by shares, wherever MONAI's transforms have brought it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Resized, Spacingd

from aide_monai.errors import InputError
from aide_monai.transforms import ByVotesd


def item(label: np.ndarray, spacing: tuple[float, ...] = (1, 1, 1)) -> dict[str, MetaTensor]:
    affine = torch.diag(torch.tensor([-spacing[0], -spacing[1], spacing[2], 1], dtype=torch.float64))
    return {
        "image": MetaTensor(torch.from_numpy(label[None].astype(np.float32)), affine=affine),
        "label": MetaTensor(torch.from_numpy(label[None]), affine=affine.clone()),
    }


def sheet(axis: int, first: int, thickness: int = 1) -> np.ndarray:
    label = np.zeros((12, 12, 12), dtype=np.uint8)
    label.swapaxes(0, axis)[first : first + thickness] = 7
    return label


@pytest.mark.parametrize("first", [4, 5])
@pytest.mark.parametrize(
    "transform",
    [
        Spacingd("image", (0.5, 1, 1)),
        Spacingd("image", (0.25, -1, -1)),
        Spacingd("image", (0.7, 1, 1)),
        Resized("image", (24, 12, 12), mode="trilinear", anti_aliasing=True),
        Resized("image", (36, 12, 12), mode="trilinear"),
        Resized("image", (17, 12, 12), mode="trilinear"),
    ],
    ids=["spacing 2", "spacing 4", "spacing 1.4", "resized 2", "resized 3", "resized 1.4"],
)
def test_a_thin_sheet_keeps_volume_and_centre(transform: Any, first: int) -> None:
    data = transform(item(sheet(0, first)))
    label = ByVotesd("label")(data)["label"]
    assert torch.equal(label.affine, data["image"].affine)
    step = abs(float(label.affine[0, 0]))
    places = np.flatnonzero(label[0, :, 5, 5].numpy() == 7)
    assert abs(len(places) * step - 1) <= (0.01 if step in (0.5, 0.25, 1 / 3) else step)
    centre_mm = np.mean([(label.affine @ torch.tensor([place, 0, 0, 1.0]).double())[0] for place in places])
    assert abs(centre_mm + first) <= step / 2 + 1e-6
    # the image's own centre of mass is where its label is
    weights = data["image"][0, :, 5, 5].numpy()
    image_mm = float(label.affine[0, 3]) + float(label.affine[0, 0]) * np.average(
        np.arange(len(weights)), weights=weights
    )
    assert abs(centre_mm - image_mm) <= step / 2 + 0.05


def test_the_largest_share_wins() -> None:
    label = np.zeros((4, 4, 1), dtype=np.uint8)
    label[:2, :2] = 7  # all of the first quarter
    label[:2, 2:, 0] = [[3, 3], [3, 0]]  # three fourths
    label[2:, :2, 0] = [[3, 7], [0, 0]]  # half of it background
    label[2:, 2:, 0] = [[0, 7], [7, 7]]
    data = Resized("image", (2, 2, 1), mode="area")(item(label))
    result = ByVotesd("label")({**data, "case": "a"})
    assert result["label"][0, ..., 0].tolist() == [[7, 3], [0, 7]]
    assert result["label"].dtype == torch.uint8
    assert result["case"] == "a"
    assert data["label"].shape == (1, 4, 4, 1)  # as it was
    assert data["label"].affine[0, 0] == -1


def test_missing_keys_may_be_skipped_and_plain_tensors_are_refused() -> None:
    transform = ByVotesd("label", allow_missing_keys=True)
    assert transform({"image": 1}) == {"image": 1}
    with pytest.raises(InputError, match=r'"label" and "image": found a tensor without an affine; expected two'):
        transform({"label": torch.zeros(1, 2, 2, 2), "image": torch.zeros(1, 2, 2, 2)})
