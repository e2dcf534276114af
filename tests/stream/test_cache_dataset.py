"""The cache of an existing pipeline whose labels can be corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import (
    CastToTyped,
    ClassesToIndicesd,
    Compose,
    EnsureChannelFirstd,
    Lambdad,
    LoadImaged,
    RandCropByLabelClassesd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandRotate90d,
    RandSpatialCropd,
    RandZoomd,
    Spacingd,
)
from torch import Tensor

from aide_monai.algorithm import mean_dice
from aide_monai.errors import InputError
from aide_monai.stream import AIDECacheDataset

KEYS = ["image", "label"]


def record(*, quality: str | None = None, shape: tuple[int, ...] = (4, 6, 5), **more: Any) -> dict[str, Any]:
    """The image numbers the voxels; the label is where the number is odd."""
    number = torch.arange(float(np.prod(shape))).view(1, *shape)
    given = {} if quality is None else {"quality": quality}
    return {"image": number, "label": number % 2, **given, **more}


def write(folder: Path, names: list[str]) -> list[dict[str, str]]:
    """Records of NIfTI files with 2 mm voxels; every name is a path below the folder."""
    records = []
    for name in names:
        record = {key: str(folder / key / name) for key in KEYS}
        for key, path in record.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            voxels = np.zeros((8, 6, 4), dtype=np.int16)
            voxels[2:6, 2:4, 1:3] = 1 if key == "label" else 100
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 2.0, 1.0])), path)
        records.append(record)
    return records


def test_without_a_correction_items_are_those_of_the_cache_dataset() -> None:
    data = [record(), record(shape=(5, 5, 5))]
    steps = [RandSpatialCropd(KEYS, (3, 3, 2), random_size=False), RandFlipd(KEYS, 0.5), RandRotate90d(KEYS, 0.5)]
    plain, aide = (
        CacheDataset(data, Compose(steps), progress=False),
        AIDECacheDataset(data, Compose(steps), progress=False),
    )
    for _ in range(5):
        for number in range(2):
            plain.transform.set_random_state(number)
            expected = plain[number]
            aide.transform.set_random_state(number)
            item = aide[number]
            for key in KEYS:
                assert torch.equal(item[key], expected[key])
                assert item[key].dtype == expected[key].dtype
            assert torch.equal(item["label_1"], expected["label"])
            assert torch.equal(item["label_2"], expected["label"])
            assert item["high_quality"] is False


def test_both_labels_move_with_the_image() -> None:
    data = AIDECacheDataset(
        [record(case="a")],
        [RandSpatialCropd(KEYS, (3, 3, 2), random_size=False), RandFlipd(KEYS, 0.5), RandRotate90d(KEYS, 0.5)],
        progress=False,
    )
    number = torch.arange(120).view(4, 6, 5)
    data.store.replace(1, "a", (number % 3 == 0).to(torch.uint8), epoch=1, dice_before=0.5)
    data.store.replace(2, "a", (number % 5).to(torch.uint8), epoch=1, dice_before=0.5)
    for _ in range(10):
        item = data[0]
        image = item["image"].as_tensor()
        assert torch.equal(item["label_1"], (image % 3 == 0).float())
        assert torch.equal(item["label_2"], image % 5)
        assert torch.equal(item["label"].as_tensor(), item["label_1"])


def test_an_item_does_not_touch_the_cache() -> None:
    change = Lambdad(KEYS, lambda tensor: tensor.add_(1))  # in place, and not a Transform that MONAI may cache
    data = AIDECacheDataset([record(case="a")], [RandFlipd(KEYS, prob=0.0), change], progress=False)
    for _ in range(2):
        assert torch.equal(data[0]["image"], record()["image"] + 1)
    assert torch.equal(data.store.label(1, "a"), record()["label"][0].to(torch.uint8))


def test_crops_by_foreground_find_that_of_both_labels() -> None:
    empty = torch.zeros(1, 6, 6, 6)
    data = AIDECacheDataset(
        [{"image": empty, "label": empty, "case": "a"}],
        [RandCropByPosNegLabeld(KEYS, "label", (1, 1, 1), pos=1, neg=0, num_samples=8)],
        progress=False,
        patch_size=(6, 6, 6),
    )
    for network, corner in ((1, 0), (2, 5)):
        label = torch.zeros(6, 6, 6, dtype=torch.uint8)
        label[corner, corner, corner] = 1
        data.store.replace(network, "a", label, epoch=1, dice_before=0.0)
    crops = [item for _ in range(8) for item in data[0]]
    labelled = {(bool(item["label_1"].any()), bool(item["label_2"].any())) for item in crops}
    assert labelled == {(True, False), (False, True)}


def test_the_dtype_of_a_label_is_what_the_transforms_make_of_it() -> None:
    steps = [RandZoomd(KEYS, prob=1.0, min_zoom=1.2, max_zoom=1.2, mode="nearest"), CastToTyped("label", torch.int64)]
    item = AIDECacheDataset([record()], steps, progress=False)[0]
    assert item["label"].dtype == item["label_1"].dtype == item["label_2"].dtype == torch.int64


def test_batches_of_a_loader_with_workers_see_corrections() -> None:
    data = AIDECacheDataset([record(case="a"), record(case="b")], [RandFlipd(KEYS, prob=0.0)], progress=False)
    loader = DataLoader(data, batch_size=2, num_workers=1, persistent_workers=True)
    assert torch.equal(next(iter(loader))["label_2"], torch.stack([record()["label"]] * 2))
    data.store.replace(2, "b", torch.ones(4, 6, 5, dtype=torch.uint8), epoch=1, dice_before=0.0)
    batch = next(iter(loader))
    assert batch["label_2"].flatten(1).sum(dim=1).tolist() == [60, 120]
    assert batch["label_1"].flatten(1).sum(dim=1).tolist() == [60, 60]
    assert batch["high_quality"].tolist() == [False, False]


def test_who_may_be_corrected() -> None:
    data = [record(), record(quality="high"), record(quality="low")]
    assert AIDECacheDataset(data, progress=False).high_quality == [False, True, False]
    assert AIDECacheDataset(data, progress=False, quality="high").high_quality == [True, True, False]
    assert AIDECacheDataset(data, progress=False).store.high_quality == {"1"}


def test_cases_are_named_after_their_files_where_these_have_different_names(tmp_path: Path) -> None:
    load = [LoadImaged(KEYS), EnsureChannelFirstd(KEYS)]
    different = write(tmp_path, ["spleen_1.nii.gz", "spleen_2.nii"])
    assert AIDECacheDataset(different, load, progress=False).cases == ["spleen_1", "spleen_2"]
    alike = write(tmp_path, ["p1/ct.nii.gz", "p2/ct.nii.gz"])
    assert AIDECacheDataset(alike, load, progress=False).cases == ["0", "1"]
    assert AIDECacheDataset([{**one, "case": f"p{n}"} for n, one in enumerate(alike)], load, progress=False).cases == [
        "p0",
        "p1",
    ]


def test_labels_of_resampled_volumes_are_kept_with_their_grid_and_resumed(tmp_path: Path) -> None:
    steps = [LoadImaged(KEYS), EnsureChannelFirstd(KEYS), Spacingd(KEYS, (1.0, 2.0, 2.0), mode=("bilinear", "nearest"))]
    files = write(tmp_path, ["a.nii.gz"])
    data = AIDECacheDataset(files, steps, folder=tmp_path / "labels", progress=False)
    assert data.store.label(1, "a").dtype == torch.uint8
    assert data.store.label(1, "a").shape == (15, 6, 4)
    data.store.replace(1, "a", torch.zeros(15, 6, 4, dtype=torch.uint8), epoch=1, dice_before=0.0)
    data.store.commit(1)
    with pytest.raises(InputError, match="already holds the labels of a run"):
        AIDECacheDataset(files, steps, folder=tmp_path / "labels", progress=False)
    resumed = AIDECacheDataset(files, steps, folder=tmp_path / "labels", resume=True, progress=False)
    assert not resumed[0]["label_1"].any()
    assert resumed[0]["label_2"].any()


def test_a_volume_is_predicted_in_windows_of_the_size_that_is_trained_on() -> None:
    steps = [RandSpatialCropd(KEYS, (2, 3, 5), random_size=False)]
    data = AIDECacheDataset([record(), record(shape=(2, 7, 9))], steps, progress=False)
    assert data.patch_size == (2, 3, 5)
    seen = []

    def network(image: Tensor) -> Tensor:
        seen.append(tuple(image.shape))
        return torch.cat([1 - image % 2, image % 2], dim=1)

    for number in range(2):
        prediction, classes = data.predict(number, network, 3)
        assert classes == 2
        assert prediction.dtype == torch.uint8
        assert torch.equal(prediction, data.store.label(1, str(number)))
        assert mean_dice(data.confusion(number, prediction, data.store.label(1, str(number)), 2)).tolist() == [1.0]
    assert {shape[1:] for shape in seen} == {(1, 2, 3, 5)}
    assert max(shape[0] for shape in seen) == 3


def test_images_of_two_dimensions() -> None:
    data = AIDECacheDataset([record(shape=(6, 4))], [RandFlipd(KEYS, prob=1.0)], progress=False)
    assert data[0]["label_2"].shape == (1, 6, 4)
    prediction, _ = data.predict(0, lambda image: torch.cat([0 * image, image - 0.5], dim=1), 1)
    assert prediction.flatten().tolist() == [0] + [1] * 23


@pytest.mark.parametrize(
    ("data", "transform", "message"),
    [
        ([], None, "no records"),
        ([{"image": torch.zeros(1, 2, 2)}], None, "'label' is missing"),
        ([record(quality="good")], None, "quality 'good'"),
        ([{"image": torch.zeros(1, 2, 2), "label": torch.zeros(2, 2, 2)}], None, "channel"),
        ([{"image": torch.zeros(1, 2, 2), "label": torch.full((1, 2, 2), 0.5)}], None, "integer"),
        ([record(case="a"), record(case="a")], None, "two volumes have the case name 'a'"),
        (
            [record()],
            [RandCropByLabelClassesd(KEYS, "label", (2, 2, 2), ratios=[1, 1], num_classes=2)],
            "expected ClassesToIndicesd",
        ),
        ([record()], [RandFlipd(KEYS), Lambdad("label", lambda label: label[:1])], "made 1 channels of the 3"),
    ],
)
def test_what_is_refused(data: list[dict[str, Any]], transform: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AIDECacheDataset(data, transform, progress=False)


def test_crops_by_class_take_indices_from_the_deterministic_part() -> None:
    crop = RandCropByLabelClassesd(
        KEYS, "label", (1, 1, 1), ratios=[0, 1], num_classes=2, num_samples=4, indices_key="label_cls_indices"
    )
    data = AIDECacheDataset([record()], [ClassesToIndicesd("label", num_classes=2), crop], progress=False)
    assert all(item["label_1"].all() for item in data[0])


def test_an_overlap_of_a_whole_window_is_refused() -> None:
    with pytest.raises(InputError, match="overlap is 1"):
        AIDECacheDataset([record()], overlap=1.0)
