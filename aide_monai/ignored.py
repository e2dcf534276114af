"""Voxels without a verdict: nobody has said what they are, so nothing learns from them and nothing is judged by them.

Files store such voxels as any value, which the datalist names ("ignore"); from reading to writing they are ``IGNORED``.
"""

from __future__ import annotations

from typing import Any

IGNORED = 255
"""Class index of voxels without a verdict: the largest that a label of bytes can hold, and never a class."""


def marked(label: Any) -> Any:
    """Bool of the label's shape, where it marks a structure: neither background nor ``IGNORED``.

    Args:
        label: class indices, a tensor or an array of any shape.
    """
    return (label != 0) & (label != IGNORED)
