"""Per-slice normalisation: by hand, constant slices, values that are not numbers."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from aide_monai.errors import InputError
from aide_monai.transforms import NormalizeSlicesd


def volume(values: torch.Tensor, *, spacing: tuple[float, float, float] = (1, 1, 1), file: str = "") -> MetaTensor:
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    return MetaTensor(values, affine=affine, meta={"filename_or_obj": file} if file else {})


def test_two_slices_by_hand() -> None:
    slices = [torch.tensor([[1.0, 3.0], [1.0, 3.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])]
    image = volume(torch.stack(slices, dim=-1)[None], spacing=(1, 1, 5))
    result = NormalizeSlicesd("image")({"image": image})["image"]
    first = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]])  # mean 2, population standard deviation 1
    second = torch.tensor([[-1.0, -1.0], [-1.0, 3.0]]) / 3**0.5  # mean 1, standard deviation sqrt 3
    torch.testing.assert_close(result[0].as_tensor(), torch.stack([first, second], dim=-1))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("named", [True, False])
def test_each_channel_of_each_slice_is_standardised(axis: int, named: bool) -> None:
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 4.0
    values = 50 * torch.randn(2, 6, 7, 8, generator=torch.Generator().manual_seed(0)) + 1000
    image = volume(values, spacing=tuple(spacing))
    result = NormalizeSlicesd("image", axis=axis if named else "auto")({"image": image})["image"]
    for channel in result.as_tensor():
        for plane in channel.unbind(axis):
            assert float(plane.mean()) == pytest.approx(0, abs=1e-4)
            assert float(plane.std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_nothing_is_clipped() -> None:
    values = torch.zeros(1, 10, 10, 1)
    values[0, 0, 0, 0] = 1e6
    result = NormalizeSlicesd("image", axis=2)({"image": volume(values)})["image"]
    assert float(result.max()) == pytest.approx(99**0.5, rel=1e-4)


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, 1000.1, -3333.33])
def test_a_constant_slice_becomes_zero(value: float) -> None:
    values = torch.randn(1, 33, 17, 3)
    values[..., 1] = value
    result = NormalizeSlicesd("image", axis=2)({"image": volume(values)})["image"]
    assert float(result[..., 1].abs().max()) < 1e-3
    assert float(result[..., 0].std()) > 0.9


def test_integers_become_float32_and_metadata_stays() -> None:
    values = torch.randint(-1000, 3000, (1, 8, 8, 2), dtype=torch.int16)
    image = volume(values, spacing=(1, 1, 9), file="scan.nii")
    data = {"image": image, "case": "a"}
    result = NormalizeSlicesd("image")(data)
    assert result["image"].dtype == torch.float32
    assert result["image"].meta["filename_or_obj"] == "scan.nii"
    assert torch.equal(result["image"].affine, image.affine)
    assert result["case"] == "a"
    assert data["image"].dtype == torch.int16  # the input is not touched


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_numbers_name_the_file(wrong: float) -> None:
    values = torch.zeros(1, 4, 4, 2)
    values[0, 0, :3, 0] = wrong
    with pytest.raises(InputError, match=r"patient7\.nii: 3 voxels are NaN or infinite; expected finite"):
        NormalizeSlicesd("image")({"image": volume(values, file="patient7.nii")})


def test_an_image_without_a_file_is_named_by_its_key() -> None:
    with pytest.raises(InputError, match="key 'image': 1 voxels are NaN"):
        NormalizeSlicesd("image", axis=2)({"image": torch.full((1, 1, 1, 1), float("nan"))})


def test_missing_keys() -> None:
    assert NormalizeSlicesd("image", allow_missing_keys=True)({"other": 1}) == {"other": 1}
    with pytest.raises(KeyError, match="image"):
        NormalizeSlicesd("image")({"other": 1})
