"""The one exception for a user's mistake."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message names the file or key, what was found, what was expected and what to do.

    The command line prints the message alone and exits with code 2.
    """


class MainProcessError(InputError):
    """An ``InputError`` that the main one of many processes has raised, and tells, in the others."""
