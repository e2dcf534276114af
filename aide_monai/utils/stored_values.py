"""The values in which label files store classes, and class indices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aide_monai.errors import InputError

VALUES = "stored_values"
"""Key of the stored value of each class index in the metadata of a label that was brought to class indices."""


def stored_values(classes: Mapping[Any, int] | None) -> Tensor | None:
    """Class index to stored label value: the inverse of ``classes``, of merged values the smallest; None for None.

    Returns:
        (K,) uint8, or uint16 where a value needs it.

    Raises:
        InputError: if a value lies outside 0..65535.

    Examples:
        >>> stored_values({"0": 0, "1": 1, "2": 2, "4": 3}).tolist()
        [0, 1, 2, 4]
    """
    if classes is None:
        return None
    values = [0] * (max(classes.values()) + 1)
    for stored, index in sorted(((int(s), i) for s, i in classes.items()), reverse=True):
        if index:
            values[index] = stored
    wrong = [value for value in values if not 0 <= value <= 65535]
    if wrong:
        raise InputError(f"classes has the stored value {wrong[0]}; expected 0..65535, which a label file can hold")
    return torch.tensor(values, dtype=torch.uint8 if max(values) < 256 else torch.uint16)


def stored_names(labels: Mapping[Any, str], classes: Mapping[Any, int] | None) -> dict[int, str]:
    """Stored value to name, from the names by class index.

    Examples:
        >>> stored_names({"0": "background", "1": "tumour"}, {4: 1})
        {0: 'background', 4: 'tumour'}
    """
    values = stored_values(classes)
    return {int(index) if values is None else int(values[int(index)]): name for index, name in labels.items()}
