"""Nothing that lies in a folder is left out without a word, by any door that takes one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

from aide_monai.data.folders import image_records
from aide_monai.data.sources.folder import folder_datalist
from aide_monai.errors import InputError
from aide_monai.io.dicom.elements import is_dicom
from aide_monai.io.folder import volumes_in
from aide_monai.io.location import Location, open_location
from aide_monai.io.segmentations import find_segmentations, read_segmentation
from tests.io.dicom.dicom_files import write_series

VOXELS = np.random.default_rng(0).integers(0, 3, (6, 5, 4)).astype(np.uint8)
AFFINE = np.diag([-1.5, -1.5, 3.0, 1.0])


def by_nibabel(path: Path) -> None:
    voxels = VOXELS.astype(np.float32) if path.suffix == ".mgh" else VOXELS
    kinds = {".mgz": nibabel.MGHImage, ".mgh": nibabel.MGHImage, ".hdr": nibabel.Nifti1Pair}
    nibabel.save(kinds.get(path.suffix, nibabel.Nifti1Image)(voxels, AFFINE), path)


def by_itk(path: Path) -> None:
    image = sitk.GetImageFromArray(VOXELS.T)
    image.SetSpacing((1.5, 1.5, 3.0))
    sitk.WriteImage(image, str(path))


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.nii": by_nibabel,
    "b.nii.gz": by_nibabel,
    "c.hdr": by_nibabel,
    "d.mgz": by_nibabel,
    "e.mgh": by_nibabel,
    "f.mha": by_itk,
    "g.mhd": by_itk,
    "h.nrrd": by_itk,
    "i.nhdr": by_itk,
}


@pytest.fixture
def every_kind(tmp_path: Path) -> Path:
    """Every format, a folder of DICOM, and what is none of them."""
    folder = tmp_path / "all"
    folder.mkdir()
    for name, write in WRITERS.items():
        write(folder / name)
    write_series(folder / "j", VOXELS.astype(np.uint16), spacing=(1.5, 1.5, 3), position=(0, 0, 0), names="{}")
    (folder / "k.mat").write_bytes(b"no volume")
    (folder / "README.txt").write_text("no volume")
    (folder / ".hidden.mha").write_bytes(b"no volume")
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_has_one_geometry(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    volume = open_location(str(tmp_path / name))
    np.testing.assert_array_equal(volume.decode()[..., 0], VOXELS)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)


def test_prediction_takes_all_of_them_and_names_the_rest(every_kind: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert [record["case"] for record in image_records(every_kind, channels=1)] == list("abcdefghij")
    assert caplog.messages == [
        f"{every_kind}: 2 files and folders are not used: empty/ (no DICOM or PNG slices in it); k.mat (no volume)"
    ]


def test_a_folder_of_images_and_labels_takes_all_of_them(every_kind: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = every_kind.parent / "set"
    (root / "labels").mkdir(parents=True)
    every_kind.rename(root / "images")
    for letter in "abcdefghij":
        by_itk(root / "labels" / f"{letter}.seg.nrrd")
    datalist = folder_datalist(root)
    assert [record["case"] for record in datalist.records] == list("abcdefghij")
    assert all(record["label"].endswith(f"{record['case']}.seg.nrrd") for record in datalist.records)
    assert "empty/ (no DICOM or PNG slices in it); k.mat (no volume)" in caplog.text


def test_evaluation_takes_all_of_them_and_names_the_rest(every_kind: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in (every_kind / "j").iterdir():
        file.unlink()
    Image.fromarray(VOXELS[:, :, 0].T).save(every_kind / "j" / "1.png")
    found = find_segmentations(every_kind)
    assert sorted(found) == list("abcdefghij")
    for case in "abcdefghi":
        np.testing.assert_array_equal(read_segmentation(found[case]).labels, VOXELS)
    assert caplog.messages == [f"{every_kind}: 1 file is not used: k.mat (no volume)"]


def test_slicers_names_are_the_names_of_their_volumes(tmp_path: Path) -> None:
    for folder in ("pred", "ref"):
        (tmp_path / folder).mkdir()
    by_itk(tmp_path / "pred" / "chest.seg.nrrd")
    by_itk(tmp_path / "ref" / "chest.nrrd")
    assert list(find_segmentations(tmp_path / "pred")) == list(find_segmentations(tmp_path / "ref")) == ["chest"]


@pytest.mark.parametrize("kind", ["explicit", "implicit", "deflated", "meta"])
def test_dicom_without_a_preamble_is_part_of_the_stack(tmp_path: Path, kind: str) -> None:
    """Every second file lacks it, and those without file meta information say their encoding by their first bytes."""
    syntax = "explicit" if kind == "meta" else kind
    whole = write_series(tmp_path / "whole", VOXELS.astype(np.uint16), spacing=(1, 1, 3), transfer_syntax=syntax)
    (tmp_path / "bare").mkdir()
    for number, file in enumerate(whole.files):
        content = file.read_bytes()
        if number % 2:
            content = content[132:]
            if kind in ("explicit", "implicit"):
                meta = 12 + int.from_bytes(content[8:12], "little")  # the first element is the length of the others
                content = content[meta:]
        (tmp_path / "bare" / file.name).write_bytes(content)
        assert is_dicom(tmp_path / "bare" / file.name)
    found = open_location(str(tmp_path / "bare"))
    np.testing.assert_array_equal(found.decode()[..., 0], VOXELS)
    np.testing.assert_allclose(found.affine, whole.affine, atol=1e-6)
    assert pydicom.dcmread(tmp_path / "bare" / whole.files[0].name).Rows == 5


def test_texts_and_pictures_are_no_dicom(tmp_path: Path) -> None:
    for name, content in (("a.txt", b"\x08\0" * 50), ("b", b"\x02\0\0\0" * 30), ("c.json", b'{"a": 1}'), ("d", b"")):
        (tmp_path / name).write_bytes(content)
        assert not is_dicom(tmp_path / name)


def test_an_analyze_file_is_read_with_a_doubt(tmp_path: Path) -> None:
    nibabel.save(nibabel.AnalyzeImage(VOXELS, None), tmp_path / "a.hdr")
    volume = open_location(str(tmp_path / "a.hdr"))
    np.testing.assert_array_equal(volume.decode()[..., 0], VOXELS)
    assert volume.doubts == ("an Analyze file, which does not tell left from right (x is taken to run to the left)",)
    (tmp_path / "a.img").unlink()
    with pytest.raises(InputError, match=r'voxels in "a\.img", which does not exist; put that file beside it'):
        open_location(str(tmp_path / "a.hdr"))


def test_the_rest_is_counted_and_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    by_itk(tmp_path / "a.mha")
    for number in range(5):
        (tmp_path / f"{number}.mat").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert volumes_in(tmp_path) == volumes_in(tmp_path) == [tmp_path / "a.mha"]
    assert caplog.messages == [f"{tmp_path}: 5 files are not used: 0.mat, 1.mat, 2.mat and 2 more (no volume)"]


def test_an_analyze_file_with_a_matrix_beside_it_lies_where_that_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    affine = np.array([[0, -2.0, 0, 7], [1.5, 0, 0, -4], [0, 0, 3, 2], [0, 0, 0, 1]])
    nibabel.save(nibabel.Spm2AnalyzeImage(VOXELS, affine), tmp_path / "a.hdr")
    (place,) = volumes_in(tmp_path)
    volume = open_location(str(place))
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    assert volume.doubts == ()
    assert volume.oriented
    assert caplog.messages == []
    files = Location.parse(place).files()
    assert [Path(file).name for file in files] == ["a.hdr", "a.img", "a.mat"]
