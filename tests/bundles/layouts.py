"""Tiny data for every bundle, in the layout in which its data set is downloaded, and data of one's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.phantom import write_phantoms
from tests.data.sources import breast_files
from tests.data.sources.nci_isbi_files import write_nci_isbi
from tests.data.sources.promise12_files import prostate_volume, write_promise12
from tests.data.sources.qubiq_files import write_qubiq
from tests.io.dicom.dicom_files import write_series

SMALL: dict[str, Any] = {"slice_size": [32, 32], "device": "cpu"}
UNET = {**SMALL, "network_args#features": [4, 4, 4, 8, 8, 4]}
STREAMS = {**SMALL, "network_args#features": [4, 8]}


@dataclass(frozen=True)
class Tiny:
    """How a bundle is tried.

    Attributes:
        write: writes data into a new folder.
        model: overrides that make its network and slices small.
        data: overrides of its data parameters.
        images: folder of volumes for inference, seen from the data; "" infers from a datalist.
    """

    write: Callable[[Path], Any]
    model: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    images: str = ""


def write_chaos(root: Path) -> None:
    """A labelled case, two cases to learn from and one to test on, as the challenge numbers them."""
    for number in (37, 1, 3, 10):
        image, label = prostate_volume(number, shape=(32, 32, 6))
        case = root / "Train_Sets" / "MR" / str(number) / "T1DUAL"
        image = np.clip(image, 0, None).astype("u2")
        options: dict[str, Any] = {"position": (0, 0, 0), "spacing": (2, 2, 6), "tags": {"AcquisitionTime": "100000"}}
        count = image.shape[2]
        odd = write_series(
            case / "DICOM_anon/InPhase", image, echo_ms=4.6, instance_numbers=list(range(2 * count, 0, -2)), **options
        )
        write_series(
            case / "DICOM_anon/OutPhase",
            image + 100,
            echo_ms=2.3,
            instance_numbers=list(range(2 * count - 1, 0, -2)),
            series_uid=odd.series_uid,
            **options,
        )
        (case / "Ground").mkdir()
        for z, file in enumerate(odd.files):
            Image.fromarray(np.ascontiguousarray(63 * label[:, :, z].T)).save(case / "Ground" / f"{file.stem}.png")


def write_prostate(root: Path) -> None:
    write_nci_isbi(root / "NCI-ISBI-2013", (2, 1, 1))
    write_promise12(root / "PROMISE12", range(12))


def write_breast(centre: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        breast_files.write_centres(root, {centre: 4})
        breast_files.write_study(root / centre / "P900", 90, label=False)

    return write


def write_cardiac(root: Path) -> None:
    for number, folder in enumerate(("acdc", "mscmr_lge")):
        data = write_phantoms(root / "made", cases=4, shape=(32, 32, 5), spacing_mm=(6, 6, 20), seed=number)
        for file in sorted((data / "imagesTr").iterdir()):
            unlabelled = folder == "mscmr_lge" and file.name < "phantom_002"
            target = root / folder / ("unlabeled" if unlabelled else "images") / f"{folder}_{file.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
            if not unlabelled:
                label = root / folder / "labels" / target.name
                label.parent.mkdir(exist_ok=True)
                (data / "labelsTr" / file.name).rename(label)
        shutil.rmtree(data)


def write_decathlon(root: Path) -> None:
    write_phantoms(root, cases=5, shape=(32, 30, 5), spacing_mm=(6, 6, 20))


def write_own_data(root: Path) -> None:
    """Two-channel volumes whose slices lie across axis 0: two labelled, one unlabelled, one test case."""
    records = []
    for number in range(4):
        rng = np.random.default_rng(number)
        image = rng.integers(0, 100, (4, 30, 40, 2)).astype(np.int16)
        label = np.zeros((4, 30, 40), dtype=np.uint8)
        label[:, 5:20, 8 : 25 + number] = 1
        image[label > 0] += 200
        for name, voxels in (("image", image), ("label", label)):
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([8.0, 1.0, 1.0, 1.0])), root / f"{name}_{number}.nii.gz")
        record = {"case": f"case_{number}", "image": str(root / f"image_{number}.nii.gz")}
        if number != 2:
            record |= {"label": str(root / f"label_{number}.nii.gz"), "quality": "high"}
        records.append({**record, "split": "test" if number == 3 else "training"})
    labels = {0: "background", 1: "tumour"}
    Datalist("Mine", labels, {0: "T1", 1: "T2"}, records).save(root / "datalist.json")


def qubiq(task: str) -> Tiny:
    return Tiny(lambda root: write_qubiq(root, task, cases=(4, 2)), UNET)


def breast(centre: str) -> Tiny:
    return Tiny(write_breast(centre), STREAMS, {"source#test": 2})


BUNDLES = {
    "hippocampus_ssl": Tiny(write_decathlon, UNET, {"labeled": 1, "unlabeled": 2}, images="imagesTr"),
    "chaos_liver_ssl": Tiny(write_chaos, STREAMS, images="Train_Sets/MR"),
    "prostate_uda": Tiny(write_prostate, UNET),
    "qubiq_prostate": qubiq("prostate"),
    "qubiq_brain_growth": qubiq("brain-growth"),
    "qubiq_brain_tumor": qubiq("brain-tumor"),
    "qubiq_kidney": qubiq("kidney"),
    "breast_dce_ggh": breast("GGH"),
    "breast_dce_gpph": breast("GPPH"),
    "breast_dce_hpph": breast("HPPH"),
    "cardiac_uda": Tiny(write_cardiac, UNET, images="mscmr_lge/images"),
}
OWN = "own_data"  # made by ``aide new-bundle``
ALL = {**BUNDLES, OWN: Tiny(write_own_data, {**UNET, "slice_size": [32, 64]})}
