"""What the JSON of a datalist holds, and all that may be wrong with it: records of cases, and names by number."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from aide_monai.data.case import QUALITIES, SPLITS, Record
from aide_monai.errors import InputError, Problem
from aide_monai.ignored import MOST_PARTIAL, PARTIAL
from aide_monai.utils.files import JsonObject
from aide_monai.utils.validation import TEXT, is_orientation, is_text

PATH_KEYS = ("image", "label", "clean_label")
DETAIL_KEYS = ("annotated", "spacing", "orientation", "sha256")
TEXT_KEYS = ("case", "quality", "patient", "rater", "domain", "split")
MAX_LABELS = PARTIAL  # of class indices
MAX_STORED = 65535  # of the values in files that mean another class index
_CASE_NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*")


def read_json(path: Path) -> JsonObject:
    """Content of a JSON file that holds an object.

    Raises:
        InputError: no such file, not JSON, not an object, or a key given twice.
    """
    doubled: list[str] = []

    def unique_keys(pairs: list[tuple[str, Any]]) -> JsonObject:
        content: JsonObject = {}
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
        raise InputError(kind_of(content), expected="a JSON object", place=path)
    if doubled:
        found = f"keys given twice in one object: {', '.join(sorted(set(doubled)))}"
        raise InputError(found, advice="keep one of each", place=path)
    return content


def numbered_names(value: Any, key: str) -> tuple[dict[int, str], list[Problem]]:
    """Turn JSON's ``{"0": "background", ...}`` into ``{0: "background", ...}``; second value: what is wrong with it."""
    place = f'key "{key}"'
    if not isinstance(value, dict):
        return {}, [Problem(kind_of(value), 'numbers with names, such as {"0": "background"}', place=place)]
    wrong = [number for number in value if not re.fullmatch(r"0|[1-9][0-9]{0,4}", number)]
    if wrong:
        expected = 'names of whole numbers below 100000, such as {"0": "background"}'
        return {}, [Problem(f"the number {_short(wrong[0])}", expected, place=place)]
    names = {int(number): name for number, name in value.items()}
    return names, name_problems(names, key)


def stored_classes(value: Any) -> tuple[dict[int, int], list[Problem]]:
    """JSON's ``{"63": 1}`` as ``{63: 1}``; second value: what is wrong with it."""
    if not isinstance(value, dict) or not all(
        re.fullmatch(r"[0-9]{1,5}", stored) and int(stored) <= MAX_STORED and type(index) is int
        for stored, index in value.items()
    ):
        expected = f'stored values up to {MAX_STORED} with class indices, such as {{"63": 1}}'
        return {}, [Problem(_short(value), expected, place='key "classes"')]
    return {int(stored): index for stored, index in value.items()}, []


def ignored_value(value: Any, stored: Collection[int]) -> list[Problem]:
    """What is wrong with the label value of voxels without a verdict, beside the stored values of the classes."""
    if type(value) is not int or not 0 <= value <= MAX_STORED:
        expected = f"the value of voxels without a verdict in the label files, a whole number up to {MAX_STORED}"
        return [Problem(_short(value), expected, place='key "ignore"')]
    if value in stored:
        return [Problem(f"{value}, which is also the value of a class", "a value of its own", place='key "ignore"')]
    return []


def annotated_problems(record: Record, labels: Mapping[int, str], where: str) -> list[Problem]:
    """What is wrong with the structures that a well-formed record names as annotated."""
    found, known = record.get("annotated"), [name for index, name in sorted(labels.items()) if index]
    if found is None:
        return []
    problems = [
        Problem(f'"annotated": "{name}"', f"names of labels: {', '.join(known)}", place=where)
        for name in found
        if name not in known
    ]
    if len(known) > MOST_PARTIAL:
        expected = f"at most {MOST_PARTIAL} where cases have not all of them annotated"
        problems.append(Problem(f"{len(known)} structures", expected, "merge some, or leave some out", where))
    return problems


def name_problems(names: dict[int, str], key: str) -> list[Problem]:
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


def records_by_place(content: Mapping[str, Any], problems: list[Problem], of_cases: list[Problem]) -> dict[str, Record]:
    """The well-formed records by place; what is wrong with the file, and with single cases, is added to the lists."""
    records: dict[str, Record] = {}
    for section in SPLITS:
        entries = content.get(section, [])
        if not isinstance(entries, list):
            problems.append(Problem(kind_of(entries), "a list of cases", place=f'key "{section}"'))
            continue
        for index, entry in enumerate(entries):
            where = f"{section}[{index}]"
            malformed = record_problems(entry, where)
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


def record_problems(record: Any, where: str) -> list[Problem]:
    if not isinstance(record, dict):
        return [Problem(kind_of(record), "an object with the keys case, image, ...", place=where)]
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
    names = record.get("annotated", ["all"])
    if not isinstance(names, list) or not names or not all(map(is_text, names)):
        refuse("annotated", "names of the structures that were looked for, at least one, in a list")
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


def doubled_cases(records: dict[str, Record]) -> dict[str, Problem]:
    """Place of the second record of a case, or a later one, to what is wrong with it."""
    first: dict[str, str] = {}
    problems = {}
    for where, record in records.items():
        if (place := first.setdefault(record["case"], where)) != where:
            found = f'the case "{record["case"]}" twice, in {place} and {where}'
            problems[where] = Problem(found, advice="every case needs an id of its own")
    return problems


def kind_of(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 200 else f"{text[:200]}..."
