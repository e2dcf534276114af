"""The largest component of every structure, by hand."""

from __future__ import annotations

import torch

from aide_monai.transforms import keep_components, largest_components


def labels() -> torch.Tensor:
    found = torch.zeros(5, 5, 3, dtype=torch.uint8)
    found[0, 0, :] = 1  # three voxels along the last axis
    found[3, 3:5, 0] = 1
    found[1, 1, 2] = 1  # touches the first by an edge
    found[0, 4, 0] = 2
    found[2, 0, 1:] = 2
    return found


def test_one_component_of_each_value_through_faces() -> None:
    given = labels()
    expected = torch.zeros_like(given)
    expected[0, 0, :] = 1
    expected[2, 0, 1:] = 2
    kept = largest_components(given)
    assert torch.equal(kept, expected)
    assert type(kept) is torch.Tensor
    assert torch.equal(given, labels())  # not changed in place


def test_other_values_stay() -> None:
    kept = largest_components(labels(), [1])
    assert torch.equal(kept == 2, labels() == 2)
    assert int((kept == 1).sum()) == 3


def test_nothing_has_no_component() -> None:
    nothing = torch.zeros(3, 3, dtype=torch.uint8)
    assert torch.equal(largest_components(nothing), nothing)


def test_a_class_far_from_the_others_is_none_however_large() -> None:
    found = torch.tensor([[1, 1, 2, 2, 1, 0, 1, 1, 1, 1, 0, 2]])
    assert torch.equal(keep_components(found, "none"), found)
    assert keep_components(found, "class").tolist() == [[0, 0, 2, 2, 0, 0, 1, 1, 1, 1, 0, 0]]
    assert keep_components(found, "foreground").tolist() == [[1, 1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0]]
