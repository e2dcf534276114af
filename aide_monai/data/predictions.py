"""Predictions of anybody's model for the cases of a data set: masks, or a probability for each class."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aide_monai.data.checks.voxels import on_grid
from aide_monai.errors import InputError, Problem
from aide_monai.io.ahead import open_apart
from aide_monai.io.grid import Grid, shape_text
from aide_monai.io.location import SUFFIXES, without_suffix
from aide_monai.io.segmentations import case_of
from aide_monai.io.volumes import Volume, label_values
from aide_monai.utils.validation import require_file_names

NPZ = ".npz"
_KEY = "probabilities"


@dataclass(frozen=True)
class Prediction:
    """Where the prediction of a model for a case lies.

    Attributes:
        mask: a volume: a mask (x, y, z), or probabilities (x, y, z, K); with ``shares`` it says where these lie.
        shares: an ``.npz`` of nnU-Net, (K, z, y, x) under "probabilities", or None.
        structures: a mask for each class index, where a model writes a file for each structure.
    """

    mask: Path | None = None
    shares: Path | None = None
    structures: tuple[tuple[int, Path], ...] = ()

    @property
    def place(self) -> Path:
        """The file that problems name."""
        return self.shares or self.mask or self.structures[0][1]


def find_predictions(folder: str | Path, structures: Mapping[str, int] | None = None) -> dict[str, Prediction]:
    """The predictions of a folder, by case.

    ``X.nii.gz`` is that of the case ``X``, and so are ``X_seg.nii.gz``, ``X_pred.nii.gz`` and the like, and
    ``X/X_seg.nii.gz``, as MONAI's ``SaveImage`` writes it; ``X.npz`` beside it has nnU-Net's probabilities
    (``nnUNetv2_predict --save_probabilities``). With ``structures``, ``X/liver.nii.gz`` is the liver of the case ``X``.

    Args:
        folder: the folder.
        structures: names of files, without ending, to class indices, for models that write a file for each structure.

    Raises:
        InputError: no such folder, nothing in it, or one report of all cases with two predictions.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError("no such folder", expected="a folder of predictions", place=root)
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    require_file_names(root, files)
    volumes = [path for path in files if path.name.lower().endswith(SUFFIXES)]
    if structures:
        found = _by_structure(volumes, structures)
    else:
        found = _by_case(volumes, [path for path in files if path.suffix == NPZ])
    if not found:
        wanted = f"CASE/{next(iter(structures))}.nii.gz" if structures else "CASE.nii.gz, or CASE.npz beside it"
        raise InputError("no predictions", expected=wanted, place=root)
    return found


def _by_structure(volumes: Sequence[Path], structures: Mapping[str, int]) -> dict[str, Prediction]:
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in volumes:
        name = without_suffix(path)
        if name in structures:
            found.setdefault(path.parent.name, []).append((structures[name], path))
    return {case: Prediction(structures=tuple(parts)) for case, parts in found.items()}


def _by_case(volumes: Sequence[Path], archives: Sequence[Path]) -> dict[str, Prediction]:
    masks: dict[str, list[Path]] = {}
    for path in volumes:
        masks.setdefault(case_of(without_suffix(path)), []).append(path)
    shares = {path.stem: path for path in archives}
    problems = [
        Problem(f'two predictions of case "{case}": {names[0]} and {names[1].name}', "one", "remove one of them")
        for case, names in masks.items()
        if len(names) > 1
    ]
    problems += [
        Problem("probabilities without a mask", f"{case}.nii.gz beside it", "it says where they lie", path)
        for case, path in shares.items()
        if case not in masks
    ]
    if problems:
        raise InputError("predictions that cannot be used", problems=problems)
    return {case: Prediction(mask=names[0], shares=shares.get(case)) for case, names in masks.items()}


def read_prediction(
    prediction: Prediction, grid: Grid, *, classes: Mapping[int, int], number: int, resample: bool = False
) -> npt.NDArray[Any]:
    """A prediction on the grid of a label.

    Args:
        prediction: one of ``find_predictions``.
        grid: of the label.
        classes: values of masks to class indices; others are refused.
        number: K, how many classes there are.
        resample: bring masks from other grids onto the label's.

    Returns:
        A mask (x, y, z) uint8 of class indices, or probabilities (K, x, y, z) float32, unchecked.

    Raises:
        InputError: unreadable, on another grid, values that are no classes, or another number of classes.
    """
    if prediction.structures:
        parts = [
            (index, _mask(path, grid, {0: 0, 1: 1, 255: 1}, resample=resample)) for index, path in prediction.structures
        ]
        mask = np.zeros(grid.shape, dtype=np.uint8)
        for index, part in parts:
            mask[part > 0] = index
        return mask
    assert prediction.mask is not None
    if prediction.shares is not None:
        _require_grid(prediction.mask, _open(prediction.mask).grid, grid, advice="predict on the images")
        return _npz(prediction.shares, grid, number)
    volume = _open(prediction.mask)
    if volume.channels == 1:
        return _mask(prediction.mask, grid, classes, resample=resample)
    _require_grid(prediction.mask, volume.grid, grid, advice="write probabilities on the grid of the image")
    if volume.channels != number:
        raise InputError(f"{volume.channels} channels", expected=f"{number}, one for each class", place=prediction.mask)
    return np.moveaxis(volume.decode(), -1, 0).astype(np.float32)


def _open(path: Path) -> Volume:
    try:
        return open_apart(str(path))
    except InputError as error:
        raise error.at(path, expected="a prediction", advice="predict the case again") from error


def _mask(path: Path, grid: Grid, classes: Mapping[int, int], *, resample: bool) -> npt.NDArray[np.uint8]:
    volume = _open(path)
    voxels = volume.decode()
    if voxels.shape[-1] != 1:
        raise InputError(f"{voxels.shape[-1]} channels", expected="a mask", place=path)
    try:
        values = label_values(voxels)
    except InputError as error:
        advice = "write a mask, or a probability for every class"
        raise error.at(path, expected="whole numbers", advice=advice) from error
    unknown = [value for value in values if value not in classes]
    if unknown:
        raise InputError(
            f"the values {', '.join(map(str, unknown[:5]))}",
            expected=f"some of {', '.join(map(str, sorted(classes)))}",
            advice="say what they mean (--map 5=1,7=2)",
            place=path,
        )
    table = np.zeros(max(values) + 1, dtype=np.uint8)
    table[values] = [classes[value] for value in values]
    mask = table[np.rint(voxels[..., 0]).astype(np.int64)]
    if resample and volume.grid.mismatch(grid) is not None:
        return on_grid(mask, volume.affine, grid.affine, grid.shape)[0]
    _require_grid(path, volume.grid, grid, advice="resample it (--resample)")
    return mask


def _npz(path: Path, grid: Grid, number: int) -> npt.NDArray[np.float32]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if _KEY not in archive.files:
                raise InputError(f"the keys {', '.join(archive.files)}", expected=f'"{_KEY}"', place=path)
            shares = archive[_KEY]
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a file that cannot be read ({error})", expected="an .npz of nnU-Net", place=path) from error
    wanted = (number, *grid.shape[::-1])
    if shares.shape != wanted:
        found = f"probabilities of shape {shape_text(shares.shape)}"
        raise InputError(found, expected=f"{shape_text(wanted)}: classes, z, y, x", place=path)
    return np.asarray(shares.transpose(0, 3, 2, 1), dtype=np.float32)


def _require_grid(path: Path, found: Grid, wanted: Grid, *, advice: str) -> None:
    wrong = wanted.mismatch(found)
    if wrong is not None:
        told = wrong.found + (f" ({wrong.reason})" if wrong.reason else "")
        raise InputError(told, expected=f"{wrong.expected} as the label", advice=advice, place=path)
