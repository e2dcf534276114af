"""Voxels without a verdict, or with half of one: what nobody has said is not learnt, and nothing is judged by it.

Files store voxels that nobody has labelled as any value, which the datalist names ("ignore"); from reading to writing
they are ``IGNORED``. Where a case has only some of the structures annotated, its background may be one of the others:
such voxels have a value from ``PARTIAL`` on, which says which structures were looked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

IGNORED = 255
"""Class index of voxels without a verdict: the largest that a label of bytes can hold, and never a class."""

PARTIAL = 192
"""Class indices are smaller; values from here to 254 are background of which only some structures are known to be
absent: ``PARTIAL`` plus 2^(i - 1) for each class i that was looked for."""

MOST_PARTIAL = 6
"""So many structures can a data set have at most, if some of its cases have not all of them annotated."""


def partial_background(annotated: Iterable[int], num_classes: int) -> int:
    """The value of the background of a case that has only some classes annotated.

    Args:
        annotated: class indices, above 0.
        num_classes: C, background included, at most ``MOST_PARTIAL + 1``.

    Examples:
        >>> partial_background([1], 4), partial_background([1, 3], 4), partial_background([1, 2, 3], 4)
        (193, 197, 0)
    """
    found = set(annotated) - {0}
    if found >= set(range(1, num_classes)):
        return 0
    return PARTIAL + sum(1 << (index - 1) for index in found)


def marked(label: Any) -> Any:
    """Bool of the label's shape, where it marks a structure: neither background, wholly or in part, nor ``IGNORED``.

    Args:
        label: class indices, a tensor or an array of any shape.
    """
    return (label != 0) & (label < PARTIAL)


def is_partial(label: Any) -> Any:
    """Bool of the label's shape, where it is background of which only some structures are known to be absent."""
    return (label >= PARTIAL) & (label < IGNORED)


def leaves_open(label: Any, index: Any) -> Any:
    """Bool, where a label is partial background that may be a class.

    Args:
        label: class indices, integers, a tensor or an array of any shape.
        index: the class, above 0: a number, or one for each voxel, of a signed type.
    """
    return is_partial(label) & (((label - PARTIAL * is_partial(label)) >> (index - 1)) & 1 == 0)


def annotated(values: Iterable[int], num_classes: int) -> list[int]:
    """The classes that a case has annotated, from the values of its label: all, unless one is partial background.

    Examples:
        >>> annotated([0, 1, 3], 4), annotated([1, 197, 255], 4)
        ([1, 2, 3], [1, 3])
    """
    known = range(1, num_classes)
    for value in values:
        if is_partial(value):
            known = [index for index in known if not leaves_open(value, index)]  # type: ignore[assignment]
    return list(known)


def as_far_as_known(prediction: Any, label: Any) -> tuple[Any, Any]:
    """A prediction and its label, in which partial background is background.

    So is a prediction that it may be; one that it is known not to be stays.

    Args:
        prediction: class indices, integers of a signed type, a tensor or an array of any shape.
        label: the same with partial background.

    Examples:
        >>> import numpy as np
        >>> as_far_as_known(np.array([0, 1, 2, 2]), np.array([193, 193, 193, 1]))  # class 1 alone was looked for
        (array([0, 1, 0, 2]), array([0, 0, 0, 1]))
    """
    foreground = (prediction != 0) & (prediction < PARTIAL)
    may_be = foreground & leaves_open(label, prediction * foreground + ~foreground)
    return prediction * ~may_be, label * ~is_partial(label)


def may_be_special(*labels: Any) -> bool:
    """Whether tensors may have values that are no classes; a GPU is not asked, for that would make the host wait."""
    return any(label.device.type != "cpu" or bool((label >= PARTIAL).any()) for label in labels)
