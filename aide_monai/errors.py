"""The one exception for a user's mistake, and the problems that it tells."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

REPORT_LIMIT = 20

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, with what somebody needs to mend it; the text of it is made here alone.

    Attributes:
        found: what is there.
        expected: what should be there; "" when that is plain.
        advice: what to do; "" when that is plain.
        place: file, folder or key; "" when it concerns all of what was given, or whoever catches it knows the place.
        case: of a datalist; "" when it concerns none, or the whole.
        severity: "error", or "warning" where the data can be used, but somebody should look.

    Examples:
        >>> print(Problem("2 axes", "3", "stack its slices", "scan.nii"))
        scan.nii: found 2 axes; expected 3; stack its slices
        >>> print(Problem("no cases", "at least one"))
        no cases; expected at least one
    """

    found: str
    expected: str = ""
    advice: str = ""
    place: str | os.PathLike[str] = ""
    case: str = ""
    severity: Severity = "error"

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", os.fspath(self.place))

    def __str__(self) -> str:
        where = ", ".join(str(part) for part in (self.case and f'case "{self.case}"', self.place) if part)
        found = f"found {self.found}" if where else self.found
        told = "; ".join(part for part in (found, self.expected and f"expected {self.expected}", self.advice) if part)
        return f"{where}: {told}" if where else told


class InputError(ValueError):
    """Bad input: the message names the file or key, what was found, what was expected and what to do.

    The command line prints the message alone and exits with code 2.

    Args:
        found: what is there; with ``problems``, the title of the report that the message then is, or "".
        expected, advice, place: see ``Problem``.
        problems: all that is wrong; sentences become problems without a place.

    Attributes:
        title: of a report; "" when the message is the problem itself.
        problems: each problem, also those that a long report only counts.

    Examples:
        >>> from aide_monai import InputError
        >>> try:
        ...     raise InputError("2 axes", expected="3", advice="stack its slices", place="scan.nii")
        ... except ValueError as error:
        ...     print(error)
        scan.nii: found 2 axes; expected 3; stack its slices
        >>> print(InputError("the folder cannot be used", problems=["a.nii: empty", "b.nii: empty"]))
        the folder cannot be used: 2 problems
          - a.nii: empty
          - b.nii: empty
    """

    title: str
    problems: tuple[Problem, ...]

    def __init__(
        self,
        found: object = "",
        *,
        expected: str = "",
        advice: str = "",
        place: str | os.PathLike[str] = "",
        problems: Sequence[Problem | str] = (),
    ) -> None:
        told = [Problem(problem) if isinstance(problem, str) else problem for problem in problems]
        self.title = str(found) if told else ""
        self.problems = tuple(told) or (Problem(str(found), expected, advice, place),)
        super().__init__(_report(self.title, told) if told else str(self.problems[0]))

    def at(self, place: str | os.PathLike[str], *, case: str = "", expected: str = "", advice: str = "") -> InputError:
        """The same with what only the caller knows; what a problem says itself stays.

        Examples:
            >>> print(InputError("2 axes").at("scan.nii", expected="3"))
            scan.nii: found 2 axes; expected 3
        """
        completed = [
            replace(
                problem,
                place=problem.place or place,
                case=problem.case or case,
                expected=problem.expected or expected,
                advice=problem.advice or advice,
            )
            for problem in self.problems
        ]
        return InputError(self.title, problems=completed)


class MainProcessError(InputError):
    """An ``InputError`` that the main one of many processes has raised, and tells, in the others."""


def _report(title: str, problems: Sequence[Problem]) -> str:
    """A title, then one indented line per problem; after ``REPORT_LIMIT`` lines only the number of those left."""
    if not title:
        return "\n".join(map(str, problems))
    lines = [f"{title}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"]
    lines += [f"  - {problem}" for problem in problems[:REPORT_LIMIT]]
    if len(problems) > REPORT_LIMIT:
        lines.append(f"  and {len(problems) - REPORT_LIMIT} more")
    return "\n".join(lines)
