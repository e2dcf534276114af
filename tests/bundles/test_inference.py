"""What inference takes and writes: NIfTI, MHD, DICOM folders; NIfTI on the image's grid, or DICOM SEG."""

from __future__ import annotations

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.io.dicom.seg import write_dicom_seg
from aide_monai.io.dicom.series import find_series, one_series
from aide_monai.io.segmentations import on_one_grid, read_segmentation
from aide_monai.reports.tables import read_csv
from tests.bundles.doors import ROOT, aide, monai_bundle_run, write_undecided_weights
from tests.bundles.layouts import BUNDLES
from tests.data.sources.promise12_files import prostate_volume
from tests.io.dicom.dicom_files import write_multiframe, write_series


@pytest.mark.parametrize("data", ["generated", "real"])
def test_dicom_in_dicom_segmentations_out(data, request, tmp_path):
    """CHAOS: two echoes per study; each mask refers to the slices of the first, in phase."""
    name = "chaos_liver_ssl"
    if data == "real":
        studies = request.getfixturevalue("aide_data") / "chaos" / "Train_Sets" / "MR"
    else:
        studies = request.getfixturevalue("data_of")(name) / "Train_Sets" / "MR"
    size = [64, 64] if data == "real" else [32, 32]
    options = {"dataset_dir": str(studies), **BUNDLES[name].model, "slice_size": size}
    options |= {"volume_options#fit": "resize"}
    write_undecided_weights(ROOT / name, tmp_path, **options)
    options |= {"run_dir": str(tmp_path)}
    for output_format in ("nifti", "dicom-seg"):
        output = {"output_dir": str(tmp_path / output_format), "output_format": output_format}
        monai_bundle_run(ROOT / name, "inference", **output, **options)

    cases = sorted(path.name for path in studies.iterdir())
    assert {path.name for path in (tmp_path / "dicom-seg").iterdir()} == {f"{case}_seg.dcm" for case in cases}
    for case in cases:
        in_phase = next(series for series in find_series(studies / case) if series.echo_ms > 4)
        sources = {source.SOPInstanceUID: source for source in map(pydicom.dcmread, in_phase.files)}
        source = next(iter(sources.values()))
        path = tmp_path / "dicom-seg" / f"{case}_seg.dcm"
        dataset = pydicom.dcmread(path)
        assert dataset.SOPClassUID == pydicom.uid.SegmentationStorage
        assert dataset.Modality == "SEG"
        for key in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
            assert dataset.get(key) == source.get(key, ""), key
        (referenced,) = dataset.ReferencedSeriesSequence
        assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
        assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} <= {*sources}
        assert len(dataset.PerFrameFunctionalGroupsSequence) > 1
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            (image,) = frame.DerivationImageSequence[0].SourceImageSequence
            place = sources[image.ReferencedSOPInstanceUID].ImagePositionPatient
            assert np.allclose(frame.PlanePositionSequence[0].ImagePositionPatient, place, atol=1e-3)

        segmentation = highdicom.seg.segread(str(path))
        assert segmentation.number_of_segments == 1
        assert segmentation.get_segment_numbers(segment_label="liver") == [1]
        assert {uids[2] for uids in segmentation.get_source_image_uids()} <= {*sources}
        mask, reference = read_segmentation(path), read_segmentation(tmp_path / "nifti" / f"{case}_seg.nii.gz")
        mask, reference = on_one_grid(mask, reference)
        assert np.array_equal(mask.labels, reference.labels)
        assert 0.02 < reference.labels.mean() < 0.98
        assert reference.labels.shape == tuple(in_phase.shape)
        assert np.allclose(reference.affine, in_phase.affine, atol=1e-3)

    arguments = ["--pred", tmp_path / "dicom-seg", "--ref", tmp_path / "nifti", "--out", tmp_path / "scores"]
    assert aide("evaluate", *arguments) == 0
    rows = read_csv(tmp_path / "scores" / "per_case.csv")
    assert [(row["case"], row["label_name"], row["dsc"], row["mssd"]) for row in rows] == [
        (case, "liver", 1.0, 0.0) for case in cases
    ]


@pytest.mark.parametrize("output_format", ["nifti", "dicom-seg"])
def test_masks_hold_the_values_in_which_labels_are_stored(output_format, data_of, tmp_path):
    """As BraTS, whose third class is stored as 4."""
    name = "chaos_liver_ssl"
    studies = data_of(name) / "Train_Sets" / "MR"
    options = {"dataset_dir": str(studies), **BUNDLES[name].model, "run_dir": str(tmp_path)}
    write_undecided_weights(ROOT / name, tmp_path, **{key: options[key] for key in options if key != "run_dir"})
    assert aide("predict", ROOT / name, **options, classes={"63": 1}, output_format=output_format) == 0
    masks = [read_segmentation(path) for path in sorted((tmp_path / "predictions").iterdir())]
    assert len(masks) == 4
    assert {value for mask in masks for value in mask.values} == {0, 63}
    assert output_format == "nifti" or all(mask.names == {63: "liver"} for mask in masks)


def test_one_scan_in_every_format_gets_one_mask(tmp_path):
    """The same voxels as NIfTI, MHD, a DICOM folder and a folder of DICOM studies."""
    name = "prostate_uda"
    image, _ = prostate_volume(3, shape=(40, 36, 7))
    image = np.clip(image, 0, None).astype("u2")
    spacing = (0.8, 0.7, 3.3)
    dicom = write_series(
        tmp_path / "dicom" / "scan", image, spacing=spacing, orientation="oblique", position=(5, -7, 9)
    )
    (tmp_path / "nifti").mkdir()
    nibabel.save(nibabel.Nifti1Image(image.astype(np.int16), dicom.affine), tmp_path / "nifti" / "scan.nii.gz")
    volume = sitk.GetImageFromArray(np.ascontiguousarray(image.T))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ dicom.affine
    volume.SetSpacing(spacing)
    volume.SetOrigin(lps[:3, 3].tolist())
    volume.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    (tmp_path / "mhd").mkdir()
    sitk.WriteImage(volume, str(tmp_path / "mhd" / "scan.mhd"))

    options = BUNDLES[name].model
    write_undecided_weights(ROOT / name, tmp_path, dataset_dir=str(tmp_path / "nifti"), **options)
    masks = []
    for folder in ("nifti", "mhd", "dicom/scan", "dicom"):
        output = {"run_dir": str(tmp_path), "output_dir": str(tmp_path / "masks" / folder)}
        assert aide("predict", ROOT / name, dataset_dir=str(tmp_path / folder), **options, **output) == 0
        mask = nibabel.load(tmp_path / "masks" / folder / "scan_seg.nii.gz")
        assert mask.get_data_dtype() == np.uint8
        assert np.allclose(mask.affine, dicom.affine, atol=1e-4), folder
        masks.append(np.asarray(mask.dataobj))
    assert masks[0].shape == image.shape
    assert 0.02 < masks[0].mean() < 0.98
    # a header's affine in single precision moves a sample by as little as a millionth of a pixel
    assert all((mask != masks[0]).mean() < 0.002 for mask in masks)


def test_a_dicom_segmentation_of_a_nifti_is_refused_in_one_sentence(data_of, tmp_path, capsys):
    name = "hippocampus_ssl"
    options = {"dataset_dir": str(data_of(name) / "imagesTr"), **BUNDLES[name].model}
    write_undecided_weights(ROOT / name, tmp_path, **options)
    assert aide("predict", ROOT / name, **options, run_dir=str(tmp_path), output_format="dicom-seg") == 2
    error = capsys.readouterr().err
    assert "phantom_000.nii.gz: found no DICOM; expected DICOM images, as a DICOM SEG needs; ask for" in error
    assert not list((tmp_path / "predictions").glob("*"))


def test_one_file_is_segmented_as_in_its_folder(tmp_path):
    """A NIfTI, one channel of it, and a multi-frame DICOM file; a DICOM SEG is no image."""
    data = write_phantoms(tmp_path / "data", cases=1, shape=(32, 30, 6), spacing_mm=(3, 3, 8))
    scan = next((data / "imagesTr").iterdir())
    voxels = np.asarray(nibabel.load(scan).dataobj)
    both = nibabel.Nifti1Image(np.stack([voxels, 0 * voxels], axis=-1), nibabel.load(scan).affine)
    nibabel.save(both, tmp_path / "both.nii.gz")
    frames = np.clip(voxels, 0, None).astype("u2")
    (dicom,) = write_multiframe(tmp_path / "scan.dcm", frames, spacing=(3, 3, 8)).files
    bundle, options = ROOT / "hippocampus_ssl", dict(BUNDLES["hippocampus_ssl"].model)
    write_undecided_weights(bundle, tmp_path / "run", **options, dataset_dir=str(scan))
    options["run_dir"] = str(tmp_path / "run")
    found = {}
    for name in (scan, scan.parent, f"{tmp_path / 'both.nii.gz'}#channel=0", dicom):
        out = tmp_path / "masks" / str(len(found))
        assert aide("predict", bundle, **options, dataset_dir=str(name), output_dir=str(out)) == 0
        (mask,) = out.iterdir()
        found[mask.name, len(found)] = np.asarray(nibabel.load(mask).dataobj)
    one, *others = found.values()
    assert 0.1 < one.mean() < 0.9
    for other in others[:2]:
        np.testing.assert_array_equal(other, one)
    assert others[2].shape == one.shape
    series = write_series(tmp_path / "series", frames, spacing=(3, 3, 8))
    write_dicom_seg(tmp_path / "seg.dcm", one, one_series(str(series.folder)), {1: "liver"})
    arguments = {**options, "dataset_dir": str(tmp_path / "seg.dcm"), "output_dir": str(tmp_path / "none")}
    assert aide("predict", bundle, **arguments) == 2
    assert not (tmp_path / "none").exists()
