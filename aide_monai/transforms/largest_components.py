"""The largest component of every structure."""

from __future__ import annotations

from collections.abc import Sequence

from monai.transforms import KeepLargestConnectedComponent
from torch import Tensor

from aide_monai.utils.tensors import plain


def largest_components(labels: Tensor, values: Sequence[int] | None = None) -> Tensor:
    """The labels without all but the largest component of each, connected through faces (edges in 2D).

    Args:
        labels: (spatial...) integers; 0 is background.
        values: those of which one component is kept; others stay as they are. None means all but 0.

    Returns:
        (spatial...), a new tensor of the same dtype.
    """
    return _keep(labels, values, independent=True)


def keep_components(prediction: Tensor, kept: str) -> Tensor:
    """What becomes a label of a prediction.

    Args:
        prediction: (spatial...) class indices, 0 is background.
        kept: "none" leaves it as it is; "class" keeps the largest component of each class; "foreground" does so too,
            within the largest component of all classes together, for structures that touch: what is far from the rest
            is then none of them, however large.

    Returns:
        (spatial...) of the same dtype.
    """
    if kept == "none":
        return prediction
    if kept == "foreground":
        prediction = _keep(prediction, None, independent=False)
    return largest_components(prediction)


def _keep(labels: Tensor, values: Sequence[int] | None, *, independent: bool) -> Tensor:
    keep = KeepLargestConnectedComponent(
        applied_labels=values, is_onehot=False, independent=independent, connectivity=1
    )
    return plain(keep(labels.clone()[None]))[0]  # it works in place
