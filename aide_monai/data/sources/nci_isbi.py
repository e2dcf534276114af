"""NCI-ISBI 2013 (The Cancer Imaging Archive): the paper's prostate Domains 1 and 2."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from aide_monai.data.case import Case
from aide_monai.data.checks.datalist import refuse
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.files import case_paths, files_below, source_folder, tell_left_out
from aide_monai.data.split import hold_out_per_domain
from aide_monai.errors import InputError, Problem
from aide_monai.io.ahead import open_apart
from aide_monai.io.dicom.series import find_series, listing, series_path
from aide_monai.io.dicom.stack import DicomSeries
from aide_monai.io.grid import require_inside
from aide_monai.io.headers import data_file_problems
from aide_monai.io.volumes import Volume, label_values, listed

DOMAINS = {"prostatedx": ("ProstateDx", "Domain 1"), "prostate3t": ("Prostate3T", "Domain 2")}
"""Collection -> its name as written, and the paper's domain: 1.5 T from Boston, 3 T from Nijmegen."""

ZONES = {0: "background", 1: "peripheral zone", 2: "central gland"}

_PATIENT = re.compile(r"(prostatedx|prostate3t)[-_](\d\d)[-_](\d{4})", re.IGNORECASE)
_SPACING_TOLERANCE = 0.01
_LAYOUT = "ProstateDx-01-0001/STUDY/SERIES/*.dcm, Prostate3T-01-0001/... and ProstateDx-01-0001.nrrd, ..."


def nci_isbi_datalist(
    root: str | Path, *, merge_zones: bool = True, test: int | None = None, seed: int = 0
) -> Datalist:
    """The patients of the challenge, in order of their names: DICOM series with their labels in NRRD.

    Everything below ``root`` is searched: a DICOM file belongs to the patient whose name one of its folders bears, as
    TCIA's programs write them, a label to the patient in its file name (``ProstateDx-01-0001.nrrd``, and with endings
    such as ``_truth`` and ``_correctedLabels``, in capitals or not). When a patient has several volumes, the one is
    taken that the label was drawn on: equal pixel size and place.

    Labels may have another orientation and another number of slices than their image, so they have to be resampled:
    ``aide_monai.transforms.ByVotesd("label")`` after
    ``LoadImaged(keys, reader=[DicomSeriesReader, VolumeReader])``, then
    ``AsClassIndicesd("label", classes=nci_isbi_classes())``. It does nothing to labels that fit.

    All are of quality "high"; "Domain 1" is 1.5 T (ProstateDx), "Domain 2" 3 T (Prostate3T).

    Args:
        root: folder of the download.
        merge_zones: one class, the prostate; otherwise peripheral zone and central gland.
        test: None: the paper's split: patients 01 for training, the challenge's leaderboard (02) and test set (03) for
            the test (30/10 per domain). A number: as many test patients are drawn from each domain.
        seed: seed of the drawing.

    Raises:
        InputError: one report of all patients without images or label, doubled ones, faulty or ambiguous series, labels
            with other values than 0, 1, 2 or mostly outside of their image, and links out of ``root``; or ``test`` out
            of range.
    """
    root = source_folder(root, expected=f"NCI-ISBI 2013 from TCIA: {_LAYOUT}")
    files, problems = files_below(root)
    images, labels = _images(files, root), _labels(files)
    others: list[str] = []
    if not images and not labels:
        raise InputError("no patient ProstateDx-XX-XXXX or Prostate3T-XX-XXXX", expected=_LAYOUT, place=root)
    cases: list[Case] = []
    for patient in sorted(images.keys() | labels.keys()):
        folders, label_files = images.get(patient, []), labels.get(patient, [])
        found = _partner_problems(patient, folders, label_files)
        try:
            if not found:
                cases.append(_case(patient, folders[0], label_files[0], root, others))
        except InputError as error:
            found += error.problems
        problems += found
    names = {0: "background", 1: "prostate"} if merge_zones else dict(ZONES)
    classes = nci_isbi_classes(merge_zones=merge_zones)
    datalist = Datalist("NCI-ISBI 2013", names, {0: "T2"}, cases, classes, resample_labels=True)
    if problems:
        refuse(f"{root}: NCI-ISBI 2013 cannot be used", problems, datalist)
    tell_left_out(root, case_paths(cases), _why_unused, others=others)
    return datalist if test is None else hold_out_per_domain(datalist, test=test, seed=seed)


def nci_isbi_classes(*, merge_zones: bool = True) -> dict[int, int]:
    """Stored label value -> class index, for ``AsClassIndicesd``."""
    return {value: min(value, 1) if merge_zones else value for value in ZONES}


def _images(files: Iterable[Path], root: Path) -> dict[str, list[Path]]:
    """Patient -> outermost folders that bear its name and hold files."""
    found: dict[str, list[Path]] = {}
    for file in files:
        if file.suffix.lower() == ".nrrd":
            continue
        for folder in reversed(file.parents[: len(file.relative_to(root).parts) - 1]):
            if match := _PATIENT.fullmatch(folder.name):
                if folder not in found.setdefault(_name(match), []):
                    found[_name(match)].append(folder)
                break
    return found


def _labels(files: Iterable[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in files:
        if file.suffix.lower() == ".nrrd" and (match := _PATIENT.search(file.name)):
            found.setdefault(_name(match), []).append(file)
    return found


def _why_unused(file: Path) -> str:
    if file.suffix.lower() == ".nrrd":
        return "labels without a patient ProstateDx-... or Prostate3T-... in their name"
    if any(map(_PATIENT.fullmatch, file.parts[:-1])):
        return "of another volume than the label was drawn on"
    return "neither .nrrd nor in a folder of a patient"


def _name(match: re.Match[str]) -> str:
    return f"{DOMAINS[match[1].lower()][0]}-{match[2]}-{match[3]}"


def _partner_problems(patient: str, folders: list[Path], labels: list[Path]) -> list[Problem]:
    problems: list[Problem] = []
    for kind, found, advice in (
        ("folders of images", folders, "download the patient's DICOM series, or remove the label"),
        ("labels", labels, "download its .nrrd file, or remove the patient's folder"),
    ):
        if not found:
            problems.append(Problem(f"no {kind}", advice=advice, place=patient))
        elif len(found) > 1:
            problems.append(
                Problem(
                    f"the {kind} {', '.join(map(str, found))}",
                    expected="one",
                    advice="remove the others",
                    place=patient,
                )
            )
    return problems


def _case(patient: str, folder: Path, label: Path, root: Path, others: list[str]) -> Case:
    """Case of one patient; the files of other volumes than that of the label are added to ``others``."""
    if problems := data_file_problems(label, root):
        raise InputError(problems=problems)
    series = find_series(folder, check=False)
    volume, voxels = _open_label(label)
    drawn_on = [one for one in series if _same_place(one, volume)] if len(series) > 1 else series
    if len(drawn_on) != 1:
        raise InputError(
            f"{len(series)} volumes, {len(drawn_on)} of them of the pixel size and place of {label}",
            expected="one",
            advice=f"remove the others:\n{listing(series)}",
            place=folder,
        )
    image = drawn_on[0]
    if image.problems:
        raise InputError(problems=image.problems)
    require_inside(image.grid, volume.grid, voxels, label_name=str(label), image_name=image.files[0])
    others += [file for one in series if one is not image for file in one.files]
    collection, part, _ = patient.split("-")
    return Case(
        name=patient,
        image=series_path(folder, image, series),
        label=str(label),
        quality="high",
        patient=patient,
        domain=DOMAINS[collection.lower()][1],
        split="training" if part == "01" else "test",
    )


def _open_label(file: Path) -> tuple[Volume, np.ndarray]:
    """Header and voxels (x, y, z) of a label.

    Raises:
        InputError: unreadable, not one volume, or other values than 0, 1 and 2.
    """
    try:
        volume = open_apart(str(file))
        voxels = volume.decode()
        values = label_values(voxels)
    except InputError as error:
        raise error.at(file, expected="a label of whole numbers", advice="download it again") from error
    wrong = [value for value in values if value not in ZONES]
    if volume.channels != 1 or wrong or values == [0]:
        found = f"{volume.channels} channels" if volume.channels != 1 else f"the values {listed(wrong or values)}"
        raise InputError(found, expected="one label of 1 peripheral zone and 2 central gland", place=file)
    return volume, voxels[..., 0]


def _same_place(image: DicomSeries, label: Volume) -> bool:
    """Whether a label was drawn on this volume: pixels of one size, and most of the smaller box inside the other."""
    image_mm, label_mm = sorted(image.grid.spacing_mm), sorted(label.grid.spacing_mm)
    if any(abs(a - b) > _SPACING_TOLERANCE * b for a, b in zip(image_mm[:2], label_mm[:2], strict=True)):
        return False
    return image.grid.shared_part(label.grid) > 0.5
