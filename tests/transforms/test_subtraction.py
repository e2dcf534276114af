"""Subtraction images: which channels, which numbers, what stays of the metadata."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from aide_monai.errors import InputError
from aide_monai.transforms.subtraction import SubtractPhasesd, subtraction_channels

PHASES = torch.tensor([[[1, 2]], [[5, 1]], [[9, 2]]])


def test_differences_follow_the_phases() -> None:
    result = SubtractPhasesd("image")({"image": PHASES})["image"]
    assert result.tolist() == [[[1, 2]], [[5, 1]], [[9, 2]], [[4, -1]], [[8, 0]]]
    assert result.dtype == torch.float32


def test_differences_alone_and_another_first_phase() -> None:
    alone = SubtractPhasesd("image", keep=False)({"image": PHASES})["image"]
    assert alone.tolist() == [[[4, -1]], [[8, 0]]]
    second = SubtractPhasesd("image", before=1, keep=False)({"image": PHASES})["image"]
    assert second.tolist() == [[[-4, 1]], [[4, 1]]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32])
def test_nothing_wraps_around(dtype: torch.dtype) -> None:
    phases = torch.tensor([[[200]], [[100]]]).to(dtype)
    result = SubtractPhasesd("image", keep=False)({"image": phases})["image"]
    assert result.tolist() == [[[-100]]]


def test_unsigned_16_bit_and_large_numbers() -> None:
    sixteen = torch.from_numpy(np.array([[[60000]], [[1]]], dtype=np.uint16))
    assert SubtractPhasesd("image", keep=False)({"image": sixteen})["image"].tolist() == [[[-59999]]]
    large = torch.tensor([[[2**24]], [[2**24 + 1]]], dtype=torch.int32)
    assert SubtractPhasesd("image", keep=False)({"image": large})["image"].tolist() == [[[1]]]


def test_place_and_input_stay() -> None:
    image = MetaTensor(PHASES[..., None].float(), affine=np.diag([2.0, 3, 4, 1]))
    data = {"image": image, "label": 1}
    result = SubtractPhasesd("image")(data)
    assert result["image"].affine.diagonal().tolist() == [2, 3, 4, 1]
    assert isinstance(result["image"], MetaTensor)
    assert data["image"].shape == (3, 1, 2, 1)
    assert result["label"] == 1


def test_too_few_phases_are_refused() -> None:
    one = MetaTensor(torch.zeros(1, 2, 2), meta={"filename_or_obj": "pre.nii"})
    with pytest.raises(
        InputError, match=r"pre\.nii: found 1 phases; expected at least two, and a channel 0 from before"
    ):
        SubtractPhasesd("image")({"image": one})
    with pytest.raises(InputError, match="key 'image': found 3 phases; expected at least two, and a channel 3"):
        SubtractPhasesd("image", before=3)({"image": PHASES})
    with pytest.raises(InputError, match="before=-1: expected the number of a channel, from 0"):
        SubtractPhasesd("image", before=-1)
    with pytest.raises(KeyError):
        SubtractPhasesd("image")({})
    assert SubtractPhasesd("image", allow_missing_keys=True)({}) == {}


def test_names_of_the_channels() -> None:
    modality = {0: "before", 1: "early", 2: "late"}
    assert subtraction_channels(modality) == {
        0: "before",
        1: "early",
        2: "late",
        3: "early minus before",
        4: "late minus before",
    }
    assert subtraction_channels(modality, before=1, keep=False) == {0: "before minus early", 1: "late minus early"}
