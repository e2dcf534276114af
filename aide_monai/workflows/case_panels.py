"""What is drawn of a case that has been scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aide_monai.errors import InputError
from aide_monai.io.ahead import open_apart
from aide_monai.io.grid import Grid, affine_text, shape_text, through_plane_axis
from aide_monai.reports.figures import Overlay

if TYPE_CHECKING:
    from aide_monai.io.segmentations import Segmentation
    from aide_monai.workflows.evaluate_folders import Pair


def case_panels(
    pair: Pair, image: Path | None, values: Sequence[int], rows: Sequence[Mapping[str, Any]]
) -> Iterator[Overlay]:
    """Three slices of a case: the one with the largest reference, the most missed, and the most too much.

    Args:
        pair: prediction and reference on one grid.
        image: drawn beneath them.
        values: labels that are scored.
        rows: scores of all cases.
    """
    prediction, reference = (
        np.where(np.isin(segmentation.labels, values), segmentation.labels, 0)
        for segmentation in (pair.prediction, pair.reference)
    )
    axis = 2 if pair.reference.affine is None else through_plane_axis(pair.reference.affine)
    background = np.zeros(reference.shape) if image is None else _image(image, pair.reference)
    wrong = prediction != reference
    width, height = (step for i, step in enumerate(pair.spacing) if i != axis)
    dsc = np.mean([row["dsc"] for row in rows if row["case"] == pair.case])
    for name, mask in (
        ("largest", reference > 0),
        ("most missed", wrong & (reference > 0)),
        ("most too much", wrong & (prediction > 0)),
    ):
        number = int(mask.sum(axis=tuple(i for i in range(3) if i != axis)).argmax())
        yield Overlay(
            image=background.take(number, axis).T,
            reference=reference.take(number, axis).T,
            mask=prediction.take(number, axis).T,
            title=f"{pair.case}, DSC {dsc:.2f}\n{name}, slice {number}",
            aspect=height / width,
        )


def _image(file: Path, reference: Segmentation) -> npt.NDArray[Any]:
    try:
        volume = open_apart(str(file))
        voxels = volume.decode()[..., 0]
    except InputError as error:
        raise error.at(file, expected="the image of this case") from error
    expected = reference.grid or Grid(reference.labels.shape, volume.affine)  # pictures have no place
    if expected.mismatch(volume.grid):
        raise InputError(
            f"shape {shape_text(voxels.shape)} and affine {affine_text(volume.affine)}",
            expected=f"the grid of {reference.file}",
            place=file,
        )
    return voxels
