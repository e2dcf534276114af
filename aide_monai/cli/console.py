"""What the commands print, and how: text from data is shown as it is."""

from __future__ import annotations


def plain(message: object) -> str:
    """Text that rich prints as it is."""
    return str(message).replace("[", r"\[")
