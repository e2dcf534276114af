"""The datalist: which files belong to which case, whose label is trusted, and which cases are held out.

On disk it is JSON in the layout of the Medical Segmentation Decathlon (http://medicaldecathlon.com), which
`monai.data.load_decathlon_datalist` reads unchanged, with a few more keys per case.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aide_monai.data.case import QUALITIES, SPLITS, Case, Record
from aide_monai.errors import InputError, Problem
from aide_monai.io.paths import absolute_path, as_paths
from aide_monai.utils.files import write_atomically
from aide_monai.utils.validation import TEXT, is_orientation, is_text

PATH_KEYS = ("image", "label", "clean_label")
DETAIL_KEYS = ("spacing", "orientation", "sha256")
TEXT_KEYS = ("case", "quality", "patient", "rater", "domain", "split")

MAX_LABELS = 256
MAX_STORED = 65535  # of the values in files that mean another class index

_FLAGS = ("resample_labels", "soft_labels")
_TOP_KEYS = ("name", "labels", "modality", "classes", *_FLAGS, "numTraining", "numTest", *SPLITS)
_REQUIRED_TOP_KEYS = ("name", "labels", "modality", "training")
_CASE_NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*")


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
            problems.append(Problem(_kind(name), "text", place='key "name"'))
        elif name and not is_text(name):
            problems.append(Problem(repr(name), TEXT, place='key "name"'))
        maps = {}
        for key in ("labels", "modality"):
            maps[key], found = numbered_names(content.get(key, {"0": "absent"}), key)
            problems += found

        classes, found = _stored_classes(content.get("classes", {}))
        problems += found
        flags = {key: content.get(key, False) for key in _FLAGS}
        problems += [
            Problem(repr(flag), "true or false", place=f'key "{key}"')
            for key, flag in flags.items()
            if not isinstance(flag, bool)
        ]

        of_cases = problems if left_out is None else left_out
        records = _sections(content, problems, of_cases)
        sound = dict(records)
        for where, record in records.items():
            for key in PATH_KEYS:
                if key in record:
                    try:
                        paths = [absolute_path(path, folder, roots=roots) for path in as_paths(record[key])]
                        record[key] = paths[0] if isinstance(record[key], str) else paths
                    except InputError as error:
                        of_cases += error.at(where).problems
                        sound.pop(where, None)
        doubled = _doubled_cases(sound)
        of_cases += doubled.values()
        if problems:
            raise InputError(f"{path}: the datalist cannot be used", problems=problems)
        kept = [Case.of(record) for where, record in sound.items() if where not in doubled]
        return cls(name, maps["labels"], maps["modality"], kept, classes, **flags)

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
        clashes = [
            Problem(
                f'"{key}": "{record[key]}", which is also the name of a file or folder in {folder}',
                advice="MONAI would read it as a path. Save the datalist in another folder or change the value",
                case=record["case"],
            )
            for record in records
            for key in TEXT_KEYS
            if key in record and (folder / record[key]).exists()
        ]
        if clashes:
            raise InputError(f"{path}: the datalist was not saved", problems=clashes)
        sections: dict[str, list[Record]] = {
            split: [_portable(case.record(), folder) for case in self.of_split(split)] for split in SPLITS
        }
        content = {
            "name": self.name,
            "labels": {str(value): name for value, name in sorted(self.labels.items())},
            "modality": {str(channel): name for channel, name in sorted(self.modality.items())},
            **({"classes": {str(value): index for value, index in self.classes.items()}} if self.classes else {}),
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
        return [case.record() for case in self.of_split(name)]

    @property
    def records(self) -> list[Record]:
        """All cases as MONAI's dictionary transforms and datasets take them."""
        return [case.record() for case in self.cases]

    @property
    def stored_classes(self) -> dict[int, int]:
        """Label value as the files store it to class index, for ``AsClassIndicesd``; 0 is always the background."""
        return {0: 0, **self.classes} if self.classes else {value: value for value in self.labels}

    @property
    def num_classes(self) -> int:
        """Number of label values K, background included."""
        return len(self.labels)

    def _require_well_formed(self, records: list[Record]) -> None:
        problems = _map_problems(self.labels, "labels") + _map_problems(self.modality, "modality")
        problems += [
            Problem(f"{value} for {index}", f"one of the labels {sorted(self.labels)}", place="classes")
            for value, index in self.classes.items()
            if index not in self.labels
        ]
        if not is_text(self.name):
            problems.append(Problem(repr(self.name), expected=TEXT, place="name"))
        sound: dict[str, Record] = {}
        for index, record in enumerate(records):
            where = f"records[{index}]"
            malformed = _record_problems(record, where)
            if not malformed:
                sound[where] = record
                malformed = [
                    Problem(f'"{key}": "{path}"', "an absolute path", place=where)
                    for key in PATH_KEYS
                    for path in as_paths(record.get(key, []))
                    if not os.path.isabs(path)
                ]
            problems += malformed
        problems += _doubled_cases(sound).values()
        if problems:
            raise InputError(f'datalist "{self.name}" is malformed', problems=problems)


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file that holds an object.

    Raises:
        InputError: no such file, not JSON, not an object, or a key given twice.
    """
    doubled: list[str] = []

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content:
                doubled.append(key)
            content[key] = value
        return content

    if not path.is_file():
        raise InputError("no such file", expected="a datalist in JSON", place=path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        advice = "correct the file or write it anew"
        raise InputError(f"not readable as JSON ({error})", advice=advice, place=path) from error
    if not isinstance(content, dict):
        raise InputError(_kind(content), expected="a JSON object", place=path)
    if doubled:
        found = f"keys given twice in one object: {', '.join(sorted(set(doubled)))}"
        raise InputError(found, advice="keep one of each", place=path)
    return content


def numbered_names(value: Any, key: str) -> tuple[dict[int, str], list[Problem]]:
    """Turn JSON's ``{"0": "background", ...}`` into ``{0: "background", ...}``; second value: what is wrong with it."""
    place = f'key "{key}"'
    if not isinstance(value, dict):
        return {}, [Problem(_kind(value), 'numbers with names, such as {"0": "background"}', place=place)]
    wrong = [number for number in value if not re.fullmatch(r"0|[1-9][0-9]{0,4}", number)]
    if wrong:
        expected = 'names of whole numbers below 100000, such as {"0": "background"}'
        return {}, [Problem(f"the number {_short(wrong[0])}", expected, place=place)]
    names = {int(number): name for number, name in value.items()}
    return names, _map_problems(names, key)


def _stored_classes(value: Any) -> tuple[dict[int, int], list[Problem]]:
    """JSON's ``{"63": 1}`` as ``{63: 1}``; second value: what is wrong with it."""
    if not isinstance(value, dict) or not all(
        re.fullmatch(r"[0-9]{1,5}", stored) and int(stored) <= MAX_STORED and type(index) is int
        for stored, index in value.items()
    ):
        expected = f'stored values up to {MAX_STORED} with class indices, such as {{"63": 1}}'
        return {}, [Problem(_short(value), expected, place='key "classes"')]
    return {int(stored): index for stored, index in value.items()}, []


def _map_problems(names: dict[int, str], key: str) -> list[Problem]:
    if key == "labels" and len(names) > MAX_LABELS:
        expected = f"at most {MAX_LABELS}, for a label takes one byte; merge structures, or leave some out"
        return [Problem(f"{len(names)} names", expected, place=key)]
    if sorted(names) != list(range(len(names))) or not names:
        return [Problem(f"the numbers {_short(sorted(names))}", "0, 1, 2, ... without gaps", place=key)]
    return [
        Problem(f"the name {name!r} of {number}", TEXT, place=key)
        for number, name in names.items()
        if not is_text(name)
    ]


def _sections(content: Mapping[str, Any], problems: list[Problem], of_cases: list[Problem]) -> dict[str, Record]:
    """The well-formed records by place; what is wrong with the file, and with single cases, is added to the lists."""
    records: dict[str, Record] = {}
    for section in SPLITS:
        entries = content.get(section, [])
        if not isinstance(entries, list):
            problems.append(Problem(_kind(entries), "a list of cases", place=f'key "{section}"'))
            continue
        for index, entry in enumerate(entries):
            where = f"{section}[{index}]"
            malformed = _record_problems(entry, where)
            if not malformed and entry.get("split", section) != section:
                malformed = [Problem(f'"split": "{entry["split"]}" of a case under "{section}"', place=where)]
            of_cases += malformed
            if not malformed:
                records[where] = {**entry, "split": section}
    for key, section in (("numTraining", "training"), ("numTest", "test")):
        listed = content.get(section, [])
        if key in content and isinstance(listed, list) and content[key] != len(listed):
            found = f'{content[key]!r}, but "{section}" lists {len(listed)} cases'
            of_cases.append(Problem(found, place=f'key "{key}"'))
    return records


def _record_problems(record: Any, where: str) -> list[Problem]:
    if not isinstance(record, dict):
        return [Problem(_kind(record), "an object with the keys case, image, ...", place=where)]
    known = (*TEXT_KEYS, *PATH_KEYS, *DETAIL_KEYS)
    advice = f"the keys are {', '.join(known)}"
    problems = [Problem(f'unknown key "{key}"', "", advice, where) for key in record if key not in known]
    problems += [Problem(f'no key "{key}"', place=where) for key in ("case", "image") if key not in record]

    def refuse(key: str, expected: str) -> None:
        problems.append(Problem(f'"{key}": {record[key]!r}', expected, place=where))

    for key in (*TEXT_KEYS, *PATH_KEYS):
        if key not in record:
            continue
        value = record[key]
        texts = value if key == "image" and isinstance(value, list) and value else [value]
        if not all(map(is_text, texts)):
            expected = "a path or a list of paths" if key == "image" else "text"
            refuse(key, TEXT if all(isinstance(text, str) and text.strip() for text in texts) else expected)
        elif key == "case" and not _CASE_NAME.fullmatch(value):
            refuse(key, "a name without slashes and without a leading dot")
        elif (key == "quality" and value not in QUALITIES) or (key == "split" and value not in SPLITS):
            refuse(key, f"one of {', '.join(QUALITIES if key == 'quality' else SPLITS)}")
    steps = record.get("spacing", [1.0])
    if not isinstance(steps, list) or not all(type(step) in (int, float) and 0 < step < math.inf for step in steps):
        refuse("spacing", "positive numbers in mm, one for each axis")
    if not is_orientation(record.get("orientation", "RAS")):
        refuse("orientation", 'three letters, such as "RAS"')
    hashes = record.get("sha256", {})
    if not isinstance(hashes, dict) or not all(
        isinstance(text, str) for value in hashes.values() for text in (value if isinstance(value, list) else [value])
    ):
        refuse("sha256", 'a hash, or a list of them, for "image" and "label"')
    return problems


def _doubled_cases(records: dict[str, Record]) -> dict[str, Problem]:
    """Place of the second record of a case, or a later one, to what is wrong with it."""
    first: dict[str, str] = {}
    problems = {}
    for where, record in records.items():
        if (place := first.setdefault(record["case"], where)) != where:
            found = f'the case "{record["case"]}" twice, in {place} and {where}'
            problems[where] = Problem(found, advice="every case needs an id of its own")
    return problems


def _portable(record: Record, folder: Path) -> Record:
    def relative(path: str) -> str:
        # The folder may have been reached by a link, so compare both the written and the real location.
        for place, base in ((Path(path), folder), (Path(os.path.realpath(path)), Path(os.path.realpath(folder)))):
            if place.is_relative_to(base):
                return place.relative_to(base).as_posix()
        return path

    written = dict(record)
    for key in PATH_KEYS:
        if key in record:
            paths = [relative(path) for path in as_paths(record[key])]
            written[key] = paths[0] if isinstance(record[key], str) else paths
    return written


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 200 else f"{text[:200]}..."
