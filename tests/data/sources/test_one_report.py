"""A damaged download of every kind is told in one report: what is wrong with its folders and with its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from aide_monai.cli.main import app, run
from aide_monai.data.sources import write_phantoms

from .breast_files import write_centres
from .promise12_files import write_case

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


LAYOUTS: dict[str, tuple[Callable[[Path], Planted], list[str], bool]] = {
    "a plain folder": (plain_folder, ["prepare", "folder"], True),
    "Decathlon": (decathlon, ["prepare", "decathlon"], True),
    "a datalist": (datalist, [], True),
    "PROMISE12": (promise12, ["prepare", "promise12"], False),
    "breast DCE-MR": (breast, ["prepare", "breast"], False),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_call_tells_all(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, prepare, recognised = LAYOUTS[name]
    planted = make(tmp_path / "data")
    out = tmp_path / "out"
    doors = [[*prepare, tmp_path / "data", "--out", out]] if prepare else []
    if recognised:
        doors += [["run", tmp_path / "data", "--run-dir", out], ["demo", "--data", tmp_path / "data", "--run-dir", out]]
    for door in doors:
        assert run(lambda door=door: app([str(word) for word in door], standalone_mode=False)) == 2, door
        told = " ".join(capsys.readouterr().err.split())
        missing = [place for place, what in planted.items() if place not in told or what not in told]
        assert missing == [], f"{door[0]}: {told}"
        assert not out.exists()
