"""The datalist: which files belong to which case, whose label is trusted, and which cases are held out.

On disk it is JSON in the layout of the Medical Segmentation Decathlon (http://medicaldecathlon.com), which
`monai.data.load_decathlon_datalist` reads unchanged, with a few more keys per case.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from aide_monai.data.case import SPLITS, Case, Record
from aide_monai.data.records import (
    PATH_KEYS,
    TEXT_KEYS,
    annotated_problems,
    doubled_cases,
    ignored_value,
    kind_of,
    name_problems,
    numbered_names,
    read_json,
    record_problems,
    records_by_place,
    stored_classes,
)
from aide_monai.errors import InputError, Problem
from aide_monai.ignored import IGNORED
from aide_monai.io.location import Location, Places, as_paths
from aide_monai.utils.files import write_atomically
from aide_monai.utils.validation import TEXT, is_text

_FLAGS = ("resample_labels", "soft_labels")
_TOP_KEYS = ("name", "labels", "modality", "classes", "ignore", *_FLAGS, "numTraining", "numTest", *SPLITS)
_REQUIRED_TOP_KEYS = ("name", "labels", "modality", "training")


@dataclass
class Datalist:
    """The cases of one data set; every path in memory is an absolute string.

    Attributes:
        name: name of the data set.
        labels: name of every label value, 0 (background) to K - 1 without gaps.
        modality: name of every channel, 0 to M - 1 without gaps.
        cases: the cases; records as in JSON are taken too.
        classes: label value as the files store it to class index, where they are not the same ({63: 1} in CHAOS).
        resample_labels: labels may lie on other grids than their images and are to be resampled onto them.
        soft_labels: labels may be shares of raters, 0..1, of the one class there is: to score against, not to train on.
        ignore: label value, as the files store it, of voxels without a verdict, which may be any class: nothing is
            learnt from them, and nothing judged by them. None: every voxel has a class.

    Raises:
        InputError: names all malformed maps and records at once. What needs the files (missing, unreadable, leaking)
            is found by `aide_monai.data.checks.datalist.check_datalist`.

    Examples:
        >>> from aide_monai import Case, Datalist
        >>> case = Case(name="a", image="/data/a.nii.gz", label="/data/a_label.nii.gz", quality="high")
        >>> Datalist("livers", {0: "background", 1: "liver"}, {0: "MR"}, [case]).save("datalist.json")
        >>> Datalist.load("datalist.json", roots=["/data"]).cases[0].trusted
        True
    """

    name: str
    labels: dict[int, str]
    modality: dict[int, str]
    cases: list[Case]
    classes: dict[int, int] = field(default_factory=dict)
    resample_labels: bool = False
    soft_labels: bool = False
    ignore: int | None = None

    def __post_init__(self) -> None:
        records = [case.record() if isinstance(case, Case) else case for case in self.cases]
        self._require_well_formed(records)
        self.cases = [Case.of(record) for record in records]

    @classmethod
    def load(
        cls, path: str | Path, *, roots: Iterable[str | Path] = (), left_out: list[Problem] | None = None
    ) -> Datalist:
        """Read a datalist and make its paths absolute.

        Args:
            path: JSON file; relative paths in it start at its folder.
            roots: further folders that files may lie in. A path that leaves the datalist's folder and all of these,
                by ``..``, by a symbolic link or by being absolute, is refused.
            left_out: takes what is wrong with single cases, which are then left out; without it, they are refused.

        Raises:
            InputError: one report of all malformed, unknown, doubled or escaping entries.
        """
        path = Path(os.path.abspath(path))
        content = read_json(path)
        folder = path.parent
        problems = [
            Problem(f'unknown key "{key}"', advice=f"the keys are {', '.join(_TOP_KEYS)}")
            for key in content
            if key not in _TOP_KEYS
        ]
        problems += [Problem(f'no key "{key}"') for key in _REQUIRED_TOP_KEYS if key not in content]
        name = content.get("name", "")
        if not isinstance(name, str):
            problems.append(Problem(kind_of(name), "text", place='key "name"'))
        elif name and not is_text(name):
            problems.append(Problem(repr(name), TEXT, place='key "name"'))
        maps = {}
        for key in ("labels", "modality"):
            maps[key], found = numbered_names(content.get(key, {"0": "absent"}), key)
            problems += found

        classes, found = stored_classes(content.get("classes", {}))
        problems += found
        ignore = content.get("ignore")
        if "ignore" in content:
            problems += ignored_value(ignore, _stored(maps["labels"], classes))
        flags = {key: content.get(key, False) for key in _FLAGS}
        problems += [
            Problem(repr(flag), "true or false", place=f'key "{key}"')
            for key, flag in flags.items()
            if not isinstance(flag, bool)
        ]

        places = Places(folder, roots)
        of_cases = problems if left_out is None else left_out
        records = records_by_place(content, problems, of_cases)
        sound = dict(records)
        for where, record in records.items():
            for key in PATH_KEYS:
                if key in record:
                    try:
                        paths = [places.absolute(text) for text in as_paths(record[key])]
                        record[key] = paths[0] if isinstance(record[key], str) else paths
                    except InputError as error:
                        of_cases += error.at(where).problems
                        sound.pop(where, None)
        doubled = doubled_cases(sound)
        of_cases += doubled.values()
        if problems:
            raise InputError(f"{path}: the datalist cannot be used", problems=problems)
        kept = [Case.of(record) for where, record in sound.items() if where not in doubled]
        return cls(name, maps["labels"], maps["modality"], kept, classes, **flags, ignore=ignore)

    def save(self, path: str | Path) -> None:
        """Write the datalist atomically (temporary file, fsync, rename).

        Paths inside the file's folder are written relative to it, so that the folder can be moved; others absolute.
        An empty "test" section is left out because MONAI's reader fails on it.

        Raises:
            InputError: the file cannot be written, a record is malformed, or a text value (such as ``case``) is also
                the name of something in the file's folder: MONAI's reader would turn that value into a path.
        """
        records = [case.record() for case in self.cases]
        self._require_well_formed(records)
        path = Path(os.path.abspath(path))
        folder = path.parent
        is_there = cache(lambda text: os.path.exists(os.path.join(folder, text)))
        clashes = [
            Problem(
                f'"{key}": "{record[key]}", which is also the name of a file or folder in {folder}',
                advice="MONAI would read it as a path. Save the datalist in another folder or change the value",
                case=record["case"],
            )
            for record in records
            for key in TEXT_KEYS
            if key in record and is_there(record[key])
        ]
        if clashes:
            raise InputError(f"{path}: the datalist was not saved", problems=clashes)
        places = Places(folder)
        sections: dict[str, list[Record]] = {split: [] for split in SPLITS}
        for record in records:
            sections[record["split"]].append(_portable(record, places))
        content = {
            "name": self.name,
            "labels": {str(value): name for value, name in sorted(self.labels.items())},
            "modality": {str(channel): name for channel, name in sorted(self.modality.items())},
            **({"classes": {str(value): index for value, index in self.classes.items()}} if self.classes else {}),
            **({} if self.ignore is None else {"ignore": self.ignore}),
            **{key: True for key in _FLAGS if getattr(self, key)},
            "numTraining": len(sections["training"]),
            "numTest": len(sections["test"]),
            **{split: records for split, records in sections.items() if records or split != "test"},
        }
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))

    def of_split(self, name: str) -> list[Case]:
        """Cases of "training", "validation" or "test", in order.

        Raises:
            InputError: another name.
        """
        if name not in SPLITS:
            raise InputError(f'split "{name}"', expected=f"one of {', '.join(SPLITS)}")
        return [case for case in self.cases if case.split == name]

    def split(self, name: str) -> list[Record]:
        """`of_split` as MONAI's dictionary transforms and datasets take cases.

        Raises:
            InputError: another name.
        """
        return [self.loadable(case) for case in self.of_split(name)]

    @property
    def records(self) -> list[Record]:
        """All cases as MONAI's dictionary transforms and datasets take them."""
        return [self.loadable(case) for case in self.cases]

    def loadable(self, case: Case) -> Record:
        """A case as MONAI's dictionary transforms take it: "annotated" are stored values, for ``AsClassIndicesd``."""
        record = case.record()
        if case.annotated is not None:
            names = {value: self.labels.get(index) for value, index in self.stored_classes.items()}
            record["annotated"] = [value for value, name in names.items() if name in case.annotated]
        return record

    @property
    def folders(self) -> list[str]:
        """Folders that the files of all cases lie in: the ``roots`` with which it is loaded from anywhere."""
        paths = {path for case in self.cases for path in case.images + case.labels}
        return sorted({os.path.dirname(Location.parse(path).path) for path in paths})

    @property
    def stored_classes(self) -> dict[int, int]:
        """Label value as the files store it to class index, for ``AsClassIndicesd``; 0 is always the background.

        ``ignore`` has the index ``aide_monai.losses.IGNORED``.
        """
        stored = _stored(self.labels, self.classes)
        return stored if self.ignore is None else {**stored, self.ignore: IGNORED}

    @property
    def num_classes(self) -> int:
        """Number of label values K, background included."""
        return len(self.labels)

    def _require_well_formed(self, records: list[Record]) -> None:
        problems = name_problems(self.labels, "labels") + name_problems(self.modality, "modality")
        problems += [
            Problem(f"{value} for {index}", f"one of the labels {sorted(self.labels)}", place="classes")
            for value, index in self.classes.items()
            if index not in self.labels
        ]
        if self.ignore is not None:
            problems += ignored_value(self.ignore, _stored(self.labels, self.classes))
        if not is_text(self.name):
            problems.append(Problem(repr(self.name), expected=TEXT, place="name"))
        sound: dict[str, Record] = {}
        for index, record in enumerate(records):
            where = f"records[{index}]"
            malformed = record_problems(record, where)
            if not malformed:
                sound[where] = record
                malformed = annotated_problems(record, self.labels, where)
                malformed += [
                    Problem(f'"{key}": "{path}"', "an absolute path", place=where)
                    for key in PATH_KEYS
                    for path in as_paths(record.get(key, []))
                    if not os.path.isabs(path)
                ]
            problems += malformed
        problems += doubled_cases(sound).values()
        if problems:
            raise InputError(f'datalist "{self.name}" is malformed', problems=problems)


def _stored(labels: Mapping[int, str], classes: Mapping[int, int]) -> dict[int, int]:
    return {0: 0, **classes} if classes else {value: value for value in labels}


def _portable(record: Record, places: Places) -> Record:
    written = dict(record)
    for key in PATH_KEYS:
        if key in record:
            paths = [places.relative(path) for path in as_paths(record[key])]
            written[key] = paths[0] if isinstance(record[key], str) else paths
    return written
