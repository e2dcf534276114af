"""Values that a user or a file gives, by themselves."""

from __future__ import annotations

import os

import pytest

from aide_monai.data.folders import image_records
from aide_monai.errors import InputError
from aide_monai.io.segmentations import find_segmentations
from aide_monai.utils.validation import is_orientation, is_text, require_pair, require_texts


def test_what_is_text():
    assert all(map(is_text, ("a", "left kidney", "Müller 3 µm", "$x", "肝臓", "a\u200db")))
    assert not any(map(is_text, ("", "  ", "a\nb", "\x1b[1m", "\x7f", "\x85", "\ud800", 7, None, ["a"])))


def test_orientations_name_three_axes():
    assert all(map(is_orientation, ("RAS", "LPS", "SPL", "IAR")))
    assert not any(map(is_orientation, (7, None, "", "RA", "RAL", "RASI", "ras", "RAX", ["R", "A", "S"])))


@pytest.mark.parametrize("value", [1.5, None, "11", [1], [1, 2, 3], [1, float("nan")], [1, float("inf")], [True, 1]])
def test_pairs_are_two_positive_numbers(value):
    require_pair("spacing", (0.5, 2))
    with pytest.raises(InputError, match=r"spacing is .*; expected two positive numbers"):
        require_pair("spacing", value)


def test_texts_are_found_at_every_depth():
    require_texts("--source", {"a": ["b", 1, None, ""]})
    for value in ("a\x07", ["b", "a\x07"], {"a\x07": 1}, {"b": [{"c": "a\x07"}]}):
        with pytest.raises(InputError, match=r"--source.*: found 'a\\x07'; expected text without control characters"):
            require_texts("--source", value)


@pytest.mark.parametrize("name", [b"a\xff.nii.gz", b"a\x1b.nii.gz"])
def test_files_whose_names_are_no_text_are_named(name, tmp_path):
    for file in (b"b.nii.gz", name):
        with open(os.path.join(os.fsencode(tmp_path), file), "wb"):
            pass
    for find in (find_segmentations, image_records):
        with pytest.raises(InputError, match=r"found 'a\\.*\.nii\.gz'; expected text without .*: rename it") as caught:
            find(tmp_path)
        str(caught.value).encode()
