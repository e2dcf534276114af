"""From a folder of volumes to a checked and split data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aide_monai.data.atomic import require_place
from aide_monai.data.checks import require_valid
from aide_monai.data.datalist import Datalist, as_paths
from aide_monai.data.details import with_details
from aide_monai.data.dicom import find_series
from aide_monai.data.dicom_elements import is_dicom
from aide_monai.data.domains import adapt_domains
from aide_monai.data.readers import DicomSeriesReader
from aide_monai.data.sources import decathlon_datalist, find_datalist, folder_datalist, is_datalist
from aide_monai.data.sources.breast_dce import breast_datalist
from aide_monai.data.sources.chaos import chaos_datalist
from aide_monai.data.sources.domain_folders import domain_folders
from aide_monai.data.sources.hold_out import hold_out_labelled
from aide_monai.data.sources.nci_isbi import nci_isbi_datalist
from aide_monai.data.sources.promise12 import promise12_datalist
from aide_monai.data.sources.prostate import prostate_datalist
from aide_monai.data.sources.qubiq import qubiq_datalist
from aide_monai.data.split import fold_cases, split_cases
from aide_monai.data.volume_files import shape_text
from aide_monai.data.volumes import image_header
from aide_monai.errors import InputError
from aide_monai.workflows.save import case_of

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".mhd", ".nrrd")


@dataclass(frozen=True)
class Layout:
    """How a data set is downloaded.

    Attributes:
        source: from the folders to the datalist.
        folders: what each folder is.
        options: keyword arguments of ``source`` that a user may give.
        paper: those that give the paper's split; None for data sets that the paper does not have.
    """

    source: Callable[..., Datalist]
    folders: tuple[str, ...]
    options: tuple[str, ...] = ()
    paper: Mapping[str, Any] | None = None


LAYOUTS = {
    "chaos": Layout(chaos_datalist, ("CHAOS",), ("modality", "organs"), {"paper_split": True}),
    "nci-isbi": Layout(nci_isbi_datalist, ("NCI-ISBI 2013",), ("merge_zones",), {}),
    "promise12": Layout(promise12_datalist, ("PROMISE12",), ("keep_duplicates",), {"test": 10}),
    "prostate": Layout(prostate_datalist, ("NCI-ISBI 2013", "PROMISE12"), (), {}),
    "qubiq": Layout(qubiq_datalist, ("QUBIQ",), ("task", "subtask", "rater", "reference", "fused_dir"), {}),
    "breast": Layout(
        breast_datalist,
        ("breast DCE-MR",),
        ("centre", "phases", "times_s", "keep_unlabeled", "subtraction_dir"),
        {"test": 100},
    ),
    "decathlon": Layout(decathlon_datalist, ("Decathlon",)),
    "folder": Layout(folder_datalist, ("images/ and labels/",), ("patient_pattern",)),
    "domains": Layout(domain_folders, ("a folder per domain",), ("domains", "held_out", "label_names")),
}

_FLAGS = {"times_s": "times", "merge_zones": "zones"}  # options that the command line calls otherwise


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How cases become training and test cases; as the source has them when nothing is given.

    Attributes:
        labeled: training cases that keep their label, see ``split_cases``.
        unlabeled: training cases whose label is hidden.
        test: held-out cases; without ``labeled``, so many of each domain, and all others keep their labels.
        fold: (k, n): part k of n is held out, see ``fold_cases``.
        seed: seed of the drawing.
    """

    labeled: int | None = None
    unlabeled: int | None = None
    test: int | None = None
    fold: tuple[int, int] | None = None
    seed: int = 0

    def apply(self, datalist: Datalist) -> Datalist:
        """Split the cases.

        Raises:
            InputError: settings that do not go together, or too few cases.
        """
        if self.fold is not None:
            if self.test is not None:
                raise InputError("found fold and test; expected one of them, for both hold out cases")
            datalist = fold_cases(datalist, fold=self.fold[0], folds=self.fold[1], seed=self.seed)
        if self.labeled is not None:
            return split_cases(datalist, labeled=self.labeled, unlabeled=self.unlabeled, test=self.test, seed=self.seed)
        if self.unlabeled is not None:
            raise InputError("found unlabeled without labeled; expected the number of labelled cases too")
        return datalist if self.test is None else hold_out_labelled(datalist, test=self.test, seed=self.seed)


def write_datalist(
    layout: str,
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    split: SplitSettings | None = None,
    paper_split: bool = False,
    progress: bool = False,
    **options: Any,
) -> Datalist:
    """Find the cases of a download, split and check them, and write the datalist.

    Args:
        layout: a key of ``LAYOUTS``.
        folders: as many as the layout has.
        out: JSON file of the datalist; an older one is replaced.
        split: which cases are labelled, unlabelled and held out.
        paper_split: the paper's numbers: CHAOS by the authors' case lists, prostate 30/10, 30/10 and 27/10, QUBIQ by
            the challenge's folders, breast 100 held-out cases of each centre; ``split`` may then only have a seed.
        progress: show progress bars.
        options: of the layout's source.

    Raises:
        InputError: an unknown layout, an option of another layout, an ``out`` that is no datalist, or one report of all
            problems; then no datalist is written.
    """
    require_place(out)
    if Path(out).exists() and not is_datalist(Path(out)):
        raise InputError(f"{out}: found a file that is no datalist and would be lost; choose another name")
    if layout not in LAYOUTS:
        raise InputError(f'layout "{layout}": expected one of {", ".join(LAYOUTS)}')
    known = LAYOUTS[layout]
    foreign = [option for option in options if option not in known.options]
    if foreign:
        users = [name for name, other in LAYOUTS.items() if foreign[0] in other.options]
        name = "--" + _FLAGS.get(foreign[0], foreign[0].replace("_", "-"))
        raise InputError(f"{name} is an option of {', '.join(users)}, not of {layout}; leave it out")
    if len(folders) != len(known.folders):
        raise InputError(
            f"{layout}: found {len(folders)} folders; expected {len(known.folders)}: {' and '.join(known.folders)}"
        )
    split = split or SplitSettings()
    if paper_split:
        if known.paper is None:
            raise InputError(f"--paper-split: the paper has no data set of the layout {layout}; leave it out")
        if replace(split, seed=0) != SplitSettings():
            raise InputError("found --paper-split with another split; expected one of them")
        options |= known.paper
        options |= {"seed": split.seed} if layout in ("promise12", "prostate", "breast") else {}
    datalist = split.apply(known.source(*folders, **options))
    require_valid(datalist, progress=progress)
    datalist = with_details(datalist, progress=progress)
    datalist.save(out)
    return datalist


def prepare_datalist(
    root: str | Path,
    *,
    layout: str | None = None,
    folders: Sequence[str] = (".",),
    source: Mapping[str, Any] | None = None,
    domains: Sequence[str] | None = None,
    labeled: int | None = None,
    unlabeled: int | None = None,
    test: int | None = None,
    seed: int = 0,
    roots: Sequence[str | Path] = (),
) -> Datalist:
    """Find the cases of a training job, split them, and check every file once.

    Args:
        root: folder of the data; without a ``layout`` a datalist, a Decathlon folder or one with images/ and labels/.
        layout: how the data were downloaded, a key of ``LAYOUTS``; None recognises it.
        folders: of a layout with several folders, each of them below ``root``.
        source: options of the layout's source, see there; None stands for its default.
        domains: source and target domain, see ``adapt_domains``; None leaves all domains as they are.
        labeled: training cases that keep their label; None takes the data set as it is.
        unlabeled: training cases whose label is hidden; None takes all that are left over, see ``split_cases``.
        test: held-out cases; None takes all that are left over.
        seed: seed of the split.
        roots: further folders that the files of a datalist may lie in.

    Returns:
        The data set with training and, when it was split here, test cases.

    Raises:
        InputError: if the folder cannot be used, there are too few cases, or files have problems (one report of all).
    """
    if layout is None:
        found = find_datalist(root, roots=roots)
    elif layout in LAYOUTS:
        options = {key: value for key, value in (source or {}).items() if value is not None}
        found = LAYOUTS[layout].source(*(Path(root) / folder for folder in folders), **options)
    else:
        raise InputError(f'layout "{layout}": expected one of {", ".join(LAYOUTS)}')
    if domains is not None:
        found = adapt_domains(found, domains)
    datalist = SplitSettings(labeled=labeled, unlabeled=unlabeled, test=test, seed=seed).apply(found)
    if labeled is not None and not datalist.split("test"):
        raise InputError(
            f"{root}: no case is left to hold out for the test: {len(found.records)} cases, {labeled} labelled and "
            f"{unlabeled} unlabelled asked for; ask for fewer training cases"
        )
    require_valid(datalist)
    return datalist


def image_records(
    folder: str | Path,
    *,
    dicom_channels: Sequence[str] = (),
    roots: Sequence[str | Path] = (),
    channels: int | None = None,
) -> list[dict[str, Any]]:
    """All volumes of a folder, or of a datalist, as records with "image" and "case", in order of name.

    Args:
        folder: a folder of volume files; a folder of one DICOM study, or of a folder for each; or a datalist.
        dicom_channels: what selects each channel in a DICOM folder, such as ``["echo=4.6", "echo=2.3"]``; without it
            there must be one volume.
        roots: further folders that the files of a datalist may lie in.
        channels: how many channels the network has, which the headers of all images are compared with; None reads no
            header.

    Raises:
        InputError: if the folder is missing or has no volume, two volumes have one name, or an image cannot be read or
            has another number of ``channels``.
    """
    folder = Path(folder)
    if folder.is_file() or (folder / "datalist.json").is_file() or (folder / "dataset.json").is_file():
        found = find_datalist(folder, roots=roots).records
        records = [{"image": record["image"], "case": record["case"]} for record in found]
    else:
        records = _folder_records(folder, dicom_channels)
    if channels is not None:
        _require_channels([record["image"] for record in records], channels)
    return records


def _folder_records(folder: Path, dicom_channels: Sequence[str]) -> list[dict[str, Any]]:
    """The volumes of a folder that is no datalist."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder of {', '.join(IMAGE_SUFFIXES)} volumes or of DICOM")
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    found: list[Any] = sorted(path for path in shown if path.name.lower().endswith(IMAGE_SUFFIXES))
    if not found:
        studies = _dicom_studies(folder, channels=len(dicom_channels))
        found = [[f"{path}#{select}" for select in dicom_channels] or str(path) for path in studies]
    if not found:
        raise InputError(f"{folder}: found no volume; expected DICOM, or files that end in {', '.join(IMAGE_SUFFIXES)}")
    records = [{"image": image if isinstance(image, list) else str(image)} for image in found]
    records = [{**record, "case": case_of(record["image"])} for record in records]
    names = [record["case"] for record in records]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{folder}: found two volumes called {doubled[0]}; expected a name for each: rename one")
    return records


def _require_channels(images: Sequence[Any], expected: int) -> None:
    """Refuse an image, a path or a list of paths, that the network cannot take; only headers are read."""
    for image in images:
        paths = as_paths(image)
        found = sum(_channels(path) for path in paths)
        if found != expected:
            raise InputError(
                f"{paths[0]}: found {found} {'channel' if found == 1 else 'channels'}; expected {expected} as the "
                "network has: give images like those it was trained on, or a datalist that names FILE#channel=K"
            )


def _channels(path: str) -> int:
    """Number of channels of a file, from its header."""
    header = image_header(path)
    if header.channels is None:
        raise InputError(
            f"{path}: found shape {shape_text(header.file_shape)}; expected (x, y, z) or (x, y, z, channel): convert it"
        )
    return header.channels


def _dicom_studies(folder: Path, *, channels: int) -> list[Path]:
    """The folder itself if it is one study, else its subfolders with DICOM."""
    reader = DicomSeriesReader()
    if any(path.is_file() and is_dicom(path) for path in folder.iterdir()):
        return [folder]
    studies = [path for path in sorted(folder.iterdir()) if path.is_dir() and reader.verify_suffix(path)]
    # A study may keep each of its volumes in a subfolder.
    parts = channels > 1 and any(len(find_series(path, check=False)) < channels for path in studies)
    return [folder] if parts else studies
