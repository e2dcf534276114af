"""Stored label values to class indices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from aide_monai.errors import InputError
from aide_monai.ignored import IGNORED, partial_background
from aide_monai.transforms import AsClassIndicesd, AsStoredValuesd
from aide_monai.utils.stored_values import stored_names, stored_values


def label(values: list[float], dtype: torch.dtype = torch.float32) -> MetaTensor:
    """(1, n, 1, 1) label volume from a file."""
    tensor = torch.tensor(values).to(dtype).view(1, -1, 1, 1)
    return MetaTensor(tensor, meta={"filename_or_obj": "case3_label.nii.gz"})


def convert(value: MetaTensor | torch.Tensor, **options: object) -> torch.Tensor:
    return AsClassIndicesd("label", **options)({"label": value})["label"]


def test_nearly_integers_are_rounded() -> None:
    result = convert(label([0.0, 2.9999, 1.0004, -0.0005]))
    assert result.flatten().tolist() == [0, 3, 1, 0]
    assert result.dtype == torch.uint8


def test_metadata_stays() -> None:
    result = convert(label([0, 1]))
    assert isinstance(result, MetaTensor)
    assert result.meta["filename_or_obj"] == "case3_label.nii.gz"
    assert type(convert(torch.zeros(1, 2, 2, 2))) is torch.Tensor


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float64, torch.bool])
def test_any_number_type(dtype: torch.dtype) -> None:
    assert convert(label([0, 1, 0], dtype)).flatten().tolist() == [0, 1, 0]


def test_numpy_arrays() -> None:
    result = AsClassIndicesd("label")({"label": np.array([0, 4], dtype=np.int32).reshape(1, 2, 1, 1)})["label"]
    assert torch.as_tensor(result).flatten().tolist() == [0, 4]


@pytest.mark.parametrize("classes", [{1: 1, 2: 1, 5: 2}, {"1": 1, "2": 1, "5": 2}])
def test_values_are_mapped_and_may_be_merged(classes: dict) -> None:
    assert convert(label([0, 1, 2, 5, 1.9999]), classes=classes).flatten().tolist() == [0, 1, 1, 2, 1]


def test_stored_values_above_255_are_mapped() -> None:
    result = convert(label([0, 205, 500, 850], torch.int16), classes={205: 1, 500: 2, 850: 0})
    assert result.flatten().tolist() == [0, 1, 2, 0]


def test_negative_stored_values_are_mapped() -> None:
    assert convert(label([0, -1, 1, 2], torch.int16), classes={-1: 0, 1: 1, 2: 2}).flatten().tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("values", "classes", "text"),
    [
        ([0, 3], {1: 1, 2: 2}, r"case3_label\.nii\.gz: found label value 3; expected 0, 1, 2"),
        ([0, 256], None, r"found label value 256; expected 0\.\.191, or 255"),
        ([0, -1], None, r"found label value -1; expected 0\.\.191, or 255"),
        ([0, 1.5], None, r"case3_label\.nii\.gz: label value 1\.5 is not an integer"),
        ([0, 1.002], None, r"label value 1\.002 is not an integer"),
        ([0, float("nan")], None, "label value nan is not an integer"),
        ([0, float("inf")], None, "label value inf is not an integer"),
    ],
)
def test_other_values_are_refused_by_name(values: list[float], classes: dict | None, text: str) -> None:
    with pytest.raises(InputError, match=text):
        convert(label(values), classes=classes)


def test_more_than_one_channel_is_refused() -> None:
    with pytest.raises(InputError, match="key 'label': found 2 channels; expected one label channel"):
        convert(torch.zeros(2, 3, 3, 3))


def test_the_label_must_have_the_shape_of_its_image() -> None:
    transform = AsClassIndicesd("label", image_key="image")
    data = {"image": torch.zeros(3, 4, 4, 2), "label": MetaTensor(torch.zeros(1, 4, 4, 3))}
    with pytest.raises(InputError, match=r"label has shape \(4, 4, 3\), its image \(4, 4, 2\); expected one grid"):
        transform(data)
    data["label"] = MetaTensor(torch.zeros(1, 4, 4, 2))
    assert transform(data)["label"].shape == (1, 4, 4, 2)


def test_missing_keys() -> None:
    transform = AsClassIndicesd(["label", "clean_label"], allow_missing_keys=True)
    assert set(transform({"label": torch.zeros(1, 1, 1, 1)})) == {"label"}
    with pytest.raises(KeyError, match="clean_label"):
        AsClassIndicesd(["label", "clean_label"])({"label": torch.zeros(1, 1, 1, 1)})


def test_stored_values_invert_the_classes() -> None:
    assert stored_values(None) is None
    assert stored_values({63: 1, 126: 2, 0: 0}).tolist() == [0, 63, 126]
    assert stored_values({"1": 1, "2": 1}).tolist() == [0, 1]  # of merged values the smallest is written
    assert stored_values({"1000": 1}).tolist() == [0, 1000]
    assert stored_names({"0": "background", "1": "a", "2": "b"}, {"1": 1, "4": 2}) == {0: "background", 1: "a", 4: "b"}
    assert stored_names({"0": "background", "1": "a"}, None) == {0: "background", 1: "a"}


@pytest.mark.parametrize("classes", [{1: 1, 2: 2, 4: 3}, {"1": 1, "2": 2, "4": 3}, {7: 1, 300: 2, 4: 3}])
def test_predictions_go_back_to_the_values_that_labels_came_with(classes: dict[int, int]) -> None:
    stored = label([0, *map(int, classes), 0], torch.int32)
    data = AsClassIndicesd("label", classes=classes)({"label": stored})
    assert data["label"].flatten().tolist() == [0, 1, 2, 3, 0]
    back = AsStoredValuesd("label", classes=classes)(data)["label"]
    assert back.flatten().tolist() == stored.flatten().tolist()
    assert back.meta["filename_or_obj"] == "case3_label.nii.gz"


def test_a_value_that_no_file_holds_is_refused() -> None:
    with pytest.raises(InputError, match=r"stored value 70000; expected 0\.\.65535"):
        AsStoredValuesd("label", classes={70000: 1})


def test_background_of_a_case_that_has_not_all_annotated_is_partial() -> None:
    label = torch.tensor([0, 63, 4]).view(1, 3, 1, 1)
    classes = {0: 0, 63: 1, 252: 2, 4: IGNORED}
    data = AsClassIndicesd("label", classes=classes)({"label": label, "annotated": [63]})
    assert data["label"].flatten().tolist() == [partial_background([1], 3), 1, IGNORED]
    assert data["label"].dtype == torch.uint8
    assert "annotated" not in data
    all_of_them = AsClassIndicesd("label", classes=classes)({"label": label, "annotated": [63, 252]})
    assert all_of_them["label"].flatten().tolist() == [0, 1, IGNORED]
    merged = AsClassIndicesd("label", classes={63: 1, 252: 1, 4: IGNORED})({"label": label, "annotated": [63]})
    assert merged["label"].flatten().tolist() == [partial_background([], 2), 1, IGNORED]


def test_a_structure_that_is_not_among_those_annotated_is_refused() -> None:
    label = torch.tensor([0, 252]).view(1, 2, 1, 1)
    with pytest.raises(InputError, match="found label value 252, whose structure is not among those annotated"):
        AsClassIndicesd("label", classes={63: 1, 252: 2})({"label": label, "annotated": [63]})
    with pytest.raises(InputError, match="expected classes, which tell what others there are"):
        AsClassIndicesd("label")({"label": label.clamp(max=2), "annotated": [63]})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_without_classes_255_has_no_verdict_and_values_below_are_no_classes(dtype: torch.dtype, caplog) -> None:
    label = torch.tensor([0, 3, 255], dtype=dtype).view(1, 3, 1, 1)
    result = AsClassIndicesd("label")({"label": label})["label"]
    assert result.flatten().tolist() == [0, 3, IGNORED]
    result += 1
    assert label.flatten().tolist() == [0, 3, 255]
    assert not caplog.text
    AsClassIndicesd("label")({"label": label[:, ::2]})
    assert "found 0 and 255 alone, and 255 is no class but voxels without a verdict" in caplog.text
    with pytest.raises(InputError, match=r"found label value 193; expected 0\.\.191, or 255 for voxels without"):
        AsClassIndicesd("label")({"label": torch.tensor([0, 193], dtype=dtype).view(1, 2, 1, 1)})
    with pytest.raises(InputError, match=r"class index 200; expected 0\.\.191, or 255"):
        AsClassIndicesd("label", classes={1: 200})
