"""Masks that lie on their image in every program: as SimpleITK sees them, from every writer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import DataLoader, Dataset, decollate_batch

from aide_monai.data.datalist import Datalist
from aide_monai.data.raters import write_fused
from aide_monai.data.sources.subtraction import with_subtractions
from aide_monai.errors import InputError
from aide_monai.io.ahead import volumes_ahead
from aide_monai.io.location import open_location
from aide_monai.io.nifti import NO_CODES, NiftiPlace, write_nifti
from aide_monai.io.segmentations import on_one_grid, read_segmentation
from aide_monai.io.volumes import open_volume
from aide_monai.io.writers import SaveSegmentationd
from aide_monai.labels import LabelStore
from aide_monai.stream.preprocessing import load_volumes, volume_transforms
from aide_monai.workflows.labels import export
from aide_monai.workflows.pseudo_labels import write_pseudo_labels

SHAPE = (12, 10, 4)
TURNED = np.array([[0.0, -0.9, 0.0, 30.0], [1.1, 0.0, 0.0, -20.0], [0.0, 0.0, 4.0, 5.0], [0.0, 0.0, 0.0, 1.0]])
MOVED = TURNED + np.array([[0, 0, 0, 5.0]] * 3 + [[0] * 4])

Change = Callable[[Any], None]


def _codes(qform: int, sform: int) -> Change:
    def change(image: Any) -> None:
        image.set_qform(MOVED if qform and sform > 1 else TURNED, code=qform)
        image.set_sform(TURNED, code=sform)

    return change


def _unit(name: str) -> Change:
    def change(image: Any) -> None:
        length = {"micron": 1000.0, "meter": 0.001}[name]
        scaled = np.diag([length, length, length, 1.0]) @ TURNED
        image.set_qform(scaled, code=1)
        image.set_sform(scaled, code=1)
        image.header.set_xyzt_units(name)

    return change


HEADERS: dict[str, Change] = {
    "no codes": _codes(0, 0),
    "qform alone": _codes(1, 0),
    "sform alone": _codes(0, 1),
    "two that agree": _codes(1, 1),
    "two that disagree": _codes(1, 2),
    "micron": _unit("micron"),
    "metre": _unit("meter"),
}

pytestmark = pytest.mark.filterwarnings("ignore:.*orientation codes", "ignore:.*disagree")


def drawn() -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[2:6, 1:8, 1:3] = 1
    return mask


@pytest.fixture(params=HEADERS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An image that is bright where ``drawn`` is 1."""
    image = nibabel.Nifti1Image((100 * drawn()).astype(np.int16), np.eye(4))
    HEADERS[request.param](image)
    folder = tmp_path / "data"
    folder.mkdir()
    nibabel.save(image, folder / "image.nii.gz")
    return folder / "image.nii.gz"


def assert_on_its_image(mask: Path, image: Path) -> None:
    """SimpleITK 2.5.7 and nibabel 5.4.2 see mask and image at one place, and the headers say the same."""
    seen, on = sitk.ReadImage(str(mask)), sitk.ReadImage(str(image))
    moved = sitk.Resample(seen, on, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)
    bright, marked = sitk.GetArrayFromImage(on) > 50, sitk.GetArrayFromImage(moved) > 0
    assert 2 * (bright & marked).sum() / (bright.sum() + marked.sum()) == 1
    ours, theirs = nibabel.load(mask), nibabel.load(image)
    np.testing.assert_array_equal(ours.affine, theirs.affine)
    for name in ("qform_code", "sform_code", "xyzt_units"):
        assert int(ours.header[name]) & 7 == int(theirs.header[name]) & 7, name
    np.testing.assert_array_equal(ours.header.get_qform(), theirs.header.get_qform())
    np.testing.assert_array_equal(ours.header.get_sform(), theirs.header.get_sform())


def test_a_prediction(source: Path, tmp_path: Path) -> None:
    transform = volume_transforms(keys=["image"], axis=2, slice_size=(16, 16), orientation="RAS")
    loader = DataLoader(Dataset([{"image": str(source), "case": "a"}], transform), batch_size=1)
    saver = SaveSegmentationd("pred", output_dir=tmp_path, labels={"0": "background", "1": "organ"})
    for batch in loader:
        for item in decollate_batch(batch):
            item["pred"] = transform.inverse({"image": item["image"]})["image"]
            item["pred"] = (item["pred"] > item["pred"].max() / 2).to(torch.uint8)
            saver(item)
    assert_on_its_image(tmp_path / "a_seg.nii.gz", source)


class Bright(torch.nn.Module):
    """Foreground where the image is bright."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(image), 10 * (image - 0.5)], dim=1)


def test_pseudo_labels(source: Path, tmp_path: Path) -> None:
    records = [{"image": str(source), "case": "a"}]
    datalist = Datalist(name="x", modality={0: "CT"}, labels={0: "background", 1: "organ"}, cases=records)
    made = write_pseudo_labels(Bright(), datalist, tmp_path / "out", axis=2, slice_size=(16, 16))
    assert_on_its_image(Path(made.records[0]["label"]), source)


def test_exported_labels(source: Path, tmp_path: Path) -> None:
    label = source.with_name("label.nii.gz")
    given = nibabel.load(source)
    nibabel.save(nibabel.Nifti1Image(drawn(), None, given.header), label)
    records = [{"image": str(source), "label": str(label), "case": "a"}]
    transform = volume_transforms(axis=2, slice_size=(16, 16), orientation="RAS")
    LabelStore.from_volumes(load_volumes(records, transform), folder=tmp_path / "labels")
    label.unlink()  # the store knows what it needs
    export(tmp_path / "labels", 0, folder=tmp_path / "out")
    assert_on_its_image(tmp_path / "out" / "network_1" / "a.nii.gz", source)


def test_fused_masks_and_differences(source: Path, tmp_path: Path) -> None:
    mask = source.with_name("mask.nii.gz")
    nibabel.save(nibabel.Nifti1Image(drawn(), None, nibabel.load(source).header), mask)
    assert_on_its_image(write_fused([mask, mask], tmp_path / "fused.nii.gz", method="majority"), source)
    records = [{"image": [str(mask), str(source)], "case": "a"}]
    phases = Datalist(name="x", modality={0: "before", 1: "after"}, labels={0: "background", 1: "organ"}, cases=records)
    made = with_subtractions(phases, tmp_path)
    assert_on_its_image(Path(made.records[0]["image"][2]), source)


def test_no_codes_are_told_once_per_file(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(drawn(), np.eye(4))
    HEADERS["no codes"](image)
    nibabel.save(image, tmp_path / "a.nii")
    assert open_volume(str(tmp_path / "a.nii")).doubts == (NO_CODES,)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            load_volumes([{"image": str(tmp_path / "a.nii")}], volume_transforms(keys=["image"], axis=2))[0]
            read_segmentation(tmp_path / "a.nii")
    told = [str(one.message) for one in caught if "orientation codes" in str(one.message)]
    assert told == [f"{tmp_path / 'a.nii'}: {NO_CODES}"]


def test_a_volume_that_another_process_has_read(source: Path) -> None:
    with volumes_ahead([str(source)]) as open_ahead:
        assert open_ahead(str(source)).place == open_volume(str(source)).place is not None


# Units


def in_units(folder: Path) -> dict[str, Path]:
    """One mask of 0.9 x 1.1 x 4 mm in every format and unit."""
    nifti = nibabel.Nifti1Image(drawn(), TURNED)
    nifti.header.set_xyzt_units("mm")
    nibabel.save(nifti, folder / "mm.nii.gz")
    files = {"mm": folder / "mm.nii.gz"}
    for unit in ("micron", "meter"):
        image = nibabel.Nifti1Image(drawn(), TURNED)
        _unit(unit)(image)
        nibabel.save(image, files.setdefault(f"nifti {unit}", folder / f"{unit}.nii.gz"))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ TURNED
    raw = drawn().tobytes(order="F")
    for name, length in (("um", 1000.0), ("microns", 1000.0), ("cm", 0.1), ("m", 0.001), ("nm", 1e6)):
        vectors = ["(" + ",".join(f"{value:.12g}" for value in column[:3] * length) + ")" for column in lps.T]
        text = (
            f"NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 12 10 4\n"
            f"space directions: {' '.join(vectors[:3])}\nspace origin: {vectors[3]}\nencoding: raw\n"
            f'space units: "{name}" "{name}" "{name}"\n\n'
        )
        files[f"nrrd {name}"] = folder / f"{name}.nrrd"
        files[f"nrrd {name}"].write_bytes(text.encode() + raw)
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        numbers = {
            "TransformMatrix": (lps[:3, :3] / spacing).T.ravel(),
            "Offset": lps[:3, 3] * length,
            "ElementSpacing": spacing * length,
        }
        lines = [f"{key} = {' '.join(f'{value:.12g}' for value in values)}\n" for key, values in numbers.items()]
        head = f"ObjectType = Image\nNDims = 3\nDimSize = 12 10 4\nDistanceUnits = {name}\n{''.join(lines)}"
        files[f"mha {name}"] = folder / f"{name}.mha"
        head += "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
        files[f"mha {name}"].write_bytes(head.encode() + raw)
    return files


def test_every_unit_is_one_geometry(tmp_path: Path) -> None:
    files = in_units(tmp_path)
    reference = read_segmentation(files.pop("mm"))
    for name, file in files.items():
        volume = open_location(str(file))
        assert volume.grid.spacing_mm == pytest.approx((1.1, 0.9, 4), rel=1e-6), name
        assert volume.doubts == (), name
        found, _ = on_one_grid(read_segmentation(file), reference)
        np.testing.assert_array_equal(found.labels, reference.labels, err_msg=name)


@pytest.mark.parametrize("name", ["nrrd um", "mha um", "nrrd m", "nrrd cm"])
def test_a_mask_of_another_format_keeps_a_unit_that_nifti_has(tmp_path: Path, name: str) -> None:
    volume = open_location(str(in_units(tmp_path)[name]))
    write_nifti(tmp_path / "mask.nii", drawn(), volume.affine, volume.place)
    header = nibabel.load(tmp_path / "mask.nii").header
    assert header.get_xyzt_units()[0] == {"nrrd m": "meter", "nrrd cm": "mm"}.get(name, "micron")
    assert open_volume(str(tmp_path / "mask.nii")).grid.mismatch(volume.grid) is None
    assert sitk.ReadImage(str(tmp_path / "mask.nii")).GetSpacing() == pytest.approx((1.1, 0.9, 4), rel=1e-6)


def test_units_that_are_none_or_several(tmp_path: Path) -> None:
    text = (
        "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 12 10 4\nencoding: raw\n"
        'space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nspace units: "{}" "mm" "mm"\n\n'
    )
    file = tmp_path / "a.nrrd"
    file.write_bytes(text.format("um").encode() + drawn().tobytes(order="F"))
    with pytest.raises(InputError, match=r"axes in different units \(mm, um\); expected one"):
        open_volume(str(file))
    file.write_bytes(text.format("ell").encode() + drawn().tobytes(order="F"))
    assert open_volume(str(file)).doubts == ('lengths in "ell", taken for mm',)


def test_units_of_each_axis(tmp_path: Path) -> None:
    text = 'NRRD0004\ntype: uchar\ndimension: 3\nsizes: 12 10 4\nspacings: 1100 900 4000\nunits: "um" "um" "um"\n'
    file = tmp_path / "a.nrrd"
    file.write_bytes(f"{text}encoding: raw\n\n".encode() + drawn().tobytes(order="F"))
    assert open_volume(str(file)).grid.spacing_mm == pytest.approx((1.1, 0.9, 4))


def test_a_volume_on_another_grid_gets_its_affine_in_mm(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(drawn(), np.eye(4))
    HEADERS["micron"](image)
    place = NiftiPlace.of(image.header)
    write_nifti(tmp_path / "a.nii.gz", drawn(), MOVED, place)
    found = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(found.affine, MOVED, atol=1e-5)
    assert found.header.get_xyzt_units()[0] == "mm"


# Stored numbers of MetaImage


def test_the_intensity_function_of_a_metaimage(tmp_path: Path) -> None:
    """MetaIO reads both lines, and SimpleITK 2.5.7 and ITK 5.4.7 give the stored numbers without a word."""
    head = "ObjectType = Image\nNDims = 3\nDimSize = 12 10 4\nElementSpacing = 1 1 1\n{}ElementType = MET_UCHAR\n"
    file = tmp_path / "a.mha"

    def write(lines: str) -> None:
        file.write_bytes(f"{head.format(lines)}ElementDataFile = LOCAL\n".encode() + drawn().tobytes(order="F"))

    slope = "ElementToIntensityFunctionSlope = {}\nElementToIntensityFunctionOffset = -1024\n"
    write(slope.format(2))
    volume = open_volume(str(file))
    np.testing.assert_array_equal(volume.decode()[..., 0], 2.0 * drawn() - 1024)
    assert volume.doubts == ("intensities of 2 x stored + -1024, which programs of the ITK family do not apply",)
    assert set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(file))))) == {0, 1}
    write("ElementToIntensityFunctionSlope = 1\nElementToIntensityFunctionOffset = 0\n")
    assert (open_volume(str(file)).doubts, open_volume(str(file)).decode().dtype) == ((), np.uint8)
    write(slope.format(0))
    with pytest.raises(InputError, match="ElementToIntensityFunctionSlope 0, which leaves no intensities"):
        open_volume(str(file))
