"""Predictions as files: NIfTI on the image's grid, or DICOM SEG that refers to the image's slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImaged

from aide_monai.data.datalist import Datalist
from aide_monai.data.folders import image_records
from aide_monai.errors import InputError
from aide_monai.io.dicom.seg import write_dicom_seg
from aide_monai.io.dicom.series import one_series
from aide_monai.io.dicom.stack import DicomSeries
from aide_monai.io.nifti import write_nifti
from aide_monai.io.readers import LocationReader
from aide_monai.io.segmentations import Segmentation, on_one_grid, read_segmentation
from aide_monai.io.writers import SaveSegmentationd, case_of
from aide_monai.metrics import mask_border
from aide_monai.reports.tables import read_csv
from aide_monai.workflows.evaluate_folders import evaluate_folders
from tests.bundles.doors import aide
from tests.io.dicom.dicom_files import write_multiframe, write_series

SHAPE = (12, 10, 4)
LABELS = {"0": "background", "1": "liver", "2": "spleen"}


@pytest.fixture
def series(tmp_path) -> Path:
    """A DICOM study: ``scans/study`` with one volume."""
    folder = tmp_path / "scans" / "study"
    voxels = np.random.default_rng(0).integers(0, 500, SHAPE).astype("u2")
    write_series(folder, voxels, position=(5, -7, 11), spacing=(2, 1.5, 4))
    return folder


@pytest.fixture
def label() -> np.ndarray:
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[2:5, 3:9, 1:3] = 1
    label[8:11, 1:4, 2:4] = 2
    return label


def item(image: Path, label: np.ndarray) -> dict:
    data = LoadImaged("image", reader=LocationReader, image_only=True, ensure_channel_first=True)({"image": str(image)})
    return {**data, "pred": MetaTensor(torch.from_numpy(label)[None], meta=data["image"].meta)}


def test_a_dicom_segmentation_reads_back_and_refers_to_its_slices(series, label, tmp_path):
    saver = SaveSegmentationd("pred", output_dir=tmp_path / "out", labels=LABELS, output_format="dicom-seg")
    saver({**item(series, label), "case": "patient"})
    path = tmp_path / "out" / "patient_seg.dcm"
    found = read_segmentation(path)
    whole = one_series(series)
    assert found.names == {1: "liver", 2: "spleen"}
    for index in (1, 2):
        corners = np.argwhere(label == index), np.argwhere(found.labels == index)
        world = [
            np.c_[voxels, np.ones(len(voxels))] @ affine.T
            for voxels, affine in zip(corners, (whole.affine, found.affine), strict=True)
        ]
        first, second = (points[np.lexsort(points.round(3).T)] for points in world)
        assert np.allclose(first, second, atol=1e-3)

    dataset = highdicom.seg.segread(str(path))
    source = pydicom.dcmread(whole.files[0])
    assert dataset.SOPClassUID == pydicom.uid.SegmentationStorage
    assert dataset.StudyInstanceUID == source.StudyInstanceUID
    assert dataset.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert dataset.PatientID == source.get("PatientID", "")
    frames = dataset.PerFrameFunctionalGroupsSequence
    referred = {frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for frame in frames}
    assert referred == {pydicom.dcmread(whole.files[z]).SOPInstanceUID for z in (1, 2, 3)}


@pytest.mark.parametrize("frame_order", [(3, 2, 1, 0), (0, 2, 1, 3)])
def test_frames_of_one_file_may_be_stored_in_any_order(label, tmp_path, frame_order):
    file = tmp_path / "scan" / "all.dcm"
    write_multiframe(file, np.zeros(SHAPE, dtype="u2"), spacing=(2, 1.5, 4), frame_order=frame_order)
    whole = one_series(file.parent)
    write_dicom_seg(tmp_path / "seg.dcm", label, whole, LABELS)
    reference = Segmentation(file, label, whole.affine, (0, 1, 2))
    placed, _ = on_one_grid(read_segmentation(tmp_path / "seg.dcm"), reference)
    assert np.array_equal(placed.labels, label)
    frames = highdicom.seg.segread(str(tmp_path / "seg.dcm")).PerFrameFunctionalGroupsSequence
    sources = [frame.DerivationImageSequence[0].SourceImageSequence[0] for frame in frames]
    with_label = {frame_order.index(z) + 1 for z in range(SHAPE[2]) if label[..., z].any()}
    assert {source.ReferencedFrameNumber for source in sources} == with_label


def test_names_of_any_language(label, tmp_path):
    write_series(
        tmp_path / "scan",
        np.zeros(SHAPE, dtype="u2"),
        position=(0, 0, 0),
        spacing=(2, 1.5, 4),
        tags={"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jürgen"},
    )
    write_dicom_seg(tmp_path / "seg.dcm", label, one_series(tmp_path / "scan"), {0: "0", 1: "ήπαρ", 2: "Milz ä"})
    assert read_segmentation(tmp_path / "seg.dcm").names == {1: "ήπαρ", 2: "Milz ä"}
    assert pydicom.dcmread(tmp_path / "seg.dcm").PatientName == "Müller^Jürgen"


def test_images_that_no_segmentation_can_refer_to(label, tmp_path):
    voxels = np.zeros((*SHAPE, 2), dtype="u2")
    write_multiframe(tmp_path / "echoes" / "all.dcm", voxels, echoes_ms=[2.3, 4.6])
    series = write_series(tmp_path / "scan", voxels[..., 0], spacing=(1, 1, 3))
    for file in series.files:
        dataset = pydicom.dcmread(file)
        del dataset.StudyInstanceUID
        dataset.save_as(file)
    for folder, select in ((tmp_path / "echoes", "echo=2.3"), (series.folder, "")):
        with pytest.raises(InputError, match=r"seg.dcm: found images that a DICOM SEG cannot refer to .* nifti"):
            write_dicom_seg(tmp_path / "seg.dcm", label, one_series(folder, select=select), LABELS)
    assert not (tmp_path / "seg.dcm").exists()


def test_an_empty_segmentation_is_written_too(series, tmp_path):
    write_dicom_seg(tmp_path / "empty.dcm", np.zeros(SHAPE, dtype=np.uint8), one_series(series), LABELS)
    assert not highdicom.seg.segread(str(tmp_path / "empty.dcm")).pixel_array.any()


def test_nifti_is_written_on_the_grid_of_the_image(series, label, tmp_path):
    SaveSegmentationd("pred", output_dir=tmp_path / "out", labels=LABELS)(item(series, label))
    mask = nibabel.load(tmp_path / "out" / "study_seg.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), label)
    assert np.allclose(mask.affine, one_series(series).affine, atol=1e-4)
    assert mask.get_data_dtype() == np.uint8


def test_what_cannot_be_written_is_told(series, label, tmp_path):
    with pytest.raises(InputError, match="output_format is 'png'; expected one of nifti, nnunet, dicom-seg"):
        SaveSegmentationd("pred", output_dir=tmp_path, labels=LABELS, output_format="png")
    image = tmp_path / "image.nii.gz"
    nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), image)
    saver = SaveSegmentationd("pred", output_dir=tmp_path / "out", labels=LABELS, output_format="dicom-seg")
    with pytest.raises(InputError, match="found no DICOM; expected DICOM images, as a DICOM SEG needs"):
        saver(item(image, label))
    whole = one_series(series)
    with pytest.raises(
        InputError, match=r"found a label of shape \(2, 2, 2\); expected that of its images, \(12, 10, 4\)"
    ):
        write_dicom_seg(tmp_path / "x.dcm", np.zeros((2, 2, 2)), whole, LABELS)
    with pytest.raises(InputError, match=r"found label value 2; expected 0 or one of \[1\], which have names"):
        write_dicom_seg(tmp_path / "x.dcm", label, whole, {0: "background", 1: "liver"})
    assert not (tmp_path / "x.dcm").exists()


def test_images_are_files_studies_or_a_datalist(series, label, tmp_path):
    assert image_records(series) == [{"image": str(series), "case": "study"}]
    assert image_records(series.parent) == [{"image": str(series), "case": "study"}]
    voxels = np.zeros(SHAPE, dtype="u2")
    write_series(tmp_path / "two" / "a" / "in", voxels, position=(0, 0, 0), spacing=(1, 1, 3), echo_ms=4.6)
    write_series(tmp_path / "two" / "a" / "out", voxels, position=(0, 0, 0), spacing=(1, 1, 3), echo_ms=2.3)
    both = [f"{tmp_path / 'two' / 'a'}#echo=4.6", f"{tmp_path / 'two' / 'a'}#echo=2.3"]
    for folder in (tmp_path / "two", tmp_path / "two" / "a"):
        assert image_records(folder, dicom_channels=["echo=4.6", "echo=2.3"]) == [{"image": both, "case": "a"}]
    nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), tmp_path / "scan.nii.gz")
    (tmp_path / "._scan.nii.gz").write_bytes(b"what some systems leave beside every file")
    assert [record["case"] for record in image_records(tmp_path)] == ["scan", "scans", "two"]
    record = {"case": "one", "image": str(tmp_path / "scan.nii.gz")}
    Datalist("set", {0: "background"}, {0: "MR"}, [record]).save(tmp_path / "list.json")
    assert image_records(tmp_path / "list.json") == [{"image": record["image"], "case": "one"}]
    nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), tmp_path / "scan.nii")
    with pytest.raises(InputError, match="found two volumes called scan"):
        image_records(tmp_path)


def test_images_with_other_channels_than_the_network_are_refused(series, tmp_path):
    """By their headers, so that no mask is written before; several files are as many channels."""
    assert image_records(series, channels=1) == [{"image": str(series), "case": "study"}]
    with pytest.raises(InputError, match="study: found 1 channel; expected 2 as the network has; give images like"):
        image_records(series, channels=2)
    for case, shape in {"a": SHAPE, "b": (*SHAPE, 2), "c": (*SHAPE, 2, 3)}.items():
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, dtype=np.uint8), np.eye(4)), tmp_path / f"{case}.nii")
    single, double, many = (str(tmp_path / f"{case}.nii") for case in "abc")

    def records(*images: str | list[str]) -> Path:
        cases = [{"case": f"case {number}", "image": image} for number, image in enumerate(images)]
        Datalist("set", {0: "background"}, {0: "MR"}, cases).save(tmp_path / "list.json")
        return tmp_path / "list.json"

    assert len(image_records(records(single, f"{double}#channel=1"), channels=1)) == 2
    assert len(image_records(records(double, [single, single], [single, f"{double}#channel=0"]), channels=2)) == 3
    with pytest.raises(InputError, match=r"b\.nii: found 2 channels; expected 1 as the network has"):
        image_records(records(single, double), channels=1)
    with pytest.raises(InputError, match=r"a\.nii: found 3 channels; expected 2 as the network has"):
        image_records(records(double, [single, double]), channels=2)
    with pytest.raises(InputError, match=r"c\.nii: found shape 12 x 10 x 4 x 2 x 3; expected \(x, y, z\) or"):
        image_records(records(many), channels=6)
    with pytest.raises(InputError, match=r"absent\.nii: found no such file; expected an image"):
        image_records(records(str(tmp_path / "absent.nii")), channels=1)


def test_cases_are_named_after_their_image():
    assert case_of("/a/b.nii.gz") == "b"
    assert case_of(["/a/study#echo=2.3", "/a/study#echo=4.6"]) == "study"
    assert case_of("/a/b.v2.mhd") == "b.v2"


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_an_image_is_written_whole_and_the_same_each_time(tmp_path: Path, name: str) -> None:
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([2.0, 3.0, 4.0, 1.0]))
    contents = []
    for folder in ("a", "b"):
        write_nifti(tmp_path / folder / name, np.asarray(image.dataobj), image.affine)
        contents.append((tmp_path / folder / name).read_bytes())
        assert [path.name for path in (tmp_path / folder).iterdir()] == [name]
    assert contents[0] == contents[1]
    read = nibabel.load(tmp_path / "a" / name)
    assert np.array_equal(np.asarray(read.dataobj), np.asarray(image.dataobj))
    assert np.array_equal(read.affine, image.affine)


@pytest.fixture(params=[10, 25, -40])
def tilted(request, tmp_path) -> tuple[DicomSeries, dict[str, np.ndarray]]:
    """A CT whose gantry was tilted, and two bars of one slice each."""
    lean = 4 * np.tan(np.radians(request.param))
    written = write_series(
        tmp_path / "scan", np.zeros(SHAPE, dtype="i2"), spacing=(0.8, 0.8, 4), shear=(0, lean, 0), modality="CT"
    )
    masks = {name: np.zeros(SHAPE, dtype=np.uint8) for name in ("pred", "true")}
    masks["pred"][4:7, 1:6, 1] = masks["true"][4:7, 3:8, 2] = 1
    series = one_series(written.folder)
    np.testing.assert_allclose(series.affine, written.affine)
    return series, masks


@pytest.mark.filterwarnings("ignore:.*right angles")
def test_segmentations_of_a_tilted_gantry_are_read_and_measured(tilted, tmp_path):
    """No voxel is moved, and distances are those in the patient, by all pairs of places."""
    series, masks = tilted
    for name, mask in masks.items():
        write_dicom_seg(tmp_path / "seg" / name / "a.dcm", mask, series, {"0": "background", "1": "liver"})
        write_nifti(tmp_path / "nifti" / name / "a.nii.gz", mask, series.affine)
        np.testing.assert_array_equal(read_segmentation(tmp_path / "seg" / name / "a.dcm").labels, mask)
    places = [np.argwhere(mask_border(mask)) @ series.affine[:3, :3].T for mask in masks.values()]
    pairs = np.linalg.norm(places[0][:, None] - places[1][None], axis=2)
    nearest = pairs.min(axis=0), pairs.min(axis=1)
    for predictions, references in (("nifti", "nifti"), ("seg", "nifti"), ("nifti", "seg"), ("seg", "seg")):
        row = evaluate_folders(tmp_path / predictions / "pred", tmp_path / references / "true").rows[0]
        assert row["mssd"] == pytest.approx(max(side.max() for side in nearest), abs=1e-4)
        assert row["assd"] == pytest.approx(np.concatenate(nearest).mean(), abs=1e-4)


@pytest.mark.filterwarnings("ignore:.*right angles")
def test_a_gantry_tilted_by_25_degrees_by_hand_through_the_command_line(tmp_path):
    """A slice up and 3 mm back: 5.04 mm in the patient, where the lengths of the axes would give 6.28 mm."""
    lean = 5 * np.tan(np.radians(25))
    written = write_series(
        tmp_path / "scan", np.zeros((12, 10, 4), dtype="i2"), spacing=(1, 1, 5), shear=(0, lean, 0), modality="CT"
    )
    series = one_series(written.folder)
    masks = {name: np.zeros((12, 10, 4), dtype=np.uint8) for name in ("pred", "true")}
    masks["pred"][5, 7, 1] = masks["true"][5, 4, 2] = 1
    for name, mask in masks.items():
        write_dicom_seg(tmp_path / "seg" / name / "a.dcm", mask, series, {"0": "background", "1": "liver"})
        write_nifti(tmp_path / "nifti" / name / "a.nii.gz", mask, series.affine)
    steps = series.affine[:3, :3]
    assert np.linalg.norm([0, 3, np.linalg.norm(steps[:, 2])]) == pytest.approx(6.28, abs=0.005)
    expected = float(np.linalg.norm(steps @ [0, 3, -1]))
    assert expected == pytest.approx(5.04, abs=0.005)
    for predictions, references in (("nifti", "nifti"), ("seg", "nifti"), ("seg", "seg")):
        folders = tmp_path / predictions / "pred", tmp_path / references / "true"
        out = tmp_path / f"{predictions}_{references}"
        assert aide("evaluate", "--pred", folders[0], "--ref", folders[1], "--out", out) == 0
        (row,) = read_csv(out / "per_case.csv")
        assert (row["mssd"], row["assd"]) == pytest.approx((expected, expected), abs=1e-4)


def test_one_slice_of_a_tilted_gantry_from_another_program(tilted, tmp_path):
    """A file of one frame does not say how the stack leans, so it takes that from the reference."""
    series, masks = tilted
    write_dicom_seg(tmp_path / "a.dcm", masks["pred"], series, {"0": "background", "1": "liver"})
    whole = read_segmentation(tmp_path / "a.dcm")
    alone = replace(whole, labels=whole.labels[..., 1:2], affine=whole.affine.copy())
    alone.affine[:3, 3] += whole.affine[:3, 2]
    normal = np.cross(whole.affine[:3, 0], whole.affine[:3, 1])
    alone.affine[:3, 2] = 4 * normal / np.linalg.norm(normal) * np.sign(normal @ whole.affine[:3, 2])
    reference = Segmentation(Path("reference.nii"), masks["true"], series.affine, (0, 1))
    placed, _ = on_one_grid(alone, reference)
    np.testing.assert_array_equal(placed.labels, masks["pred"])
