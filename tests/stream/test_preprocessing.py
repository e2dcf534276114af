"""Files to volumes: geometry, preprocessing, padding, unreadable files."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from aide_monai.errors import InputError
from aide_monai.losses import IGNORED
from aide_monai.stream.preprocessing import load_volumes, slice_geometry, volume_transforms


def write(
    path: Path,
    array: np.ndarray,
    *,
    spacing: tuple[float, float, float] = (1, 1, 4),
) -> str:
    nibabel.save(nibabel.Nifti1Image(array, np.diag([*spacing, 1.0])), path)
    return str(path)


def record(
    folder: Path, case: str, size: tuple[int, ...], *, spacing: tuple[float, float, float] = (1, 1, 4)
) -> dict[str, str]:
    generator = np.random.default_rng(0)
    image = generator.normal(100, 20, size).astype(np.float32)
    label = generator.integers(0, 3, size).astype(np.uint8)
    return {
        "case": case,
        "image": write(folder / f"{case}.nii.gz", image, spacing=spacing),
        "label": write(folder / f"{case}_label.nii.gz", label, spacing=spacing),
        "quality": "low",
    }


# Geometry


def test_size_holds_the_largest_slice_and_is_a_multiple(tmp_path: Path) -> None:
    records = [record(tmp_path, "a", (20, 33, 3)), record(tmp_path, "b", (31, 10, 4))]
    assert slice_geometry(records) == (2, (32, 48))
    assert slice_geometry(records, multiple=1) == (2, (31, 33))
    assert slice_geometry(records, multiple=8) == (2, (32, 40))


@pytest.mark.parametrize(
    ("spacing", "expected"), [((5, 1, 1), (0, (16, 32))), ((1, 5, 1), (1, (16, 32))), ((1, 1, 1), (2, (16, 16)))]
)
def test_axis_comes_from_the_spacing(
    tmp_path: Path, spacing: tuple[float, float, float], expected: tuple[int, tuple[int, int]]
) -> None:
    assert slice_geometry([record(tmp_path, "a", (8, 10, 20), spacing=spacing)]) == expected


def test_geometry_of_other_formats_and_of_several_images(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros((3, 20, 30), dtype=np.int16))  # z, y, x
    image.SetSpacing((1.0, 1.0, 6.0))
    for name in ("scan.mha", "scan.nrrd"):
        sitk.WriteImage(image, str(tmp_path / name))
        assert slice_geometry([{"image": str(tmp_path / name)}]) == (2, (32, 32))
    assert slice_geometry([{"image": [str(tmp_path / "scan.mha"), "unused"]}]) == (2, (32, 32))
    assert slice_geometry([{"image": tmp_path / "scan.mha"}]) == (2, (32, 32))


def test_geometry_reads_headers_only(tmp_path: Path) -> None:
    entry = record(tmp_path, "a", (8, 8, 8), spacing=(1, 1, 1))
    path = tmp_path / "a.nii.gz"
    path.write_bytes(path.read_bytes()[:1000])  # the compressed voxels end too soon
    assert slice_geometry([entry]) == (2, (16, 16))


def test_geometry_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no cases; expected at least one record"):
        slice_geometry([])
    with pytest.raises(InputError, match=r"missing\.nii\.gz: found no such file; expected an image"):
        slice_geometry([{"image": str(tmp_path / "missing.nii.gz")}])
    (tmp_path / "text.mhd").write_text("this is no header")
    with pytest.raises(
        InputError, match=r"(?s)text\.mhd: found .*; expected an image; replace it or leave the case out"
    ):
        slice_geometry([{"image": str(tmp_path / "text.mhd")}])


# Preprocessing


def test_volumes_are_normalised_checked_and_typed(tmp_path: Path) -> None:
    (volume,) = load_volumes([record(tmp_path, "a", (6, 7, 3))], volume_transforms())
    image, label = volume["image"], volume["label"]
    assert image.shape == label.shape == (1, 6, 7, 3)
    assert (image.dtype, label.dtype) == (torch.float32, torch.uint8)
    assert isinstance(image, MetaTensor)
    assert isinstance(label, MetaTensor)
    for z in range(3):
        assert float(image[0, ..., z].mean()) == pytest.approx(0, abs=1e-5)
        assert float(image[0, ..., z].std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert torch.equal(image.affine.diagonal(), torch.tensor([1.0, 1.0, 4.0, 1.0], dtype=torch.float64))
    assert (volume["case"], volume["quality"]) == ("a", "low")


def test_label_values_are_mapped(tmp_path: Path) -> None:
    array = np.array([0, 2, 4, 2], dtype=np.int16).reshape(2, 2, 1)
    entry = {
        "image": write(tmp_path / "a.nii", np.random.default_rng(0).normal(size=(2, 2, 1))),
        "label": write(tmp_path / "l.nii", array),
        "clean_label": write(tmp_path / "c.nii", array),
    }
    keys = ("image", "label", "clean_label")
    (volume,) = load_volumes([entry], volume_transforms(keys=keys, classes={"2": 1, "4": 1}))
    assert volume["label"].flatten().tolist() == volume["clean_label"].flatten().tolist() == [0, 1, 1, 1]
    with pytest.raises(InputError, match=r"l\.nii: found label value 4; expected 0, 2"):
        load_volumes([entry], volume_transforms(classes={"2": 1}))


@pytest.mark.parametrize(
    ("axis", "slice_size", "shape"),
    [(2, (8, 12), (8, 12, 3)), (2, (4, 4), (6, 7, 3)), (0, (8, 12), (6, 8, 12)), (1, (8, 12), (8, 7, 12))],
)
def test_slices_are_padded_alike_and_never_cut(
    tmp_path: Path, axis: int, slice_size: tuple[int, int], shape: tuple[int, int, int]
) -> None:
    entry = record(tmp_path, "a", (6, 7, 3))
    (plain,) = load_volumes([entry], volume_transforms(axis=axis))
    (padded,) = load_volumes([entry], volume_transforms(axis=axis, slice_size=slice_size))
    assert padded["image"].shape == padded["label"].shape == (1, *shape)
    assert padded["label"].dtype == torch.uint8
    for key in ("image", "label"):
        first = [(n - m) // 2 for n, m in zip(shape, (6, 7, 3), strict=True)]
        inner = tuple(slice(f, f + m) for f, m in zip(first, (6, 7, 3), strict=True))
        assert torch.equal(padded[key][0][inner].as_tensor(), plain[key][0].as_tensor())
        # all that was added is zero: the mean of a normalised image, the background of a label
        assert float(padded[key].as_tensor().double().abs().sum()) == pytest.approx(
            float(plain[key].as_tensor().double().abs().sum())
        )


def test_records_without_a_label_or_with_several_images(tmp_path: Path) -> None:
    first, second = record(tmp_path, "a", (6, 6, 2)), record(tmp_path, "b", (6, 6, 2))
    entry = {"image": [first["image"], second["image"]]}
    (volume,) = load_volumes([entry], volume_transforms(slice_size=(8, 8), axis=2))
    assert volume["image"].shape == (2, 8, 8, 2)
    assert "label" not in volume
    (volume,) = load_volumes([first], volume_transforms(keys=("image",)))
    assert volume["label"] == first["label"]  # keys that were not asked for are left alone


# Unreadable files


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    good, bad = record(tmp_path, "good", (6, 6, 2)), record(tmp_path, "bad", (6, 6, 2))
    (tmp_path / "bad_label.nii.gz").write_bytes(b"this is no image")
    with pytest.raises(InputError, match=r"bad_label\.nii\.gz: found a header that cannot be read"):
        load_volumes([good, bad], volume_transforms())


def test_all_files_that_cannot_be_read_are_told_at_once(tmp_path: Path) -> None:
    records = [record(tmp_path, name, (6, 6, 2)) for name in "abc"]
    for name in ("a_label", "c"):
        (tmp_path / f"{name}.nii.gz").write_bytes(b"this is no image")
    with pytest.raises(InputError) as caught:
        load_volumes(records, volume_transforms())
    lines = str(caught.value).splitlines()
    assert lines[0] == "volumes that cannot be read: 2 problems"
    assert [re.match(r"  - \S*/(\w+)\.nii\.gz: found a header that", line)[1] for line in lines[1:]] == ["a_label", "c"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    entry = record(tmp_path, "a", (6, 6, 2))
    (tmp_path / "a.nii.gz").unlink()
    with pytest.raises(InputError, match=r"a\.nii\.gz: found no such file"):
        load_volumes([entry], volume_transforms())


def test_a_refused_image_is_named(tmp_path: Path) -> None:
    entry = record(tmp_path, "a", (6, 6, 2))
    write(tmp_path / "a.nii.gz", np.full((6, 6, 2), np.nan, dtype=np.float32))
    with pytest.raises(InputError, match=r"a\.nii\.gz: 72 voxels are NaN or infinite") as caught:
        load_volumes([entry], volume_transforms())
    assert "applying transform" not in str(caught.value)


def test_a_label_on_another_grid_is_named(tmp_path: Path) -> None:
    entry = record(tmp_path, "a", (6, 6, 2))
    write(tmp_path / "a_label.nii.gz", np.zeros((6, 6, 3), dtype=np.uint8))
    with pytest.raises(InputError, match=r"a_label\.nii\.gz: label has shape \(6, 6, 3\), its image \(6, 6, 2\)"):
        load_volumes([entry], volume_transforms())


def test_spacing_leaves_other_keys_alone(tmp_path: Path) -> None:
    """MONAI Label gives "image_path", a text, which MONAI's ``Spacingd`` would take for metadata."""
    entry = record(tmp_path, "a", (8, 8, 3), spacing=(1, 1, 4)) | {"image_path": "a.nii.gz"}
    item = volume_transforms(axis=2, spacing=(2, 2))(entry)
    assert item["image_path"] == "a.nii.gz"
    assert item["image"].shape == (1, 4, 4, 3)


def test_voxels_without_a_verdict_keep_apart_on_the_way_to_the_grid_of_the_network(tmp_path: Path) -> None:
    entry = record(tmp_path, "a", (6, 6, 2))
    drawn = np.zeros((6, 6, 2), dtype=np.uint8)
    drawn[:3], drawn[4:] = 4, 1
    write(tmp_path / "a_label.nii.gz", drawn)
    classes = {"1": 1, "4": IGNORED}
    (volume,) = load_volumes([entry], volume_transforms(classes=classes, axis=2, slice_size=(8, 8)))
    label = volume["label"][0, ..., 0]
    assert label[1:7, 1:7].tolist() == [[IGNORED] * 6] * 3 + [[0] * 6] + [[1] * 6] * 2
    assert (label[0] == IGNORED).all()  # around the image nobody has said anything
    assert (label[:, 7] == IGNORED).all()
    (volume,) = load_volumes([entry], volume_transforms(classes=classes, axis=2, spacing=(2, 2), slice_size=(3, 3)))
    assert volume["label"].unique().tolist() == [1, IGNORED]  # the thin background has the smaller share everywhere
    write(tmp_path / "a_label.nii.gz", drawn[1:], spacing=(1, 1, 4))
    transform = volume_transforms(classes=classes, axis=2, resample_labels=True)
    (volume,) = load_volumes([entry], transform)
    assert volume["label"][0, :, 1, 0].tolist() == [IGNORED, IGNORED, 0, 1, 1, IGNORED]
