"""Files that are read by other processes: the same volumes, and a decoder that dies is told by the file's name."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from monai.transforms import LoadImage

from aide_monai.data.checks.datalist import check_datalist, require_valid
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources import folder_datalist
from aide_monai.errors import InputError
from aide_monai.io import ahead
from aide_monai.io.ahead import images_ahead, read_apart, segmentations_ahead, volumes_ahead
from aide_monai.io.channels import read_channels
from aide_monai.io.location import open_location
from aide_monai.io.readers import LocationReader
from aide_monai.io.segmentations import read_segmentation
from aide_monai.utils import workers
from aide_monai.workflows.comparison.tasks import with_label_noise, write_label_noise
from aide_monai.workflows.evaluate_folders import evaluate_folders
from tests.io.deadly_decoders import deadly_decoders
from tests.io.dicom.dicom_files import write_series


@pytest.fixture
def _deadly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with deadly_decoders(monkeypatch, "VOLUME", "LABELS", "IMAGE"):
        yield


def write_labels(folder: Path, *names: str) -> None:
    folder.mkdir()
    voxels = np.zeros((9, 7, 5), np.uint8)
    voxels[2:6, 2:5, 1:4] = 1
    for name in names:
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1, 3, 1])), folder / f"{name}.nii.gz")


def test_volumes_are_what_they_are_here(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 900, (5, 4, 3)).astype(np.int16)
    write_series(tmp_path / "series", voxels)
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float64) / 3, np.diag([2.0, 2, 3, 1])), tmp_path / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3, 2, 2)), np.eye(4)), tmp_path / "many.nii")
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "b.nrrd"))
    paths = [str(tmp_path / name) for name in ("series", "a.nii.gz", "b.nrrd", "a.nii.gz", "many.nii", "missing.nii")]
    with volumes_ahead(paths) as opened:
        for path in paths[:-1]:
            found, expected = opened(path), open_location(path)
            for field in fields(expected):
                if field.name not in ("affine", "decode"):
                    assert getattr(found, field.name) == getattr(expected, field.name)
            np.testing.assert_array_equal(found.affine, expected.affine)
            assert found.decode().dtype == expected.decode().dtype
            assert np.squeeze(found.decode()).strides == np.squeeze(expected.decode()).strides
            np.testing.assert_array_equal(found.decode(), expected.decode())
        with pytest.raises(InputError, match=r"^no such file$"):
            opened(paths[-1])


def test_images_are_what_they_are_here(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 900, (5, 4, 3)).astype(np.int16)
    write_series(tmp_path / "series", voxels)
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float64) / 3, np.diag([2.0, 2, 3, 1])), tmp_path / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3, 2)), np.eye(4)), tmp_path / "two.nii")
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "b.nrrd"))
    names = (["series"], ["a.nii.gz"], ["a.nii.gz#z=1", "a.nii.gz#z=1"], ["two.nii"], ["b.nrrd"], ["series", "series"])
    images = [[str(tmp_path / name) for name in some] for some in names]
    with images_ahead(images):
        for paths in images:
            found, expected = read_apart(paths), read_channels(paths)
            for field in fields(expected):
                if field.name not in ("affine", "voxels"):
                    assert getattr(found, field.name) == getattr(expected, field.name)
            np.testing.assert_array_equal(found.affine, expected.affine)
            assert found.voxels.dtype == expected.voxels.dtype
            assert (
                np.argsort(np.abs(found.voxels.strides)).tolist()
                == np.argsort(np.abs(expected.voxels.strides)).tolist()
            )
            np.testing.assert_array_equal(found.voxels, expected.voxels)
            np.testing.assert_equal(found.meta(), expected.meta())


@pytest.mark.usefixtures("_deadly")
@pytest.mark.parametrize("announced", [True, False])
def test_images_that_are_read_to_name_them(tmp_path: Path, announced: bool) -> None:
    write_labels(tmp_path / "images", "a", "deadly")
    paths = [str(tmp_path / "images" / f"{name}.nii.gz") for name in ("deadly", "a")]
    load = LoadImage(reader=LocationReader)
    with images_ahead([[path] for path in paths]) if announced else nullcontext():
        message = f"{paths[0]}: found a file at which its decoder died (SIGSEGV); expected a volume; replace the file"
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            load(paths[0])
        assert load(paths[1]).shape == (9, 7, 5)


@pytest.mark.usefixtures("_deadly")
def test_a_comparison_names_the_labels_that_it_cannot_read(tmp_path: Path) -> None:
    names = ("a", "deadly_1", "b", "deadly_2")
    write_labels(tmp_path / "labels", *names)
    records = [
        {"case": name, "image": file, "label": file, "quality": "high"}
        for name in names
        for file in [str(tmp_path / "labels" / f"{name}.nii.gz")]
    ]
    data = with_label_noise(Datalist("x", {0: "b", 1: "l"}, {0: "MR"}, records), tmp_path / "noisy", rate=1, seed=0)
    with pytest.raises(InputError) as caught:
        write_label_noise(data, tmp_path / "noisy", kinds=["boundary"], magnitude_mm=2, seed=0)
    lines = str(caught.value).splitlines()
    assert lines[0] == "x: labels that cannot be read: 2 problems"
    for line, name in zip(lines[1:], ("deadly_1", "deadly_2"), strict=True):
        assert line.startswith(
            f"  - {tmp_path}/labels/{name}.nii.gz: found a file at which its decoder died (SIGSEGV);"
        )


@pytest.mark.parametrize("name", ["grid", "location", "segmentations", "ahead"])
def test_a_process_that_reads_starts_without_what_takes_long(name: str) -> None:
    script = (
        f"import sys, aide_monai.io.{name}; print(sorted({{'torch', 'monai', 'scipy.ndimage'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_segmentations_are_what_they_are_here(tmp_path: Path) -> None:
    write_labels(tmp_path / "x", "a")
    file = tmp_path / "x" / "a.nii.gz"
    with segmentations_ahead([file]) as read:
        found, expected = read(file), read_segmentation(file)
    assert (found.file, found.values, found.names, found.sparse) == (file, (0, 1), {}, False)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.affine, expected.affine)


@pytest.mark.usefixtures("_deadly")
def test_a_check_names_the_file_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "Ahead", lambda *arguments: workers.Ahead(*arguments, limit_s=10))
    names = ("a", "deadly", "b", "endless", "c")
    write_labels(tmp_path / "images", *names)
    write_labels(tmp_path / "labels", *(name.replace("endless", "d") for name in names))
    records = [
        {
            "case": name,
            "image": str(tmp_path / "images" / f"{name}.nii.gz"),
            "label": str(tmp_path / "labels" / f"{name.replace('endless', 'd')}.nii.gz"),
            "quality": "high",
        }
        for name in names
    ]
    datalist = Datalist("x", {0: "background", 1: "organ"}, {0: "MRI"}, records)
    seen: list[str] = []
    problems = check_datalist(datalist, visit=lambda case, *_: seen.append(case.name))
    errors = {
        (found.case, Path(found.place).parent.name, found.found) for found in problems if found.severity == "error"
    }
    assert errors >= {
        ("deadly", "images", "a file at which its decoder died (SIGSEGV)"),
        ("deadly", "labels", "a file at which its decoder died (SIGSEGV)"),
        ("endless", "images", "a file at which its decoder works for more than 10 s"),
    }
    assert seen == ["a", "b", "c"]
    with pytest.raises(InputError, match=r'case "deadly", .*images/deadly\.nii\.gz: found a file at which its decoder'):
        require_valid(datalist)


@pytest.mark.usefixtures("_deadly")
def test_an_evaluation_names_the_files(tmp_path: Path) -> None:
    write_labels(tmp_path / "pred", "a", "b", "deadly")
    write_labels(tmp_path / "ref", "a", "b", "deadly")
    with pytest.raises(InputError) as caught:
        evaluate_folders(tmp_path / "pred", tmp_path / "ref", out=tmp_path / "out")
    file = tmp_path / "pred" / "deadly.nii.gz"
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'pred'}: cases that cannot be scored: 1 problem",
        f"  - {file}: found a file at which its decoder died (SIGSEGV); expected a label map of whole numbers from 0",
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("_deadly")
def test_labels_that_are_read_to_name_them(tmp_path: Path) -> None:
    write_labels(tmp_path / "images", "a", "deadly")
    write_labels(tmp_path / "labels", "a", "deadly")
    with pytest.raises(InputError, match=r"labels/deadly\.nii\.gz: found a file at which its decoder died .SIGSEGV.;"):
        folder_datalist(tmp_path)


def test_relative_paths_start_where_the_caller_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a worker that was started elsewhere, and waits for work."""
    for number, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        image = nibabel.Nifti1Image(np.full((3, 3, 3), number, np.uint8), np.eye(4))
        nibabel.save(image, tmp_path / name / "a.nii")
        monkeypatch.chdir(tmp_path / name)
        assert read_apart(["a.nii"]).voxels.max() == number
