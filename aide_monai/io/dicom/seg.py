"""Label volumes as DICOM Segmentation objects that point to the slices they were made for, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.uid import SegmentationStorage

from aide_monai import __version__
from aide_monai.errors import InputError
from aide_monai.io.dicom.elements import is_dicom, read_header
from aide_monai.io.dicom.stack import POSITION_TOLERANCE, POSITION_TOLERANCE_MM, SAME_PLACE_MM, DicomSeries
from aide_monai.io.grid import COSINE_TOLERANCE
from aide_monai.io.location import SUFFIXES
from aide_monai.io.segments import SCHEME, dicom_segments
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


SEG = "SEG"
"""Modality of segmentations."""

_STORED_AS = (SegmentationStorage, "1.2.840.10008.5.1.4.1.1.66.7")  # the second is that of label maps

_MOST_MISSING = 10
"""Gaps between marked slices are multiples of a spacing that is at most so many times smaller than the smallest."""


@dataclass(frozen=True)
class SegVolume:
    """The segments of a DICOM SEG as one label map; slices between the first and the last frame may be empty.

    Attributes:
        labels: (X, Y, Z) uint16 segment numbers or, in files that were written here, label values; 0 is the background.
        affine: (4, 4) float64, voxel index to mm, RAS.
        names: label value to what the segment is called.
        spacing_stated: whether the file says how far slices are apart, or has all of them; otherwise it follows from
            the frames, of which nobody knows how many slices without a mark lie between.
    """

    labels: npt.NDArray[np.uint16]
    affine: npt.NDArray[np.float64]
    names: dict[int, str]
    spacing_stated: bool


def is_dicom_seg(file: str | Path) -> bool:
    """Whether a file is a DICOM SEG; never one that ends like another kind of volume."""
    if str(file).lower().endswith(SUFFIXES) or not is_dicom(file):
        return False
    try:
        return read_header(str(file), ()).sop_class in _STORED_AS
    except Exception:  # who reads the file tells what is wrong with it
        return False


def read_dicom_seg(path: str | Path) -> SegVolume:
    """Read a DICOM SEG (binary, label map, or fractional with whole values) frame by frame, by its positions.

    The spacing is SpacingBetweenSlices where all frames lie on it, else the largest length of which all gaps between
    frames are multiples. Slices may be displaced against each other, as those of a tilted gantry are.

    Raises:
        InputError: no DICOM SEG, fractions, segments that overlap, or frames that lie on no one grid; the file is not
            named.
    """
    import highdicom as hd

    try:
        dataset = hd.seg.segread(str(path))
        frames = dataset.get_stored_frames()
        groups = [_groups_of(dataset, number) for number in range(len(frames))]
        planes = np.array([(*g["ImageOrientationPatient"], *g["PixelSpacing"]) for g in groups], dtype=np.float64)
        positions = np.array([g["ImagePositionPatient"] for g in groups], dtype=np.float64)
        numbers = [int(g.get("ReferencedSegmentNumber", 0)) for g in groups]
        names = {int(one.SegmentNumber): str(one.SegmentLabel) for one in dataset.SegmentSequence}
        stated = float(groups[0].get("SpacingBetweenSlices") or 0)
        thickness = float(groups[0].get("SliceThickness") or 0)
        full = int(dataset.get("MaximumFractionalValue", 1))
        segments = dicom_segments(dataset)
        if not all(np.isfinite(values).all() for values in (planes, positions, stated, thickness)):
            raise ValueError("places that are no finite numbers")
    except Exception as error:  # whatever is wrong with a DICOM file ends in the same sentence
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"a DICOM file that is no readable segmentation ({reason})") from error
    plane = planes[0]
    if np.abs(planes - plane).max() > COSINE_TOLERANCE:
        raise InputError("frames of several orientations or pixel sizes")
    rows, columns = plane[:3], plane[3:6]
    order, step = _stack(positions, np.cross(rows, columns), stated, thickness)
    labels = np.zeros((*frames.shape[1:], max(order) + 1), dtype=np.uint16)
    for frame, place, number in zip(frames, order, numbers, strict=True):
        _mark(labels[..., place], frame, number, full, names)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = rows * plane[7], columns * plane[6], step
    lps[:3, 3] = positions[order.index(0)]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    known = stated > 0 and abs(float(np.linalg.norm(step)) - stated) <= POSITION_TOLERANCE_MM
    # a file that has a slice without any mark leaves out none
    known = known or (len(set(order)) == labels.shape[2] and not labels.any(axis=(0, 1)).all())
    values = np.arange(65536, dtype=np.uint16)
    values[list(names)] = [one.value for one in segments]
    return SegVolume(values[labels].transpose(1, 0, 2), affine, {one.value: str(one) for one in segments}, known)


def _groups_of(dataset: Any, frame: int) -> dict[str, Any]:
    """All elements of the functional groups of a frame by keyword; those of the frame itself go first."""
    shared = list(dataset.get("SharedFunctionalGroupsSequence", []))[:1]
    own = list(dataset.get("PerFrameFunctionalGroupsSequence", []))[frame : frame + 1]
    macros = [macro for group in (*shared, *own) for element in group for macro in list(element.value)[:1]]
    return {element.keyword: element.value for macro in macros for element in macro}


def _stack(
    positions: npt.NDArray[np.float64], normal: npt.NDArray[np.float64], stated: float, thickness: float
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """The slice of each frame, from 0, and the step (LPS, mm) from slice to slice."""
    distances = positions @ normal
    first, last = int(distances.argmin()), int(distances.argmax())
    length = float(distances[last] - distances[first])
    if length <= SAME_PLACE_MM:
        return [0] * len(positions), normal * (stated or thickness or 1.0)
    heights = sorted(distances.tolist())
    gap = min(high - low for low, high in pairwise(heights) if high - low > SAME_PLACE_MM)
    line = (positions[last] - positions[first]) / length
    # a part of the smallest gap is a guess, which rounded positions alone may not make true
    guesses = [(gap / part, 0.0 if part > 1 else POSITION_TOLERANCE_MM) for part in range(1, _MOST_MISSING + 1)]
    for spacing, tolerance in [(stated, POSITION_TOLERANCE_MM)] * (stated > SAME_PLACE_MM) + guesses:
        steps = max(round(length / spacing), 1)
        places = np.rint((distances - distances[first]) * steps / length)
        even = positions[first] + places[:, None] * line * length / steps
        beside = float(np.linalg.norm(positions - even, axis=1).max())
        if beside <= max(tolerance, POSITION_TOLERANCE * length / steps):
            return places.astype(int).tolist(), line * length / steps
    raise InputError(f"frames that are unevenly spaced, {gap:.4g} mm apart or more, on no common grid of slices")


def _mark(
    target: npt.NDArray[np.uint16], frame: npt.NDArray[Any], number: int, full: int, names: Mapping[int, str]
) -> None:
    """Draw a frame: of one segment, or of a label map that holds segment numbers (``number`` 0)."""
    if number and not np.isin(frame, (0, full)).all():
        raise InputError(f"a fractional segmentation with shares between 0 and 1 in segment {number}")
    marked = frame != 0
    if taken := sorted(set(np.unique(target[marked]).tolist()) - {0, number}):
        pair = " and ".join(f'{one} "{names.get(one, "")}"' for one in (taken[0], number))
        raise InputError(f"segments {pair} that overlap", advice="write them into a file each")
    target[marked] = number or frame[marked]


def write_dicom_seg(path: str | Path, label: Any, series: DicomSeries, labels: Mapping[Any, str]) -> None:
    """Write a label as one DICOM SEG with a binary segment for each class; the file appears whole or not at all.

    The segmentation belongs to the patient and study of the series, shares its frame of reference, and every frame
    names its source slice, so that viewers lay it over the images.

    Args:
        path: file to write, usually ending in .dcm.
        label: (X, Y, Z) integers, label values on the grid of the series as ``DicomSeriesReader`` gives it.
        series: the volume that was segmented.
        labels: label value to name, 0 is the background. Segments are numbered from 1, as DICOM wants it; the value of
            each is the code of its property type, in the coding scheme ``SCHEME``.

    Raises:
        InputError: if the label has another shape than the series, a value without a name, or cannot be written; if
            the series is part of a file of several volumes or lacks what a segmentation must refer to.
    """
    import highdicom as hd  # only who writes such files waits for it
    from pydicom.sr.codedict import codes

    voxels = np.asarray(label)
    if voxels.shape != tuple(series.shape):
        raise InputError(
            f"a label of shape {voxels.shape}", expected=f"that of its images, {tuple(series.shape)}", place=path
        )
    names = {int(index): name for index, name in labels.items() if int(index) > 0}
    nameless = sorted(set(np.unique(voxels).tolist()) - {0, *names})
    if nameless:
        raise InputError(
            f"label value {nameless[0]}", expected=f"0 or one of {sorted(names)}, which have names", place=path
        )
    algorithm = hd.AlgorithmIdentificationSequence(
        name="AIDE-MONAI", version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=hd.sr.CodedConcept(value=str(index), scheme_designator=SCHEME, meaning=name[:64]),
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
            f"images that a DICOM SEG cannot refer to ({series.files[0]}: {reason})",
            expected="files that hold one volume and all identifiers",
            advice="ask for output_format nifti (--output_format nifti)",
            place=path,
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
        # slices of a tilted stack lie beside each other's normals, so that only all of them say how
        omit_empty_frames=not series.grid.sheared,
        specific_character_set="ISO_IR 192",  # names of classes in any language
    )


def _source(file: str) -> pydicom.FileDataset:
    dataset = pydicom.dcmread(file, force=True)  # without a preamble too: all were found to be DICOM
    dataset.ensure_file_meta()
    for keyword in _MAY_BE_EMPTY:
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    return dataset
