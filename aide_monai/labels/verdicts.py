"""What the label of a case said as it was given, which no correction forgets, and what it left open."""

from __future__ import annotations

import torch
from torch import Tensor

from aide_monai.ignored import IGNORED, MOST_PARTIAL, is_partial, leaves_open, marked


def open_values(given: Tensor) -> Tensor | None:
    """Values that say nothing in a case of which some structures are not annotated; None where all are.

    Args:
        given: uint8 class indices.

    Returns:
        (n,) uint8: the partial background of the case, background, and the classes that were not annotated.
    """
    found = given[is_partial(given)]
    if not len(found):
        return None
    value = int(found[0])
    others = [index for index in range(1, MOST_PARTIAL + 1) if leaves_open(value, index)]
    return torch.tensor([value, 0, *others], dtype=torch.uint8)


def judged(label: Tensor, given: Tensor, values: Tensor | None) -> Tensor:
    """A label as far as the given one has a verdict: all else is ``IGNORED``, or partial background.

    Args:
        label: uint8 class indices.
        given: the same as it was given.
        values: of the case, see ``open_values``.
    """
    label = label.where(given != IGNORED, given)
    return label if values is None else label.where(~torch.isin(label, values), values[0])


def foreground(label: Tensor, given: Tensor, values: Tensor | None) -> int:
    """Voxels that a label marks where the given one has a verdict; the arguments are those of ``judged``."""
    return int(marked(judged(label, given, values)).sum())


def corrected(new: Tensor, present: Tensor, given: Tensor, values: Tensor | None) -> Tensor:
    """What a correction leaves of the present label: what was given without a verdict is not touched.

    Args:
        new: a prediction, uint8.
        present: the label that it is to replace.
        given, values: as in ``judged``.
    """
    new = new if values is None else new.where(~torch.isin(new, values), values[0])
    return new.where(given != IGNORED, present)


def filled(new: Tensor, present: Tensor, given: Tensor, values: Tensor | None) -> Tensor:
    """The present label with the prediction where nobody had a verdict, as far as it denies none; see ``corrected``."""
    open_ = given == IGNORED
    if values is not None:
        open_ = open_ | (torch.isin(present, values) & torch.isin(new, values))
    return new.where(open_, present)
