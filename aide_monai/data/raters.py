"""Several raters' masks of one structure, fused to one label: one rater, majority vote, mean (soft), or STAPLE."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import ArrayLike, NDArray

from aide_monai.errors import InputError, Problem
from aide_monai.io.ahead import open_apart
from aide_monai.io.grid import shape_text
from aide_monai.io.nifti import write_nifti
from aide_monai.io.volumes import LABEL_TOLERANCE, listed

FUSIONS = ("majority", "mean", "staple")
STAPLE_ITERATIONS = 100

logger = logging.getLogger(__name__)


def as_mask(voxels: ArrayLike, *, name: str = "mask") -> NDArray[np.bool_]:
    """A mask that may be stored as floating point, thresholded at 0.5.

    Args:
        voxels: any shape; 0 and 1, or values within 0.001 of them, which scaled files give back.
        name: what the message calls the mask, usually its file.

    Raises:
        InputError: any other value, such as 255, 0.5 or NaN.
    """
    values = np.asarray(voxels)
    if values.dtype.kind not in "biuf":
        raise InputError(f"voxels of type {values.dtype}", expected="a mask of 0 and 1", place=name)
    mask = values >= 0.5
    wrong = np.unique(values[~(np.abs(values - mask.astype(np.float32)) <= LABEL_TOLERANCE)])
    if wrong.size:
        raise InputError(
            f"the values {listed(wrong)}",
            expected="a mask of 0 and 1",
            advice="write one mask per structure, without intermediate values",
            place=name,
        )
    return mask


def majority_vote(masks: ArrayLike, *, tie: int = 0) -> NDArray[np.uint8]:
    """Voxels that more than half of the raters marked.

    Args:
        masks: (R, spatial...) masks of R raters, 0 and 1.
        tie: value, 0 or 1, of voxels that exactly half of an even number of raters marked.

    Returns:
        (spatial...) 0 and 1.

    Raises:
        InputError: no raters, values other than 0 and 1, or another ``tie``.
    """
    if tie not in (0, 1):
        raise InputError(f"tie is {tie!r}; expected 0 (background) or 1 (foreground)")
    stacked = _stack(masks)
    doubled = 2 * stacked.sum(axis=0, dtype=np.int64)
    return (doubled + tie > len(stacked)).astype(np.uint8)


def mean_label(masks: ArrayLike) -> NDArray[np.float32]:
    """Share of the raters that marked each voxel: the soft label, and QUBIQ's continuous reference.

    Args:
        masks: (R, spatial...) masks of R raters, 0 and 1.

    Returns:
        (spatial...) 0..1.

    Raises:
        InputError: no raters, or values other than 0 and 1.
    """
    stacked = _stack(masks)
    return (stacked.sum(axis=0, dtype=np.int64) / len(stacked)).astype(np.float32)


def staple_probability(masks: ArrayLike, *, max_iterations: int = STAPLE_ITERATIONS) -> NDArray[np.float64]:
    """Probability of the hidden true mask when every rater has a sensitivity and a specificity of their own.

    Warfield, Zou and Wells, "Simultaneous truth and performance level estimation" (2004), by ``SimpleITK.STAPLE``.
    The result does not depend on the order of the raters. Where all raters agree on every voxel, or there is one
    rater only, that mask is the result: the estimate would divide zero by zero.

    Args:
        masks: (R, spatial...) masks of R raters, 0 and 1.
        max_iterations: the estimate stops here at the latest, with a warning; raters that contradict each other
            everywhere keep it going for hours.

    Returns:
        (spatial...) 0..1.

    Raises:
        InputError: no raters, or values other than 0 and 1.
    """
    stacked = _stack(masks)
    if (stacked == stacked[0]).all():
        return stacked[0].astype(np.float64)
    # STAPLE looks at voxels one by one, so their arrangement is free; sums in one fixed order make rounding the same.
    rows = sorted((mask.ravel() for mask in stacked), key=lambda row: row.tobytes())
    images = [SimpleITK.GetImageFromArray(row[None].astype(np.uint8)) for row in rows]
    estimate = SimpleITK.STAPLEImageFilter()
    estimate.SetForegroundValue(1.0)
    estimate.SetMaximumIterations(max_iterations)
    probability = SimpleITK.GetArrayFromImage(estimate.Execute(images)).reshape(stacked.shape[1:])
    if estimate.GetElapsedIterations() >= max_iterations:
        logger.warning("STAPLE stopped after %d iterations without settling: look at the raters", max_iterations)
    return probability


def staple_label(masks: ArrayLike, *, max_iterations: int = STAPLE_ITERATIONS) -> NDArray[np.uint8]:
    """Voxels whose ``staple_probability`` is above 0.5, as (spatial...) 0 and 1; arguments and errors as there."""
    # A tie computed as 0.5 plus a rounding error stays a tie.
    return (staple_probability(masks, max_iterations=max_iterations) > 0.5 + 1e-9).astype(np.uint8)


def fuse_raters(masks: ArrayLike, method: str | int) -> NDArray[Any]:
    """One label from several raters.

    Args:
        masks: (R, spatial...) masks of R raters, 0 and 1.
        method: "majority" (ties are background), "mean", "staple", or the place of one rater in ``masks``, from 1.

    Returns:
        (spatial...) uint8, 0 and 1; float32, 0..1, for "mean".

    Raises:
        InputError: another method, no such rater, no raters, or values other than 0 and 1.
    """
    if method == "majority":
        return majority_vote(masks)
    if method == "mean":
        return mean_label(masks)
    if method == "staple":
        return staple_label(masks)
    place, stacked = as_place(method), _stack(masks)
    if place > len(stacked):
        raise InputError(f"rater {place}: there are {len(stacked)} raters; expected a number from 1 to {len(stacked)}")
    return stacked[place - 1].astype(np.uint8)


def write_fused(files: Sequence[str | Path], target: str | Path, *, method: str) -> Path:
    """Fuse mask files of one grid and write the result as NIfTI, atomically.

    Args:
        files: masks of R raters; NIfTI, MHD or NRRD.
        target: file ending in .nii.gz or .nii; an older one is replaced. Missing folders are made.
        method: one of ``FUSIONS``.

    Returns:
        ``target``: uint8, 0 and 1 (float32, 0..1, for "mean"), with shape and affine of the masks.

    Raises:
        InputError: one report of all files that are unreadable, are no mask, or have another grid than the first.
    """
    masks, grids = [], []
    problems: list[Problem] = []
    for file in files:
        try:
            volume = open_apart(str(file))
            masks.append(as_mask(volume.decode(), name=str(file)))
        except InputError as error:
            problems += error.at(file).problems
            continue
        grids.append((file, volume))
        first_file, first = grids[0]
        if volume.file_shape != first.file_shape:
            found, expected = shape_text(volume.file_shape), shape_text(first.file_shape)
            problems.append(Problem(f"shape {found}", expected=f"{expected} as in {first_file}", place=file))
        elif wrong := first.grid.mismatch(volume.grid):
            problems.append(Problem(wrong.found, expected=f"{wrong.expected} as in {first_file}", place=file))
    if not files:
        problems.append(Problem("no files", expected="the masks of at least one rater"))
    if problems:
        raise InputError(f"{target}: the raters cannot be fused", problems=problems)
    grid = grids[0][1]
    fused = fuse_raters(np.stack(masks), method).reshape(grid.file_shape)
    return write_nifti(target, fused, grid.affine, grid.place)


def as_place(method: str | int) -> int:
    """The number of a rater.

    Raises:
        InputError: if it is none.
    """
    if isinstance(method, (str, bool)) or method < 1:
        raise InputError(
            f"rater fusion {method!r}: expected one of {', '.join(FUSIONS)}, or the number of a rater, from 1"
        )
    return method


def _stack(masks: ArrayLike) -> NDArray[np.bool_]:
    stacked = np.asarray(masks)
    if stacked.ndim == 0 or len(stacked) == 0:
        raise InputError(f"masks of the raters have the shape {stacked.shape}; expected (raters, spatial...)")
    return as_mask(stacked, name="masks of the raters")
