"""Relative absolute volume difference (RAVD, eq. 4)."""

from __future__ import annotations

import math

from aide_monai.metrics.masks import ArrayLike, as_mask_pair


def relative_volume_difference(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Signed volume difference in percent, 100 (V_pred - V_ref) / V_ref; its absolute value is RAVD.

    Args:
        prediction: (H, W) or (D, H, W), any axis order; bool or 0 and 1.
        reference: as `prediction`.

    Returns:
        -100 (empty prediction) to inf; 0 when both masks are empty, inf when only the reference is.

    Raises:
        InputError: masks that are not binary or differ in shape.
    """
    masks = as_mask_pair(prediction, reference)
    return volume_difference_percent(int(masks[0].sum()), int(masks[1].sum()))


def volume_difference_percent(prediction_voxels: int, reference_voxels: int) -> float:
    """`relative_volume_difference` from the voxel counts of both masks."""
    if reference_voxels == 0:
        return math.inf if prediction_voxels else 0.0
    return 100 * (prediction_voxels - reference_voxels) / reference_voxels
