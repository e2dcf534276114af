"""One numbering for the segments of many files, by their names."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aide_monai.errors import InputError
from aide_monai.io.segments import Segment, Segments, named_segments, plain_name
from aide_monai.utils.texts import names_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Numbering:
    """What the label values of files are called, and what becomes of those that other files number otherwise.

    Attributes:
        names: label value to name, of the segments that files name.
        changes: file to the values that change in it, old to new; files without a change are absent.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    changes: Mapping[Path, Mapping[int, int]] = field(default_factory=dict)


@dataclass
class _Known:
    value: int
    name: str
    known_as: set[str]
    place: str


def one_numbering(files: Iterable[Path], labels: Mapping[int, str] | None = None) -> Numbering:
    """Match the segments of files by name or, where names differ, by the meaning of their codes.

    Only headers are read. Files that name no segments keep their values.

    Args:
        files: label files, the most trusted first: their numbers stay.
        labels: label value to name, which the files must follow; None: as the files have it.

    Raises:
        InputError: one report of segments that cannot be matched: a value of another name than ``labels`` has; two
            segments of one name in a file; files that number segments differently beside others without names.
    """
    found = {file: named_segments(file) for file in files}
    given = {value: plain_name(name) or name.casefold() for value, name in (labels or {}).items()}
    known = [_Known(value, (labels or {})[value], {name}, "--labels") for value, name in given.items()]
    changes: dict[Path, dict[int, int]] = {}
    problems: list[str] = []
    for file, segments in found.items():
        own: dict[int, int] = {}
        for one in segments:
            if not one.known_as:
                continue
            same = _same(known, one)
            if same is None and labels is not None:
                if one.value in labels:
                    problems.append(f'{file}: value {one.value} is "{one}"; --labels calls it "{labels[one.value]}"')
                continue
            if same is None:
                same = _Known(_free(one.value, known), str(one), set(), str(file))
                known.append(same)
            same.known_as |= set(one.known_as)
            if same.value in own.values():
                problems.append(f'{file}: two segments are called "{same.name}"; expected one')
            own[one.value] = same.value
        if any(value != new for value, new in own.items()):
            changes[file] = own
    if changes and labels is None:
        problems += _unnamed(found, changes, known)
    if problems:
        advice = "name segments alike in all files, or number them alike"
        raise InputError(f"segments that cannot be matched: {advice}", problems=problems)
    if labels is None:
        _tell_unnamed(found)
    moved = {file: _complete(own, found[file]) for file, own in changes.items()}
    return Numbering({one.value: one.name for one in known}, moved)


def _same(known: Iterable[_Known], segment: Segment) -> _Known | None:
    """The known segment that has one of the names, the segment's own name first."""
    for name in segment.known_as:
        for one in known:
            if name in one.known_as:
                return one
    return None


def _free(value: int, known: Iterable[_Known]) -> int:
    used = {one.value for one in known}
    return value if value not in used else max(used) + 1


def _unnamed(
    found: Mapping[Path, Segments], changes: Mapping[Path, Mapping[int, int]], known: Iterable[_Known]
) -> list[str]:
    """Why files without names cannot be matched with others that number segments differently."""
    bare = [file for file, segments in found.items() if not segments or any(not one.known_as for one in segments)]
    if not bare:
        return []
    file, own = next(iter(changes.items()))
    value = next(value for value, new in own.items() if value != new)
    here = next(str(one) for one in found[file] if one.value == value)
    there = next((one for one in known if one.value == value), None)
    other = f'"{there.name}" in {there.place}' if there else "nothing elsewhere"
    return [f'value {value} is "{here}" in {file} and {other}, and {bare[0]} does not name its segments']


def _tell_unnamed(found: Mapping[Path, Segments]) -> None:
    """Say by which numbers files without names are matched with those that name their segments."""
    named = next((file for file, segments in found.items() if any(one.known_as for one in segments)), None)
    bare = [file for file, segments in found.items() if not segments]
    if named is None or not bare:
        return
    numbers = ", ".join(f'{one.value} for "{one}"' for one in found[named] if one.known_as)
    logger.warning(
        "%s: segments without names, matched by number with those of %s, %s; if they are numbered otherwise, say which "
        "is which by --labels",
        names_text([str(file) for file in bare]),
        named,
        numbers,
    )


def _complete(own: Mapping[int, int], segments: Segments) -> dict[int, int]:
    """Changes of all values of a file; one without a place in the numbering goes where no other lies."""
    result = dict(own)
    for one in segments:
        if one.value not in result:
            taken = {*result.values(), *(each.value for each in segments)}
            result[one.value] = one.value if one.value not in result.values() else max(taken) + 1
    return {old: new for old, new in result.items() if old != new}
