"""Segmentations in files: found by case, read from every format, brought onto one grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from highdicom.seg import SegmentDescription
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from aide_monai.cli.main import app
from aide_monai.errors import InputError
from aide_monai.io.segmentations import Segmentation, find_segmentations, on_one_grid, read_segmentation
from aide_monai.workflows.evaluate_folders import EvaluationSettings, evaluate_folders

AFFINE = np.array([[-1.5, 0, 0, 40], [0, -1.5, 0, 30], [0, 0, 4, -20], [0, 0, 0, 1.0]])


def example(shape: tuple[int, ...] = (6, 5, 4)) -> np.ndarray:
    labels = np.zeros(shape, dtype=np.uint8)
    labels[1:4, 2:4, 1:3] = 1
    labels[4, 1, 2] = 2
    return labels


def nifti(path: Path, labels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels, affine), path)
    return path


def pictures(folder: Path, labels: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(labels.shape[2]):
        Image.fromarray(labels[:, :, k].T).save(folder / f"{k:03d}.png")
    return folder


def dicom_seg(
    path: Path,
    labels: np.ndarray,
    *,
    thickness: float = 4.0,
    stated: bool = True,
    names: Sequence[str] = ("liver", "tumour"),
    kinds: Sequence[Code] = (codes.SCT.Liver, codes.SCT.Liver),
) -> Path:
    """A real DICOM SEG of (X, Y, Z) labels whose voxels are those of ``AFFINE``; empty slices are left out."""
    source = []
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for k in range(labels.shape[2]):
        item = pydicom.Dataset()
        item.file_meta = pydicom.dataset.FileMetaDataset()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item.SOPClassUID, item.SOPInstanceUID = CTImageStorage, generate_uid()
        item.StudyInstanceUID, item.SeriesInstanceUID, item.FrameOfReferenceUID = study, series, frame
        item.PatientID = item.PatientName = "Phantom^"
        item.PatientBirthDate = item.PatientSex = item.StudyDate = item.StudyTime = item.AccessionNumber = ""
        item.StudyID = item.ReferringPhysicianName = ""
        item.Modality, item.SeriesNumber, item.InstanceNumber = "CT", 1, k + 1
        item.Rows, item.Columns = labels.shape[1], labels.shape[0]
        item.PixelSpacing, item.SliceThickness = [1.5, 1.5], thickness
        item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        item.ImagePositionPatient = [-40, -30, -20 + 4 * k]
        source.append(item)
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.cid7150.AnatomicalStructure,
            segmented_property_type=kind,
            algorithm_type="MANUAL",
        )
        for number, (name, kind) in enumerate(zip(names, kinds, strict=True), 1)
    ]
    seg = highdicom.seg.Segmentation(
        source_images=source,
        pixel_array=labels.transpose(2, 1, 0),
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="nobody",
        manufacturer_model_name="none",
        software_versions="0",
        device_serial_number="0",
        omit_empty_frames=True,
    )
    if not stated:
        for measures in seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence:
            measures.pop("SpacingBetweenSlices", None)
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return path


def moved(path: Path, *, shear: tuple[float, float] = (0.0, 0.0), beside: tuple[float, ...] = ()) -> Path:
    """The frames of a DICOM SEG displaced in their planes: by so much from slice to slice, or each along z."""
    dataset = pydicom.dcmread(path)
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        x, y, z = map(float, group.PlanePositionSequence[0].ImagePositionPatient)
        k = round((z + 20) / 4)
        z += beside[number] if beside else 0.0
        group.PlanePositionSequence[0].ImagePositionPatient = [x + k * shear[0], y + k * shear[1], z]
    dataset.save_as(path)
    return path


def made(labels: np.ndarray, affine: Any = AFFINE, *, sparse: bool = False, file: str = "x") -> Segmentation:
    affine = None if affine is None else np.asarray(affine, dtype=float)
    return Segmentation(Path(file), labels, affine, tuple(np.unique(labels).tolist()), sparse)


class TestFind:
    def test_cases_of_all_layouts(self, tmp_path: Path) -> None:
        nifti(tmp_path / "a_seg.nii.gz", example())
        nifti(tmp_path / "b" / "b_pred.nii", example())  # a folder for each case, as MONAI's SaveImage writes them
        pictures(tmp_path / "10" / "T1DUAL" / "Ground", example())
        nifti(tmp_path / "c" / "one.nii", example())
        nifti(tmp_path / "c" / "two.nii", example())
        (tmp_path / ".hidden.nii").write_bytes(b"")
        (tmp_path / "notes.txt").write_text("")
        nifti(tmp_path / ".checkpoints" / "d.nii", example())
        found = {case: str(path.relative_to(tmp_path)) for case, path in find_segmentations(tmp_path).items()}
        assert found == {
            "10": "10/T1DUAL/Ground",
            "a": "a_seg.nii.gz",
            "b": "b/b_pred.nii",
            "c/one": "c/one.nii",
            "c/two": "c/two.nii",
        }

    def test_pictures_beside_each_other_are_cases(self, tmp_path: Path) -> None:
        pictures(tmp_path, example())
        assert list(find_segmentations(tmp_path)) == ["000", "001", "002", "003"]

    def test_two_files_for_one_case(self, tmp_path: Path) -> None:
        nifti(tmp_path / "a.nii", example())
        nifti(tmp_path / "a_segmentation.nii", example())
        with pytest.raises(
            InputError, match=r'(?s)several files for one case.*case "a": found a.nii, a_segmentation.nii'
        ):
            find_segmentations(tmp_path)

    def test_nothing_to_find(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"no segmentations; expected files that end in \.nii\.gz"):
            find_segmentations(tmp_path)
        with pytest.raises(InputError, match="no such folder"):
            find_segmentations(tmp_path / "absent")


class TestRead:
    @pytest.mark.parametrize("name", ["x.nii.gz", "x.mhd", "x.nrrd"])
    def test_volumes(self, tmp_path: Path, name: str) -> None:
        image = sitk.GetImageFromArray(example().transpose(2, 1, 0))
        image.SetSpacing((1.5, 1.5, 4))
        image.SetOrigin((-40, -30, -20))
        sitk.WriteImage(image, str(tmp_path / name))
        read = read_segmentation(tmp_path / name)
        np.testing.assert_array_equal(read.labels, example())
        np.testing.assert_allclose(read.affine, AFFINE)
        assert (read.values, read.sparse) == ((0, 1, 2), False)
        assert read.grid is not None
        assert read.grid.spacing_mm == pytest.approx((1.5, 1.5, 4))

    def test_scaling_that_made_integers_inexact(self, tmp_path: Path) -> None:
        read = read_segmentation(nifti(tmp_path / "x.nii", example().astype(np.float32) * 0.9999))
        assert read.labels.dtype == np.uint8
        np.testing.assert_array_equal(read.labels, example())

    def test_a_stack_of_pictures(self, tmp_path: Path) -> None:
        read = read_segmentation(pictures(tmp_path / "10", example() * 63))
        np.testing.assert_array_equal(read.labels, example() * 63)
        assert (read.affine, read.grid, read.values) == (None, None, (0, 63, 126))

    def test_slices_are_in_the_order_of_their_numbers(self, tmp_path: Path) -> None:
        """As text s10 comes before s2; some of the files have one bit for each pixel."""
        volume = np.zeros((4, 5, 12), dtype=np.uint8)
        for z in range(12):
            volume[: z % 4, : z % 5, z] = 255
            picture = Image.fromarray(volume[:, :, z].T)
            (picture.convert("1") if z % 2 else picture).save(tmp_path / f"s{z + 1}.png")
        read = read_segmentation(tmp_path)
        np.testing.assert_array_equal(read.labels, volume)
        assert read.values == (0, 255)

    def test_dicom_seg(self, tmp_path: Path) -> None:
        read = read_segmentation(dicom_seg(tmp_path / "x.dcm", example()))
        assert read.sparse
        assert read.names == {1: "liver", 2: "tumour"}
        whole = on_one_grid(read, made(example()))[0]
        np.testing.assert_array_equal(whole.labels, example())

    @pytest.mark.parametrize(
        ("labels", "found"),
        [
            (np.full((3, 3, 2), 0.5, dtype=np.float32), "values that are not whole numbers: 0.5"),
            (np.full((3, 3, 2), -1, dtype=np.int16), "label values from -1 to -1"),
            (np.full((3, 3, 2), np.nan, dtype=np.float32), "NaN or infinite voxels"),
            (np.zeros((3, 3, 2, 2), dtype=np.uint8), "shape 3 x 3 x 2 x 2 instead of one label map"),
        ],
    )
    def test_what_is_no_label_map(self, tmp_path: Path, labels: np.ndarray, found: str) -> None:
        path = nifti(tmp_path / "x.nii", labels)
        with pytest.raises(InputError, match=f"x.nii: found {found}; expected a label map of whole numbers from 0"):
            read_segmentation(path)

    @pytest.mark.parametrize("element", [b"\x20\x00\x37\x00DS", b"\x28\x00\x30\x00DS", b"\x20\x00\x32\x00DS"])
    def test_a_dicom_seg_whose_places_are_no_numbers(self, tmp_path: Path, element: bytes) -> None:
        """Orientation, pixel size and position of a frame."""
        path = dicom_seg(tmp_path / "x.dcm", example())
        content = path.read_bytes()
        value = content.rindex(element) + len(element) + 2
        path.write_bytes(content[:value] + b"?" + content[value + 1 :])
        with pytest.raises(InputError, match=r"x\.dcm: found a DICOM file that is no readable segmentation"):
            read_segmentation(path)

    def test_broken_files_and_colours(self, tmp_path: Path) -> None:
        (tmp_path / "x.dcm").write_bytes(b"\0" * 200)
        with pytest.raises(InputError, match=r"x\.dcm: found a DICOM file that is no readable segmentation"):
            read_segmentation(tmp_path / "x.dcm")
        Image.new("RGB", (3, 3)).save(tmp_path / "x.png")
        with pytest.raises(InputError, match=r"x.png: found a picture in colour or with transparency \(RGB\)"):
            read_segmentation(tmp_path / "x.png")
        (tmp_path / "y.png").write_bytes(b"no picture")
        with pytest.raises(InputError, match=r"y\.png: found no readable PNG"):
            read_segmentation(tmp_path / "y.png")
        stack = pictures(tmp_path / "stack", example())
        Image.new("L", (7, 7)).save(stack / "009.png")
        with pytest.raises(InputError, match=r"009\.png: found 7 x 7 pixels"):
            read_segmentation(stack)


class TestOneGrid:
    def test_axes_in_another_order_and_direction_are_put_right(self) -> None:
        """Voxel (i, j, k) of the turned array lies where (nx - 1 - k, i, j) of the reference does."""
        turn = np.array([[0, 0, -1, 5], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
        turned = np.flip(example(), 0).transpose(1, 2, 0)
        placed, _ = on_one_grid(made(turned, AFFINE @ turn), made(example()))
        np.testing.assert_array_equal(placed.labels, example())

    @settings(max_examples=30, deadline=None)
    @given(
        order=st.permutations([0, 1, 2]),
        flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
        seed=st.integers(0, 1000),
    )
    def test_every_orientation(self, order: list[int], flips: tuple[bool, ...], seed: int) -> None:
        labels = np.random.default_rng(seed).integers(0, 3, (2, 3, 4)).astype(np.uint8)
        image = nibabel.Nifti1Image(labels, AFFINE)
        orientation = [[order.index(axis), -1 if flip else 1] for axis, flip in zip(range(3), flips, strict=True)]
        turned = image.as_reoriented(orientation)
        placed, _ = on_one_grid(made(np.asarray(turned.dataobj), turned.affine), made(labels))
        np.testing.assert_array_equal(placed.labels, labels)

    def test_tiny_differences_pass_and_real_ones_are_refused(self) -> None:
        shifted = AFFINE.copy()
        shifted[0, 3] += 0.04
        on_one_grid(made(example(), shifted), made(example()))
        shifted[0, 3] += 0.4
        with pytest.raises(InputError, match=r"(?s)a.nii: found affine \[-1.5 .*40.44.*reference b.nii has .* 40;"):
            on_one_grid(made(example(), shifted, file="a.nii"), made(example(), file="b.nii"))
        with pytest.raises(InputError, match=r"found shape 6 x 5 x 3, reference x has 6 x 5 x 4"):
            on_one_grid(made(example()[..., :3]), made(example()))

    def test_resampling_in_physical_space(self) -> None:
        """A grid twice as fine, shifted by half a fine voxel, as halving keeps the outer faces."""
        fine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
        fine[:3, 3] = (AFFINE @ [-0.25, -0.25, -0.25, 1])[:3]
        doubled = example().repeat(2, 0).repeat(2, 1).repeat(2, 2)
        with pytest.raises(InputError, match="--resample"):
            on_one_grid(made(doubled, fine), made(example()))
        placed, _ = on_one_grid(made(doubled, fine), made(example()), resample=True)
        np.testing.assert_array_equal(placed.labels, example())
        moved = AFFINE.copy()
        moved[2, 3] += 8  # two slices up: the third slice of the reference is the first of the prediction
        placed, _ = on_one_grid(made(example(), moved), made(example()), resample=True)
        np.testing.assert_array_equal(placed.labels[..., 2:], example()[..., :2])
        assert not placed.labels[..., :2].any()

    def test_pictures_match_pictures_alone(self) -> None:
        on_one_grid(made(example(), None), made(example(), None))
        with pytest.raises(InputError, match="pictures, which have no place in space, and a volume"):
            on_one_grid(made(example(), None), made(example()))
        with pytest.raises(InputError, match="found shape"):
            on_one_grid(made(example()[:3], None), made(example(), None))

    def test_sparse_slices_are_filled(self) -> None:
        part = AFFINE.copy()
        part[:3, 3] = (AFFINE @ [0, 0, 1, 1])[:3]
        sparse = made(example()[..., 1:3], part, sparse=True)
        assert np.array_equal(on_one_grid(sparse, made(example()))[0].labels, example())
        assert np.array_equal(on_one_grid(made(example()), sparse)[1].labels, example())

    def test_two_sparse_ones_get_background_around(self, tmp_path: Path) -> None:
        other = np.roll(example(), 1, axis=2)
        first = read_segmentation(dicom_seg(tmp_path / "a.dcm", example()))
        second = read_segmentation(dicom_seg(tmp_path / "b.dcm", other))
        prediction, reference = on_one_grid(first, second)
        assert prediction.labels.shape == reference.labels.shape == (6, 5, 3 + 2)  # slices 1 to 3, one more each side
        assert not reference.labels[..., [0, -1]].any()
        assert np.count_nonzero(prediction.labels) == np.count_nonzero(example())
        overlap = np.count_nonzero((prediction.labels > 0) & (reference.labels > 0))
        assert overlap == np.count_nonzero((example() > 0) & (other > 0))

    @pytest.mark.parametrize("start", [3, -2, 20, -20])
    def test_a_sparse_one_that_reaches_out_is_refused(self, start: int) -> None:
        away = AFFINE.copy()
        away[:3, 3] = (AFFINE @ [0, 0, start, 1])[:3]
        with pytest.raises(InputError, match="expected one grid"):
            on_one_grid(made(example(), away, sparse=True), made(example()))


class TestSparseDicomSeg:
    """Slices without a mark are left out, and the file need not say how far slices are apart."""

    @staticmethod
    def drawn(slices: tuple[int, ...], depth: int = 9) -> np.ndarray:
        labels = np.zeros((6, 5, depth), dtype=np.uint8)
        labels[1:4, 1:4, slices] = 1
        labels[4, 1, slices[-1]] = 2
        return labels

    @pytest.mark.parametrize("slices", [(0, 2, 4, 6), (1, 3, 5, 7), (1, 3, 6), (2, 5), (4,), (0, 1, 2)])
    @pytest.mark.parametrize("stated", [True, False])
    @pytest.mark.parametrize("resample", [False, True])
    @pytest.mark.parametrize("role", ["pred", "ref", "both"])
    def test_identical_masks_score_one(
        self, tmp_path: Path, slices: tuple[int, ...], stated: bool, resample: bool, role: str
    ) -> None:
        for folder in ("pred", "ref"):
            if role in (folder, "both"):
                dicom_seg(tmp_path / folder / "a.dcm", self.drawn(slices), stated=stated)
            else:
                nifti(tmp_path / folder / "a.nii.gz", self.drawn(slices))
        found = evaluate_folders(tmp_path / "pred", tmp_path / "ref", EvaluationSettings(resample=resample))
        assert [(row["dsc"], row["fp"], row["fn"]) for row in found.rows] == [(1.0, 0, 0)] * 2
        assert found.unknown_spacing == (("a",) if role == "both" and not stated else ())

    def test_what_two_of_them_leave_open_is_told(self, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        for folder in ("pred", "ref"):
            dicom_seg(tmp_path / folder / "a.dcm", self.drawn((1, 3)), stated=False)
        app(["evaluate", "--pred", f"{tmp_path}/pred", "--ref", f"{tmp_path}/ref"], standalone_mode=False)
        assert "a: DICOM SEGs alone, without SpacingBetweenSlices: slices between two" in capsys.readouterr().out

    @pytest.mark.parametrize("options", [{}, {"resample": True}])
    def test_a_reference_that_leaves_slices_out_misses_no_false_mark(
        self, tmp_path: Path, options: dict[str, bool]
    ) -> None:
        nifti(tmp_path / "pred" / "a.nii.gz", self.drawn(tuple(range(9))))
        dicom_seg(tmp_path / "ref" / "a.dcm", self.drawn((2, 4, 6)), stated=False)
        (first, _) = evaluate_folders(tmp_path / "pred", tmp_path / "ref", EvaluationSettings(**options)).rows
        assert (first["tp"], first["fp"], first["fn"]) == (27, 54, 0)

    def test_two_with_different_gaps(self, tmp_path: Path) -> None:
        """Slices 0, 3, 6 and 0, 2, 6: on the grid of all slices, which neither knows."""
        first = read_segmentation(dicom_seg(tmp_path / "a.dcm", self.drawn((0, 3, 6)), stated=False))
        second = read_segmentation(dicom_seg(tmp_path / "b.dcm", self.drawn((0, 2, 6)), stated=False))
        prediction, reference = on_one_grid(first, second)
        assert reference.labels.shape == prediction.labels.shape == (6, 5, 9)
        assert np.flatnonzero(reference.labels.any(axis=(0, 1))).tolist() == [1, 3, 7]
        assert np.flatnonzero(prediction.labels.any(axis=(0, 1))).tolist() == [1, 4, 7]
        assert reference.grid is not None
        assert reference.grid.spacing_mm == pytest.approx((1.5, 1.5, 4))
        assert not reference.spacing_known

    def test_resampling_to_smaller_pixels_keeps_slices_as_thick_as_the_reference(self, tmp_path: Path) -> None:
        fine = AFFINE @ np.diag([0.5, 0.5, 1, 1])
        fine[:3, 3] = (AFFINE @ [-0.25, -0.25, 0, 1])[:3]
        doubled = self.drawn((1, 3, 6)).repeat(2, 0).repeat(2, 1)
        nifti(tmp_path / "ref" / "a.nii.gz", doubled, fine)
        dicom_seg(tmp_path / "pred" / "a.dcm", self.drawn((1, 3, 6)), stated=False)
        rows = evaluate_folders(tmp_path / "pred", tmp_path / "ref", EvaluationSettings(resample=True)).rows
        assert [(row["dsc"], row["tp"]) for row in rows] == [(1.0, 108), (1.0, 4)]

    def test_slices_of_a_tilted_gantry(self, tmp_path: Path) -> None:
        sheared = AFFINE.copy()
        sheared[:3, 2] += (0.5, -1.75, 0)  # RAS, so LPS -0.5 and 1.75
        nifti(tmp_path / "ref" / "a.nii.gz", self.drawn((1, 3, 6)), sheared)
        moved(dicom_seg(tmp_path / "pred" / "a.dcm", self.drawn((1, 3, 6)), stated=False), shear=(-0.5, 1.75))
        assert [row["dsc"] for row in evaluate_folders(tmp_path / "pred", tmp_path / "ref").rows] == [1.0, 1.0]

    def test_frames_on_no_grid_are_refused(self, tmp_path: Path) -> None:
        path = moved(dicom_seg(tmp_path / "a.dcm", self.drawn((1, 3, 6))), beside=(0, 0.8, 0, 0))
        with pytest.raises(InputError, match=r"a\.dcm: found frames that are unevenly spaced, 8\.8 mm apart or more"):
            read_segmentation(path)

    def test_segments_that_overlap_are_named(self, tmp_path: Path) -> None:
        path = dicom_seg(tmp_path / "a.dcm", self.drawn((1,)))
        dataset = pydicom.dcmread(path)
        second = dataset.PerFrameFunctionalGroupsSequence[1]
        assert second.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2
        dataset.PixelData = np.packbits(np.ones(60, np.uint8), bitorder="little").tobytes()
        dataset.save_as(path)
        with pytest.raises(InputError, match=r'found segments 1 "liver" and 2 "tumour" that overlap; .*; write them'):
            read_segmentation(path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mhd", ".mha", ".nrrd", ".dcm"])
def test_the_scores_of_a_prediction_are_the_same_in_every_format(tmp_path: Path, suffix: str) -> None:
    reference, predicted = example(), example()
    predicted[1, 2:4, 1:3] = 0
    nifti(tmp_path / "ref" / "a.nii.gz", reference)
    file = tmp_path / "pred" / f"a{suffix}"
    if suffix == ".dcm":
        dicom_seg(file, predicted)
    else:
        image = sitk.ReadImage(str(nifti(tmp_path / "as_nifti.nii.gz", predicted)))
        file.parent.mkdir()
        sitk.WriteImage(image, str(file))
    liver, other = evaluate_folders(tmp_path / "pred", tmp_path / "ref").rows
    assert (liver["tp"], liver["fp"], liver["fn"], liver["dsc"], liver["mssd"]) == (8, 0, 4, 16 / 20, 1.5)
    assert liver["assd"] == pytest.approx(4 * 1.5 / 20)
    assert (other["dsc"], other["assd"]) == (1.0, 0.0)
