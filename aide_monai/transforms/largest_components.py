"""The largest component of every structure."""

from __future__ import annotations

from collections.abc import Sequence

from monai.transforms import KeepLargestConnectedComponent
from torch import Tensor

from aide_monai.data.slices import plain


def largest_components(labels: Tensor, values: Sequence[int] | None = None) -> Tensor:
    """The labels without all but the largest component of each, connected through faces (edges in 2D).

    Args:
        labels: (spatial...) integers; 0 is background.
        values: those of which one component is kept; others stay as they are. None means all but 0.

    Returns:
        (spatial...), a new tensor of the same dtype.
    """
    keep = KeepLargestConnectedComponent(applied_labels=values, is_onehot=False, connectivity=1)
    return plain(keep(labels.clone()[None]))[0]  # it works in place
