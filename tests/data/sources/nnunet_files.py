"""A raw data folder of nnU-Net v2, made of phantoms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from aide_monai.data.sources import write_phantoms


def write_nnunet(root: Path, *, cases: int = 6, channels: int = 2, unlabelled: int = 1, test: int = 0) -> Path:
    """Phantoms as ``imagesTr``, ``labelsTr``, ``imagesTs`` and ``labelsTs``.

    Args:
        root: new folder.
        cases: how many there are.
        channels: images of a case; the second is the first one turned dark to bright.
        unlabelled: so many of the last cases of ``imagesTr`` have no label.
        test: so many of the first cases lie in ``imagesTs``, with a label but for the first.
    """
    write_phantoms(root, cases=cases, shape=(32, 30, 5), spacing_mm=(6, 6, 20))
    for number, image in enumerate(sorted((root / "imagesTr").iterdir())):
        name = image.name.removesuffix(".nii.gz")
        label = root / "labelsTr" / image.name
        if number < test:
            for kind in ("imagesTs", "labelsTs"):
                (root / kind).mkdir(exist_ok=True)
            label.rename(root / "labelsTs" / image.name)
            if number == 0:
                (root / "labelsTs" / image.name).unlink()
        elif number >= cases - unlabelled:
            label.unlink()
        volume = nibabel.load(image)
        voxels = np.asarray(volume.dataobj)
        for channel in range(channels):
            shown = voxels if channel == 0 else voxels.max() - voxels
            side = "Ts" if number < test else "Tr"
            target = root / f"images{side}" / f"{name}_{channel:04d}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(shown, volume.affine), target)
        image.unlink()
    write_json(root, numTraining=cases - test, channel_names={str(k): f"T{k + 1}" for k in range(channels)})
    return root


def write_json(root: Path, **changes: Any) -> None:
    """``dataset.json`` with some keys changed, and those without a value left out."""
    file = root / "dataset.json"
    known = json.loads(file.read_text())
    if "file_ending" not in known:  # that of the phantoms
        known = {"labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    content = {key: value for key, value in {**known, **changes}.items() if value is not None}
    file.write_text(json.dumps(content))
