"""One finding of a check, and how the sentences of errors become findings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from aide_monai.errors import InputError

Severity = Literal["error", "warning"]

# "PLACE: found X; expected Y; what to do", as the errors of this package read; all but X may be absent
_PLACE = re.compile(r"(?P<place>/[^\n]*?): (?=\S)")
_EXPECTED = re.compile(r"[;,] expected ")
_NEXT = re.compile(r"; (?![^(\[]*[)\]])")  # not within brackets


@dataclass(frozen=True)
class Problem:
    """One finding. ``case`` and ``file`` are empty when it concerns the whole datalist."""

    severity: Severity
    case: str
    file: str
    found: str
    expected: str
    advice: str

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.case and f'case "{self.case}"', self.file) if part)
        return f"{place + ': ' if place else ''}found {self.found}; expected {self.expected}; {self.advice}"


def problem(case: str, file: str, found: str, expected: str, advice: str) -> Problem:
    """An error."""
    return Problem("error", case, file, found, expected, advice)


def warning(case: str, file: str, found: str, expected: str, advice: str) -> Problem:
    """A warning: the data set can be used, but somebody should look."""
    return Problem("warning", case, file, found, expected, advice)


def problems_of(error: InputError, case: str, file: str, *, expected: str = "one sound volume") -> Iterator[Problem]:
    """Every problem that an error tells, at the place that it names, or else at ``file``."""
    for text in error.problems or (str(error),):
        place = _PLACE.match(text)
        rest = text[place.end() :] if place else text
        found, *tail = _EXPECTED.split(rest.removeprefix("found "), maxsplit=1)
        if tail:
            wanted, _, advice = re.sub(r": ", "; ", tail[0], count=1).partition("; ")
        else:
            parts = _NEXT.split(found)
            found, wanted, advice = "; ".join(parts[:-1]) or parts[-1], expected, parts[-1] if parts[1:] else ""
        advice = advice or "replace the file, or remove the case"
        yield problem(case, place["place"] if place else file, found, wanted, advice)
