"""The one exception for a user's mistake."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """Bad input: the message names the file or key, what was found, what was expected and what to do.

    The command line prints the message alone and exits with code 2.

    Attributes:
        problems: where the message is a report, each problem of it, also those that the report only counts.
    """

    def __init__(self, message: object = "", *, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class MainProcessError(InputError):
    """An ``InputError`` that the main one of many processes has raised, and tells, in the others."""
