"""Cases of a data set in the layout of the Medical Segmentation Decathlon (http://medicaldecathlon.com)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from aide_monai.data.case import SPLITS, Case, Split
from aide_monai.data.checks.datalist import refuse
from aide_monai.data.datalist import Datalist
from aide_monai.data.records import numbered_names, read_json
from aide_monai.data.sources.files import case_paths, tell_left_out
from aide_monai.errors import InputError, Problem
from aide_monai.io.location import Location, without_suffix

_FOLDERS = ("imagesTr", "labelsTr", "imagesTs")


def decathlon_datalist(root: str | Path, *, roots: Iterable[str | Path] = ()) -> Datalist:
    """Cases that ``dataset.json`` lists; the case id is the name of the (first) image file without its suffix.

    A case without a label becomes an unlabelled training case, wherever it is listed: the Decathlon's own "test" is a
    list of plain image paths whose labels are not public, so nothing can be measured on it. Cases with a label keep
    their section. All labels count as quality "high". When the data set has several modalities, each image is one 4D
    file, channels last, as the Decathlon ships it; a list of files, one per modality, is accepted too. Other keys,
    such as "fold", are not used.

    Args:
        root: the folder of ``dataset.json``, or the path of such a file under another name.
        roots: further folders that files may lie in.

    Raises:
        InputError: one report of everything that is malformed or leads out of the folder and the roots.
    """
    file = Path(root)
    if file.is_dir():
        file = file / "dataset.json"
    content = read_json(file)
    folder = Path(os.path.abspath(file.parent))
    malformed: list[Problem] = []
    problems: list[Problem] = []
    maps = {}
    for key in ("labels", "modality"):
        maps[key], found = numbered_names(content.get(key), key)
        malformed += found
    cases: list[Case] = []
    for section in SPLITS:
        entries = content.get(section, [])
        if not isinstance(entries, list):
            problems.append(Problem("no list", expected="a list of cases", place=f'key "{section}"'))
            continue
        for index, entry in enumerate(entries):
            try:
                plain = {"image": entry} if isinstance(entry, str) else entry
                cases.append(_case(plain, section, folder, roots=roots))
            except InputError as error:
                problems += error.at(f"{section}[{index}]").problems
    title = f"{file}: the data set cannot be used"
    if malformed:
        raise InputError(title, problems=[*malformed, *problems])
    datalist = Datalist(content.get("name") or folder.name, maps["labels"], maps["modality"], cases)
    if problems:
        refuse(title, problems, datalist)
    _tell_unlisted(folder, cases)
    return datalist


def _tell_unlisted(folder: Path, cases: Iterable[Case]) -> None:
    """Name what lies beside the files of the list, in their folders and in those that a Decathlon has."""
    paths = case_paths(cases)
    places = {Path(Location.parse(path).path).parent for path in paths} | {folder / name for name in _FOLDERS}
    for place in sorted(place for place in places if place.is_relative_to(folder) and place.is_dir()):
        tell_left_out(place, paths, lambda _: "not in the list")


def _case(entry: Any, section: Split, folder: Path, *, roots: Iterable[str | Path]) -> Case:
    image: Any = entry.get("image") if isinstance(entry, dict) else None
    files = image if isinstance(image, list) and image else [image]
    if not all(isinstance(path, str) and path for path in files):
        raise InputError(repr(entry), expected='{"image": path, "label": path}')
    paths = [str(Location.parse(file).absolute(folder, roots=roots)) for file in files]
    case = Case(name=without_suffix(files[0]), image=paths[0] if isinstance(image, str) else tuple(paths))
    if "label" not in entry:
        return case
    if not isinstance(entry["label"], str) or not entry["label"]:
        raise InputError(f'"label": {entry["label"]!r}', expected="a path")
    label = str(Location.parse(entry["label"]).absolute(folder, roots=roots))
    return replace(case, label=label, quality="high", split=section)
