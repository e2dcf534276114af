"""Dynamic contrast-enhanced breast MR of the paper's three hospitals; the data are not public, the layout is ours."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aide_monai.data.case import Case
from aide_monai.data.checks.datalist import refuse
from aide_monai.data.checks.duplicates import find_twins, image_signature, leaks
from aide_monai.data.datalist import Datalist
from aide_monai.data.raters import as_mask
from aide_monai.data.sources.files import case_paths, files_below, source_folder, tell_left_out, typed
from aide_monai.data.sources.phases import Phases, find_phases
from aide_monai.data.sources.subtraction import with_subtractions
from aide_monai.data.split import hold_out_labelled
from aide_monai.errors import InputError, Problem
from aide_monai.io.ahead import open_apart
from aide_monai.io.folder import DICOM_SUFFIXES
from aide_monai.io.grid import TOLERANCE_VOXELS, require_inside, shape_text, through_plane_axis
from aide_monai.io.headers import data_file_problems
from aide_monai.io.location import SUFFIXES, Location, without_suffix
from aide_monai.io.volumes import Volume

CENTRES = ("GGH", "GPPH", "HPPH")
CENTRAL_SLICE_CENTRES = ("GGH",)
"""Centres whose labels are drawn in one slice of each study."""

TIME_TOLERANCE_S = 60.0

_OBLIQUE = 0.02
_LAYOUT = "CENTRE/PATIENT/ with the phases and label.nii.gz, or CENTRE/PATIENT.nii.gz (4D) and PATIENT_label.nii.gz"

logger = logging.getLogger(__name__)


def breast_datalist(
    root: str | Path,
    *,
    centre: str | None = None,
    phases: Sequence[int] = (0, 1),
    times_s: Sequence[float] | None = None,
    central: Collection[str] = CENTRAL_SLICE_CENTRES,
    keep_unlabeled: bool = False,
    test: int | None = None,
    seed: int = 0,
    check_content: bool = True,
    subtraction_dir: str | Path | None = None,
) -> Datalist:
    """Studies of one hospital or of all, one channel per chosen phase; domain is the hospital.

    Layout: ``ROOT/CENTRE/PATIENT/`` for the centres GGH, GPPH and HPPH, one study per patient, as one of

    - a volume file (NIfTI, MHD, NRRD) per phase, with times from ``phases.json`` (``{"pre.nii.gz": 0, "post.nii.gz":
      90}``, seconds), else from a side file of each (``pre.json`` with ``"AcquisitionTime": "13:45:30"``, as dcm2niix
      writes), else from the names (``dce_t0s.nii.gz``, ``dce_t90s.nii.gz``);
    - one 4D file (x, y, z, phase), with times from ``phases.json`` (``{"dce.nii.gz": [0, 90, 180]}``) or from
      ``"VolumeTiming"`` in the file of the same name that ends in .json (BIDS); it may also lie in the centre's folder
      as ``PATIENT.nii.gz``;
    - DICOM files, also in subfolders: the volumes of the commonest grid, by their acquisition times.

    The label (0, 1 = tumour) is ``label.nii.gz``, .mhd, .nrrd, or a name that ends in ``_label``. In ``central``
    centres it marks one slice, in a file of that slice alone or of the whole volume; its place in space tells which.
    The record then names that slice of image and label, because nothing is known of the others.

    Phases are ordered by time, never by file name. Read records with ``LoadImaged(keys, reader=[DicomSeriesReader,
    VolumeReader])``, bring labels onto the image's grid (``ByVotesd``), and add subtraction
    images as channels with ``SubtractPhasesd``. All labels are of quality "high".

    Args:
        root: folder of the data, or of one centre when ``centre`` is given and no folder of that name lies in it.
        centre: one of GGH, GPPH and HPPH; None: all whose folders are there.
        phases: phases to list, by number: 0 is the one before contrast, 1 the first after it, -1 the last.
        times_s: instead, times after the first phase, in seconds; of each study the nearest phases, at most 60 s off.
        central: centres whose labels are drawn in one slice.
        keep_unlabeled: list studies without a label as unlabelled training cases instead of refusing them.
        test: labelled cases of each centre to hold out by drawing; the paper's number is 100. None: all are training.
        seed: seed of the drawing.
        check_content: decode the first phase of every study and refuse equal scans in two splits or centres.
        subtraction_dir: folder, outside the download, for images of each further phase minus the first one, which
            become further modalities. None: none are made.

    Raises:
        InputError: one report of all studies whose phases, times or labels are missing, doubled, faulty or on another
            grid, and of links out of ``root``; or of leaks; or an option that does not fit.
    """
    if not phases or len(set(phases)) < len(phases) or (times_s is not None and not times_s):
        raise InputError(f"phases={tuple(phases)}, times_s={times_s}: expected at least one phase, each once")
    root = source_folder(root, expected=f"breast DCE-MR studies: {_LAYOUT}")
    centres = _centres(root, centre)
    problems: list[Problem] = []
    cases: list[Case] = []
    used: list[Path] = []
    others: list[str] = []
    for name, folder in centres.items():
        files, found = files_below(folder)
        problems += found
        studies = _studies(folder, files)
        if not studies:
            problems.append(Problem("no studies", expected=_LAYOUT, place=folder))
        for study in studies:
            try:
                case = _case(study, name, folder, phases, times_s, name in central, others)
                if case.label is None and not keep_unlabeled:
                    raise InputError(
                        "no label.nii.gz",
                        advice=f"add it, or set keep_unlabeled ({typed('keep_unlabeled')})",
                        place=study.place,
                    )
                cases.append(case)
                used += [] if study.images else [study.place]
            except InputError as error:
                problems += error.problems
    problems += [
        Problem("two studies of this name", advice="leave one of them", case=name)
        for name, number in sorted(Counter(case.name for case in cases).items())
        if number > 1
    ]
    names = _phase_names(phases) if times_s is None else [f"{time:g} s" for time in times_s]
    labels = {0: "background", 1: "tumour"}
    once = list({case.name: case for case in cases}.values())
    datalist = Datalist("Breast DCE-MR", labels, dict(enumerate(names)), once, resample_labels=True)
    if problems:
        refuse(f"{root}: the breast studies cannot be used", problems, datalist)
    tell_left_out(root, [*case_paths(cases), *used], lambda file: _why_unused(file, centres), others=others)
    datalist = datalist if test is None else hold_out_labelled(datalist, test=test, seed=seed)
    if check_content:
        twins = find_twins({case.name: image_signature(case) for case in datalist.cases})
        if problems := leaks(datalist.cases, twins):
            raise InputError(f"{root}: the breast studies cannot be used together", problems=problems)
    return datalist if subtraction_dir is None else with_subtractions(datalist, subtraction_dir)


@dataclass(frozen=True)
class _Study:
    """What lies in a patient's folder, or beside it in that of the centre."""

    patient: str
    place: Path
    images: tuple[Path, ...]
    labels: tuple[Path, ...]


def _why_unused(file: Path, centres: Collection[str]) -> str:
    if file.parts[0] in set(CENTRES) - set(centres):
        return "of another centre"
    if file.name.lower().endswith(SUFFIXES) or file.suffix.lower() in DICOM_SUFFIXES:
        return "phases that are not asked for, and images that are no phase"
    return "neither a phase nor a label"


def _centres(root: Path, centre: str | None) -> dict[str, Path]:
    if centre is not None and centre not in CENTRES:
        raise InputError(f'centre="{centre}": expected one of {", ".join(CENTRES)}')
    if centre is not None:
        return {centre: root / centre if (root / centre).is_dir() else root}
    found = {name: root / name for name in CENTRES if (root / name).is_dir()}
    if not found:
        raise InputError(f"no folder {', '.join(CENTRES)}", expected=_LAYOUT, advice="or name the centre", place=root)
    return found


def _studies(folder: Path, files: Sequence[Path]) -> list[_Study]:
    by_patient: dict[str, list[Path]] = {}
    alone: dict[str, list[Path]] = {}
    for file in files:
        if file.parent == folder:
            alone.setdefault(_patient(file), []).append(file)
        else:
            by_patient.setdefault(file.relative_to(folder).parts[0], []).append(file)
    studies = []
    for patient in sorted(by_patient.keys() | alone.keys()):
        place, inside = folder / patient, by_patient.get(patient, [])
        files_beside = [file for file in alone.get(patient, []) if file.name.lower().endswith(SUFFIXES)]
        volumes = [file for file in inside if file.parent == place and file.name.lower().endswith(SUFFIXES)]
        labels = tuple(file for file in volumes + files_beside if _is_label(file))
        images = tuple(file for file in volumes if not _is_label(file))
        images_beside = tuple(file for file in files_beside if not _is_label(file))
        if inside or (labels and not images_beside):
            studies.append(_Study(patient, place, images, labels))
        if images_beside:
            studies.append(_Study(patient, images_beside[0], images_beside, () if inside else labels))
    return studies


def _patient(file: Path) -> str:
    return without_suffix(file).removesuffix("_label") if file.name.lower().endswith(SUFFIXES) else file.stem


def _is_label(file: Path) -> bool:
    name = without_suffix(file).lower()
    return name == "label" or name.endswith("_label")


def _case(
    study: _Study,
    centre: str,
    root: Path,
    numbers: Sequence[int],
    times_s: Sequence[float] | None,
    central: bool,
    others: list[str],
) -> Case:
    """Case of a study; DICOM files of phases that are not chosen, or of no phase, are added to ``others``."""
    folder = study.place if study.place.is_dir() else study.place.parent
    if not study.place.exists():
        raise InputError(f"no images of {study.patient}", advice="add them, or remove the label", place=study.labels[0])
    if len(study.labels) > 1:
        found = ", ".join(file.name for file in study.labels)
        raise InputError(f"the labels {found}", expected="one", place=study.place)
    if study.place != folder and len(study.images) > 1:
        raise InputError(
            f"{len(study.images)} files of {study.patient}", advice="put them into a folder", place=study.place
        )
    phases = find_phases(folder, study.images, root=root)
    chosen = _chosen(study, phases, numbers, times_s)
    images: list[str] = list(phases.paths)
    label: str | None = None
    if study.labels:
        volume, mask = _open_label(study.labels[0], root)
        label = str(study.labels[0])
        if central:
            images, label = _central_slice(study, phases, volume, mask)
        else:
            require_inside(phases.grid, volume.grid, mask, label_name=label, image_name=f"of {study.place.name}")
    others += phases.others
    others += [file for k, one in enumerate(phases.series) if k not in chosen for file in one.files]
    listed = tuple(images[number] for number in chosen)
    name = f"{centre}_{study.patient}"
    return Case(
        name=name,
        image=listed[0] if len(listed) == 1 else listed,
        label=label,
        quality=None if label is None else "high",
        patient=name,
        domain=centre,
    )


def _chosen(study: _Study, phases: Phases, numbers: Sequence[int], times_s: Sequence[float] | None) -> list[int]:
    """Indices into the phases as sorted by time."""
    count = len(phases.paths)
    if times_s is None:
        missing = [number for number in numbers if not -count <= number < count]
        if missing:
            raise InputError(f"{count} phases", expected=f"a phase {missing[0]} (0 is the first)", place=study.place)
        chosen = [number % count for number in numbers]
    elif phases.times_s is None:
        raise InputError(
            "phases without times",
            advice="choose them by phases (--phases 0,1; of a bundle --source#phases '[0, 1]'), without times_s",
            place=study.place,
        )
    else:
        known = np.array(phases.times_s)
        chosen = [int(np.abs(known - time).argmin()) for time in times_s]
        for time, number in zip(times_s, chosen, strict=True):
            if abs(known[number] - time) > TIME_TOLERANCE_S:
                found = ", ".join(f"{value:g}" for value in phases.times_s)
                expected = f"one within {TIME_TOLERANCE_S:g} s of {time:g} s"
                raise InputError(f"phases at {found} s", expected=expected, place=study.place)
    if len(set(chosen)) < len(chosen):
        raise InputError(
            f"{count} phases, of which one stands for two of those asked for", advice="ask for fewer", place=study.place
        )
    return chosen


def _open_label(file: Path, root: Path) -> tuple[Volume, NDArray[np.bool_]]:
    if problems := data_file_problems(file, root):
        raise InputError(problems=problems)
    try:
        volume = open_apart(str(file))
        voxels = volume.decode()
    except InputError as error:
        raise error.at(file, expected="the label of a study") from error
    if volume.channels != 1 or len(volume.file_shape) < 3:
        raise InputError(
            f"shape {shape_text(volume.file_shape)}",
            expected="(x, y, z), so that its slices have a place in space",
            advice="write a single slice as (x, y, 1) with the affine of that slice",
            place=file,
        )
    mask = as_mask(voxels, name=str(file))[..., 0]
    if not mask.any():
        raise InputError("no marked voxels", expected="a tumour", advice="draw it, or leave the study out", place=file)
    return volume, mask


def _central_slice(study: _Study, phases: Phases, label: Volume, mask: NDArray[np.bool_]) -> tuple[list[str], str]:
    """Paths of the slice that a label marks: of every phase, and of the label."""
    file, marked = str(study.labels[0]), np.argwhere(mask)
    flat = [axis for axis in range(3) if label.shape[axis] == 1]
    thin = flat or [axis for axis in range(3) if np.ptp(marked[:, axis]) == 0]
    if not thin:
        axis = through_plane_axis(label.affine)
        raise InputError(
            f"marks in {len(np.unique(marked[:, axis]))} slices",
            expected="one slice, the central one",
            advice="correct the label, or leave the centre out of central",
            place=file,
        )
    axis = through_plane_axis(label.affine) if through_plane_axis(label.affine) in thin else thin[0]
    matrix = np.linalg.solve(phases.grid.affine, label.affine)[:3, :3]
    direction = np.abs(matrix[:, axis]) / np.linalg.norm(matrix[:, axis])
    across = int(direction.argmax())
    place = phases.grid.index_of(label.grid, marked.mean(axis=0))[across]
    index = round(float(place))
    if np.sort(direction)[1] > _OBLIQUE or abs(place - index) > TOLERANCE_VOXELS:
        raise InputError(
            f"a slice that lies between or across those of the image (at {place:.3g} along {'xyz'[across]})",
            expected="one of the image's slices",
            place=file,
        )
    if not 0 <= index < phases.grid.shape[across]:
        raise InputError(
            f"slice {'xyz'[across]}={index}",
            expected=f"one of the {phases.grid.shape[across]} slices of the image",
            place=file,
        )
    require_inside(phases.grid, label.grid, mask, label_name=file, image_name=f"of {study.place.name}")
    try:
        images = phases.slices(across, index)
    except InputError as error:
        raise error.at(study.place) from error
    return images, file if flat else str(Location.parse(file).slice(axis, int(marked[0, axis])))


def _phase_names(phases: Sequence[int]) -> list[str]:
    return [
        "before contrast" if number == 0 else f"phase {number} after contrast" if number > 0 else f"phase {number}"
        for number in phases
    ]
