"""Angles between the axes of a grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

COSINE_TOLERANCE = 1e-3
"""Up to this cosine two axes count as at right angles: it changes no distance by more than a thousandth."""


def largest_cosine(steps: npt.NDArray[np.floating]) -> float:
    """How far the axes of a grid are from right angles, 0..1.

    Args:
        steps: (S, D): a column for each of D axes, how one voxel along it moves in a space of S dimensions.

    Returns:
        The largest cosine between two columns; 0 when all are at right angles.

    Examples:
        >>> largest_cosine(np.array([[1.0, 0.6], [0.0, 0.8]]))
        0.6
    """
    directions = steps / np.linalg.norm(steps, axis=0)
    return float(np.abs(directions.T @ directions - np.eye(steps.shape[1])).max())
