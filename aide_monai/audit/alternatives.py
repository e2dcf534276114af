"""Would a label fit if it were moved, mirrored, or if two of its classes changed their names?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aide_monai.audit.kinds import MIRRORED, SHIFTED, WRONG_CLASS
from aide_monai.transforms.label_noise import Label


def mean_dice(first: npt.NDArray[Any], second: npt.NDArray[Any], classes: Sequence[int]) -> float:
    """Mean Dice of the classes that either has."""
    found = []
    for index in classes:
        one, other = first == index, second == index
        total = np.count_nonzero(one) + np.count_nonzero(other)
        if total:
            found.append(2 * np.count_nonzero(one & other) / total)
    return float(np.mean(found)) if found else 1.0


def alternatives(label: Label, predicted: Label, classes: Sequence[int]) -> dict[str, float]:
    """Dice of the label after each change of the whole that people make by mistake, by the kind of the mistake."""
    found: dict[str, float] = {}
    if not (label > 0).any() or not (predicted > 0).any():
        return found
    centre, target = (np.array(ndimage.center_of_mass(voxels > 0)) for voxels in (label, predicted))

    def moved(voxels: Label) -> float:
        """The Dice when it is moved onto the centre of what is predicted."""
        steps = np.rint(target - np.array(ndimage.center_of_mass(voxels > 0))).astype(int)
        return mean_dice(_rolled(voxels, steps), predicted, classes)

    if np.abs(np.rint(target - centre)).sum() > 0:
        found[SHIFTED] = moved(label)
    found[MIRRORED] = max(moved(np.flip(label, axis)) for axis in range(3))
    if SHIFTED in found and found[MIRRORED] < found[SHIFTED] + 0.05:
        del found[MIRRORED]  # a shift alone explains as much
    renamed = []
    for n, one in enumerate(classes):
        for other in classes[n + 1 :]:
            table = np.arange(256, dtype=np.uint8)
            table[[one, other]] = other, one
            renamed.append(mean_dice(table[label], predicted, classes))
    if renamed:
        found[WRONG_CLASS] = max(renamed)
    return found


def _rolled(voxels: Label, steps: npt.NDArray[Any]) -> Label:
    """Moved by whole voxels; what leaves the box is lost, what comes is background."""
    result = np.zeros_like(voxels)
    source, target = [], []
    for step, size in zip(steps.tolist(), voxels.shape, strict=True):
        step = int(np.clip(step, -size, size))
        source.append(slice(max(-step, 0), size - max(step, 0)))
        target.append(slice(max(step, 0), size - max(-step, 0)))
    result[tuple(target)] = voxels[tuple(source)]
    return result
