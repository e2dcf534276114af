"""From files to the network's grid and back: real labels, real scanners, every way out of the program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import AsDiscrete, Compose
from torch import Tensor, nn

from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError
from aide_monai.labels import LabelStore
from aide_monai.labels.file_grid import LabelGrid
from aide_monai.stream.preprocessing import load_volumes, volume_transforms
from aide_monai.utils.tensors import plain
from aide_monai.workflows.evaluate import evaluate, on_file_grid, predict, to_file_grid
from aide_monai.workflows.labels import export
from aide_monai.workflows.pseudo_labels import write_pseudo_labels

CLASSES = {63: 1, 126: 2, 189: 3, 252: 4}
LABELS = {0: "background", 1: "organ"}
WAYS: dict[str, dict[str, Any]] = {
    "pad": {"slice_size": (64, 64)},
    "crop": {"slice_size": (48, 64), "fit": "crop"},
    "resize up": {"slice_size": (96, 80), "fit": "resize"},
    "resize down": {"slice_size": (40, 32), "fit": "resize"},
    "one grid": {"slice_size": (64, 64), "fit": "crop", "spacing": (1.5, 1.5), "orientation": "LPS"},
}


class Above(nn.Module):
    """Foreground where the normalised image is above zero, so that the right answer is known."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(image), 10 * image], dim=1)


@pytest.fixture
def entry(tmp_path: Path) -> dict[str, Any]:
    """A bright ellipsoid, oblique, in a left-handed grid of 50 x 44 x 6 voxels, with its label in stored values."""
    x, y, z = np.meshgrid(np.arange(50), np.arange(44), np.arange(6), indexing="ij")
    inside = ((x - 24) / 14) ** 2 + ((y - 20) / 12) ** 2 + ((z - 2.5) / 4) ** 2 < 1
    affine = np.array([[-1.2, 0.1, 0, 40], [0.1, 1.2, 0.3, -30], [0, 0.02, 6.0, 12], [0, 0, 0, 1]])
    for name, values in (("image", 100 + 500 * inside), ("label", 63 * inside)):
        nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), affine), tmp_path / f"{name}.nii.gz")
    paths = {name: str(tmp_path / f"{name}.nii.gz") for name in ("image", "label")}
    return {"case": "a", **paths, "quality": "low"}


def dice(first: Any, second: Any) -> float:
    a, b = np.asarray(first) > 0, np.asarray(second) > 0
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_out_ends_on_the_grid_of_the_file(entry: dict[str, Any], way: dict[str, Any], tmp_path: Path) -> None:
    options = {"axis": 2, "classes": {63: 1}, **way}
    given = nibabel.load(entry["label"])
    values = np.asarray(given.dataobj)
    size = {"axis": 2, "slice_size": way["slice_size"]}

    # a prediction, its score, and the image itself
    transform = volume_transforms(fit_labels=False, **options)
    volumes = load_volumes([entry], transform)
    image, label = volumes[0]["image"], volumes[0]["label"]
    assert tuple(image.shape[1:3]) == tuple(way["slice_size"])
    assert tuple(label.shape[1:]) == values.shape
    prediction = predict(Above(), image, transform=transform, **size)
    assert prediction.shape == values.shape
    assert dice(prediction, values) > 0.95  # the contour of a blurred image lies elsewhere
    rows = evaluate(Above(), volumes, labels=LABELS, method="m", **size)
    assert rows[0]["dsc"] == pytest.approx(dice(prediction, values), abs=1e-6)
    shown = on_file_grid(image, transform)
    assert shown.shape[1:] == values.shape
    assert np.allclose(shown.affine, given.affine, atol=1e-4)

    # a pseudo-label
    datalist = Datalist("d", LABELS, {0: "MR"}, [{"case": "a", "image": entry["image"], "split": "training"}])
    written = write_pseudo_labels(Above(), datalist, tmp_path / "standardized", **options).records[0]["label"]
    pseudo = nibabel.load(written)
    assert np.array_equal(np.asarray(pseudo.dataobj), 63 * prediction.numpy())
    assert np.allclose(pseudo.affine, given.affine)

    # an export of the labels of a training
    training = load_volumes([entry], volume_transforms(**options))
    assert training[0]["label"].shape == training[0]["image"].shape
    LabelStore.from_volumes(training, folder=tmp_path / "run" / "labels")
    export(tmp_path / "run", 0, folder=tmp_path / "out")
    exported = nibabel.load(tmp_path / "out" / "network_1" / "a.nii.gz")
    assert np.allclose(exported.affine, given.affine)
    assert dice(exported.dataobj, values) > 0.95
    assert np.unique(exported.dataobj).tolist() == [0, 63]
    if way.get("fit", "pad") != "resize" and "spacing" not in way:
        assert np.array_equal(np.asarray(exported.dataobj), values)


def test_what_was_cut_off_is_background(entry: dict[str, Any]) -> None:
    transform = volume_transforms(keys=["image"], axis=2, slice_size=(16, 16), fit="crop")
    image = load_volumes([entry], transform)[0]["image"]
    everywhere = predict(Above(), torch.ones_like(image), axis=2, slice_size=(16, 16), transform=transform)
    assert everywhere.shape == (50, 44, 6)
    assert int(everywhere.sum()) == 16 * 16 * 6
    assert int(everywhere[17:33, 14:30].sum()) == 16 * 16 * 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fit": "stretch"}, "fit is 'stretch'; expected one of pad, crop, resize"),
        ({"slice_size": (8, 8)}, 'slice_size needs a fixed axis, found axis="auto"'),
        ({"spacing": (1, 1)}, 'spacing needs a fixed axis, found axis="auto"'),
        ({"spacing": (1, 0), "axis": 2}, r"spacing is \[1, 0\]; expected two positive numbers"),
        ({"slice_size": (8, 8, 8), "axis": 2}, r"slice_size is \[8, 8, 8\]; expected two positive numbers"),
        ({"spacing": float("nan"), "axis": 2}, "spacing is nan; expected two positive numbers"),
        ({"spacing": 1.5, "axis": 2}, "spacing is 1.5; expected two positive numbers"),
        ({"spacing": (1, float("nan")), "axis": 2}, r"spacing is \[1, nan\]; expected two positive numbers"),
        ({"spacing": ("1", "1"), "axis": 2}, r"spacing is \['1', '1'\]; expected two positive numbers"),
        ({"orientation": 7}, 'orientation is 7; expected a letter for each of three axes, such as "RAS"'),
        ({"orientation": "RAL"}, "orientation is 'RAL'; expected a letter for each of three axes"),
        ({"classes": {"1": True}}, r"classes has {'1': True}; expected whole numbers"),
        ({"classes": {"1.5": 1}}, r"classes has {'1.5': 1}; expected whole numbers"),
        ({"axis": 3}, 'axis is 3; expected 0, 1, 2 or "auto"'),
        ({"intensity": "minmax"}, "intensity is 'minmax'"),
    ],
)
def test_impossible_options(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        volume_transforms(**arguments)


# Real scans


@pytest.mark.parametrize("case", ["10", "37"])
def test_chaos_labels_survive_a_resize_and_back(aide_data: Path, case: str) -> None:
    folder = aide_data / "chaos" / "Train_Sets" / "MR" / case / "T1DUAL"
    record = {"image": str(folder / "DICOM_anon" / "InPhase"), "label": str(folder / "Ground")}
    original = plain(volume_transforms(classes=CLASSES, axis=2)(record)["label"])[0].numpy()
    for size, least in (((320, 320), 0.996), ((224, 224), 0.989)):
        transform = volume_transforms(classes=CLASSES, axis=2, slice_size=size, fit="resize")
        volume = transform(record)
        label = plain(volume["label"])[0]
        # as corrected labels are exported
        grid = LabelGrid.of(volume["label"])
        assert grid is not None
        exported = grid.to_original(np.ascontiguousarray(label.numpy()))
        # as predictions come back
        shares = AsDiscrete(to_onehot=5)(label[None])
        item = {"image": volume["image"], "pred": MetaTensor(plain(shares))}
        predicted = plain(Compose(to_file_grid("pred", transform))(item)["pred"]).argmax(dim=0).numpy()
        for back in (exported, predicted):
            assert back.shape == original.shape
            found = [
                2 * ((back == c) & (original == c)).sum() / ((back == c).sum() + (original == c).sum())
                for c in CLASSES.values()
            ]
            assert np.mean(found) >= least
            assert dice(back, original) >= least


def test_two_scanners_come_to_one_grid(aide_data: Path) -> None:
    source = sorted((aide_data / "acdc").rglob("*.nii.gz"))
    target = sorted((aide_data / "mscmr_lge" / "images").glob("*.nii.gz"))
    transform = volume_transforms(
        keys=["image"], axis=2, orientation="RAS", spacing=(1.5, 1.5), slice_size=(160, 160), fit="crop"
    )
    images = [transform({"image": str(file)})["image"] for file in (source[0], target[0], target[-1])]
    for image in images:
        assert tuple(image.shape[1:3]) == (160, 160)
        assert np.allclose(torch.linalg.norm(image.affine[:3, :2], dim=0), 1.5, atol=1e-3)
        assert nibabel.aff2axcodes(image.affine.numpy())[2] == "S"
