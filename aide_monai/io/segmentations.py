"""Finished segmentations, predicted or drawn: find them by case, read them, bring two onto one grid."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aide_monai.errors import InputError, Problem
from aide_monai.io.dicom.elements import is_dicom
from aide_monai.io.dicom.seg import read_dicom_seg
from aide_monai.io.folder import NO_VOLUME, voxel_files
from aide_monai.io.grid import AFFINE_TOLERANCE_MM, Grid, shape_text
from aide_monai.io.location import SUFFIXES, without_suffix
from aide_monai.io.png import png_files, read_png_stack
from aide_monai.io.segments import named_segments
from aide_monai.io.volumes import label_values, open_volume, tell_doubts
from aide_monai.utils.texts import tell_unused
from aide_monai.utils.validation import require_file_names
from aide_monai.utils.votes import resample_by_votes

PICTURES = (".png",)
DICOM = (".dcm",)
# what programs append to the name of a case: MONAI "_seg", PROMISE12 "_segmentation", and the like
_MOST_TIMES = 20  # slices between two that are marked
_SAME_STEP = 0.02  # of a step from slice to slice
_POSTFIX = re.compile(r"(?i)[_-](seg|segmentation|pred|prediction|mask|label|labels|gt)$")


@dataclass(frozen=True)
class Segmentation:
    """A label map and its place in space.

    Attributes:
        file: where it was read.
        labels: (X, Y, Z) integers, 0 is the background; X runs along the columns of a picture, Z along a stack.
        affine: (4, 4) voxel index to mm, RAS; None for pictures, which carry none.
        values: the label values it holds, sorted, 0 included if present.
        sparse: slices along Z without foreground may be left out, as DICOM SEG does.
        names: names of label values, as far as the file knows them.
        spacing_known: False when slices that may be left out leave open how far neighbours are apart.
        doubts: what is strange about its place in space.
    """

    file: Path
    labels: npt.NDArray[np.integer]
    affine: npt.NDArray[np.float64] | None
    values: tuple[int, ...]
    sparse: bool = False
    names: dict[int, str] = field(default_factory=dict)
    spacing_known: bool = True
    doubts: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid | None:
        """Where the voxels lie; None for pictures."""
        return None if self.affine is None else Grid(self.labels.shape, self.affine)


def case_of(name: str) -> str:
    """The case that a segmentation is of, by its name without suffix: programs append ``_seg``, ``-mask`` and the like.

    Examples:
        >>> from aide_monai.io.segmentations import case_of
        >>> [case_of(name) for name in ("liver_07_seg", "liver_07-mask", "liver_07_pred", "liver_07")]
        ['liver_07', 'liver_07', 'liver_07', 'liver_07']
    """
    return _POSTFIX.sub("", name)


def find_segmentations(root: str | Path) -> dict[str, Path]:
    """Segmentations of a folder and its subfolders, by case.

    A case is a NIfTI, MHD or NRRD file, a DICOM SEG file, or a subfolder of PNG slices; PNG files that lie in ``root``
    itself are 2D cases. Its name is that of the file or, in subfolders, that of the first folder when nothing else
    lies in it, without what programs append (``_seg``, ``_pred``, ``_label`` and the like).

    Raises:
        InputError: no such folder, nothing found, two files for one case, or a name that tables cannot hold.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError("no such folder", expected="a folder of segmentations", place=root)
    found = sorted(_volumes(root), key=lambda path: path.as_posix())
    if not found:
        raise InputError(
            "no segmentations",
            expected=f"files that end in {', '.join(SUFFIXES + DICOM)}, or folders of PNG slices",
            place=root,
        )
    require_file_names(root, found)
    parts = [path.relative_to(root).parts for path in found]
    firsts = [first for first, *_ in parts]
    cases: dict[str, list[Path]] = {}
    for path, (first, *others) in zip(found, parts, strict=True):
        name = first if firsts.count(first) == 1 else "/".join((first, *others))
        cases.setdefault(case_of(_stem(name)), []).append(path)
    doubles = [
        Problem(", ".join(str(path.relative_to(root)) for path in paths), case=case)
        for case, paths in cases.items()
        if len(paths) > 1
    ]
    if doubles:
        raise InputError(f"{root}: several files for one case; leave one of each", problems=doubles)
    return {case: paths[0] for case, paths in cases.items()}


def read_segmentation(path: str | Path) -> Segmentation:
    """Read a label map from any of the formats of ``find_segmentations``.

    Values such as 2.9999, which NIfTI scaling makes of 3, are rounded. PNG slices are in the order of their names,
    numbers by value.

    Raises:
        InputError: unreadable, not a single label map, or values that are not whole numbers from 0, naming the file.
    """
    path = Path(path)
    is_picture = path.is_dir() or path.name.lower().endswith(PICTURES)
    pictures = read_png_stack(png_files(path) if path.is_dir() else [str(path)]) if is_picture else None
    try:
        if pictures is not None:
            return _segmentation(path, pictures, None)
        if path.name.lower().endswith(DICOM) or (not path.name.lower().endswith(SUFFIXES) and is_dicom(path)):
            return _read_dicom_seg(path)
        volume = open_volume(str(path))
        tell_doubts(path, volume.doubts)
        if volume.channels != 1:
            raise InputError(f"shape {shape_text(volume.file_shape)} instead of one label map")
        names = {one.value: str(one) for one in named_segments(path)}
        read = _segmentation(path, volume.decode()[..., 0], volume.affine)
        return replace(read, names=names, doubts=volume.doubts)
    except InputError as error:
        raise error.at(path, expected="a label map of whole numbers from 0") from error


def on_one_grid(
    prediction: Segmentation, reference: Segmentation, *, resample: bool = False
) -> tuple[Segmentation, Segmentation]:
    """Both segmentations on the grid of the reference.

    Axes that are only stored in another order or direction are put right, slices that a DICOM SEG leaves out are
    filled with background. Both lose nothing.

    Args:
        prediction: what is scored.
        reference: what it is scored against.
        resample: bring a prediction from another grid onto the reference's (each voxel gets the label with
            the largest share of it) instead of refusing.

    Raises:
        InputError: grids that differ, naming both files and what differs.
    """
    if prediction.affine is None or reference.affine is None:
        if prediction.affine is not reference.affine:
            raise InputError(
                "pictures, which have no place in space, and a volume",
                expected="two of a kind",
                advice="convert the pictures to a volume",
                place=f"{prediction.file} and {reference.file}",
            )
        if prediction.labels.shape != reference.labels.shape:
            raise _mismatch(prediction, reference)
        return prediction, reference
    if reference.sparse:
        reference = _filled(reference, prediction)
    placed = _placed(prediction, reference)
    if placed is None and resample:
        reference = _reaching(_with_slices_of(reference, prediction), prediction)
        placed = _resampled(prediction, reference)
    if placed is None:
        raise _mismatch(prediction, reference)
    return replace(prediction, labels=placed, affine=reference.affine, sparse=False, spacing_known=True), reference


def _volumes(root: Path) -> list[Path]:
    found: set[Path] = set()
    others: list[Path] = []
    for path in root.rglob("*"):
        name = path.name.lower()
        if any(part.startswith(".") for part in path.relative_to(root).parts) or not path.is_file():
            continue
        if name.endswith(SUFFIXES + DICOM) or (name.endswith(PICTURES) and path.parent == root):
            found.add(path)
        elif name.endswith(PICTURES):
            found.add(path.parent)
        elif is_dicom(path):
            found.add(path)
        else:
            others.append(path)
    used = set(voxel_files(path for path in found if path.is_file()))
    tell_unused(root, {str(path): NO_VOLUME for path in sorted(others) if path not in used})
    return list(found)


def _stem(name: str) -> str:
    suffix = next((s for s in DICOM + PICTURES if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)] if suffix else name.removesuffix(Path(name).name) + without_suffix(name)


def _segmentation(path: Path, voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64] | None) -> Segmentation:
    if 0 in voxels.shape:
        raise InputError(f"shape {shape_text(voxels.shape)} without voxels")
    values = label_values(voxels)
    if values[0] < 0 or values[-1] > 65535:
        raise InputError(f"label values from {values[0]} to {values[-1]}")
    dtype: type[np.unsignedinteger[Any]] = np.uint8 if values[-1] < 256 else np.uint16
    labels = np.rint(voxels).astype(dtype) if voxels.dtype.kind == "f" else voxels.astype(dtype, copy=False)
    return Segmentation(path, labels, affine, tuple(values))


def _read_dicom_seg(path: Path) -> Segmentation:
    seg = read_dicom_seg(path)
    read = _segmentation(path, seg.labels, seg.affine)
    return replace(read, sparse=True, spacing_known=seg.spacing_stated, names=seg.names)


def _filled(reference: Segmentation, prediction: Segmentation) -> Segmentation:
    """A DICOM SEG reference on the prediction's grid or, when that is sparse too, on one that holds both."""
    assert reference.affine is not None
    assert prediction.affine is not None
    if not prediction.sparse:
        labels = _placed(reference, prediction)
        if labels is None:
            return reference
        return replace(reference, labels=labels, affine=prediction.affine, sparse=False, spacing_known=True)
    for times in range(1, 1 if reference.spacing_known else _MOST_TIMES) or [1]:
        reference_too = _spread(reference, times)
        lattice = _lattice(prediction, reference_too)
        if lattice is not None:
            break
    else:
        return reference
    shape, start = np.array(reference_too.labels.shape), np.array(lattice[1])
    # One slice more on each side: what a SEG leaves out is background, so masks do not end at the image's edge there.
    margin = np.array([0, 0, 1])
    low = np.minimum(start, 0) - margin
    high = np.maximum(start + lattice[0].shape, shape) + margin
    labels = np.pad(reference_too.labels, [(int(a), int(b)) for a, b in zip(-low, high - shape, strict=True)])
    assert reference_too.affine is not None
    affine = reference_too.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    known = reference.spacing_known or prediction.spacing_known
    return replace(reference, labels=labels, affine=affine, spacing_known=known)


def _with_slices_of(moving: Segmentation, fixed: Segmentation) -> Segmentation:
    """Slices whose thickness nobody knows are as thick as those of ``fixed``, those between empty.

    One slice alone goes to the next one as those of ``fixed`` do, which in a tilted stack is not along its normal.
    """
    assert moving.affine is not None
    assert fixed.affine is not None
    steps = np.linalg.solve(fixed.affine[:3, :3], moving.affine[:3, :3])
    across = int(np.abs(steps[:, :2]).sum(axis=1).argmin())  # the axis that lies in no slice
    same = not moving.spacing_known or abs(abs(steps[across, 2]) - 1) < _SAME_STEP
    if moving.sparse and moving.labels.shape[2] == 1 and same:
        affine = moving.affine.copy()
        affine[:3, 2] = np.sign(steps[across, 2]) * fixed.affine[:3, across]
        return replace(moving, affine=affine)
    if moving.spacing_known:
        return moving
    return _spread(moving, max(round(float(np.abs(steps[:, 2]).max())), 1))


def _reaching(reference: Segmentation, prediction: Segmentation) -> Segmentation:
    """A DICOM SEG with empty slices to the ends of the prediction, which would be cut off there otherwise."""
    assert reference.affine is not None
    assert prediction.affine is not None
    if not reference.sparse:
        return reference
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(prediction.labels.shape) - 1)
    grids = Grid(reference.labels.shape, reference.affine), Grid(prediction.labels.shape, prediction.affine)
    heights = grids[0].index_of(grids[1], corners)[:, 2]
    before = max(int(np.ceil(-heights.min())), 0)
    after = max(int(np.ceil(heights.max())) + 1 - reference.labels.shape[2], 0)
    affine = reference.affine.copy()
    affine[:3, 3] -= affine[:3, 2] * before
    return replace(reference, labels=np.pad(reference.labels, [(0, 0), (0, 0), (before, after)]), affine=affine)


def _spread(sparse: Segmentation, times: int) -> Segmentation:
    """The same slices with so many steps from each to the next, those between empty."""
    assert sparse.affine is not None
    x, y, z = sparse.labels.shape
    labels = np.zeros((x, y, (z - 1) * times + 1), dtype=sparse.labels.dtype)
    labels[..., ::times] = sparse.labels
    return replace(sparse, labels=labels, affine=sparse.affine @ np.diag([1, 1, 1 / times, 1]))


def _placed(moving: Segmentation, fixed: Segmentation) -> npt.NDArray[np.integer] | None:
    """The labels of ``moving`` on the grid of ``fixed`` if that loses nothing, else None."""
    lattice = _lattice(moving, fixed)
    if lattice is None:
        return None
    labels, start = lattice
    shape = fixed.labels.shape
    if labels.shape == shape and not any(start):
        return labels
    if not moving.sparse:
        return None
    canvas = np.zeros(shape, dtype=labels.dtype)
    target = tuple(slice(max(s, 0), max(s + n, 0)) for s, n in zip(start, labels.shape, strict=True))
    source = tuple(
        slice(max(-s, 0), max(min(n, size - s), 0)) for s, n, size in zip(start, labels.shape, shape, strict=True)
    )
    canvas[target] = labels[source]
    return canvas if np.count_nonzero(canvas) == np.count_nonzero(labels) else None


def _lattice(moving: Segmentation, fixed: Segmentation) -> tuple[npt.NDArray[np.integer], tuple[int, ...]] | None:
    """The labels with their axes as in ``fixed``, and where they start there; None if voxels lie between voxels."""
    assert fixed.affine is not None
    moving = _with_slices_of(moving, fixed)
    assert moving.affine is not None
    step = np.linalg.inv(fixed.affine) @ moving.affine
    rounded = np.rint(step)
    turn = rounded[:3, :3]
    if not np.array_equal(np.abs(turn).sum(axis=0), [1, 1, 1]) or not np.array_equal(np.abs(turn).sum(axis=1), [1] * 3):
        return None
    there = Grid(moving.labels.shape, fixed.affine @ rounded)
    if there.distance_mm(Grid(moving.labels.shape, moving.affine)) > AFFINE_TOLERANCE_MM:
        return None
    labels = moving.labels.transpose(np.abs(turn).argmax(axis=1))
    backwards = [i for i in range(3) if turn[i].sum() < 0]
    start = [int(rounded[i, 3]) - (labels.shape[i] - 1 if i in backwards else 0) for i in range(3)]
    return np.flip(labels, tuple(backwards)), tuple(start)


def _resampled(moving: Segmentation, fixed: Segmentation) -> npt.NDArray[np.integer]:
    """By the largest share of a voxel in physical space; what lies outside ``moving`` is background."""
    moving = _with_slices_of(moving, fixed)
    assert moving.affine is not None
    assert fixed.affine is not None
    return resample_by_votes(moving.labels, np.linalg.inv(moving.affine) @ fixed.affine, fixed.labels.shape)


def _mismatch(prediction: Segmentation, reference: Segmentation) -> InputError:
    shapes = shape_text(prediction.labels.shape), shape_text(reference.labels.shape)
    found = f"shape {shapes[0]}, reference {reference.file} has {shapes[1]}"
    if prediction.grid and reference.grid and (wrong := reference.grid.mismatch(prediction.grid)):
        found = f"{wrong.found}, reference {reference.file} has {wrong.expected.partition(' ')[2]}"
        doubts = [f"{one.file.name} has {doubt}" for one in (prediction, reference) for doubt in one.doubts]
        found += "".join(f" ({reason})" for reason in (wrong.reason, *doubts) if reason)
    return InputError(
        found,
        expected="one grid",
        advice="save the prediction on the grid of its image, or resample it in physical space (--resample)",
        place=prediction.file,
    )
