"""Cases of the CHAOS challenge (https://chaos.grand-challenge.org) straight from its download."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from aide_monai.data.case import Case
from aide_monai.data.checks.datalist import refuse
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.files import case_paths, tell_left_out, typed
from aide_monai.errors import InputError, Problem
from aide_monai.io.dicom.series import DicomSeries, find_series, list_files
from aide_monai.io.grid import shape_text
from aide_monai.io.location import Location
from aide_monai.io.png import pair_slices, png_files, read_png, read_png_stack
from aide_monai.io.volumes import listed

MODALITIES = {
    "T1DUAL": {0: "T1 in-phase", 1: "T1 out-of-phase"},
    "T2SPIR": {0: "T2-SPIR"},
    "CT": {0: "CT"},
}
MR_VALUES = {"liver": 63, "right kidney": 126, "left kidney": 189, "spleen": 252}
CT_VALUES = {"liver": 255}
VALUE_TOLERANCE = 8

# The authors' case lists; 37 is one of the training cases
PAPER_LABELED = 37
# fmt: off
PAPER_TRAINING = (
    1, 3, 4, 6, 7, 8, 9, 11, 12, 14, 15, 16, 17, 18, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 32, 35, 36, 37, 38, 40,
)
# fmt: on
PAPER_TEST = (2, 5, 10, 13, 19, 20, 31, 33, 34, 39)

# Fat and water are in phase at twice the time at which they are first out of phase
_ECHO_RATIO = (1.5, 2.5)
_LAYOUT = "Train_Sets/MR/<case>/T1DUAL/{DICOM_anon,Ground}, or Train_Sets/CT/<case>/{DICOM_anon,Ground}"

logger = logging.getLogger(__name__)


def chaos_datalist(
    root: str | Path,
    *,
    modality: str = "T1DUAL",
    organs: Sequence[str] = ("liver",),
    paper_split: bool = False,
    roots: Iterable[str | Path] = (),
) -> Datalist:
    """All cases of one modality, as the challenge ships them.

    A case with a folder ``Ground`` is labelled, quality "high"; the others (``Test_Sets``) are unlabelled training
    cases. Images are folders for ``DicomSeriesReader``, labels folders for ``PNGStackReader``; the values stored in the
    labels become class indices by ``AsClassIndicesd(classes=datalist.stored_classes)``. T1-DUAL cases have two images,
    in phase and out of phase, told apart by their echo times, whatever their folders are called.

    All headers and all label slices are read: a case that is listed is sound.

    Args:
        root: folder that holds ``Train_Sets`` and ``Test_Sets``, one of these, or ``MR`` (``CT``) itself.
        modality: "T1DUAL", "T2SPIR" or "CT".
        organs: the labels 1, 2, ...: of "liver", "right kidney", "left kidney" and "spleen"; CT has the liver only.
        paper_split: the paper's split of the MR cases: 37 labelled, 29 training cases without a label (labels that
            exist are kept as ``clean_label``), ten test cases. Cases that are not there are told by a log message.
        roots: further folders that linked folders may lead to.

    Raises:
        InputError: no cases, or one report of the problems of all cases: volumes missing or doubled, faulty stacks,
            labels that do not match the slices, and stored values that stand for no organ.
    """
    classes = chaos_classes(modality, organs=organs)
    if paper_split and modality == "CT":
        raise InputError(
            f"paper_split: the paper has MR cases only; use another modality ({typed('modality', 'T1DUAL')} or T2SPIR)"
        )
    folder = Path(os.path.abspath(root))
    if not folder.is_dir():
        raise InputError("no such folder", expected=f"the download of CHAOS: {_LAYOUT}", place=folder)
    found = _case_folders(folder, modality)
    if not any((place / "DICOM_anon").is_dir() for places in found.values() for place in places):
        raise InputError(f"no {modality} cases", expected=f"the download of CHAOS: {_LAYOUT}", place=folder)
    problems: list[Problem] = []
    cases: list[Case] = []
    for name, places in found.items():
        if len(places) > 1:
            problems.append(
                Problem(" and ".join(map(str, places)), expected="one", advice="remove the other", case=name)
            )
            continue
        case, wrong = _case(name, places[0], modality, set(classes), folder=folder, roots=tuple(roots))
        if case is not None:
            cases.append(case)
        problems += wrong
    if paper_split and not problems:
        cases, problems = _paper_split(cases)
    names = {0: "background", **dict(enumerate(organs, 1))}
    datalist = Datalist(f"CHAOS {modality}", names, dict(MODALITIES[modality]), cases, classes)
    if problems:
        refuse(f"{folder}: CHAOS cannot be used", problems, datalist)
    tell_left_out(folder, case_paths(cases), lambda file: _why_unused(file, modality))
    return datalist


def chaos_classes(
    modality: str = "T1DUAL", *, organs: Sequence[str] = ("liver",), indices: bool = False
) -> dict[int, int]:
    """Stored label value -> class index, for ``AsClassIndicesd``: values up to 8 off count, other organs become 0.

    Args:
        modality: "T1DUAL", "T2SPIR" or "CT".
        organs: the labels 1, 2, ...
        indices: take 1, 2, ... for these labels too, as programs write them that were given class indices.

    Raises:
        InputError: an unknown modality or organ, or an organ named twice.
    """
    if modality not in MODALITIES:
        raise InputError(f'modality "{modality}": expected one of {", ".join(MODALITIES)}')
    values = CT_VALUES if modality == "CT" else MR_VALUES
    if not organs or len(set(organs)) < len(organs) or not set(organs) <= set(values):
        raise InputError(f"organs {', '.join(map(str, organs))}: expected some of {', '.join(values)}, each once")
    index = {organ: number for number, organ in enumerate(organs, 1)}
    centres = {0: 0, **{value: index.get(organ, 0) for organ, value in values.items()}}
    classes = {
        value: label
        for centre, label in centres.items()
        for value in range(max(centre - VALUE_TOLERANCE, 0), centre + VALUE_TOLERANCE + 1)
    }
    return classes | ({label: label for label in index.values()} if indices else {})


def _case_folders(root: Path, modality: str) -> dict[str, list[Path]]:
    """Name of a case -> its folders (one, if all is well), by number."""
    kind = "CT" if modality == "CT" else "MR"
    found: dict[str, list[Path]] = {}
    for base in (
        root,
        *(root / outer / part for part in ("Train_Sets", "Test_Sets") for outer in ("", f"CHAOS_{part}")),
    ):
        place = base / kind if (base / kind).is_dir() else base
        for folder in sorted(place.iterdir()) if place.is_dir() else []:
            inner = folder if modality == "CT" else folder / modality
            if folder.name.isdecimal() or (inner / "DICOM_anon").is_dir():
                found.setdefault(folder.name, []).append(inner)
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def _case(
    name: str, place: Path, modality: str, values: set[int], *, folder: Path, roots: tuple[str | Path, ...]
) -> tuple[Case | None, list[Problem]]:
    """One case, None when something is wrong with it; and what that is."""
    dicom, ground = place / "DICOM_anon", place / "Ground"
    if not dicom.is_dir():
        return None, [Problem("no folder DICOM_anon", f"the images of case {name} in it", place=place)]
    problems: list[Problem] = []
    with _collected(problems):
        for path in (dicom, ground):
            Location(str(path)).absolute(folder, roots=roots)
        series = find_series(dicom, roots=roots, check=False)
        problems += [problem for one in series for problem in one.problems]
        with _collected(problems):
            image = _images(dicom, series, modality)
        if ground.is_dir():
            list_files(str(ground), roots=roots)  # refuses links that lead out
            problems += _label_problems(ground, values)
            if not problems:
                _require_slices(ground, dicom, series)
    if problems:
        return None, problems
    case = f"{'CT' if modality == 'CT' else 'MR'}-{name}"
    known = Case(name=case, image=image, patient=case)
    return replace(known, label=str(ground), quality="high") if ground.is_dir() else known, []


def _why_unused(file: Path, modality: str) -> str:
    others = ({"MR"} if modality == "CT" else set(MODALITIES)) - {modality}
    if others & set(file.parts):
        return f"of another modality than {modality}"
    return "no DICOM in a folder DICOM_anon and no PNG in a folder Ground of a case"


@contextmanager
def _collected(problems: list[Problem]) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        problems += error.problems


def _images(folder: Path, series: list[DicomSeries], modality: str) -> str | tuple[str, ...]:
    found = ", ".join(str(one) for one in series)
    if modality != "T1DUAL":
        if len(series) != 1:
            raise InputError(
                f"{len(series)} volumes ({found})", expected="one", advice="remove the others", place=folder
            )
        return str(folder)
    by_echo = sorted(series, key=lambda one: -(one.echo_ms or 0.0))
    if len(series) != 2 or not by_echo[1].echo_ms:
        raise InputError(
            f"{len(series)} volumes ({found})",
            expected="two with their echo times, in phase (about 4.6 ms) and out of phase (2.3 ms)",
            place=folder,
        )
    ratio = (by_echo[0].echo_ms or 0.0) / by_echo[1].echo_ms
    if not _ECHO_RATIO[0] < ratio < _ECHO_RATIO[1]:
        raise InputError(
            f"echo times of {by_echo[0].echo_ms:g} and {by_echo[1].echo_ms:g} ms",
            expected="the one in phase to be twice the other, about 4.6 and 2.3 ms",
            place=folder,
        )
    inside, outside = by_echo
    if wrong := inside.grid.mismatch(outside.grid):
        if wrong.distance_mm is not None:
            raise InputError(f"two phases {wrong.distance_mm:.3g} mm apart", expected="one place", place=folder)
        raise InputError(
            f"{wrong.expected} in phase and {wrong.found} out of phase",
            expected="equal shapes",
            advice="replace the case",
            place=folder,
        )
    paths = [_path(folder, one, series) for one in by_echo]
    if "outphase" in Path(paths[0]).name.lower() or "inphase" in Path(paths[1]).name.lower():
        logger.warning(
            "%s: the folders are named the wrong way round, echo times say %s", folder, [Path(p).name for p in paths]
        )
    return tuple(paths)


def _path(folder: Path, one: DicomSeries, series: list[DicomSeries]) -> str:
    """The folder of the volume's files, or, when others lie there too, the common folder with a selection."""
    places = {os.path.dirname(file) for file in one.files}
    others = {os.path.dirname(file) for other in series if other is not one for file in other.files}
    if len(places) == 1 and not any(Path(other).is_relative_to(place) for place in places for other in others):
        return places.pop()
    return f"{folder}#{one.selector}"


def _label_problems(ground: Path, values: set[int]) -> list[Problem]:
    files = png_files(ground)
    if not files:
        advice = "remove the folder if there are no labels"
        return [Problem("no PNG files", "one per slice", advice, ground)]
    problems: list[Problem] = []
    for file in files:
        with _collected(problems):
            unknown = [value for value in np.unique(read_png(file)).tolist() if value not in values]
            if unknown:
                problems.append(Problem(f"label value {listed(unknown)}", _ranges(values), "correct the label", file))
    return problems


def _require_slices(ground: Path, dicom: Path, series: list[DicomSeries]) -> None:
    files, volume = pair_slices(png_files(ground), series, str(dicom))
    shape = read_png_stack(files).shape
    if shape != volume.shape:
        raise InputError(
            f"labels of {shape_text(shape)} voxels", expected=f"{shape_text(volume.shape)} as the images", place=ground
        )


def _ranges(values: set[int]) -> str:
    """{0, 1, 55, 56} -> 0 to 1, 55 to 56."""
    starts = sorted(value for value in values if value - 1 not in values)
    ends = sorted(value for value in values if value + 1 not in values)
    return ", ".join(f"{start} to {end}" for start, end in zip(starts, ends, strict=True))


def _paper_split(cases: list[Case]) -> tuple[list[Case], list[Problem]]:
    by_number = {case.name.removeprefix("MR-"): case for case in cases}
    known = {str(number) for number in (*PAPER_TRAINING, *PAPER_TEST)}
    problems = [Problem("a case of none of the paper's lists", case=name) for name in by_number if name not in known]
    labelled = [str(PAPER_LABELED), *(str(number) for number in PAPER_TEST)]
    problems += [
        Problem("no label", case=name) for name in labelled if name in by_number and by_number[name].label is None
    ]
    if str(PAPER_LABELED) not in by_number:
        problems.append(Problem(f"no case {PAPER_LABELED}, the paper's only labelled one"))
    missing = sorted(known - by_number.keys(), key=int)
    if missing:
        logger.warning("%d of the paper's 40 cases are missing: %s", len(missing), ", ".join(missing))
    split: list[Case] = []
    for name, case in by_number.items():
        if name in map(str, PAPER_TEST):
            split.append(replace(case, split="test"))
        else:
            split.append(case if name == str(PAPER_LABELED) else case.hidden())
    return split, problems
