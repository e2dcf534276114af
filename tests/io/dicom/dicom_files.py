"""Real DICOM files for tests: every transfer syntax, orientation and oddity that the readers have to live with.

A volume is given as (X, Y, Z) stored values, X along the image rows, exactly as the readers give it back; the affine
that they have to find comes back with the files.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    MRImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
    generate_uid,
)

TRANSFER_SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-lossless": JPEGLosslessSV1,
    "jpeg2000": JPEG2000Lossless,
}

_C, _S = math.cos(math.radians(20)), math.sin(math.radians(20))
# ImageOrientationPatient (LPS): direction of growing column number, then of growing row number
ORIENTATIONS: dict[str, tuple[float, ...]] = {
    "axial": (1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": (1, 0, 0, 0, _C, _S),  # tilted about x alone, as prostate stacks are
    "double-oblique": (_C, _S, 0, -_S * _C, _C * _C, _S),
}


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        files: paths in the order of the slices, first slice first (a multi-frame file once).
        series_uid: SeriesInstanceUID.
        affine: (4, 4) float64, index (x, y, z) of the volume to RAS millimetres.
        folder: folder of the files.
    """

    files: list[Path]
    series_uid: str
    affine: np.ndarray
    folder: Path


def expected_affine(
    *, spacing: Sequence[float], orientation: str | Sequence[float] = "axial", position: Sequence[float] = (0, 0, 0)
) -> np.ndarray:
    """(4, 4) RAS affine of a volume whose first slice has this ImagePositionPatient (LPS, mm)."""
    rows, columns, normal = _axes(orientation)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = rows * spacing[0], columns * spacing[1], normal * spacing[2]
    affine[:3, 3] = position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def write_series(
    folder: str | Path,
    voxels: np.ndarray,
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    orientation: str | Sequence[float] = "axial",
    position: Sequence[float] = (-10.0, -20.0, 30.0),
    offsets_mm: Sequence[float] | None = None,
    shear: Sequence[float] = (0.0, 0.0, 0.0),
    transfer_syntax: str = "explicit",
    modality: str = "MR",
    slope: float | None = None,
    intercept: float | None = None,
    photometric: str = "MONOCHROME2",
    bits_stored: int | None = None,
    slice_thickness: float | None = None,
    echo_ms: float | None = None,
    image_type: Sequence[str] = ("ORIGINAL", "PRIMARY"),
    series_uid: str | None = None,
    study_uid: str | None = None,
    frame_of_reference_uid: str | None = None,
    patient: str = "PHANTOM",
    names: str | Sequence[str] = "IMG-{:05d}.dcm",
    instance_numbers: Sequence[int] | None = None,
    tags: Mapping[str, Any] | None = None,
    tags_of: Callable[[int], Mapping[str, Any]] | None = None,
) -> Written:
    """Write one file per slice.

    Args:
        folder: made when it is missing; other files in it stay.
        voxels: stored values (X, Y, Z), uint8, int8, uint16 or int16; slice z = 0 lies at ``position``.
        spacing: voxel size (x, y, z) in mm; y goes into PixelSpacing first, as the standard has it.
        orientation: a name in ``ORIENTATIONS`` or six cosines.
        position: ImagePositionPatient of slice 0, LPS, mm.
        offsets_mm: distance of every slice from slice 0 along the normal; default z * spacing[2]. For uneven stacks.
        shear: further shift (LPS, mm) from slice to slice, as a tilted gantry gives.
        transfer_syntax: a key of ``TRANSFER_SYNTAXES``; the JPEG ones need at least 32 x 32 pixels.
        modality: "MR" or "CT" choose the SOP class; other text is written as is with the MR class.
        slope, intercept: RescaleSlope and RescaleIntercept; left out when None.
        photometric: PhotometricInterpretation; nothing is inverted here.
        bits_stored: default all bits of the dtype.
        slice_thickness: SliceThickness in mm, different from the spacing when None (0.8 of it): nobody may use it.
        echo_ms: EchoTime; left out when None.
        names: pattern for the instance number, or one name per slice.
        instance_numbers: InstanceNumber of every slice; default 1, 2, ...
        tags: further or other elements by keyword, for all slices; None deletes an element.
        tags_of: the same, per slice; gets the index of the slice.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _, _, normal = _axes(orientation)
    series_uid = series_uid or generate_uid()
    common: dict[str, Any] = {
        "StudyInstanceUID": study_uid or generate_uid(),
        "SeriesInstanceUID": series_uid,
        "FrameOfReferenceUID": frame_of_reference_uid or generate_uid(),
        "PatientName": patient,
        "PatientID": patient,
        "Modality": modality,
        "ImageType": list(image_type),
        "ImageOrientationPatient": _decimals(_cosines(orientation)),
        "PixelSpacing": _decimals([spacing[1], spacing[0]]),
        "SliceThickness": _decimal(0.8 * spacing[2] if slice_thickness is None else slice_thickness),
        "EchoTime": None if echo_ms is None else _decimal(echo_ms),
        "RescaleSlope": None if slope is None else _decimal(slope),
        "RescaleIntercept": None if intercept is None else _decimal(intercept),
    }
    files = []
    for z in range(voxels.shape[2]):
        number = z + 1 if instance_numbers is None else instance_numbers[z]
        distance = z * spacing[2] if offsets_mm is None else offsets_mm[z]
        origin = np.asarray(position) + normal * distance + np.asarray(shear) * z
        elements = {
            **common,
            "InstanceNumber": number,
            "ImagePositionPatient": _decimals(origin),
            **(tags or {}),
            **(tags_of(z) if tags_of else {}),
        }
        path = folder / (names.format(number) if isinstance(names, str) else names[z])
        dataset = _image(voxels[:, :, z].T, photometric, bits_stored, CTImageStorage if modality == "CT" else "")
        _put(dataset, elements)
        _save(dataset, path, [voxels[:, :, z].T], transfer_syntax)
        files.append(path)
    affine = expected_affine(spacing=spacing, orientation=orientation, position=position)
    affine[:3, 2] += np.asarray(shear) * (-1, -1, 1)
    return Written(files, series_uid, affine, folder)


def write_multiframe(
    path: str | Path,
    voxels: np.ndarray,
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    orientation: str | Sequence[float] = "axial",
    position: Sequence[float] = (-10.0, -20.0, 30.0),
    frame_order: Sequence[int] | None = None,
    echoes_ms: Sequence[float] | None = None,
    transfer_syntax: str = "explicit",
    enhanced: bool = True,
    functional_groups: bool = True,
    slope: float | None = None,
    intercept: float | None = None,
    photometric: str = "MONOCHROME2",
    bits_stored: int | None = None,
    image_type: Sequence[str] = ("ORIGINAL", "PRIMARY"),
    series_uid: str | None = None,
    tags: Mapping[str, Any] | None = None,
    frame_groups: Callable[[int], Mapping[str, Mapping[str, Any]]] | None = None,
) -> Written:
    """Write one multi-frame file: Enhanced MR, or secondary capture that has per-frame functional groups too.

    Args:
        path: the file; its folder is made.
        voxels: (X, Y, Z), or (X, Y, Z, E) with E echoes in one file.
        frame_order: index into z + Z * echo for every frame as stored; default ascending.
        echoes_ms: EffectiveEchoTime of the E echoes.
        enhanced: Enhanced MR Image Storage, else Multi-frame Grayscale Word Secondary Capture.
        functional_groups: False leaves out all geometry per frame: a file that nobody can place in space.
        frame_groups: further functional groups of a frame, by sequence keyword; gets z + Z * echo.
        spacing, orientation, position, transfer_syntax, slope, intercept, photometric, bits_stored, image_type,
            series_uid, tags: as in ``write_series``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stack = voxels if voxels.ndim == 4 else voxels[..., None]
    depth, echoes = stack.shape[2:]
    order = range(depth * echoes) if frame_order is None else frame_order
    _, _, normal = _axes(orientation)
    series_uid = series_uid or generate_uid()
    sop_class = EnhancedMRImageStorage if enhanced else MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    dataset = _image(stack[:, :, 0, 0].T, photometric, bits_stored, sop_class)
    _put(
        dataset,
        {
            "StudyInstanceUID": generate_uid(),
            "SeriesInstanceUID": series_uid,
            "FrameOfReferenceUID": generate_uid(),
            "PatientName": "PHANTOM",
            "PatientID": "PHANTOM",
            "Modality": "MR",
            "ImageType": list(image_type),
            "InstanceNumber": 1,
            "NumberOfFrames": len(order),
        },
    )
    if functional_groups:
        shared: dict[str, dict[str, Any]] = {
            "PlaneOrientationSequence": {"ImageOrientationPatient": _decimals(_cosines(orientation))},
            "PixelMeasuresSequence": {
                "PixelSpacing": _decimals([spacing[1], spacing[0]]),
                "SliceThickness": _decimal(0.8 * spacing[2]),
            },
        }
        if slope is not None or intercept is not None:
            shared["PixelValueTransformationSequence"] = {
                "RescaleSlope": _decimal(1 if slope is None else slope),
                "RescaleIntercept": _decimal(intercept or 0),
                "RescaleType": "US",
            }
        dataset.SharedFunctionalGroupsSequence = [_groups(shared)]
        frames = []
        for index in order:
            z, echo = index % depth, index // depth
            origin = np.asarray(position) + normal * z * spacing[2]
            groups: dict[str, Mapping[str, Any]] = {
                "PlanePositionSequence": {"ImagePositionPatient": _decimals(origin)},
                "FrameContentSequence": {"FrameAcquisitionNumber": 1},
            }
            if echoes_ms is not None:
                groups["MREchoSequence"] = {"EffectiveEchoTime": float(echoes_ms[echo])}
            frames.append(_groups({**groups, **(frame_groups(index) if frame_groups else {})}))
        dataset.PerFrameFunctionalGroupsSequence = frames
    _put(dataset, tags or {})
    _save(dataset, path, [stack[:, :, index % depth, index // depth].T for index in order], transfer_syntax)
    affine = expected_affine(spacing=spacing, orientation=orientation, position=position)
    return Written([path], series_uid, affine, path.parent)


def write_other_object(
    path: str | Path, *, sop_class: str, modality: str, tags: Mapping[str, Any] | None = None
) -> Path:
    """A DICOM file without pixels, such as a structured report."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = _dataset(sop_class)
    _put(dataset, {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid(), "Modality": modality})
    _put(dataset, tags or {})
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path


def edit(path: str | Path, **tags: Any) -> None:
    """Change elements of a written file by keyword; None deletes one."""
    dataset = pydicom.dcmread(path)
    _put(dataset, tags)
    dataset.save_as(path, enforce_file_format=True)


def _axes(orientation: str | Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cosines = np.asarray(_cosines(orientation), dtype=float)
    return cosines[:3], cosines[3:], np.cross(cosines[:3], cosines[3:])


def _cosines(orientation: str | Sequence[float]) -> Sequence[float]:
    return ORIENTATIONS[orientation] if isinstance(orientation, str) else orientation


def _decimal(value: float) -> str:
    return f"{float(value):.10g}"


def _decimals(values: Any) -> list[str]:
    return [_decimal(value) for value in values]


def _dataset(sop_class: str) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    return dataset


def _image(frame: np.ndarray, photometric: str, bits_stored: int | None, sop_class: str) -> Dataset:
    bits = frame.dtype.itemsize * 8
    dataset = _dataset(sop_class or MRImageStorage)
    dataset.Rows, dataset.Columns = frame.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = bits
    dataset.BitsStored = bits_stored or bits
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(frame.dtype.kind == "i")
    return dataset


def _put(dataset: Dataset, elements: Mapping[str, Any]) -> None:
    for keyword, value in elements.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)


def _groups(groups: Mapping[str, Mapping[str, Any]]) -> Dataset:
    item = Dataset()
    for sequence, elements in groups.items():
        inner = Dataset()
        _put(inner, elements)
        setattr(item, sequence, [inner])
    return item


def _save(dataset: Dataset, path: Path, frames: list[np.ndarray], transfer_syntax: str) -> None:
    syntax = TRANSFER_SYNTAXES[transfer_syntax]
    dataset.file_meta.TransferSyntaxUID = syntax
    if transfer_syntax == "rle":
        array = np.stack(frames) if len(frames) > 1 else frames[0]
        dataset.compress(RLELossless, np.ascontiguousarray(array), generate_instance_uid=False)
    elif syntax.is_encapsulated:
        dataset.PixelData = encapsulate([_encode_itk(frame, transfer_syntax) for frame in frames])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    else:
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        pixels = b"".join(frame.astype(frame.dtype.newbyteorder(order)).tobytes() for frame in frames)
        dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
        dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 and transfer_syntax != "implicit" else "OW"
    dataset.save_as(path, enforce_file_format=True)


def _encode_itk(frame: np.ndarray, transfer_syntax: str) -> bytes:
    """pydicom has no encoder for these, ITK's GDCM has; ITK's own header is thrown away."""
    if min(frame.shape) < 32:
        raise ValueError(f"{transfer_syntax} needs 32 x 32 pixels, found {frame.shape}: GDCM ends the process on fewer")
    writer = sitk.ImageFileWriter()
    with tempfile.TemporaryDirectory() as folder:
        writer.SetFileName(f"{folder}/frame.dcm")
        writer.UseCompressionOn()
        writer.SetCompressor({"jpeg-lossless": "JPEG", "jpeg2000": "JPEG2000"}[transfer_syntax])
        writer.Execute(sitk.GetImageFromArray(np.ascontiguousarray(frame)[None]))
        encoded = pydicom.dcmread(f"{folder}/frame.dcm")
    assert encoded.file_meta.TransferSyntaxUID == TRANSFER_SYNTAXES[transfer_syntax]
    return next(generate_frames(encoded.PixelData, number_of_frames=1))
