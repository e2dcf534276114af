"""What the voxels of one file, or of an image and its label, say about a mistake."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError, Problem
from aide_monai.ignored import IGNORED, marked
from aide_monai.io.volumes import LABEL_TOLERANCE, label_values, listed
from aide_monai.utils.votes import indices_by_votes

CLIPPED_SHARE = 0.02
"""Images clipped at a percentile have 1 % of their voxels at the top; a lost range has more."""

FULL_SHARE = 0.95

MIRROR_RATIO = 1.3
"""A label mirrored onto its image has this much more contrast along its border than as it lies. Of the labels of
166 real volumes (abdominal, cardiac, hippocampus) none reaches 1.12; all of CHAOS do when they are mirrored (1.48 to
2.6)."""

MIRROR_BORDER = 500
"""Pairs of voxels along the border of a label that are enough to judge by."""

_FEWEST_CLIPPED = 100
_MOST_MARKED = 0.5


def image_problems(voxels: npt.NDArray[Any], case: str, file: str, *, hounsfield: bool) -> list[Problem]:
    """NaN, constant or clipped images, slices without content, CT without negative values.

    Args:
        voxels: (x, y, z, channels) of any real type.
        case, file: named in the problems.
        hounsfield: the image is CT.
    """
    if voxels.dtype.kind not in "biuf":
        return [Problem(f"voxels of type {voxels.dtype}", "real numbers", "convert the image", file, case)]
    if voxels.dtype.kind == "f":
        broken = voxels.size - int(np.isfinite(voxels).sum())
        if broken:
            found = f"{broken} of {voxels.size} voxels NaN or infinite"
            return [Problem(found, "finite values", "repair the image or leave the case out", file, case)]
    lowest, highest = voxels.min(axis=(0, 1, 2)), voxels.max(axis=(0, 1, 2))
    constant = np.flatnonzero(lowest == highest)
    if constant.size:
        found = f"the same value {voxels[0, 0, 0, constant[0]]:g} in all voxels"
        found += f" of channel {constant[0]}" if voxels.shape[-1] > 1 else ""
        return [Problem(found, "an image", "look at the image; leave the case out if empty", file, case, "warning")]
    problems = []
    for channel in range(voxels.shape[-1]):
        part, name = voxels[..., channel], f" of channel {channel}" if voxels.shape[-1] > 1 else ""
        clipped = np.count_nonzero(part == highest[channel])
        if clipped > max(CLIPPED_SHARE * part.size, _FEWEST_CLIPPED):
            found = f"{clipped / part.size:.1%} of the voxels{name} at the highest value, {highest[channel]:g}"
            advice = "look for a conversion to 8 bits or a window that cut the range; convert it again without"
            problems.append(Problem(found, "few: the image is clipped", advice, file, case, "warning"))
        blank = _blank_inside(part)
        if blank:
            found = f"slices {listed(blank)}{name} of one value, between slices with content"
            advice = "look for slices that were not exported or decoded"
            problems.append(Problem(found, "an image in every slice", advice, file, case, "warning"))
    if hounsfield and float(lowest.min()) >= 0:
        advice = "look for a lost RescaleIntercept or a conversion to unsigned numbers"
        found = f"CT whose lowest value is {float(lowest.min()):g}"
        problems.append(Problem(found, "Hounsfield units, with air about -1000", advice, file, case, "warning"))
    return problems


def label_problems(
    voxels: npt.NDArray[Any], case: str, file: str, datalist: Datalist, annotated: Sequence[str] | None = None
) -> tuple[list[Problem], npt.NDArray[np.uint8] | None]:
    """Problems of a label (x, y, z, 1), and its class indices (x, y, z); None when it is of no use.

    Soft labels count as their class from one half on. Of structures that are not ``annotated`` there are none.
    """
    classes, known = datalist.stored_classes, known_values(datalist)
    if annotated is not None:
        others = {index for index, name in datalist.labels.items() if index and name not in annotated}
        classes = {value: index for value, index in classes.items() if index not in others}
        known += f", of which {', '.join(annotated)} annotated in this case"
    if datalist.soft_labels and _is_soft(voxels):
        return [], (voxels[..., 0] >= 0.5).astype(np.uint8)
    try:
        outside = [value for value in label_values(voxels) if value not in classes]
    except InputError as error:
        return list(error.at(file, case=case, expected=known, advice="write the label as whole numbers").problems), None
    if outside:
        advice = "add them to labels, or relabel the file"
        return [Problem(f"label values {listed(outside)}", known, advice, file, case)], None
    table = np.zeros(max(classes) + 1, dtype=np.uint8)
    table[list(classes)] = list(classes.values())
    label = table[np.rint(voxels[..., 0]).astype(np.int64)]
    judged, marks = np.count_nonzero(label != IGNORED), np.count_nonzero(marked(label))
    if not judged:
        found, advice = (
            "a label without any verdict",
            "look whether it is the right file; or give the case no label",
        )
        return [Problem(found, "voxels that somebody has labelled", advice, file, case, "warning")], label
    if not marks:
        found, advice = "a label without any marked voxel", "draw it; or give the case no label if it was never drawn"
        return [Problem(found, "at least one", advice, file, case, "warning")], label
    if marks > FULL_SHARE * judged:
        found, advice = (
            f"marks in {marks / judged:.0%} of all voxels",
            "look whether background and object are swapped",
        )
        return [Problem(found, "an object and its background", advice, file, case, "warning")], label
    return [], label


def pair_problems(
    image: npt.NDArray[Any], label: npt.NDArray[np.uint8], case: str, file: str, *, outside: float, axis: int
) -> Iterator[Problem]:
    """Labels that do not fit their image: beyond its border, on blank slices, or mirrored.

    Args:
        image: (x, y, z) real, finite numbers.
        label: (x, y, z) class indices on the grid of the image.
        case, file: case, and file of the label.
        outside: share of the label's marked voxels that the image does not reach.
        axis: axis across the slices.
    """
    if outside > 0:
        found = f"{outside:.1%} of the marked voxels outside of the image"
        if outside > _MOST_MARKED:
            yield Problem(found, "a label of this image", "correct the header that is wrong", file, case)
            return
        yield Problem(found, "none: they are lost", "look at the contact sheet", file, case, "warning")
    marks = marked(label)
    others = tuple(k for k in range(3) if k != axis)
    flat = image.max(axis=others) == image.min(axis=others)
    blank = np.flatnonzero(flat & marks.any(axis=others))
    if flat.all():
        return
    if blank.size:
        found = f"marks in slices {listed(blank.tolist())}, in which the image has one value"
        yield Problem(found, "an image under every mark", "replace the image, or remove the marks", file, case)
        return
    if (label == IGNORED).any():
        return  # a mark beside a voxel without a verdict is no border
    for mirrored, ratio in mirror_ratios(image, marks).items():
        if ratio > MIRROR_RATIO:
            found = f"a label whose border fits the image {ratio:.1f} times better {_mirror_text(mirrored, axis)}"
            yield Problem(
                found,
                "the best fit as it lies",
                "look at the contact sheet: is the label reversed?",
                file,
                case,
                "warning",
            )
            return


def mirror_ratios(image: npt.NDArray[Any], marked: npt.NDArray[np.bool_]) -> dict[tuple[int, ...], float]:
    """Contrast along the border of a label that is mirrored, in units of that of the label as it lies; best first.

    Args:
        image: (x, y, z) real numbers.
        marked: (x, y, z).

    Returns:
        Mirrored axes to ratio; empty with too little border, or for single slices, whose halves are too alike.
    """
    if min(image.shape) < 3:
        return {}
    low, high = np.percentile(image, (1, 99))
    clipped = np.clip(image.astype(np.float32), low, high)
    steps = [np.abs(np.diff(clipped, axis=axis)) for axis in range(3)]

    def contrast(mask: npt.NDArray[np.bool_]) -> float:
        return sum(float(steps[axis][np.diff(mask, axis=axis)].sum(dtype=np.float64)) for axis in range(3))

    border = sum(np.count_nonzero(np.diff(marked, axis=axis)) for axis in range(3))
    as_it_lies = contrast(marked)
    if border < MIRROR_BORDER or not as_it_lies:
        return {}
    ways: list[tuple[int, ...]] = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    ratios = {way: contrast(np.flip(marked, way)) / as_it_lies for way in ways}
    return dict(sorted(ratios.items(), key=lambda item: -item[1]))


def on_grid(
    label: npt.NDArray[np.uint8],
    label_affine: npt.NDArray[np.float64],
    affine: npt.NDArray[np.float64],
    shape: Sequence[int],
) -> tuple[npt.NDArray[np.uint8], float]:
    """A label on another grid, as ``ByVotesd`` brings it there, and the share of its marked voxels off the grid."""
    matrix = np.linalg.solve(label_affine, affine)
    resampled = indices_by_votes(label, matrix, shape)
    places = np.argwhere(marked(label))
    back = np.linalg.inv(matrix)
    index = places @ back[:3, :3].T + back[:3, 3]
    beyond = ((index < -0.6) | (index > np.asarray(shape) - 0.4)).any(axis=1)
    return resampled, float(beyond.mean()) if len(places) else 0.0


def content(voxels: npt.NDArray[Any]) -> str:
    """Digest of shape and values, whatever the type; "" when all values are equal."""
    if voxels.min() == voxels.max():
        return ""
    digest = hashlib.blake2b(repr(voxels.shape).encode())
    digest.update(np.ascontiguousarray(voxels, dtype=np.float32).tobytes())
    return digest.hexdigest()


def known_values(datalist: Datalist) -> str:
    """The stored values of every class, for messages: ``0 background, 55 to 71 liver``."""
    names = [
        f"{_ranges([value for value, index in datalist.stored_classes.items() if index == number])} {name}"
        for number, name in datalist.labels.items()
    ]
    names += [] if datalist.ignore is None else [f"{datalist.ignore} without a verdict"]
    return "the labels " + ", ".join(names)


def _is_soft(voxels: npt.NDArray[Any]) -> bool:
    return voxels.dtype.kind == "f" and bool(((voxels >= -LABEL_TOLERANCE) & (voxels <= 1 + LABEL_TOLERANCE)).all())


def _blank_inside(part: npt.NDArray[Any]) -> list[int]:
    """Slices of one value along the last axis that have content on both sides."""
    flat = part.max(axis=(0, 1)) == part.min(axis=(0, 1))
    full = np.flatnonzero(~flat)
    return [int(k) for k in np.flatnonzero(flat) if full.size and full[0] < k < full[-1]]


def _mirror_text(axes: tuple[int, ...], across: int) -> str:
    if axes == (across,):
        return f"with its slices in reversed order (along {'xyz'[across]})"
    return "mirrored along " + " and ".join("xyz"[axis] for axis in axes)


def _ranges(values: Sequence[int]) -> str:
    there = set(values)
    starts = sorted(value for value in there if value - 1 not in there)
    ends = sorted(value for value in there if value + 1 not in there)
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True))


def is_ct(modality: str, names: Mapping[int, str]) -> bool:
    """Whether a DICOM Modality, or else the names of the channels, say CT."""
    return modality == "CT" if modality else any("CT" in name.split() for name in names.values())
