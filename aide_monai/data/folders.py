"""A folder of images without a list: which files are the images of a case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aide_monai.data.case import Record
from aide_monai.data.sources import find_datalist
from aide_monai.data.sources.nnunet import nnunet_images
from aide_monai.errors import InputError
from aide_monai.io.dicom.elements import is_dicom
from aide_monai.io.dicom.series import find_series
from aide_monai.io.folder import holds_dicom, volumes_in
from aide_monai.io.grid import shape_text
from aide_monai.io.location import SUFFIXES, Location, as_paths
from aide_monai.io.opening import image_header
from aide_monai.io.writers import case_of
from aide_monai.utils.texts import tell_unused
from aide_monai.utils.validation import require_file_names


def image_records(
    folder: str | Path,
    *,
    dicom_channels: Sequence[str] = (),
    roots: Sequence[str | Path] = (),
    channels: int | None = None,
) -> list[Record]:
    """All volumes of a folder, or of a datalist, as records with "image" and "case", in order of name.

    Args:
        folder: a folder of volume files; a folder of one DICOM study, or of a folder for each; ``FOLDER#volume=2`` and
            the like take this volume of each study; one volume file or DICOM file; or a datalist. In ``imagesTr`` and
            ``imagesTs`` of nnU-Net ``X_0000``, ``X_0001`` are the channels of the case ``X``.
        dicom_channels: what selects each channel in a DICOM folder, such as ``["echo=4.6", "echo=2.3"]``; without it
            there must be one volume.
        roots: further folders that the files of a datalist may lie in.
        channels: how many channels the network has, which the headers of all images are compared with; None reads no
            header.

    Raises:
        InputError: if the folder is missing or has no volume, two volumes have one name, or an image cannot be read or
            has another number of ``channels``.
    """
    place = Location.parse(folder)
    if place.part and not place.is_volume_file:
        if dicom_channels:
            raise InputError("a selection and dicom_channels", expected="one of them", place=folder)
        dicom_channels = [place.part]
    folder = Path(place.path)
    if folder.is_file() and (place.is_volume_file or is_dicom(folder)):
        records = [_file_record(place, dicom_channels)]
    elif folder.is_file() or (folder / "datalist.json").is_file() or (folder / "dataset.json").is_file():
        found = find_datalist(folder, roots=roots).records
        records = [{"image": record["image"], "case": record["case"]} for record in found]
    elif (images := nnunet_images(folder)) is not None:
        records = [{"image": [*paths] if paths[1:] else paths[0], "case": name} for name, paths in images.items()]
    else:
        records = _folder_records(folder, dicom_channels)
    if channels is not None:
        _require_channels([record["image"] for record in records], channels)
    return records


def _file_record(file: Location, dicom_channels: Sequence[str]) -> Record:
    """One volume file, or one or several volumes of a DICOM file as channels."""
    require_file_names(Path(file.path).parent, [file.path])
    selected = [] if file.is_volume_file else [f"{file.path}#{select}" for select in dicom_channels]
    image: Any = selected if len(selected) > 1 else (selected or [str(file)])[0]
    return {"image": image, "case": case_of(image)}


def _folder_records(folder: Path, dicom_channels: Sequence[str]) -> list[Record]:
    """The volumes of a folder that is no datalist."""
    if not folder.is_dir():
        raise InputError(
            "no such folder", advice=f"give a folder of {', '.join(SUFFIXES)} volumes or of DICOM", place=folder
        )
    entries = volumes_in(folder)
    files = [path for path in entries if path.name.lower().endswith(SUFFIXES)]
    loose = [path for path in entries if path.is_file() and path not in files]
    if loose and files:
        reason = "DICOM beside other volumes; put it into a folder of its own"
        tell_unused(folder, {str(path): reason for path in loose})
    studies = [path for path in entries if path.is_dir()]
    if files or any(map(holds_dicom, studies)):
        pictures = [path for path in studies if not holds_dicom(path)]
        tell_unused(folder, {str(path): "pictures beside volumes" for path in pictures})
        studies = [path for path in studies if path not in pictures]
    if not files and (loose or _are_parts(studies, len(dicom_channels))):
        studies = [folder]
    found: list[Any] = [str(path) for path in files]
    if len(dicom_channels) == 1:
        found += [f"{path}#{dicom_channels[0]}" for path in studies]
    else:
        found += [[f"{path}#{select}" for select in dicom_channels] or str(path) for path in studies]
    if not found:
        raise InputError("no volume", expected=f"DICOM, or files that end in {', '.join(SUFFIXES)}", place=folder)
    found.sort(key=as_paths)
    require_file_names(folder, [path for image in found for path in as_paths(image)])
    records = [{"image": image, "case": case_of(image)} for image in found]
    names = [record["case"] for record in records]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"two volumes called {doubled[0]}", expected="a name for each", advice="rename one", place=folder
        )
    return records


def _require_channels(images: Sequence[Any], expected: int) -> None:
    """Refuse an image, a path or a list of paths, that the network cannot take; only headers are read."""
    for image in images:
        paths = as_paths(image)
        found = sum(_channels(path) for path in paths)
        if found != expected:
            raise InputError(
                f"{found} {'channel' if found == 1 else 'channels'}",
                expected=f"{expected} as the network has",
                advice="give images like those it was trained on, or a datalist that names FILE#channel=K",
                place=paths[0],
            )


def _channels(path: str) -> int:
    """Number of channels of a file, from its header."""
    header = image_header(path)
    if header.channels is None:
        raise InputError(
            f"shape {shape_text(header.file_shape)}",
            expected="(x, y, z) or (x, y, z, channel)",
            advice="convert it",
            place=path,
        )
    return header.channels


def _are_parts(folders: Sequence[Path], channels: int) -> bool:
    """Whether one study keeps each of its volumes in a subfolder."""
    return channels > 1 and any(len(find_series(path, check=False)) < channels for path in folders)
