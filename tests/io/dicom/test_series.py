"""Finding, sorting and placing DICOM slices, with hand-computed geometry and every trap of the folder."""

from __future__ import annotations

import logging
import os
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SegmentationStorage,
    generate_uid,
)

from aide_monai.errors import InputError
from aide_monai.io.dicom import elements as dicom_elements
from aide_monai.io.dicom import header as dicom_header
from aide_monai.io.dicom.series import find_series, one_series
from aide_monai.io.location import open_location
from tests.io.dicom.dicom_files import (
    ORIENTATIONS,
    edit,
    expected_affine,
    write_multiframe,
    write_other_object,
    write_series,
)


def voxels(*shape: int, dtype: str = "u2") -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


VOLUME = voxels(4, 6, 5)


# Geometry


def test_hand_computed_affine(tmp_path: Path) -> None:
    write_series(tmp_path, VOLUME, spacing=(0.5, 2, 3), position=(10, 20, 30))
    (series,) = find_series(tmp_path)
    # x and y of DICOM count towards left and posterior, those of the affine towards right and anterior
    expected = [[-0.5, 0, 0, -10], [0, -2, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]]
    assert series.affine.tolist() == expected
    assert series.shape == (4, 6, 5)
    assert series.grid.spacing_mm == pytest.approx((0.5, 2, 3))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("backwards", [False, True])
def test_slices_are_sorted_along_the_normal(tmp_path: Path, orientation: str, backwards: bool) -> None:
    """Neither z, nor file names, nor instance numbers know the order of a tilted stack."""
    order = [2, 5, 1, 4, 3]
    written = write_series(
        tmp_path,
        VOLUME,
        spacing=(1.5, 1.25, 3.3),
        orientation=orientation,
        position=(-50, 12.5, 7),
        instance_numbers=order[::-1] if backwards else order,
    )
    (series,) = find_series(tmp_path)
    assert series.files == [str(file) for file in written.files]
    np.testing.assert_allclose(series.affine, written.affine, atol=1e-6)
    assert series.problems == series.doubts == ()


def test_spacing_comes_from_the_positions(tmp_path: Path) -> None:
    write_series(tmp_path, VOLUME, spacing=(1, 1, 5.5), slice_thickness=5, tags={"SpacingBetweenSlices": "7"})
    assert find_series(tmp_path)[0].grid.spacing_mm[2] == pytest.approx(5.5)


def test_a_tilted_gantry_gives_a_sheared_affine(tmp_path: Path) -> None:
    written = write_series(tmp_path, VOLUME, spacing=(1, 1, 4), shear=(0, 1, 0))
    (series,) = find_series(tmp_path)
    np.testing.assert_allclose(series.affine, written.affine, atol=1e-6)
    assert series.affine[:3, 2].tolist() == pytest.approx([0, -1, 4])
    assert series.doubts == ("axes that are not at right angles",)


def test_one_slice_is_as_thick_as_it_says(tmp_path: Path) -> None:
    write_series(tmp_path, VOLUME[..., :1], slice_thickness=7, orientation="coronal")
    (series,) = find_series(tmp_path)
    assert series.grid.spacing_mm == pytest.approx((1, 1, 7))
    assert series.doubts == ("one slice alone, taken to be 7 mm, its SliceThickness",)
    edit(series.files[0], SliceThickness=None)
    assert find_series(tmp_path)[0].doubts == ("one slice alone, taken to be 1 mm, for want of a SliceThickness",)


def test_rounded_positions_are_even(tmp_path: Path) -> None:
    write_series(tmp_path, VOLUME, offsets_mm=[0, 3.04, 6, 8.96, 12])
    (series,) = find_series(tmp_path)
    assert series.grid.spacing_mm[2] == pytest.approx(3)


# Stacks that are no volume


@pytest.mark.parametrize("orientation", ["axial", "oblique"])
def test_a_missing_slice_is_named(tmp_path: Path, orientation: str) -> None:
    written = write_series(tmp_path, VOLUME, spacing=(1, 1, 3), orientation=orientation)
    written.files[2].unlink()
    text = f"{written.files[1]} and {written.files[3]}: found 6 mm between them, others 3: 1 slice is missing"
    with pytest.raises(InputError, match=re.escape(text)):
        find_series(tmp_path)


def test_two_missing_slices_are_counted(tmp_path: Path) -> None:
    written = write_series(tmp_path, voxels(2, 2, 8))
    for z in (3, 4):
        written.files[z].unlink()
    with pytest.raises(InputError, match="3 mm between them, others 1: 2 slices are missing"):
        find_series(tmp_path)


def test_a_doubled_slice_is_named(tmp_path: Path) -> None:
    written = write_series(tmp_path, VOLUME)
    copy = tmp_path / "IMG-00003 copy.dcm"
    shutil.copy(written.files[2], copy)
    with pytest.raises(InputError) as caught:
        find_series(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: the slices do not make a volume: 1 problem\n"
        f"  - {copy} and {written.files[2]}: found two slices at one place; expected one; remove one of them"
    )


def test_a_folder_that_holds_every_slice_twice_is_no_time_series(tmp_path: Path) -> None:
    """Copies have one SOPInstanceUID, and other tags cannot make two volumes of them."""
    written = write_series(tmp_path, VOLUME)
    for number, file in enumerate(written.files):
        shutil.copy(file, tmp_path / f"copy{number}.dcm")
        edit(tmp_path / f"copy{number}.dcm", AcquisitionTime="120000")
        edit(file, AcquisitionTime="110000")
    with pytest.raises(InputError, match=r"5 problems(.|\n)*two slices at one place"):
        find_series(tmp_path)


def test_an_uneven_stack_is_named(tmp_path: Path) -> None:
    written = write_series(tmp_path, VOLUME, offsets_mm=[0, 3, 6, 10, 13])
    text = f"{written.files[2]} and {written.files[3]}: found 4 mm between them, others 3; expected even spacing"
    with pytest.raises(InputError, match=re.escape(text)):
        find_series(tmp_path)


def test_a_displaced_slice_is_named(tmp_path: Path) -> None:
    written = write_series(tmp_path, VOLUME, spacing=(1, 1, 3), position=(0, 0, 0))
    edit(written.files[2], ImagePositionPatient=["4", "0", "6"])
    with pytest.raises(
        InputError, match=re.escape(f"{written.files[2]}: found a slice 4 mm beside its place in the stack")
    ):
        find_series(tmp_path)


def test_problems_can_be_looked_at(tmp_path: Path) -> None:
    written = write_series(tmp_path, VOLUME)
    written.files[1].unlink()
    (series,) = find_series(tmp_path, check=False)
    assert len(series.problems) == 1
    assert series.problems[0].place == f"{written.files[0]} and {written.files[2]}"


# Several volumes in one folder


def test_two_echoes_of_one_series_are_two_volumes(tmp_path: Path) -> None:
    """As CHAOS has it: one SeriesInstanceUID, odd instance numbers out of phase, even ones in phase."""
    out = write_series(tmp_path, VOLUME, echo_ms=2.302, instance_numbers=[1, 3, 5, 7, 9])
    common: dict[str, Any] = {"series_uid": out.series_uid, "instance_numbers": [2, 4, 6, 8, 10]}
    write_series(tmp_path, VOLUME, echo_ms=4.635, **common)
    first, second = find_series(tmp_path)
    assert (first.echo_ms, second.echo_ms) == (2.302, 4.635)
    assert first.files == [str(file) for file in out.files]
    assert first.shape == second.shape == (4, 6, 5)
    assert (first.selector, second.selector) == ("echo=2.302", "echo=4.635")


@pytest.mark.parametrize(
    ("tags", "other", "selector"),
    [
        ({}, {"image_type": ("ORIGINAL", "PRIMARY", "P")}, "type=ORIGINAL+PRIMARY+P"),
        ({}, {"orientation": "sagittal"}, "volume=2"),
        ({}, {"spacing": (2, 2, 3)}, "volume=2"),
        ({}, {"tags": {"TemporalPositionIdentifier": 2}}, "phase=2"),
        ({}, {"tags": {"AcquisitionNumber": 2}}, "phase=2"),
        ({}, {"tags": {"TriggerTime": "80"}}, "phase=2"),
        ({}, {"tags": {"DiffusionBValue": 800.0}}, "phase=2"),
        ({}, {"tags": {"AcquisitionTime": "100500"}}, "phase=2"),
    ],
)
def test_what_tells_volumes_of_one_series_apart(
    tmp_path: Path, tags: dict[str, Any], other: dict[str, Any], selector: str
) -> None:
    base: dict[str, Any] = {"TemporalPositionIdentifier": 1, "AcquisitionNumber": 1, "TriggerTime": "40"}
    base |= {"DiffusionBValue": 0.0, "AcquisitionTime": "100000"}
    if "tags" in other:
        other = {**other, "tags": {**base, **other["tags"]}}
    first = write_series(tmp_path, VOLUME, spacing=(1, 1, 3), tags=base, names="a{}.dcm")
    second = write_series(
        tmp_path,
        VOLUME,
        **{"spacing": (1, 1, 3), "tags": base, "names": "b{}.dcm", "series_uid": first.series_uid, **other},
    )
    series = find_series(tmp_path)
    assert sorted(one.files for one in series) == [list(map(str, first.files)), list(map(str, second.files))]
    by_files = {one.files[0]: one for one in series}
    assert by_files[str(second.files[0])].selector == selector.replace(
        "volume=2", f"volume={series.index(by_files[str(second.files[0])]) + 1}"
    )
    assert [one.files for one in find_series(tmp_path, select=by_files[str(second.files[0])].selector)] == [
        list(map(str, second.files))
    ]


def test_phases_by_time_when_every_slice_has_a_time_of_its_own(tmp_path: Path) -> None:
    """Multi-slice scans take their slices one after the other; the files are named against the clock."""
    late = write_series(tmp_path, VOLUME, names="a{}.dcm", tags_of=lambda z: {"AcquisitionTime": f"1005{z:02}.5"})
    early = write_series(
        tmp_path,
        VOLUME,
        names="b{}.dcm",
        series_uid=late.series_uid,
        tags_of=lambda z: {"AcquisitionTime": f"1004{z:02}.25"},
    )
    first, second = find_series(tmp_path)
    assert (first.files, second.files) == (list(map(str, early.files)), list(map(str, late.files)))
    assert [(one.phase, one.phases, one.acquired) for one in (first, second)] == [
        (1, 2, "100400.250000"),
        (2, 2, "100500.500000"),
    ]


def test_times_of_slices_alone_divide_nothing(tmp_path: Path) -> None:
    write_series(tmp_path, VOLUME, tags_of=lambda z: {"AcquisitionTime": f"1005{z:02}", "AcquisitionNumber": z})
    assert len(find_series(tmp_path)) == 1


def test_a_missing_slice_of_one_phase_is_named(tmp_path: Path) -> None:
    first = write_series(tmp_path, VOLUME, names="a{}.dcm", tags={"TemporalPositionIdentifier": 1})
    tags = {"TemporalPositionIdentifier": 2}
    second = write_series(tmp_path, VOLUME, names="b{}.dcm", series_uid=first.series_uid, tags=tags)
    second.files[2].unlink()
    with pytest.raises(
        InputError, match=re.escape(f"{second.files[1]} and {second.files[3]}: found 2 mm between them")
    ):
        find_series(tmp_path)


def test_numbers_that_differ_by_rounding_belong_together(tmp_path: Path) -> None:
    written = write_series(tmp_path, VOLUME, echo_ms=4.6)
    edit(written.files[1], EchoTime="4.6001", ImageOrientationPatient=["1", "0.00001", "0", "0", "1", "0"])
    assert len(find_series(tmp_path)) == 1


def test_several_series_are_listed_with_what_selects_them(tmp_path: Path) -> None:
    one = write_series(tmp_path / "a", VOLUME, tags={"SeriesNumber": 3, "SeriesDescription": "T2 tse"})
    two = write_series(tmp_path / "b", VOLUME, tags={"SeriesNumber": 2}, modality="CT")
    with pytest.raises(InputError) as caught:
        one_series(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{tmp_path}: found 2 volumes; expected one; leave the files of one, or name it:",
        f"  - {tmp_path}#series={two.series_uid}: CT, 4 x 6 x 5 voxels of 1 x 1 x 1 mm",
        f"  - {tmp_path}#series={one.series_uid}: MR, T2 tse, 4 x 6 x 5 voxels of 1 x 1 x 1 mm",
    ]
    assert one_series(tmp_path, select=f"series={one.series_uid}").files == list(map(str, one.files))


def test_echoes_are_selected_to_the_decimals_given(tmp_path: Path) -> None:
    out = write_series(tmp_path, VOLUME, echo_ms=2.302, names="a{}.dcm")
    write_series(tmp_path, VOLUME, echo_ms=4.635, names="b{}.dcm", series_uid=out.series_uid)
    for text in ("2.3", "2.302", "2", "2.30"):
        assert one_series(tmp_path, select=f"echo={text}").echo_ms == 2.302
    with pytest.raises(InputError, match=r"no volume with echo=2\.4; the folder has\n  - echo=2\.302: MR"):
        one_series(tmp_path, select="echo=2.4")


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ("ecko=2", 'selection "ecko=2"; expected series, echo, type, phase, volume, then "=" and a value'),
        ("echo", 'selection "echo"; expected'),
        ("echo=", 'selection "echo="; expected'),
        ("echo=two", 'selection "echo=two"; expected a number in ms'),
        ("../../etc", 'selection "../../etc"; expected'),
    ],
)
def test_selections_that_cannot_be_read(tmp_path: Path, select: str, message: str) -> None:
    write_series(tmp_path, VOLUME, echo_ms=2.3)
    with pytest.raises(InputError, match=re.escape(message)):
        find_series(tmp_path, select=select)


# Multi-frame files


@pytest.mark.parametrize("enhanced", [True, False])
@pytest.mark.parametrize("orientation", ["axial", "double-oblique"])
def test_multiframe(tmp_path: Path, enhanced: bool, orientation: str) -> None:
    order = [3, 0, 4, 1, 2]
    written = write_multiframe(
        tmp_path / "scan.dcm",
        VOLUME,
        spacing=(0.5, 0.75, 3),
        orientation=orientation,
        frame_order=order,
        enhanced=enhanced,
    )
    (series,) = find_series(tmp_path / "scan.dcm")
    assert [one.frame for one in series.slices] == [1, 3, 4, 0, 2]
    np.testing.assert_allclose(series.affine, written.affine, atol=1e-6)
    assert series.files == [str(written.files[0])]


def test_multiframe_with_two_echoes(tmp_path: Path) -> None:
    both = np.stack([VOLUME, VOLUME + 1], axis=-1)
    write_multiframe(tmp_path / "scan", both, echoes_ms=(4.6, 2.3), frame_order=[0, 5, 1, 6, 2, 7, 3, 8, 4, 9])
    first, second = find_series(tmp_path)
    assert (first.echo_ms, second.echo_ms) == (2.3, 4.6)
    assert [one.frame for one in first.slices] == [1, 3, 5, 7, 9]


def test_multiframe_phases_and_b_values(tmp_path: Path) -> None:
    both = np.stack([VOLUME, VOLUME + 1], axis=-1)
    write_multiframe(
        tmp_path / "a",
        both,
        frame_groups=lambda index: {"FrameContentSequence": {"TemporalPositionIndex": 2 - index // 5}},
    )
    write_multiframe(
        tmp_path / "b",
        both,
        frame_groups=lambda index: {"MRDiffusionSequence": {"DiffusionBValue": 800.0 - 800 * (index // 5)}},
        transfer_syntax="implicit",
    )
    for name in ("a", "b"):
        first, second = find_series(tmp_path / name)
        assert ([one.frame for one in first.slices], first.phase) == ([5, 6, 7, 8, 9], 1)
        assert ([one.frame for one in second.slices], second.phase) == ([0, 1, 2, 3, 4], 2)


def test_a_missing_frame_is_named(tmp_path: Path) -> None:
    write_multiframe(tmp_path / "scan", VOLUME, frame_order=[0, 1, 3, 4])
    scan = tmp_path / "scan"
    text = f"{scan} (frame 2) and {scan} (frame 3): found 2 mm between them, others 1: 1 slice is missing"
    with pytest.raises(InputError, match=re.escape(text)):
        find_series(tmp_path)


def test_multiframe_without_positions(tmp_path: Path) -> None:
    write_multiframe(tmp_path / "scan", VOLUME, functional_groups=False)
    with pytest.raises(InputError, match="found 5 frames, 0 of them with a place in space"):
        find_series(tmp_path)


# Other things in the folder


def test_what_is_no_scan_is_passed_over_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write_series(tmp_path, VOLUME)
    write_other_object(tmp_path / "DICOMDIR", sop_class="1.2.840.10008.1.3.10", modality="")
    write_other_object(tmp_path / "report.dcm", sop_class="1.2.840.10008.5.1.4.1.1.88.11", modality="SR")
    write_other_object(tmp_path / "paper.dcm", sop_class=EncapsulatedPDFStorage, modality="DOC")
    write_other_object(tmp_path / "mask.dcm", sop_class=SegmentationStorage, modality="SEG", tags={"Rows": 4})
    (tmp_path / "notes.txt").write_text("no DICOM")
    (tmp_path / ".hidden.dcm").write_text("no DICOM")
    (tmp_path / "._IMG-00001.dcm").write_text("what macOS leaves behind")
    capture = write_series(tmp_path / "screen", VOLUME[..., :1], names="shot.dcm")
    edit(capture.files[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.7", ImagePositionPatient=None)
    (series,) = find_series(tmp_path)
    assert len(series.slices) == 5
    (line,) = caplog.messages
    assert line.startswith(
        f"{tmp_path}: 5 files are no part of a scan: "
    )  # and a text, which nobody takes for an image
    for part in ("DICOMDIR (Media Storage", "mask.dcm (Segmentation Storage)", "screen/shot.dcm (Secondary Capture"):
        assert part in line
    find_series(tmp_path)
    assert len(caplog.messages) == 1


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no DICOM images; expected the slices of a scan"):
        find_series(tmp_path)
    write_other_object(tmp_path / "x", sop_class="1.2.840.10008.5.1.4.1.1.88.11", modality="SR")
    with pytest.raises(InputError, match=r"no DICOM images \(x: Basic Text SR Storage\); expected the slices"):
        find_series(tmp_path)
    with pytest.raises(InputError, match="missing: found no such file"):
        find_series(tmp_path / "missing")
    with pytest.raises(InputError, match="no DICOM file; it may be truncated, empty or unreadable"):
        find_series([Path(__file__)])


@pytest.mark.parametrize("content", [b"", b"\0" * 100])
def test_a_dcm_file_that_is_not_dicom_is_an_error(tmp_path: Path, content: bytes) -> None:
    written = write_series(tmp_path, VOLUME)
    written.files[4].write_bytes(content)  # the last slice would not be missed otherwise
    with pytest.raises(InputError, match=re.escape(f"{written.files[4]}: found no DICOM file")):
        find_series(tmp_path)


# Files that cannot be placed, and all of them in one report


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ImagePositionPatient": None}, "found no ImagePositionPatient; expected 3 numbers"),
        ({"ImageOrientationPatient": None}, "found no ImageOrientationPatient; expected 6 numbers"),
        ({"PixelSpacing": None}, "found no PixelSpacing; expected 2 numbers"),
        ({"PixelSpacing": ["0", "1"]}, "found PixelSpacing (0.0, 1.0); expected two lengths in mm above 0"),
        ({"ImageOrientationPatient": ["1", "0", "0", "1", "0", "0"]}, "expected two directions at right angles"),
        ({"ImageOrientationPatient": ["0"] * 6}, "expected two directions at right angles"),
        ({"RescaleSlope": "0", "RescaleIntercept": "0"}, "found RescaleSlope 0"),
        (
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
            "found 3 values per pixel (RGB); expected one grey",
        ),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "(PALETTE COLOR); expected one grey value"),
        (
            {"Rows": 65535, "Columns": 65535},
            "found Rows 65535, Columns 65535, NumberOfFrames 1; expected 1 to 67108864",
        ),
        ({"Rows": 0}, "found Rows 0, Columns 4"),
        ({"Rows": 600}, "found 48 bytes of pixels; expected 4800; the file is truncated"),
        ({"NumberOfFrames": "-3"}, "NumberOfFrames -3"),
        ({"BitsStored": 17}, "found BitsAllocated 16, BitsStored 17, HighBit 15"),
        ({"HighBit": 14}, "found BitsAllocated 16, BitsStored 16, HighBit 14"),
        ({"ModalityLUTSequence": []}, "found a ModalityLUTSequence"),
        ({"PixelData": None}, "found no pixels; expected PixelData"),
        ({"Rows": None}, "found no Rows"),
    ],
)
def test_headers_that_cannot_be_used(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    written = write_series(tmp_path, VOLUME)
    edit(written.files[1], **tags)
    with pytest.raises(InputError, match=re.escape(f"{written.files[1]}: ") + ".*" + re.escape(message)):
        find_series(tmp_path)


def test_numbers_that_are_none(tmp_path: Path) -> None:
    written = write_series(tmp_path, VOLUME, position=(111, 222, 333))
    for file, text in zip(written.files, (b"nan", b"1e9", b"inf", b"abc", b"333"), strict=True):
        file.write_bytes(file.read_bytes().replace(b"111\\", text + b"\\"))
    with pytest.raises(InputError) as caught:
        find_series(tmp_path)
    assert [line.split("; ")[0] for line in str(caught.value).splitlines()[1:]] == [
        f'  - {written.files[0]}: found ImagePositionPatient "nan"',
        f'  - {written.files[2]}: found ImagePositionPatient "inf"',
        f'  - {written.files[3]}: found ImagePositionPatient "abc"',
    ]


# Security


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    written = write_series(tmp_path / "elsewhere", VOLUME)
    folder = tmp_path / "set" / "case"
    shutil.copytree(written.folder, folder)
    target, link = written.files[2], folder / written.files[2].name
    link.unlink()
    link.symlink_to(target)
    with pytest.raises(InputError, match=re.escape(f"{link}: found a link to {target}; put the file itself there")):
        find_series(folder)
    assert len(find_series(folder, roots=[tmp_path])) == 1
    os.replace(folder / written.files[1].name, folder / "moved")
    (folder / written.files[1].name).symlink_to("moved")  # stays inside
    with pytest.raises(InputError, match="two slices at one place"):
        find_series(folder, roots=[tmp_path])


def test_linked_folders_are_not_entered(tmp_path: Path) -> None:
    write_series(tmp_path / "a", VOLUME)
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert len(find_series(tmp_path / "a")) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    write_series(tmp_path, VOLUME)
    os.mkfifo(tmp_path / "pipe")
    assert len(find_series(tmp_path)) == 1


def test_a_deflation_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_elements, "MAX_INFLATED_BYTES", 10**6)
    written = write_series(tmp_path, VOLUME, transfer_syntax="deflated")
    assert len(find_series(tmp_path)) == 1
    start = written.files[0].read_bytes()
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = packer.compress(b"\0" * 10**7) + packer.flush()
    with open(written.files[0], "rb") as stream:
        dicom_elements._file_meta(stream)  # leaves the stream at the data set
        written.files[0].write_bytes(start[: stream.tell()] + body)
    assert written.files[0].stat().st_size < 20_000
    with pytest.raises(InputError, match=r"IMG-00001\.dcm: found more than 1000000 bytes of deflated data"):
        find_series(tmp_path)


def test_huge_headers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the elements that are looked at; a long comment is passed over."""
    written = write_series(tmp_path, VOLUME, tags={"SeriesDescription": "x" * 300_000})
    comments = write_series(tmp_path / "comments", VOLUME, tags={"ImageComments": "x" * 300_000})
    assert len(find_series(tmp_path)) == 2
    dicom_header._read_slices.cache_clear()  # headers are remembered as long as a file does not change
    monkeypatch.setattr(dicom_elements, "MAX_HEADER_BYTES", 200_000)
    assert len(find_series(comments.files[0])) == 1
    with pytest.raises(InputError, match=r"IMG-00001\.dcm: found more than 200000 bytes or 200000 sequence"):
        find_series(written.files[0])
    monkeypatch.undo()
    dicom_header._read_slices.cache_clear()
    monkeypatch.setattr(dicom_elements, "MAX_HEADER_ELEMENTS", 10)
    with pytest.raises(InputError, match="found more than 10 elements before the pixels"):
        find_series(written.files[0])


@pytest.mark.parametrize("transfer_syntax", ["explicit", "deflated"])
def test_endless_items_are_refused(tmp_path: Path, transfer_syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million empty items would keep pydicom busy for a minute."""
    items = {"ReferencedImageSequence": [pydicom.Dataset() for _ in range(101)]}
    write_series(tmp_path, VOLUME, tags=items, transfer_syntax=transfer_syntax)
    assert len(find_series(tmp_path)) == 1
    dicom_header._read_slices.cache_clear()
    monkeypatch.setattr(dicom_elements, "MAX_HEADER_ITEMS", 100)
    with pytest.raises(InputError, match=r"IMG-00001\.dcm: found more than \d+ bytes or 100 sequence items before"):
        find_series(tmp_path)


def test_an_element_that_claims_gigabytes(tmp_path: Path) -> None:
    written = write_series(tmp_path, VOLUME, tags={"ImageComments": "x" * 100})
    data = written.files[0].read_bytes()
    at = data.index(b"x" * 100) - 2
    written.files[0].write_bytes(data[: at - 4] + b"UT\0\0\xf0\xff\xff\xff" + data[at + 2 :])
    with pytest.raises(InputError, match=r"IMG-00001\.dcm: found"):
        find_series(tmp_path)


def test_more_frames_than_there_can_be(tmp_path: Path) -> None:
    written = write_multiframe(tmp_path / "scan", VOLUME, transfer_syntax="rle")
    edit(written.files[0], NumberOfFrames=2_000_000_000)
    with pytest.raises(InputError, match="bytes of pixels; expected 16000000000; the file is truncated"):
        find_series(tmp_path)


def test_more_files_than_a_patient_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path, VOLUME)
    monkeypatch.setattr("aide_monai.io.dicom.series.MAX_FILES", 4)
    with pytest.raises(InputError, match="more than 4 files; name the folder of one patient"):
        find_series(tmp_path)


def test_every_cut_of_a_file_is_told(tmp_path: Path) -> None:
    written = write_series(tmp_path, VOLUME[..., :1])
    data = written.files[0].read_bytes()
    for size in range(0, len(data) - 1, 7):
        written.files[0].write_bytes(data[:size])
        with pytest.raises(InputError, match=r"IMG-00001\.dcm"):
            find_series(tmp_path)


def test_pixels_are_not_read(tmp_path: Path) -> None:
    """A header is read up to the pixels; what follows may be anything of the right length."""
    written = write_series(tmp_path, voxels(64, 64, 2))
    (series,) = find_series(tmp_path)
    pixels = series.slices[0].pixels
    assert (pixels.rows, pixels.columns, pixels.transfer_syntax) == (64, 64, ExplicitVRLittleEndian)
    assert written.files[0].stat().st_size - pixels.offset == 64 * 64 * 2
    assert pydicom.dcmread(written.files[0]).SOPClassUID == MRImageStorage
    assert dicom_header.read_slices(str(written.files[0])) == [series.slices[0]]


# Real scans


@pytest.mark.parametrize(("case", "slices", "spacing"), [("10", 50, 5.5), ("37", 30, 9.0)])
def test_chaos_echoes_are_told_apart(aide_data: Path, case: str, slices: int, spacing: float) -> None:
    folder = aide_data / "chaos/Train_Sets/MR" / case / "T1DUAL/DICOM_anon"
    out, inside = find_series(folder)
    assert out.uid == inside.uid
    assert (round(out.echo_ms or 0, 1), round(inside.echo_ms or 0, 1)) == (2.3, 4.6)
    for series, place in ((out, "OutPhase"), (inside, "InPhase")):
        assert {Path(file).parent.name for file in series.files} == {place}
        assert series.shape == (256, 256, slices)
        assert series.grid.spacing_mm[2] == pytest.approx(spacing, abs=1e-5)
    np.testing.assert_allclose(out.affine, inside.affine, atol=1e-9)


def test_expected_affine_of_the_helper_is_right() -> None:
    """Coronal: columns grow to the left, rows to the feet; so the slice normal is (1,0,0) x (0,0,-1) = (0,1,0)."""
    affine = expected_affine(spacing=(1, 2, 3), orientation="coronal", position=(4, 5, 6))
    assert affine.tolist() == [[-1, 0, 0, -4], [0, 0, -3, -5], [0, -2, 0, 6], [0, 0, 0, 1]]


# Volumes of one series that no single number tells apart


def directions(number: int) -> dict[str, Any]:
    """One image without diffusion, then three directions with two b-values each."""
    if not number:
        return {"DiffusionBValue": 0.0}
    turned = [0.0, 0.0, 0.0]
    turned[(number - 1) % 3] = 1.0
    return {"DiffusionBValue": 500.0 if number < 4 else 1000.0, "DiffusionGradientOrientation": turned}


@pytest.mark.parametrize(
    "tags_of",
    [
        lambda number, z: {**directions(number), "InstanceNumber": number * 5 + z + 1},
        lambda number, z: {"TriggerTime": f"{number * 40 + z}"},  # the heart beats a little faster at each slice
        lambda number, z: {"InstanceNumber": number * 5 + z + 1},  # volume after volume
        lambda number, z: {"InstanceNumber": z * 7 + number + 1},  # all of one place, then of the next
        lambda number, z: {"AcquisitionNumber": number % 2, "TemporalPositionIdentifier": number // 2},
    ],
    ids=["directions", "heart", "one after the other", "place after place", "two numbers"],
)
@pytest.mark.parametrize("transfer_syntax", ["explicit", "implicit"])
def test_volumes_of_one_series_are_listed_and_can_be_typed(tmp_path: Path, tags_of: Any, transfer_syntax: str) -> None:
    uid = generate_uid()
    volumes = [
        write_series(
            tmp_path,
            VOLUME + number,
            series_uid=uid,
            names=f"{(number * 3) % 7}-{{}}.dcm",
            instance_numbers=[9 - z for z in range(5)] if number else None,
            transfer_syntax=transfer_syntax,
            tags_of=lambda z, number=number: {"InstanceNumber": 1, **tags_of(number, z)},
        )
        for number in range(7)
    ]
    series = find_series(tmp_path)
    assert [one.files for one in series] == [[str(file) for file in one.files] for one in volumes]
    assert [one.selector for one in series] == [f"phase={number}" for number in range(1, 8)]
    with pytest.raises(
        InputError,
        match=rf"found 7 volumes; expected one; leave the files of one, or name it:\n  - {tmp_path}#phase=1: ",
    ):
        one_series(tmp_path)
    assert one_series(tmp_path, select="volume=4").files == [str(file) for file in volumes[3].files]
    assert open_location(f"{tmp_path}#volume=4").decode()[..., 0].tolist() == (VOLUME + 3).tolist()


def test_directions_of_frames(tmp_path: Path) -> None:
    def groups(index: int) -> dict[str, Any]:
        given = directions(index // 5)
        content: dict[str, Any] = {"DiffusionBValue": given["DiffusionBValue"]}
        if len(given) > 1:
            inner = pydicom.Dataset()
            inner.DiffusionGradientOrientation = given["DiffusionGradientOrientation"]
            content["DiffusionGradientDirectionSequence"] = [inner]
        return {"MRDiffusionSequence": content}

    stack = np.stack([VOLUME + number for number in range(7)], axis=-1)
    write_multiframe(tmp_path / "dwi.dcm", stack, frame_groups=groups)
    series = find_series(tmp_path)
    assert [(one.phase, one.slices[0].b_value) for one in series] == list(
        zip(range(1, 8), [0, 500, 500, 500, 1000, 1000, 1000], strict=True)
    )
    assert "b 500 s/mm2, phase 2 of 7" in str(series[1])
    assert [one.slices[0].frame // 5 for one in series] == list(range(7))


def test_a_mosaic_is_refused_by_name_and_others_can_be_taken(tmp_path: Path) -> None:
    mosaics = write_series(
        tmp_path, VOLUME, offsets_mm=[0] * 5, image_type=("ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"), names="m{}.dcm"
    )
    with pytest.raises(
        InputError, match=r"m1\.dcm: found a mosaic, all slices .*; expected a file for each; convert .*dcm2niix"
    ):
        one_series(tmp_path)
    plain = write_series(tmp_path, VOLUME, names="p{}.dcm")
    (one,) = find_series(tmp_path, select=f"series={plain.series_uid}")
    assert one.files == [str(file) for file in plain.files]
    with pytest.raises(InputError, match="a mosaic"):
        one_series(tmp_path, select=f"series={mosaics.series_uid}")


@pytest.mark.parametrize("about_the_middle", [False, True])
def test_a_direction_that_drifts_a_little_is_one_volume_with_a_doubt(tmp_path: Path, about_the_middle: bool) -> None:
    """By 0.1 degree over the stack, which is more than rounding, and less than another orientation."""
    voxels = np.zeros((64, 64, 9), dtype=np.int16)
    plane = np.array([1.0, 0, 0, 0, 1, 0])
    middle = np.array([31.5 * 2, 31.5 * 2, 0])

    def turned(z: int) -> dict[str, Any]:
        angle = np.radians(0.1) * (z - 4) / 8
        cosines = np.array([np.cos(angle), 0, np.sin(angle), 0, 1, 0])
        half = 31.5 * 2 * (plane[:3] + plane[3:] - cosines[:3] - cosines[3:]) if about_the_middle else np.zeros(3)
        return {
            "ImageOrientationPatient": [f"{value:.8g}" for value in cosines],
            "ImagePositionPatient": [f"{value:.8g}" for value in half + np.array([0, 0, 3 * z])],
        }

    write_series(tmp_path, voxels, spacing=(2, 2, 3), tags_of=turned)
    (one,) = find_series(tmp_path)
    assert one.shape == (64, 64, 9)
    assert one.doubts == ("a direction that drifts by 0.1 degrees; its mean is used",)
    expected = np.diag([-2.0, -2.0, 3.0, 1.0])
    if about_the_middle:
        np.testing.assert_allclose(one.affine, expected, atol=1e-5)
    else:
        np.testing.assert_allclose(one.affine[:3, :3], expected[:3, :3], atol=0.02)  # turned about the corners
    assert np.linalg.norm(one.affine @ [31.5, 31.5, 0, 1] - [-middle[0], -middle[1], 0, 1]) < 0.06
