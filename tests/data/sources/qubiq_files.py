"""Small copies of QUBIQ's download: its folders, shapes, types and raters, with its oddities."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import nibabel
import numpy as np

RATERS = {"prostate": 6, "brain-growth": 7, "brain-tumor": 3, "kidney": 3}
SUBTASKS = {"prostate": 2, "brain-growth": 1, "brain-tumor": 3, "kidney": 1}
CASES = {"prostate": (48, 7), "brain-growth": (34, 5), "brain-tumor": (28, 4), "kidney": (20, 4)}
# As the archives have them: prostate slices with a third axis of one, kidneys flat, tumours with channels on the third
SHAPES = {"prostate": (20, 16, 1), "brain-growth": (16, 16, 1), "brain-tumor": (16, 16, 4), "kidney": (18, 18)}


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    """A filled circle (X, Y), bool."""
    x, y = np.ogrid[: shape[0], : shape[1]]
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2


def write_case(folder: Path, task: str, *, seed: int, without: Iterable[int] = ()) -> None:
    """``image.nii.gz`` and float32 masks of all raters but those in ``without``, rater k draws k / 4 pixels wider."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, len(task)])
    shape = SHAPES[task]
    plane = shape[:2]
    centre = (plane[0] / 2 + rng.uniform(-1, 1), plane[1] / 2 + rng.uniform(-1, 1))
    image = rng.integers(0, 400, shape).astype(np.int16) + 500 * disc(plane, centre, 4).reshape(
        (*plane, *(1,) * (len(shape) - 2))
    )
    if task == "kidney":
        image -= 1024
    nibabel.save(nibabel.Nifti1Image(image.astype(np.int16), np.eye(4)), folder / "image.nii.gz")
    mask_shape = plane if task == "brain-tumor" else shape
    for subtask in range(1, SUBTASKS[task] + 1):
        for rater in range(1, RATERS[task] + 1):
            if rater not in without:
                mask = disc(plane, centre, 5 - subtask + rater / 4).reshape(mask_shape).astype(np.float32)
                file = folder / f"task{subtask:02d}_seg{rater:02d}.nii.gz"
                nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), file)


def write_qubiq(root: Path, task: str, *, cases: tuple[int, int] | None = None, archives: bool = False) -> Path:
    """One task; numbers go on from training to validation. ``archives``: one folder per archive, as they unpack.

    In the prostate task, case 3 has no mask of rater 6.
    """
    training, validation = CASES[task] if cases is None else cases
    for number in range(1, training + validation + 1):
        split = "Training" if number <= training else "Validation"
        place = root / f"{split.lower()}_data_v2" if archives else root
        without = (6,) if (task, number) == ("prostate", 3) else ()
        write_case(place / task / split / f"case{number:02d}", task, seed=number, without=without)
    return root
