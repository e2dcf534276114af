"""Paths of a datalist: files, channels, DICOM series, PNG stacks; their files, hashes and details."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, SpatialPadd
from PIL import Image

from aide_monai.data.checks.datalist import check_datalist
from aide_monai.data.datalist import Datalist
from aide_monai.data.fingerprints import changed_files, with_details
from aide_monai.errors import InputError
from aide_monai.io.location import Location, open_location
from aide_monai.io.opening import content_hash
from aide_monai.io.readers import LocationReader
from aide_monai.transforms import ByVotesd
from tests.io.dicom.dicom_files import write_series

VOXELS = np.random.default_rng(0).integers(0, 900, (5, 4, 3)).astype(np.int16)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """The same kind of volume in every form a path may name."""
    nibabel.save(nibabel.Nifti1Image(VOXELS, AFFINE), tmp_path / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.stack([VOXELS, VOXELS + 1], -1), AFFINE), tmp_path / "two.nii")
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS.transpose(2, 1, 0)), str(tmp_path / "m.mhd"))
    write_series(tmp_path / "series", VOXELS)
    (tmp_path / "stack").mkdir()
    for k in range(3):
        Image.fromarray((VOXELS[:, :, k] % 2).astype(np.uint8).T).save(tmp_path / "stack" / f"{k}.png")
    names = {"nifti": "a.nii.gz", "channel": "two.nii#channel=1", "mhd": "m.mhd", "dicom": "series", "png": "stack"}
    return {name: str(tmp_path / path) for name, path in names.items()}


@pytest.mark.filterwarnings("ignore:.*no DICOM slices")
@pytest.mark.parametrize("kind", ["nifti", "channel", "mhd", "dicom", "png"])
def test_every_location_opens_as_monai_loads_it(places: dict[str, str], kind: str) -> None:
    volume = open_location(places[kind])
    loaded = LoadImaged("image", reader=LocationReader, image_only=True)({"image": places[kind]})["image"]
    assert volume.shape == tuple(loaded.shape)
    np.testing.assert_array_equal(volume.decode()[..., 0], loaded)
    np.testing.assert_allclose(volume.affine, loaded.affine)


@pytest.mark.parametrize("image", ["nifti", "mhd", "dicom", "nrrd", "four"])
def test_a_users_own_pipeline_of_monai_transforms(places: dict[str, str], tmp_path: Path, image: str) -> None:
    """Any image with a label on a grid of its own, in another format, as MetaTensors through MONAI's transforms."""
    other = sitk.GetImageFromArray((VOXELS % 2).astype(np.uint8).transpose(2, 1, 0)[:, ::2, ::2])
    other.SetSpacing((4.0, 4.0, 3.0))
    sitk.WriteImage(other, str(tmp_path / "label.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS.transpose(2, 1, 0)), str(tmp_path / "n.nrrd"))
    paths = {**places, "nrrd": str(tmp_path / "n.nrrd"), "four": str(tmp_path / "two.nii")}
    pipeline = Compose(
        [
            LoadImaged(["image", "label"], reader=LocationReader, ensure_channel_first=True),
            ByVotesd("label"),
            SpatialPadd(["image", "label"], (8, 8, 3)),
        ]
    )
    item = pipeline({"image": paths[image], "label": str(tmp_path / "label.nrrd")})
    assert all(isinstance(value, MetaTensor) for value in item.values())
    assert item["image"].dtype == torch.float32
    assert item["image"].shape == (2 if image == "four" else 1, 8, 8, 3)
    assert item["label"].shape == (1, 8, 8, 3)
    np.testing.assert_array_equal(item["image"][0, 1:6, 2:6], VOXELS)
    np.testing.assert_allclose(item["label"].affine, item["image"].affine)


def test_the_files_of_a_location(places: dict[str, str]) -> None:
    assert [Path(file).name for file in Location.parse(places["channel"]).files()] == ["two.nii"]
    folder = Path(places["mhd"]).parent
    (folder / "m_segmentation.raw").write_bytes(b"of another volume")
    sitk.WriteImage(sitk.ReadImage(places["mhd"]), str(folder / "n.nhdr"))
    (folder / "n[1].nrrd").write_bytes((folder / "n.nhdr").read_bytes())
    assert [Path(file).name for file in Location.parse(places["mhd"]).files()] == ["m.mhd", "m.raw"]
    assert [Path(file).name for file in Location.parse(str(folder / "n[1].nrrd")).files()] == ["n[1].nrrd", "n.raw"]
    assert [Path(file).name for file in Location.parse(places["png"]).files()] == ["0.png", "1.png", "2.png"]
    assert len(Location.parse(places["dicom"]).files()) == 3


def test_a_hash_over_all_files_in_order(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    assert content_hash([str(tmp_path / "a"), str(tmp_path / "b")]) == hashlib.sha256(b"ab").hexdigest()


def test_what_is_no_location(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(InputError, match=r"a file of an unknown kind; expected .nii.gz, .*DICOM"):
        open_location(str(tmp_path / "notes.txt"))
    with pytest.raises(InputError, match="no such file or folder"):
        open_location(str(tmp_path / "absent"))


@pytest.mark.filterwarnings("ignore:.*no DICOM slices")
def test_details_and_changes(places: dict[str, str], tmp_path: Path) -> None:
    records = [
        {"case": "a", "image": [places["nifti"], places["channel"]], "label": places["png"], "quality": "high"},
        {"case": "b", "image": places["dicom"]},
    ]
    datalist = with_details(Datalist("d", {0: "background", 1: "organ"}, {0: "x", 1: "y"}, records))
    first = datalist.cases[0]
    assert (first.spacing, first.orientation) == ((2.0, 2.0, 3.0), "RAS")
    assert first.sha256 is not None
    assert first.sha256["image"][0] == hashlib.sha256(Path(places["nifti"]).read_bytes()).hexdigest()
    datalist.save(tmp_path / "datalist.json")
    assert Datalist.load(tmp_path / "datalist.json").cases[0].sha256 == first.sha256
    assert list(changed_files(first)) == []
    nibabel.save(nibabel.Nifti1Image(VOXELS + 5, AFFINE), tmp_path / "two.nii")
    assert list(changed_files(first)) == [places["channel"]]


def test_a_changed_file_is_a_warning(places: dict[str, str]) -> None:
    record = {"case": "a", "image": places["nifti"], "label": places["mhd"], "quality": "high"}
    labels = (VOXELS % 2).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, AFFINE), places["nifti"].replace("a.nii", "label.nii"))
    record["label"] = places["nifti"].replace("a.nii", "label.nii")
    datalist = with_details(Datalist("d", {0: "background", 1: "organ"}, {0: "x"}, [record]))
    assert check_datalist(datalist) == []
    nibabel.save(nibabel.Nifti1Image(VOXELS + 5, AFFINE), places["nifti"])
    (problem,) = check_datalist(datalist)
    assert (problem.severity, problem.place) == ("warning", places["nifti"])
    assert "other content than when the datalist was made" in problem.found


def test_unreadable_files_are_all_named(tmp_path: Path) -> None:
    records = [{"case": case, "image": str(tmp_path / f"{case}.nii")} for case in "ab"]
    with pytest.raises(InputError, match=r'(?s)2 problems.*case "a".*a.nii: found no such file.*case "b"'):
        with_details(Datalist("d", {0: "background"}, {0: "x"}, records))


def test_stored_label_values(tmp_path: Path) -> None:
    for name, voxels in (("image", VOXELS), ("label", (VOXELS % 2 * 63).astype(np.uint8))):
        nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), tmp_path / f"{name}.nii")
    record = {"case": "a", "image": f"{tmp_path}/image.nii", "label": f"{tmp_path}/label.nii", "quality": "high"}
    labels = {0: "background", 1: "liver"}
    assert "label values 63" in check_datalist(Datalist("d", labels, {0: "MR"}, [record]))[0].found
    datalist = Datalist("d", labels, {0: "MR"}, [record], {0: 0, 63: 1})
    assert check_datalist(datalist) == []
    datalist.save(tmp_path / "datalist.json")
    assert Datalist.load(tmp_path / "datalist.json").stored_classes == {0: 0, 63: 1}
    assert Datalist("d", labels, {0: "MR"}, [record]).stored_classes == {0: 0, 1: 1}
    assert check_datalist(Datalist("d", labels, {0: "MR"}, [record], {63: 1})) == []  # 0 is the background
    with pytest.raises(InputError, match="classes: found 63 for 2; expected one of the labels"):
        Datalist("d", labels, {0: "MR"}, [record], {63: 2})


def test_a_file_of_the_whole_name_is_what_a_path_names(tmp_path: Path) -> None:
    """So that what was checked is what is opened."""
    nibabel.save(nibabel.Nifti1Image(VOXELS, AFFINE), tmp_path / "a.nii")
    nibabel.save(nibabel.Nifti1Image(VOXELS[:2], AFFINE), tmp_path / "b.nii")
    path = tmp_path / "a.nii#z=1"
    assert open_location(str(path)).shape == (5, 4, 1)
    (tmp_path / "b.nii").rename(path)
    with pytest.raises(InputError):
        open_location(str(path)).decode()


def test_voxels_that_are_no_numbers(tmp_path: Path) -> None:
    path = str(tmp_path / "colours.nii")
    colours = np.zeros((3, 3, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for voxels in (colours, np.ones((3, 3, 2), dtype=np.complex64)):
        nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), path)
        with pytest.raises(InputError, match=r"colours\.nii: found voxels of type .*; expected a number for each"):
            LocationReader().get_data([path])


def test_a_selection_does_not_hide_where_a_link_leads(tmp_path: Path) -> None:
    write_series(tmp_path / "outside" / "series", VOXELS)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "outside" / "series")
    (tmp_path / "data" / "datalist.json").write_text(
        '{"name": "d", "labels": {"0": "background"}, "modality": {"0": "MR"}, '
        '"training": [{"case": "a", "image": "link#echo=2"}]}'
    )
    with pytest.raises(InputError, match=r"leads to .*outside/series, outside"):
        Datalist.load(tmp_path / "data" / "datalist.json")
