"""A damaged download of every kind is told in one report: what is wrong with its folders and with its files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from aide_monai.cli.main import app, run
from aide_monai.data.sources import write_phantoms
from tests.io.dicom.dicom_files import edit

from .breast_files import write_centres
from .nci_isbi_files import write_nci_isbi
from .nnunet_files import write_nnunet
from .promise12_files import write_case
from .qubiq_files import write_qubiq

Planted = dict[str, str]  # a place to what is told of it


def save(file: Path, voxels: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels, nibabel.load(file).affine), file)


def damage_files(images: list[Path], labels: list[Path]) -> Planted:
    """One broken image, one with a value that is no number, and one label of another shape."""
    images[0].write_bytes(b"no image")
    voxels = np.asarray(nibabel.load(images[1]).dataobj).astype(np.float32)
    voxels[0, 0, 0] = np.nan
    save(images[1], voxels)
    save(labels[2], np.ones((3, 3, 3), np.uint8))
    return {images[0].name: "cannot be read", images[1].name: "NaN", labels[2].name: "3 x 3 x 3"}


def decathlon(folder: Path) -> Planted:
    write_phantoms(folder, cases=6, shape=(16, 16, 4))
    images, labels = (sorted((folder / kind).iterdir()) for kind in ("imagesTr", "labelsTr"))
    content = json.loads((folder / "dataset.json").read_text())
    content["training"] += [{"image": 7}, {"image": "./../secret.nii.gz"}]
    (folder / "dataset.json").write_text(json.dumps(content))
    labels[5].unlink()
    return {
        **damage_files(images, labels),
        "training[6]": "7",
        "training[7]": "secret.nii.gz",
        f"labelsTr/{labels[5].name}": "no such file",
    }


def plain_folder(folder: Path) -> Planted:
    write_phantoms(folder, cases=6, shape=(16, 16, 4))
    (folder / "dataset.json").unlink()
    for old, new in (("imagesTr", "images"), ("labelsTr", "labels")):
        (folder / old).rename(folder / new)
    images, labels = (sorted((folder / kind).iterdir()) for kind in ("images", "labels"))
    labels[5].unlink()
    images[4].unlink()
    twin = images[3].with_name(images[3].name.replace(".nii.gz", ".nii"))
    nibabel.save(nibabel.load(images[3]), twin)
    return {
        **damage_files(images, labels),
        images[5].name: "no label of this name",
        labels[4].name: "no image of this name",
        twin.name: "two files for one name",
    }


def nnunet(folder: Path) -> Planted:
    write_nnunet(folder, cases=8, unlabelled=0)
    images, labels = (sorted((folder / kind).iterdir()) for kind in ("imagesTr", "labelsTr"))
    images[10].rename(folder / "imagesTr" / "stray.nii.gz")
    images[13].unlink()
    (folder / "labelsTr" / "nobody.nii.gz").write_bytes(labels[7].read_bytes())
    return {
        **damage_files(images[::2], labels),
        "stray.nii.gz": "a name without a number",
        "phantom_005": "_0000 to _0001",
        "phantom_006": "found the channels _0000",
        "nobody.nii.gz": "no image of this name in imagesTr/",
    }


def datalist(folder: Path) -> Planted:
    planted = decathlon(folder)
    content = json.loads((folder / "dataset.json").read_text())
    records = [
        {"case": Path(entry["image"]).name.split(".")[0], **entry, "quality": "high"}
        for entry in content["training"][:6]
    ]
    records += [{"case": "seven", "image": 7}, {"case": "out", "image": "../secret.nii.gz"}]
    known = {key: content[key] for key in ("name", "labels", "modality")}
    (folder / "dataset.json").unlink()
    (folder / "datalist.json").write_text(json.dumps({**known, "training": records}))
    return planted


def promise12(folder: Path) -> Planted:
    for number in range(4):
        write_case(folder, number, segmentation=number != 3)
    (folder / "Case01.raw").write_bytes(b"short")
    return {"Case03.mhd": "no Case03_segmentation.mhd", "Case01": "expected"}


def breast(folder: Path) -> Planted:
    write_centres(folder, {"GGH": 4})
    first, second, *_ = sorted(path for path in folder.rglob("*") if (path / "label.nii.gz").is_file())
    (first / "label.nii.gz").unlink()
    save(second / "label.nii.gz", np.full((3, 3, 3), 9, np.uint8))
    return {first.name: "no label.nii.gz", second.name: "expected"}


def nci_isbi(folder: Path) -> Planted:
    write_nci_isbi(folder, (2, 0, 0))
    first, second = "ProstateDx-01-0001", "Prostate3T-01-0002"
    (folder / "Training" / f"{first}.nrrd").unlink()
    (broken, *_) = sorted(folder.rglob(f"{second}/*/*/*.dcm"))
    edit(broken, PixelData=b"")
    return {first: "found no labels", second: "the file is truncated"}


def prostate(folder: Path) -> Planted:
    """What is wrong with the folders of one set, and with the files of the other."""
    write_nci_isbi(folder / "nci", (2, 0, 0))
    (folder / "nci/Training/ProstateDx-01-0001.nrrd").unlink()
    for number in range(2):
        write_case(folder / "promise", number)
    (folder / "promise/Case01.raw").write_bytes(b"short")
    return {"ProstateDx-01-0001": "found no labels", "Case01": "expected"}


def domains(folder: Path) -> Planted:
    """What is wrong with the folders and files of two domains."""
    first, second = folder / "siteA", folder / "siteB"
    planted = plain_folder(first)
    shutil.copytree(first, second)
    (second / "labels/phantom_001.nii.gz").unlink()
    return planted | {"siteB/images/phantom_000.nii.gz": "cannot be read", "siteB/images/phantom_001": "no label"}


def qubiq(folder: Path) -> Planted:
    cases = write_qubiq(folder, "brain-growth", cases=(5, 1)) / "brain-growth/Training"
    (cases / "case01/image.nii.gz").unlink()
    (cases / "case02/task01_seg04.nii.gz").write_bytes(b"nothing")
    image = np.asarray(nibabel.load(cases / "case03/image.nii.gz").dataobj).astype(np.float32)
    image[0, 0, 0] = np.nan
    save(cases / "case03/image.nii.gz", image)
    return {"case01": "0 files image.nii.gz", "case02/task01_seg04.nii.gz": "cannot be read", "case03": "NaN"}


LAYOUTS: dict[str, tuple[Callable[[Path], Planted], list[str], bool]] = {
    "a plain folder": (plain_folder, ["prepare", "folder"], True),
    "Decathlon": (decathlon, ["prepare", "decathlon"], True),
    "nnU-Net": (nnunet, ["prepare", "nnunet"], True),
    "a datalist": (datalist, [], True),
    "PROMISE12": (promise12, ["prepare", "promise12"], False),
    "breast DCE-MR": (breast, ["prepare", "breast"], False),
    "NCI-ISBI": (nci_isbi, ["prepare", "nci-isbi"], False),
    "both sets of prostates": (prostate, ["prepare", "prostate"], False),
    "a folder per domain": (domains, ["prepare", "domains"], False),
    "QUBIQ": (qubiq, ["prepare", "qubiq"], False),
}
PLACES = {"both sets of prostates": ["nci", "promise"], "QUBIQ": ["brain-growth"]}


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_call_tells_all(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, prepare, recognised = LAYOUTS[name]
    planted = make(tmp_path / "data")
    out = tmp_path / "out"
    places = PLACES.get(name, ["."])
    options = ["--domains", "siteA,siteB"] if name == "a folder per domain" else []
    doors = [[*prepare, *(tmp_path / "data" / place for place in places), *options, "--out", out]] if prepare else []
    if recognised:
        doors += [["run", tmp_path / "data", "--run-dir", out], ["demo", "--data", tmp_path / "data", "--run-dir", out]]
    for door in doors:
        assert run(lambda door=door: app([str(word) for word in door], standalone_mode=False)) == 2, door
        told = " ".join(capsys.readouterr().err.split())
        missing = [place for place, what in planted.items() if place not in told or what not in told]
        assert missing == [], f"{door[0]}: {told}"
        assert not out.exists()
