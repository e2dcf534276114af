"""Sound data sets, and what can go wrong with a copy of one: a trap of the list, or a variant of it, per function.

The sound ones are real scans (slices of a CHAOS case as the challenge ships them, hippocampus crops, brains of QUBIQ)
and, for the layouts whose data are not at hand, those of the generators.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from PIL import Image

from aide_monai.workflows.prepare import write_datalist
from tests.io.dicom.dicom_files import write_series

from ..data.sources.breast_files import write_dicom_study, write_nifti
from ..data.sources.nci_isbi_files import write_label, write_patient

CHAOS_SLICES = slice(9, 21)


@dataclass
class Copy:
    """A copy that may be damaged: its folder and its datalist, which is written anew after the damage."""

    folder: Path
    content: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.content = json.loads(self.datalist.read_text())

    @property
    def datalist(self) -> Path:
        return self.folder / "datalist.json"

    @property
    def records(self) -> list[dict[str, Any]]:
        return self.content["training"]

    def save(self) -> None:
        self.datalist.write_text(json.dumps(self.content))

    def files(self, pattern: str) -> list[Path]:
        """Sorted files; there must be some."""
        found = sorted(self.folder.glob(pattern))
        assert found, pattern
        return found

    def nifti(self, key: str, change: Callable[[np.ndarray], np.ndarray], *, case: int = 0) -> None:
        """Change the voxels of a case's image or label."""
        path = self.folder / self.records[case][key]
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)

    def affine(self, key: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Change the affine of the first case's image or label."""
        path = self.folder / self.records[0][key]
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), change(image.affine.copy())), path)


def make_chaos(folder: Path, aide_data: Path) -> None:
    """Twelve slices of case 37, with both echoes and labels."""
    source = aide_data / "chaos" / "Train_Sets" / "MR" / "37" / "T1DUAL"
    for part in ("DICOM_anon/InPhase", "DICOM_anon/OutPhase", "Ground"):
        target = folder / "MR" / "37" / "T1DUAL" / part
        target.mkdir(parents=True)
        for file in sorted((source / part).iterdir())[CHAOS_SLICES]:
            shutil.copy(file, target)
    write_datalist("chaos", [folder], folder / "datalist.json")


def make_hippocampus(folder: Path, aide_data: Path) -> None:
    """Six crops of one scanner as images/ and labels/, with integers as the Decathlon's other sets have."""
    for part, target in (("imagesTr", "images"), ("labelsTr", "labels")):
        (folder / target).mkdir(parents=True)
        for file in sorted((aide_data / "msd_hippocampus" / part).glob("*.nii.gz"))[1:7]:
            image = nibabel.load(file)
            kind = np.int16 if target == "images" else np.uint8
            voxels = np.asarray(image.dataobj).round().astype(kind)
            nibabel.save(nibabel.Nifti1Image(voxels, image.affine), folder / target / file.name)
    write_datalist("folder", [folder], folder / "datalist.json")


def make_qubiq(folder: Path, aide_data: Path) -> None:
    """Three brains with all raters."""
    for case in ("case01", "case02", "case03"):
        source = aide_data / "qubiq" / "brain-growth" / "Training" / case
        shutil.copytree(source, folder / "brain-growth" / "Training" / case)
    write_datalist("qubiq", [folder], folder / "datalist.json", task="brain-growth")


def make_prostate(folder: Path, aide_data: Path) -> None:
    """A patient of NCI-ISBI whose label has other slices than the image."""
    write_patient(folder, "Prostate3T-01-0001", seed=3, slices=slice(1, 7), flip=(2,))
    write_datalist("nci-isbi", [folder], folder / "datalist.json")


def make_breast(folder: Path, aide_data: Path) -> None:
    """A study in DICOM, its phases named against their times."""
    write_dicom_study(folder / "GPPH" / "P001", 5)
    label = np.zeros((20, 18, 6), np.uint8)
    label[8:12, 8:12, 2:4] = 1
    affine = np.array([[-0.8, 0, 0, 10.0], [0, -0.8, 0, 20.0], [0, 0, 2.5, 30.0], [0, 0, 0, 1.0]])
    write_nifti(folder / "GPPH" / "P001" / "label.nii.gz", label, affine)
    datalist = write_datalist("breast", [folder], folder.with_name("outside.json"))
    without = [replace(case, domain=None) for case in datalist.cases]  # a folder of this name lies beside the datalist
    datalist.cases = without
    datalist.save(folder / "datalist.json")


def make_ct(folder: Path, aide_data: Path) -> None:
    """A CT series in Hounsfield units."""
    voxels = np.random.default_rng(0).integers(0, 2000, (32, 32, 4)).astype(np.uint16)
    written = write_series(folder / "images_dicom", voxels, modality="CT", slope=1, intercept=-1024)
    label = np.zeros(voxels.shape, np.uint8)
    label[4:9, 4:9, 1:3] = 1
    write_nifti(folder / "label.nii.gz", label, written.affine)
    record = {"case": "a", "image": "images_dicom", "label": "label.nii.gz", "quality": "high"}
    content = {"name": "CT", "labels": {"0": "background", "1": "organ"}, "modality": {"0": "CT"}, "training": [record]}
    (folder / "datalist.json").write_text(json.dumps(content))


MAKERS = {
    "chaos": make_chaos,
    "hippocampus": make_hippocampus,
    "qubiq": make_qubiq,
    "prostate": make_prostate,
    "breast": make_breast,
    "ct": make_ct,
}

IN, OUT, GROUND = ("MR/37/T1DUAL/DICOM_anon/InPhase", "MR/37/T1DUAL/DICOM_anon/OutPhase", "MR/37/T1DUAL/Ground")


def _pngs(copy: Copy, change: Callable[[np.ndarray], np.ndarray], *, only: int | None = None) -> None:
    files = copy.files(f"{GROUND}/*.png")
    for file in files if only is None else files[only : only + 1]:
        Image.fromarray(change(np.asarray(Image.open(file)).copy())).save(file)


def _dicom(file: Path, change: Callable[[pydicom.Dataset], object]) -> None:
    dataset = pydicom.dcmread(file)
    change(dataset)
    dataset.save_as(file)


def _pixels(file: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    def put(dataset: pydicom.Dataset) -> None:
        pixels = dataset.pixel_array
        dataset.PixelData = change(pixels).astype(pixels.dtype).tobytes()

    _dicom(file, put)


def _move(dataset: pydicom.Dataset, axis: int, distance_mm: float) -> None:
    place = [float(value) for value in dataset.ImagePositionPatient]
    place[axis] += distance_mm
    dataset.ImagePositionPatient = place


def echoes_in_one_folder(copy: Copy) -> None:
    copy.records[0]["image"] = ["MR/37/T1DUAL/DICOM_anon", OUT]


def channels_swapped_in_the_datalist(copy: Copy) -> None:
    copy.records[0]["image"].reverse()


def folders_of_the_phases_swapped(copy: Copy) -> None:
    inside, outside = copy.folder / IN, copy.folder / OUT
    inside.rename(inside.with_name("kept"))
    outside.rename(inside)
    inside.with_name("kept").rename(outside)


def one_phase_twice(copy: Copy) -> None:
    copy.records[0]["image"] = [IN, IN]


def unknown_label_value(copy: Copy) -> None:
    _pngs(copy, lambda pixels: np.where(pixels == 63, 40, pixels).astype(np.uint8), only=5)


def png_missing(copy: Copy) -> None:
    copy.files(f"{GROUND}/*.png")[4].unlink()


def png_too_many(copy: Copy) -> None:
    file = copy.files(f"{GROUND}/*.png")[4]
    shutil.copy(file, file.with_name("IMG-9999-00001.png"))


def png_of_another_size(copy: Copy) -> None:
    _pngs(copy, lambda pixels: pixels[:-2], only=3)


def png_in_colour(copy: Copy) -> None:
    _pngs(copy, lambda pixels: np.stack([pixels] * 3, axis=-1), only=3)


def png_damaged(copy: Copy) -> None:
    file = copy.files(f"{GROUND}/*.png")[2]
    file.write_bytes(file.read_bytes()[:60])


def label_stack_reversed(copy: Copy) -> None:
    files = copy.files(f"{GROUND}/*.png")
    contents = [file.read_bytes() for file in files]
    for file, other in zip(files, reversed(contents), strict=True):
        file.write_bytes(other)


def labels_mirrored(copy: Copy) -> None:
    _pngs(copy, lambda pixels: pixels[:, ::-1])


def labels_upside_down(copy: Copy) -> None:
    _pngs(copy, lambda pixels: pixels[::-1])


def slice_missing(copy: Copy) -> None:
    for pattern in (f"{IN}/*", f"{OUT}/*", f"{GROUND}/*"):
        copy.files(pattern)[5].unlink()


def slice_doubled(copy: Copy) -> None:
    file = copy.files(f"{IN}/*")[5]
    shutil.copy(file, file.with_name("copy.dcm"))


def slices_uneven(copy: Copy) -> None:
    _dicom(copy.files(f"{IN}/*")[5], lambda dataset: _move(dataset, 2, 2.0))


def slice_shifted(copy: Copy) -> None:
    _dicom(copy.files(f"{IN}/*")[5], lambda dataset: _move(dataset, 0, 3.0))


def phase_on_another_grid(copy: Copy) -> None:
    for file in copy.files(f"{OUT}/*"):
        _dicom(file, lambda dataset: setattr(dataset, "PixelSpacing", [1.5, 1.5]))


def phase_with_fewer_slices(copy: Copy) -> None:
    copy.files(f"{OUT}/*")[0].unlink()


def clipped_to_8_bits(copy: Copy) -> None:
    for file in copy.files(f"{IN}/*"):
        _pixels(file, lambda pixels: np.minimum(pixels, 255))


def dicom_truncated(copy: Copy) -> None:
    file = copy.files(f"{IN}/*")[3]
    file.write_bytes(file.read_bytes()[:-5000])


def dicom_without_a_place(copy: Copy) -> None:
    _dicom(copy.files(f"{IN}/*")[3], lambda dataset: delattr(dataset, "ImagePositionPatient"))


def dicom_without_directions(copy: Copy) -> None:
    _dicom(copy.files(f"{IN}/*")[3], lambda dataset: setattr(dataset, "ImageOrientationPatient", [1, 0, 0, 1, 0, 0]))


def dicom_that_is_none(copy: Copy) -> None:
    copy.files(f"{IN}/*")[3].write_text("no scan")


def blank_slice_under_a_label(copy: Copy) -> None:
    for pattern in (f"{IN}/*", f"{OUT}/*"):
        _pixels(copy.files(pattern)[6], np.zeros_like)


def blank_slice_between_others(copy: Copy) -> None:
    _pixels(copy.files(f"{OUT}/*")[6], np.zeros_like)


def label_empty(copy: Copy) -> None:
    _pngs(copy, np.zeros_like)


def label_inverted(copy: Copy) -> None:
    _pngs(copy, lambda pixels: np.where(np.arange(pixels.size).reshape(pixels.shape) < 9, 0, 63).astype(np.uint8))


def label_not_whole(copy: Copy) -> None:
    copy.nifti("label", lambda voxels: voxels * np.float32(0.75))


def label_value_unknown(copy: Copy) -> None:
    copy.nifti("label", lambda voxels: voxels * np.uint8(7))


def label_of_another_shape(copy: Copy) -> None:
    copy.nifti("label", lambda voxels: voxels[:, :, 1:])


def label_moved(copy: Copy) -> None:
    copy.affine("label", lambda affine: affine + np.pad(np.full((3, 1), 4.0), ((0, 1), (3, 0))))


def axes_skewed(copy: Copy) -> None:
    for key in ("image", "label"):
        copy.affine(key, lambda affine: affine @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))


def qform_against_sform(copy: Copy) -> None:
    path = copy.folder / copy.records[0]["image"]
    image = nibabel.load(path)
    other = image.affine.copy()
    other[0, 3] += 20
    image.set_qform(other, code=1)
    nibabel.save(image, path)


def voxels_nan(copy: Copy) -> None:
    copy.nifti("image", lambda voxels: np.where(np.indices(voxels.shape).sum(0) == 9, np.nan, voxels))


def voxels_infinite(copy: Copy) -> None:
    copy.nifti("image", lambda voxels: np.where(np.indices(voxels.shape).sum(0) == 9, np.inf, voxels))


def image_constant(copy: Copy) -> None:
    copy.nifti("image", lambda voxels: np.full_like(voxels, 7))


def time_axis(copy: Copy) -> None:
    copy.nifti("image", lambda voxels: np.stack([voxels] * 3, axis=-1))


def patient_in_two_splits(copy: Copy) -> None:
    copy.content["test"] = [{**copy.records.pop(), "split": "test", "patient": copy.records[0]["patient"]}]
    copy.content["numTraining"], copy.content["numTest"] = len(copy.records), 1


def _leak(copy: Copy, change: Callable[[np.ndarray], np.ndarray]) -> None:
    test = {**copy.records.pop(), "split": "test"}
    for key in ("image", "label"):
        source = nibabel.load(copy.folder / copy.records[0][key])
        voxels = np.asarray(source.dataobj)
        changed = change(voxels) if key == "image" else voxels
        nibabel.save(nibabel.Nifti1Image(changed, source.affine), copy.folder / test[key])
    copy.content["test"] = [test]
    copy.content["numTraining"], copy.content["numTest"] = len(copy.records), 1


def scan_copied_to_the_test(copy: Copy) -> None:
    _leak(copy, lambda voxels: voxels)


def scan_rescaled_to_the_test(copy: Copy) -> None:
    _leak(copy, lambda voxels: (np.sqrt(voxels.clip(0)) * 40).astype(np.int16))


def label_of_another_case(copy: Copy) -> None:
    image, label = (nibabel.load(copy.folder / copy.records[0][key]) for key in ("image", "label"))
    voxels = np.asarray(image.dataobj)
    shuffled = np.random.default_rng(0).permutation(voxels.ravel()).reshape(voxels.shape)
    nibabel.save(nibabel.Nifti1Image(shuffled, image.affine), copy.folder / copy.records[1]["image"])
    nibabel.save(label, copy.folder / copy.records[1]["label"])


def one_case_in_8_bits(copy: Copy) -> None:
    copy.nifti("image", lambda voxels: (voxels.clip(0) * (255.0 / voxels.max())).round().astype(np.uint8))


def gzip_truncated(copy: Copy) -> None:
    path = copy.folder / copy.records[0]["image"]
    path.write_bytes(path.read_bytes()[:-2000])


def file_missing(copy: Copy) -> None:
    (copy.folder / copy.records[0]["label"]).unlink()


def header_of_a_bomb(copy: Copy) -> None:
    path = (copy.folder / copy.records[0]["image"]).with_suffix("")
    header = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).header
    header.set_data_shape((30000, 30000, 30000))
    header["vox_offset"] = 352
    path.write_bytes(header.binaryblock + bytes(100))
    copy.records[0]["image"] = str(path.relative_to(copy.folder))


def path_out_of_the_folder(copy: Copy) -> None:
    copy.records[0]["image"] = "../../elsewhere.nii.gz"


def case_twice(copy: Copy) -> None:
    copy.records[1]["case"] = copy.records[0]["case"]


def label_without_quality(copy: Copy) -> None:
    del copy.records[0]["quality"]


def stored_along_other_axes(copy: Copy) -> None:
    for key in ("image", "label"):
        path = copy.folder / copy.records[0][key]
        image = nibabel.load(path)
        turned = image.as_reoriented(np.array([[2, 1], [0, 1], [1, -1]]))
        nibabel.save(turned, path)


def content_changed_since(copy: Copy) -> None:
    copy.nifti("image", lambda voxels: voxels + np.int16(1))


def voxels_in_a_foreign_file(copy: Copy) -> None:
    lines = ("NDims = 3", "DimSize = 2 2 2", "ElementType = MET_UCHAR", "ElementDataFile = /etc/hostname", "")
    (copy.folder / "images" / "foreign.mhd").write_text("\n".join(lines))
    copy.records[0]["image"] = "images/foreign.mhd"


def rater_missing(copy: Copy) -> None:
    copy.records.remove(next(record for record in copy.records if record["case"] == "case02_rater6"))
    copy.content["numTraining"] = len(copy.records)


def mask_between_0_and_1(copy: Copy) -> None:
    copy.nifti("label", lambda voxels: voxels * 0.5)


def mask_of_255(copy: Copy) -> None:
    copy.nifti("label", lambda voxels: voxels * 255)


def _label_shifted(copy: Copy, distance_mm: float) -> None:
    import SimpleITK as sitk

    file = copy.files("**/*.nrrd")[0]
    image = sitk.ReadImage(str(file))
    origin = np.array(image.GetOrigin())
    origin[0] += distance_mm
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    lps[:3, 3] = origin
    write_label(file, sitk.GetArrayFromImage(image).T, np.diag([-1.0, -1, 1, 1]) @ lps)


def label_elsewhere(copy: Copy) -> None:
    _label_shifted(copy, 500.0)


def label_half_outside(copy: Copy) -> None:
    _label_shifted(copy, 10.0)


def phases_out_of_order(copy: Copy) -> None:
    copy.records[0]["image"].reverse()


def intercept_lost(copy: Copy) -> None:
    for file in copy.files("images_dicom/*"):
        _dicom(file, lambda dataset: delattr(dataset, "RescaleIntercept"))


# data set, damage, what the report must say of it
DAMAGES: list[tuple[str, Callable[[Copy], None], str]] = [
    ("chaos", echoes_in_one_folder, "error.*DICOM_anon: found 2 volumes; expected one"),
    ("chaos", channels_swapped_in_the_datalist, "error.*channels of echo times 2.*T1 in-phase, T1 out-of-phase"),
    ("chaos", folders_of_the_phases_swapped, "error.*channels of echo times 2.*T1 in-phase, T1 out-of-phase"),
    ("chaos", one_phase_twice, "error.*two channels with the same content"),
    ("chaos", unknown_label_value, "error.*label values 40; expected .*55 to 71 liver"),
    ("chaos", png_missing, "error.*PNG and DICOM slices that do not match.*without a PNG: IMG"),
    ("chaos", png_too_many, "error.*without a DICOM slice in .*IMG-9999-00001"),
    ("chaos", png_of_another_size, r"error.*254 x 256 pixels \(rows x columns\); expected 256 x 256"),
    ("chaos", png_in_colour, "error.*png: found a picture in colour"),
    ("chaos", png_damaged, "error.*png: found no readable PNG"),
    ("chaos", label_stack_reversed, "warning.*times better with its slices in reversed order"),
    ("chaos", labels_mirrored, "warning.*times better mirrored along x"),
    ("chaos", labels_upside_down, "warning.*times better mirrored along"),
    ("chaos", slice_missing, "error.*1 slice is missing"),
    ("chaos", slice_doubled, "error.*copy.dcm.*found two slices at one place"),
    ("chaos", slices_uneven, "error.*mm between them, others .*; expected even spacing"),
    ("chaos", slice_shifted, "error.*beside its place in the stack"),
    ("chaos", phase_on_another_grid, "error.*OutPhase: found affine .* mm off; expected affine .*InPhase"),
    ("chaos", phase_with_fewer_slices, "error.*OutPhase: found shape 256 x 256 x 11; expected shape 256 x 256 x 12"),
    ("chaos", clipped_to_8_bits, "warning.*InPhase: found .*% of the voxels at the highest value, 255"),
    ("chaos", dicom_truncated, r"error.*dcm: found \d+ bytes of pixels; expected \d+; the file is truncated"),
    ("chaos", dicom_without_a_place, "error.*dcm: found .*ImagePositionPatient"),
    ("chaos", dicom_without_directions, "error.*dcm: found ImageOrientationPatient .*; expected two directions"),
    ("chaos", dicom_that_is_none, "error.*dcm: found no DICOM file"),
    ("chaos", blank_slice_under_a_label, "error.*marks in slices .*, in which the image has one value"),
    ("chaos", blank_slice_between_others, "warning.*OutPhase: found slices .* of one value"),
    ("chaos", label_empty, "warning.*a label without any marked voxel"),
    ("chaos", label_inverted, "warning.*marks in 100% of all voxels"),
    ("hippocampus", label_not_whole, "error.*values that are not whole numbers: 0.75, 1.5"),
    ("hippocampus", label_value_unknown, "error.*label values 7, 14; expected the labels 0 background, 1 label 1"),
    ("hippocampus", label_of_another_shape, "error.*found shape .*; expected shape .* as in "),
    ("hippocampus", label_moved, "error.*found affine .*, up to 6.93 mm off .shifted by 4 4 4 mm.*; expected affine"),
    ("hippocampus", axes_skewed, "warning.*axes that are not at right angles"),
    ("hippocampus", qform_against_sform, "warning.*a qform and an sform that disagree"),
    ("hippocampus", voxels_nan, "error.*voxels NaN or infinite; expected finite values"),
    ("hippocampus", voxels_infinite, "error.*voxels NaN or infinite; expected finite values"),
    ("hippocampus", image_constant, "warning.*the same value 7 in all voxels"),
    ("hippocampus", time_axis, r"error.*found shape .* x 3; expected 3 axes \(x, y, z\)"),
    ("hippocampus", patient_in_two_splits, 'error.*the same patient ".*" in split "training"'),
    ("hippocampus", scan_copied_to_the_test, 'error.*the same image content in split "training"'),
    ("hippocampus", scan_rescaled_to_the_test, r'error.*one scan \(likeness .*\) in split "training"'),
    ("hippocampus", label_of_another_case, "error.*the same label content as case"),
    ("hippocampus", one_case_in_8_bits, "warning.*values that end at 255; expected about"),
    ("hippocampus", gzip_truncated, "error.*voxels that cannot be read, truncated or damaged"),
    ("hippocampus", file_missing, "error.*nii.gz: found no such file"),
    ("hippocampus", header_of_a_bomb, "error.*a volume of 30000 x 30000 x 30000 voxels, more than"),
    ("hippocampus", path_out_of_the_folder, "error.*leads to .*elsewhere.nii.gz, outside"),
    ("hippocampus", case_twice, 'error.*found the case "hippocampus.*" twice, in .* and '),
    ("hippocampus", label_without_quality, "error.*a label without a quality"),
    ("hippocampus", stored_along_other_axes, "warning.*orientation .*; expected RAS"),
    ("hippocampus", content_changed_since, "warning.*other content than when the datalist was made"),
    ("hippocampus", voxels_in_a_foreign_file, 'error.*voxels in "/etc/hostname", outside'),
    ("qubiq", rater_missing, 'warning.*case "case02": found labels of 6 of 7 raters; missing: 6'),
    ("qubiq", mask_between_0_and_1, "error.*values that are not whole numbers: 0.5"),
    ("qubiq", mask_of_255, "error.*label values 255; expected the labels 0 background, 1 brain growth"),
    ("prostate", label_elsewhere, "error.*nowhere on the image"),
    ("prostate", label_half_outside, "(error|warning).*% of the marked voxels outside of the image"),
    ("breast", phases_out_of_order, "error.*channels of times of acquisition .*; expected the order before contrast"),
    ("ct", intercept_lost, "warning.*CT whose lowest value is"),
]
