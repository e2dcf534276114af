"""Where the predictions of an inference go."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import SaveImaged
from torch import Tensor

from aide_monai.errors import InputError
from aide_monai.io.dicom.seg import write_dicom_seg
from aide_monai.io.dicom.series import one_series
from aide_monai.io.location import Location, as_paths
from aide_monai.io.nifti import PLACE, NiftiPlace, write_nifti
from aide_monai.utils.stored_values import stored_names

FORMATS = ("nifti", "nnunet", "dicom-seg")


class SaveSegmentationd(SaveImaged):
    """Writes each predicted label under the name of its case, on the grid of its image.

    It is a ``SaveImaged``, so that MONAI Label, which sends labels to its client instead, leaves it out.

    Args:
        keys: labels (1, X, Y, Z), stored values, MetaTensors that are back on the grid of the image's file.
        output_dir: folder of the files, ``CASE_seg.nii.gz``, ``CASE.nii.gz`` or ``CASE_seg.dcm``.
        labels: class index to name, for DICOM SEG.
        classes: stored value to class index, as in ``AsStoredValuesd``; None: the values are class indices.
        output_format: "nifti" with slope 1; "nnunet", the same but called as in ``labelsTr``; or "dicom-seg" for images
            that were read from DICOM.
        image_key: the image; its file names the case where the data do not, and is what a DICOM SEG refers to.

    Raises:
        InputError: if ``output_format`` is unknown, or a DICOM SEG is asked for an image that is no DICOM.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        output_dir: str | Path,
        labels: Mapping[Any, str],
        classes: Mapping[Any, int] | None = None,
        output_format: str = "nifti",
        image_key: str = "image",
    ) -> None:
        super().__init__(keys, output_dir=output_dir)
        if output_format not in FORMATS:
            raise InputError(f"output_format is {output_format!r}", expected=f"one of {', '.join(FORMATS)}")
        self.folder = Path(output_dir)
        self.labels = stored_names(labels, classes)
        self.output_format = output_format
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the labels of ``data`` and return it as it was."""
        source = str(data[self.image_key].meta.get("filename_or_obj", "image"))
        case = str(data.get("case", case_of(source)))
        for key in self.keys:
            label = data[key].as_tensor()[0].cpu()
            if self.output_format != "dicom-seg":
                place = NiftiPlace.of(data[self.image_key].meta.get(PLACE, {}))
                name = f"{case}_seg.nii.gz" if self.output_format == "nifti" else f"{case}.nii.gz"
                write_label(self.folder / name, label, data[key].affine, place)
                continue
            image = Location.parse(source)
            if image.is_volume_file:
                raise InputError(
                    "no DICOM",
                    expected="DICOM images, as a DICOM SEG needs",
                    advice="ask for output_format nifti (--output_format nifti)",
                    place=source,
                )
            write_dicom_seg(
                self.folder / f"{case}_seg.dcm", label, one_series(image.path, select=image.part), self.labels
            )
        return dict(data)


def case_of(image: str | list[str]) -> str:
    """Name of a case after its (first) image: the file without its suffix, or the folder."""
    return Location.parse(as_paths(image)[0]).name


def write_label(path: str | Path, label: Tensor, affine: Any, place: NiftiPlace | None = None) -> None:
    """Write a label (X, Y, Z) as NIfTI, uint8 or, where values need it, uint16; the rest as in ``write_nifti``."""
    voxels = label.numpy()
    write_nifti(path, voxels.astype(np.uint8 if voxels.max(initial=0) < 256 else np.uint16), affine, place)
