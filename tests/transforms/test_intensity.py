"""Per-slice normalisation: by hand, constant slices, values that are not numbers."""

from __future__ import annotations

from typing import Any

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


# Other methods, by hand


def both(*slices: list[float]) -> MetaTensor:
    """One channel, slices of one row along the last axis."""
    return volume(torch.tensor(slices).T[None, None], spacing=(1, 1, 5))


def test_a_volume_is_standardised_as_a_whole() -> None:
    image = both([0.0, 2.0], [4.0, 6.0])  # mean 3, standard deviation sqrt 5
    result = NormalizeSlicesd("image", method="volume")({"image": image})["image"]
    expected = torch.tensor([[-3.0, 1.0], [-1.0, 3.0]]) / 5**0.5
    torch.testing.assert_close(result[0, 0].as_tensor(), expected)


def test_channels_of_a_volume_are_standardised_apart() -> None:
    values = torch.randn(2, 5, 6, 4, generator=torch.Generator().manual_seed(0))
    values[1] = values[1] * 30 + 500
    result = NormalizeSlicesd("image", method="volume")({"image": volume(values, spacing=(1, 1, 5))})["image"]
    for channel in result.as_tensor():
        assert float(channel.mean()) == pytest.approx(0, abs=1e-4)
        assert float(channel.std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_percentiles_clip_before_the_statistics() -> None:
    # 0, 1, ..., 100: the 10th percentile is 10, the 90th 90
    image = both([float(n) for n in range(101)], [2.0 * n for n in range(101)])
    result = NormalizeSlicesd("image", method="slice_percentile", percentiles=(10, 90))({"image": image})["image"]
    clipped = torch.arange(101.0).clamp(10, 90)
    expected = (clipped - 50) / clipped.std(correction=0)
    for position in range(2):  # the second slice is the first one, twice as bright
        torch.testing.assert_close(result[0, 0, :, position].as_tensor(), expected)
    whole = NormalizeSlicesd("image", method="volume_percentile", percentiles=(0, 50))({"image": image})["image"]
    assert float(whole.max()) == float(whole[0, 0, 100, 1]) == float(whole[0, 0, 100, 0])  # beyond the median
    assert float(whole.mean()) == pytest.approx(0, abs=1e-5)


def test_a_window_goes_from_zero_to_one() -> None:
    image = both([-1000.0, -160.0, 40.0], [140.0, 240.0, 3000.0])
    result = NormalizeSlicesd("image", method="window", window=(-160, 240))({"image": image})["image"]
    torch.testing.assert_close(result[0, 0].T.as_tensor(), torch.tensor([[0.0, 0.0, 0.5], [0.75, 1.0, 1.0]]))


@pytest.mark.parametrize("method", ["slice", "volume", "slice_percentile", "volume_percentile"])
@pytest.mark.parametrize("dtype", [torch.int16, torch.float32, torch.float64])
def test_what_is_constant_becomes_exactly_zero(method: str, dtype: torch.dtype) -> None:
    image = volume(torch.full((1, 9, 7, 3), 0.1 if dtype.is_floating_point else 7, dtype=dtype), spacing=(1, 1, 5))
    result = NormalizeSlicesd("image", method=method)({"image": image})["image"]
    assert not bool(result.any())


def test_the_record_of_transforms_stays() -> None:
    image = volume(torch.rand(1, 4, 4, 2))
    image.push_applied_operation({"class": "Flip"})
    result = NormalizeSlicesd("image")({"image": image})["image"]
    assert [step["class"] for step in result.applied_operations] == ["Flip"]


def test_slices_of_the_result_are_pieces_of_memory() -> None:
    image = volume(torch.rand(2, 4, 5, 6), spacing=(1, 9, 1))
    result = NormalizeSlicesd("image")({"image": image})["image"].as_tensor()
    assert result[:, :, 3].is_contiguous()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "minmax"}, "intensity is 'minmax'; expected one of slice, volume, slice_percentile, "),
        ({"method": "window"}, "needs a window; give its two ends"),
        ({"method": "window", "window": (5, 5)}, r"window is \[5, 5\]; expected its two ends, the lower one first"),
        ({"method": "window", "window": (0, float("inf"))}, "window is"),
        ({"percentiles": (50, 5)}, r"percentiles are \[50, 5\]; expected two in 0..100"),
        ({"percentiles": (-1, 50)}, "percentiles are"),
        ({"percentiles": (1, 2, 3)}, "percentiles are"),
    ],
)
def test_impossible_options(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NormalizeSlicesd("image", **arguments)
