"""Label volumes as DICOM Segmentation objects that point to the slices they were made for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from aide_monai import __version__
from aide_monai.errors import InputError
from aide_monai.io.dicom.stack import DicomSeries
from aide_monai.utils.files import write_atomically

# A segmentation must have these, if only empty; images that were made anonymous often lack some.
_MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)


def write_dicom_seg(path: str | Path, label: Any, series: DicomSeries, labels: Mapping[Any, str]) -> None:
    """Write a label as one DICOM SEG with a binary segment for each class; the file appears whole or not at all.

    The segmentation belongs to the patient and study of the series, shares its frame of reference, and every frame
    names its source slice, so that viewers lay it over the images.

    Args:
        path: file to write, usually ending in .dcm.
        label: (X, Y, Z) integers, class indices on the grid of the series as ``DicomSeriesReader`` gives it.
        series: the volume that was segmented.
        labels: class index to name, 0 is the background.

    Raises:
        InputError: if the label has another shape than the series, a class without a name, or cannot be written; if the
            series is part of a file of several volumes or lacks what a segmentation must refer to.
    """
    import highdicom as hd  # only who writes such files waits for it
    from pydicom.sr.codedict import codes

    voxels = np.asarray(label)
    if voxels.shape != tuple(series.shape):
        raise InputError(f"{path}: label has shape {voxels.shape}; expected that of its images, {tuple(series.shape)}")
    names = {int(index): name for index, name in labels.items() if int(index) > 0}
    nameless = sorted(set(np.unique(voxels).tolist()) - {0, *names})
    if nameless:
        raise InputError(f"{path}: found class {nameless[0]}; expected 0 or one of {sorted(names)}, which have names")
    algorithm = hd.AlgorithmIdentificationSequence(
        name="AIDE-MONAI", version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=hd.sr.CodedConcept(value=str(index), scheme_designator="99AIDE", meaning=name[:64]),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, (index, name) in enumerate(sorted(names.items()), 1)
    ]
    frames = np.zeros(voxels.shape[::-1], dtype=np.uint8)  # (slices, rows, columns)
    for number, index in enumerate(sorted(names), 1):
        frames[voxels.transpose(2, 1, 0) == index] = number
    # as they are stored: files are in the order of the slices, frames of one file may lie in any
    stored = np.argsort([one.frame for one in series.slices], kind="stable")
    try:
        segmentation = _segmentation(series, frames[stored], segments)
    except (ValueError, AttributeError, KeyError, TypeError) as error:  # whatever the images lack
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path}: found images that a DICOM SEG cannot refer to ({series.files[0]}: {reason}); expected files that "
            "hold one volume and all identifiers: ask for output_format nifti"
        ) from error
    write_atomically(path, lambda file: segmentation.save_as(file))


def _segmentation(series: DicomSeries, frames: np.ndarray, segments: list[Any]) -> Any:
    import highdicom as hd

    return hd.seg.Segmentation(
        source_images=[_source(file) for file in series.files],
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=hd.UID(),
        series_number=900,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="AIDE-MONAI",
        manufacturer_model_name="AIDE-MONAI",
        software_versions=__version__,
        device_serial_number="0",
        series_description="AIDE-MONAI segmentation",
        content_label="SEGMENTATION",
        specific_character_set="ISO_IR 192",  # names of classes in any language
    )


def _source(file: str) -> pydicom.FileDataset:
    dataset = pydicom.dcmread(file)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    return dataset
