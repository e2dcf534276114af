"""What segments are called, in files of 3D Slicer and in DICOM SEG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aide_monai.errors import InputError
from aide_monai.io.segmentations import read_segmentation
from aide_monai.io.segments import Segment, named_segments, plain_name
from aide_monai.io.volumes import open_volume
from tests.io.segment_files import seg_nrrd
from tests.io.test_segmentations import dicom_seg, example

LIVER = "TerminologyEntry:Segmentation category and type~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~^^~^^"
KIDNEY = "TerminologyEntry:Any list~SCT^123037004^Anatomical Structure~SCT^64033007^Kidney~SCT^7771000^Left~^^~^^"


def one(*places: tuple[int, int, int], value: int = 1) -> np.ndarray:
    layer = np.zeros((3, 4, 5), dtype=np.uint8)
    for place in places:
        layer[place] = value
    return layer


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Left_Kidney", "left kidney"),
        ("left-kidney ", "left kidney"),
        ("Segment_1", ""),
        ("label 12", ""),
        ("Tissue", ""),
        ("3", ""),
        ("", ""),
        ("Leber (Größe)", "leber grösse"),
    ],
)
def test_spelling_does_not_matter_and_some_names_name_nothing(text: str, plain: str) -> None:
    assert plain_name(text) == plain


def test_one_layer_keeps_its_label_values(tmp_path: Path) -> None:
    layer = one((0, 1, 2), value=5) + one((2, 3, 4), value=2)
    file = seg_nrrd(tmp_path / "a.seg.nrrd", [layer], [("Liver", 5, 0, LIVER), ("Segment_2", 2, 0, KIDNEY)])
    segments = named_segments(file)
    assert segments == (Segment(5, "Liver", "Liver"), Segment(2, "Segment_2", "Left Kidney"))
    assert [str(segment) for segment in segments] == ["Liver", "Left Kidney"]
    assert [segment.known_as for segment in segments] == [("liver",), ("left kidney",)]
    read = read_segmentation(file)
    assert np.array_equal(read.labels, layer)
    assert read.names == {5: "Liver", 2: "Left Kidney"}


def test_layers_that_do_not_overlap_become_one_label_map(tmp_path: Path) -> None:
    """As Slicer wrote each segment before 4.11: in a layer of its own, all with the label value 1."""
    layers = [one((0, 0, 0), (0, 1, 0)), one((1, 2, 3)), one((2, 3, 4))]
    named = [("Liver", 1, 0, ""), ("Spleen", 1, 1, ""), ("Tumour", 1, 2, "")]
    file = seg_nrrd(tmp_path / "a.seg.nrrd", layers, named)
    volume = open_volume(str(file))
    assert (volume.shape, volume.channels, volume.file_shape) == ((3, 4, 5), 1, (3, 4, 5))
    read = read_segmentation(file)
    assert np.array_equal(read.labels, layers[0] + 2 * layers[1] + 3 * layers[2])
    assert read.names == {1: "Liver", 2: "Spleen", 3: "Tumour"}
    assert [segment.value for segment in named_segments(file)] == [1, 2, 3]


def test_layers_with_label_values_of_their_own_keep_them(tmp_path: Path) -> None:
    layers = [one((0, 0, 0), value=7) + one((0, 0, 1), value=3), one((1, 2, 3), value=4)]
    file = seg_nrrd(tmp_path / "a.nrrd", layers, [("a b", 7, 0, ""), ("c", 3, 0, ""), ("d", 4, 1, "")])
    assert np.array_equal(read_segmentation(file).labels, layers[0] + layers[1])


def test_overlapping_segments_are_refused_by_name(tmp_path: Path) -> None:
    layers = [one((0, 0, 0), (0, 0, 1)), one((0, 0, 1))]
    file = seg_nrrd(tmp_path / "a.seg.nrrd", layers, [("Liver", 1, 0, ""), ("Tumour", 1, 1, "")])
    with pytest.raises(InputError, match=r'a\.seg\.nrrd: found segments "Liver" and "Tumour" that overlap in 1 voxels'):
        read_segmentation(file)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ([("Liver", 1, 0, ""), ("Tumour", 1, 5, "")], 'segment "Tumour" in layer 5, of 2 layers'),
        ([("Liver", 1, 0, "")], "voxels of 1 in layer 1, which no segment has"),
        ([("Liver", 1, 0, ""), ("Tumour", 1, 0, "")], '"Liver" and "Tumour" of one label value in one layer'),
    ],
)
def test_segments_that_do_not_fit_their_layers(tmp_path: Path, named: list, message: str) -> None:
    file = seg_nrrd(tmp_path / "a.seg.nrrd", [one((0, 0, 0)), one((0, 0, 1))], named)
    with pytest.raises(InputError, match=message):
        read_segmentation(file)


def test_a_list_axis_without_segments_is_no_label_map(tmp_path: Path) -> None:
    file = seg_nrrd(tmp_path / "a.nrrd", [one((0, 0, 0)), one((0, 0, 1))], [])
    with pytest.raises(InputError, match="shape 3 x 4 x 5 x 2 instead of one label map"):
        read_segmentation(file)


def test_a_meaning_of_two_segments_names_neither(tmp_path: Path) -> None:
    named = [("left", 1, 0, LIVER), ("right", 2, 0, LIVER)]
    file = seg_nrrd(tmp_path / "a.seg.nrrd", [one((0, 0, 0))], named)
    assert [segment.known_as for segment in named_segments(file)] == [("left",), ("right",)]


def test_a_dicom_seg_without_a_suffix_names_its_segments(tmp_path: Path) -> None:
    file = dicom_seg(tmp_path / "a.dcm", example())
    expected = [one.name for one in named_segments(file)]
    assert expected == ["liver", "tumour"]
    assert [one.name for one in named_segments(file.rename(tmp_path / "a"))] == expected


def test_other_files_name_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.nrrd").write_bytes(b"NRRD0004\nnothing")
    assert named_segments(tmp_path / "broken.nrrd") == named_segments(tmp_path / "a.nii.gz") == ()
