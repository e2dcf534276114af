"""Folders of images and labels with the same file names."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from aide_monai.data.checks.datalist import require_valid
from aide_monai.data.sources import find_datalist, folder_datalist
from aide_monai.data.sources.folder import PATIENT_PATTERN, patient_of
from aide_monai.errors import InputError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).touch()
    return root


def write_label(root: Path, name: str, values: tuple[float, ...]) -> None:
    voxels = np.resize(np.array(values), (4, 4, 4)).astype(np.float32)
    (root / "labels").mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), root / "labels" / name)


NAMES = {0: "background", 1: "liver"}


def test_cases_are_matched_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "images/b.nii.gz", "images/a.mhd", "images/a.raw", "images/.hidden.nii", "images/notes.txt")
    touch(tmp_path, "labels/b.nii", "labels/a.nrrd", "unlabeled/u.nii.gz")
    datalist = folder_datalist(tmp_path, label_names=NAMES)
    assert (datalist.name, datalist.labels, datalist.modality) == (tmp_path.name, NAMES, {0: "channel 0"})
    assert datalist.records == [
        {
            "case": "a",
            "image": str(tmp_path / "images/a.mhd"),
            "patient": "a",
            "split": "training",
            "label": str(tmp_path / "labels/a.nrrd"),
            "quality": "high",
        },
        {
            "case": "b",
            "image": str(tmp_path / "images/b.nii.gz"),
            "patient": "b",
            "split": "training",
            "label": str(tmp_path / "labels/b.nii"),
            "quality": "high",
        },
        {"case": "u", "image": str(tmp_path / "unlabeled/u.nii.gz"), "patient": "u", "split": "training"},
    ]


def test_patients_are_found_in_the_names(tmp_path: Path) -> None:
    names = ("patient1_frame01", "patient1_frame12", "patient2_frame", "x_LGE")
    touch(tmp_path, *(f"{folder}/{name}.nii" for name in names for folder in ("images", "labels")))
    patients = [record["patient"] for record in folder_datalist(tmp_path, label_names=NAMES).records]
    assert patients == ["patient1", "patient1", "patient2_frame", "x_LGE"]
    first_letter = folder_datalist(tmp_path, patient_pattern="(.).*", label_names=NAMES)
    assert [record["patient"] for record in first_letter.records] == ["p", "p", "p", "x"]


@pytest.mark.parametrize("ending", ["_seg", "_label", "-mask", "_pred", "_gt", ""])
def test_labels_that_are_called_as_programs_call_them(tmp_path: Path, ending: str) -> None:
    touch(tmp_path, "images/a.nii.gz", "images/b.nii.gz", f"labels/a{ending}.nii.gz", f"labels/b{ending}.nii.gz")
    found = folder_datalist(tmp_path, label_names=NAMES).cases
    assert [(case.name, Path(str(case.label)).name) for case in found] == [
        ("a", f"a{ending}.nii.gz"),
        ("b", f"b{ending}.nii.gz"),
    ]


def test_an_image_may_end_so_itself_and_has_one_label(tmp_path: Path) -> None:
    touch(tmp_path, "images/a_seg.nii.gz", "labels/a_seg.nii.gz")
    assert [case.name for case in folder_datalist(tmp_path, label_names=NAMES).cases] == ["a_seg"]
    touch(tmp_path, "images/b_0000.nii.gz", "labels/b_seg.nii.gz", "labels/b_pred.nii.gz")
    with pytest.raises(InputError, match="two labels for the image b"):
        folder_datalist(tmp_path, label_names=NAMES)


def test_a_pattern_is_that_of_a_name_or_of_a_part_of_it() -> None:
    part, whole = re.compile(r"(patient\d+)"), re.compile(PATIENT_PATTERN)
    assert patient_of("patient001_frame01", part) == "patient001"
    assert patient_of("x_patient001", part) == "patient001"
    assert patient_of("patient001_frame01", whole) == "patient001"  # not its first letter, which is a match too
    assert patient_of("liver", part) is None
    assert patient_of("liver", re.compile("liver(_[0-9])?")) == ""


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "not a regular expression"),
        ("a.*", "no group"),
        (r"(\d+)", 'case "a": found a name that the patient pattern .* does not match'),
    ],
)
def test_patient_patterns_that_do_not_fit(tmp_path: Path, pattern: str, message: str) -> None:
    touch(tmp_path, "images/a.nii", "labels/a.nii")
    with pytest.raises(InputError, match=message):
        folder_datalist(tmp_path, patient_pattern=pattern, label_names=NAMES)


def test_names_of_nnunet(tmp_path: Path) -> None:
    touch(tmp_path, "images/a_0000.nii", "labels/a.nii", "unlabeled/u_0000.nii")
    records = folder_datalist(tmp_path, label_names=NAMES).records
    assert [(record["case"], record["image"]) for record in records] == [
        ("a", str(tmp_path / "images/a_0000.nii")),
        ("u", str(tmp_path / "unlabeled/u_0000.nii")),
    ]
    touch(tmp_path, "images/a_0001.nii", "unlabeled/u_0001.nii")
    datalist = folder_datalist(tmp_path, label_names=NAMES)
    assert datalist.modality == {0: "channel 0", 1: "channel 1"}
    assert datalist.records[0]["image"] == [str(tmp_path / f"images/a_000{channel}.nii") for channel in (0, 1)]


def test_four_digits_that_belong_to_the_name(tmp_path: Path) -> None:
    touch(tmp_path, "images/a_0000.nii", "images/a_0001.nii", "labels/a_0000.nii", "labels/a_0001.nii")
    assert [record["case"] for record in folder_datalist(tmp_path, label_names=NAMES).records] == ["a_0000", "a_0001"]


def test_channels_that_are_missing(tmp_path: Path) -> None:
    touch(tmp_path, "images/a_0000.nii", "images/a_0001.nii", "images/b_0001.nii", "labels/a.nii", "labels/b.nii")
    with pytest.raises(InputError, match='case "b": found 1 channel files; expected 2, numbered _0000 to _0001'):
        folder_datalist(tmp_path, label_names=NAMES)


def test_images_and_labels_without_a_partner_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii", "images/b.nii", "labels/b.nii", "labels/c.nii", "unlabeled/b.nii")
    with pytest.raises(InputError) as caught:
        folder_datalist(tmp_path, label_names=NAMES)
    first, *told = str(caught.value).splitlines()
    assert first == f"{tmp_path}: the folder cannot be used: 5 problems"  # two of them are that b has no content
    assert told[:3] == [
        f"  - {tmp_path}/images/a.nii: found no label of this name in labels/; add it, or move the image to unlabeled/",
        f"  - {tmp_path}/labels/c.nii: found no image of this name in images/; add it, or remove the label",
        '  - case "b": found an image in images/ and in unlabeled/; remove one of the two',
    ]


def test_two_files_of_one_name(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii", "images/a.nii.gz", "labels/a.nii")
    with pytest.raises(InputError, match="two files for one name"):
        folder_datalist(tmp_path, label_names=NAMES)


def test_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="no volumes in images/ or unlabeled/; expected DICOM, or files that"):
        find_datalist(tmp_path)


def test_unlabelled_images_alone(tmp_path: Path) -> None:
    datalist = find_datalist(touch(tmp_path, "unlabeled/a.nii"))
    assert [record["case"] for record in datalist.records] == ["a"]
    assert datalist.labels == {0: "background"}


def test_label_values_are_read_when_no_names_are_given(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii", "images/b.nii")
    write_label(tmp_path, "a.nii", (0, 2.9999))
    write_label(tmp_path, "b.nii", (1, 2))
    datalist = folder_datalist(tmp_path)
    assert datalist.labels == {0: "background", 1: "label 1", 2: "label 2", 3: "label 3"}


def test_label_values_with_gaps_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii")
    write_label(tmp_path, "a.nii", (0, 255))
    with pytest.raises(InputError, match=r"found labels of the values 0, 255; expected 0, 1, 2, \.\.\. without"):
        folder_datalist(tmp_path)


def test_labels_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii", "labels/a.nii")
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}/labels/a.nii: found a header that cannot be read")):
        folder_datalist(tmp_path)
    write_label(tmp_path, "a.nii", (0, 0.5))
    with pytest.raises(InputError, match=r"values that are not whole numbers: 0\.5"):
        folder_datalist(tmp_path)


def test_metaimage_and_nrrd_from_end_to_end(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    voxels = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "images/a.mhd"))
    sitk.WriteImage(sitk.GetImageFromArray((voxels > 0).astype(np.uint8)), str(tmp_path / "labels/a.nrrd"))
    datalist = find_datalist(tmp_path)
    assert datalist.labels == {0: "background", 1: "label 1"}
    assert require_valid(datalist) == []


def test_real_folders(aide_data: Path) -> None:
    acdc = find_datalist(aide_data / "acdc")
    assert len({record["patient"] for record in acdc.records}) == 25
    assert (len(acdc.records), acdc.num_classes) == (50, 4)
    mscmr = folder_datalist(aide_data / "mscmr_lge", label_names=acdc.labels)
    assert sum("label" in record for record in mscmr.records) == 12
    assert sum("label" not in record for record in mscmr.records) == 25
