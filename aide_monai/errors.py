"""The one exception for a user's mistake."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

REPORT_LIMIT = 20
# "PLACE: found X; expected Y; what to do", as the errors of this package read; all but X may be absent
_PLACE = re.compile(r"(?P<place>/[^\n]*?): (?=\S)")
_EXPECTED = re.compile(r"[;,] expected ")
_NEXT = re.compile(r"; (?![^(\[]*[)\]])")  # not within brackets


class InputError(ValueError):
    """Bad input: the message names the file or key, what was found, what was expected and what to do.

    The command line prints the message alone and exits with code 2.

    Attributes:
        problems: where the message is a report, each problem of it, also those that the report only counts.

    Examples:
        >>> from aide_monai import InputError
        >>> try:
        ...     raise InputError("scan.nii: found 2 axes; expected 3; stack its slices")
        ... except ValueError as error:
        ...     print(error)
        scan.nii: found 2 axes; expected 3; stack its slices
    """

    def __init__(self, message: object = "", *, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class MainProcessError(InputError):
    """An ``InputError`` that the main one of many processes has raised, and tells, in the others."""


def report(title: str, problems: list[str], *, limit: int = REPORT_LIMIT) -> str:
    """A title, then one indented line per problem; after ``limit`` lines only the number of those left."""
    lines = [f"{title}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"]
    lines += [f"  - {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  and {len(problems) - limit} more")
    return "\n".join(lines)


Severity = Literal["error", "warning"]


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
