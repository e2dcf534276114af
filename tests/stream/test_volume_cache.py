"""Cached volumes: the same as uncached ones, in less memory or in files; slices as the network sees them."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureTyped, LoadImaged
from torch import Tensor
from torch.utils.data import DataLoader

from aide_monai.errors import InputError
from aide_monai.labels import LabelStore
from aide_monai.stream import SliceDataset
from aide_monai.stream.preprocessing import load_volumes, volume_transforms
from aide_monai.stream.slices import StoredSlices
from aide_monai.stream.volume_cache import VolumeCache
from aide_monai.utils.locks import LOCK
from aide_monai.utils.mapped_tensor import MappedTensor, ScratchFolder
from aide_monai.utils.tensors import plain
from aide_monai.workflows.labels import export

CACHES = ("ram", "disk")
OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "padded": {"slice_size": (40, 37)},
    "padded along axis 0": {"slice_size": (40, 37), "axis": 0},
    "cut and padded": {"slice_size": (20, 40), "fit": "crop"},
    "resized": {"slice_size": (32, 24), "fit": "resize"},
    "resampled": {"spacing": (2.0, 1.5)},
    "volume": {"intensity": "volume", "slice_size": (40, 40)},
    "window": {"intensity": "window", "window": (-100, 300), "slice_size": (40, 40)},
    "percentiles": {"intensity": "slice_percentile", "percentiles": (5, 95)},
    "turned": {"orientation": "LAS", "slice_size": (40, 40)},
}


def record(
    folder: Path, case: str = "a", *, dtype: Any = np.int16, size: tuple[int, ...] = (30, 33, 6)
) -> dict[str, Any]:
    generator = np.random.default_rng(len(case) + ord(case[0]))
    image = generator.integers(-500, 900, size) if np.dtype(dtype).kind == "i" else generator.integers(0, 60000, size)
    label = np.zeros(size, dtype=np.uint8)
    label[8:20, 9:25, 1:4] = 1
    label[12:16, 12:20, 2:5] = 2
    paths = {"image": folder / f"{case}.nii", "label": folder / f"{case}_label.nii"}
    for (key, path), values in zip(paths.items(), (image.astype(dtype), label), strict=True):
        nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 6, 1.0])), path)
        assert key
    return {"case": case, **{key: str(path) for key, path in paths.items()}, "quality": "low"}


def one_memory(volume: Tensor) -> bool:
    """Whether each slice along the last axis is one dense piece of memory."""
    return volume[..., 0].is_contiguous()


# Items


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, np.int16) for name in OPTIONS), ("turned", np.uint16), ("padded", np.float32)]
)
def test_items_are_what_the_transform_gives(tmp_path: Path, cache: str, name: str, dtype: type) -> None:
    transform = volume_transforms(**{"axis": 2, **OPTIONS[name]})
    entry = record(tmp_path, dtype=dtype)
    expected = transform(entry)
    volumes = load_volumes([entry], transform, cache=cache, folder=tmp_path)
    for _ in range(2):
        found = volumes[0]
        assert found.keys() == expected.keys()
        assert (found["case"], found["quality"]) == ("a", "low")
        for key in ("image", "label"):
            assert isinstance(found[key], MetaTensor)
            assert found[key].dtype == expected[key].dtype
            assert torch.equal(plain(found[key]), plain(expected[key]))
            assert torch.equal(found[key].affine, expected[key].affine)
            assert found[key].meta.keys() == expected[key].meta.keys()
        classes = [[step["class"] for step in item["image"].applied_operations] for item in (found, expected)]
        assert classes[0] == classes[1]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_slices_are_those_of_the_items(tmp_path: Path, cache: str, options: dict[str, Any]) -> None:
    options = {"axis": 2, **options}
    volumes = load_volumes([record(tmp_path)], volume_transforms(**options), cache=cache)
    dataset = SliceDataset(volumes)
    volume, axis = volumes[0], options["axis"]
    assert dataset.axes == [axis]
    assert len(dataset) == volume["image"].shape[axis + 1]
    assert torch.equal(dataset.slices(0), plain(volume["image"]).movedim(axis + 1, 0))
    for position in range(len(dataset)):
        item = dataset[position]
        assert torch.equal(item["image"], plain(volume["image"]).select(axis + 1, position))
        assert torch.equal(item["label"], plain(volume["label"]).select(axis + 1, position))
        assert item["image"].dtype == torch.float32
        assert item["image"].is_contiguous()


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16])
def test_integers_are_kept_as_they_come(tmp_path: Path, cache: str, dtype: type) -> None:
    size = (30, 33, 6)
    values = (11 * np.arange(np.prod(size))).reshape(size).astype(dtype)  # up to 65329
    entry = record(tmp_path)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 6, 1.0])), entry["image"])
    volumes = load_volumes([entry], volume_transforms(axis=2, slice_size=(64, 64)), cache=cache)
    stored = volumes.stored(0)["image"]
    assert isinstance(stored, StoredSlices)
    voxels = stored.voxels.tensor() if isinstance(stored.voxels, MappedTensor) else stored.voxels
    assert np.array_equal(voxels[:, 0].numpy(), values.transpose(2, 0, 1))
    assert voxels.numpy().dtype == dtype
    assert stored.shape == (1, 64, 64, 6)  # the padding takes no memory


def test_floats_and_resampled_volumes_are_stored_ready_so_that_slices_are_views(tmp_path: Path) -> None:
    resized = volume_transforms(axis=2, slice_size=(32, 32), fit="resize")
    for dtype, transform in ((np.float32, volume_transforms(axis=2, slice_size=(40, 40))), (np.int16, resized)):
        dataset = SliceDataset(load_volumes([record(tmp_path, dtype=dtype)], transform))
        first, again = dataset[3]["image"], dataset[3]["image"]
        assert first.untyped_storage().data_ptr() == again.untyped_storage().data_ptr()


@pytest.mark.parametrize("cache", CACHES)
def test_labels_and_images_are_laid_out_slice_by_slice(tmp_path: Path, cache: str) -> None:
    volumes = load_volumes([record(tmp_path)], volume_transforms(axis=2, slice_size=(40, 40)), cache=cache)
    store = LabelStore.from_volumes(volumes)
    dataset = SliceDataset(volumes, store=store)
    assert one_memory(volumes[0]["image"])
    assert one_memory(volumes[0]["label"])
    assert dataset[2]["label_1"].is_contiguous()
    assert dataset[2]["label_2"].untyped_storage().data_ptr() == store.label(2, "a").untyped_storage().data_ptr()


@pytest.mark.parametrize("cache", CACHES)
def test_any_other_transform_is_cached_too(tmp_path: Path, cache: str) -> None:
    transform = Compose(
        [LoadImaged(("image", "label"), ensure_channel_first=True), EnsureTyped("label", dtype=torch.uint8)]
    )
    entry = record(tmp_path)
    volumes = VolumeCache([entry], transform, cache=cache)
    expected = transform(entry)
    assert torch.equal(plain(volumes[0]["image"]), plain(expected["image"]))
    dataset = SliceDataset(volumes, axis=0)
    assert torch.equal(dataset[4]["image"], plain(expected["image"])[:, 4])
    assert torch.equal(dataset[4]["label"], plain(expected["label"])[:, 4])


def test_it_is_a_sequence(tmp_path: Path) -> None:
    volumes = load_volumes([record(tmp_path, name) for name in "abc"], volume_transforms(axis=2))
    assert len(volumes) == 3
    assert [volume["case"] for volume in volumes] == ["a", "b", "c"]
    assert [volume["case"] for volume in volumes[1:]] == ["b", "c"]
    assert volumes[-1]["case"] == "c"
    with pytest.raises(IndexError):
        volumes[3]
    assert len(load_volumes([], volume_transforms())) == 0


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cache is 'tape'; expected one of ram, disk"):
        load_volumes([], volume_transforms(), cache="tape")
    volumes = load_volumes([record(tmp_path)], volume_transforms(axis=2))
    with pytest.raises(InputError, match=r"case 'a' was cut along axis 2 by its preprocessing, .* has axis=1"):
        SliceDataset(volumes, axis=1)


# Files


def test_the_folder_of_a_disk_cache_goes_with_it(tmp_path: Path) -> None:
    volumes = load_volumes([record(tmp_path)], volume_transforms(axis=2), cache="disk", folder=tmp_path / "scratch")
    (folder,) = (tmp_path / "scratch").iterdir()
    assert {path.name for path in folder.iterdir()} == {"00000_image", "00000_label", LOCK}
    image = volumes.stored(0)["image"][1]
    del volumes
    assert not folder.exists()
    assert float(image.std(correction=0)) == pytest.approx(1, abs=1e-4)  # what is in use stays readable


def test_a_worker_that_ends_leaves_the_folder_alone(tmp_path: Path) -> None:
    folder = ScratchFolder(tmp_path)
    worker = multiprocessing.get_context("fork").Process(target=folder.__init__, args=(tmp_path,))
    worker.start()
    worker.join()
    assert folder.path.is_dir()


def test_what_a_killed_process_has_left_goes_when_the_next_folder_is_made(tmp_path: Path) -> None:
    """But not the folder of one that is alive, nor one that is not ours."""
    holder = """
import sys
from aide_monai.utils.mapped_tensor import ScratchFolder
folder = ScratchFolder(sys.argv[1])
print(folder.path, flush=True)
sys.stdin.read()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    call = [sys.executable, "-c", holder, str(tmp_path)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    killed, alive = (subprocess.Popen(call, **pipes) for _ in range(2))
    left, used = (Path(process.stdout.readline().strip()) for process in (killed, alive))
    (left / "00000_image").write_bytes(b"scratch")
    killed.kill()
    killed.wait()
    (tmp_path / "aide-notes").mkdir()
    mine = ScratchFolder(tmp_path)
    assert set(tmp_path.iterdir()) == {used, mine.path, tmp_path / "aide-notes"}
    alive.communicate()
    assert set(tmp_path.iterdir()) == {mine.path, tmp_path / "aide-notes"}


def test_a_lost_file_is_named(tmp_path: Path) -> None:
    volumes = load_volumes([record(tmp_path)], volume_transforms(axis=2), cache="disk", folder=tmp_path / "scratch")
    for path in tmp_path.glob("scratch/*/*_image"):
        path.unlink()
    with pytest.raises(InputError, match=r"0000\d_\w+: cannot be opened \(No such file.*\); expected a file of this"):
        SliceDataset(volumes)[0]


def test_a_file_instead_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot be written"):
        load_volumes([], volume_transforms(), cache="disk", folder=tmp_path / "file")


def test_a_full_disk_ends_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written while the next volumes are read, but never far behind them."""
    records = [record(tmp_path, name) for name in "abcdef"]
    opened: list[str] = []

    def full(self: Path, mode: str) -> Any:
        opened.append(self.name)
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    with monkeypatch.context() as patched:
        patched.setattr("aide_monai.utils.mapped_tensor.Path.open", full)
        with pytest.raises(InputError, match=r"0000\d_\w+: cannot be written \(No space left on device\)"):
            load_volumes(records, volume_transforms(axis=2), cache="disk", folder=tmp_path / "scratch")
    assert opened == ["00000_image", "00000_label", "00001_image", "00001_label"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_mapped_tensor_keeps_values_and_layout_and_takes_changes(tmp_path: Path, order: tuple[int, ...]) -> None:
    values = torch.arange(24, dtype=torch.int16).view(2, 3, 4).permute(order)
    mapped = MappedTensor(tmp_path / "values", values)
    assert (mapped.shape, mapped.dtype, mapped.ndim) == (tuple(values.shape), torch.int16, 3)
    assert torch.equal(mapped.tensor(), values)
    assert mapped.tensor().stride() == values.stride()
    again = pickle.loads(pickle.dumps(mapped))
    mapped.tensor()[0, 0, 0] = -7
    assert int(again.tensor()[0, 0, 0]) == -7


def mapped_files() -> int:
    return sum("aide-" in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="no /proc here to count the mapped files in")
def test_no_file_stays_mapped_after_its_slice(tmp_path: Path) -> None:
    records = [record(tmp_path, name) for name in "abcdef"]
    volumes = load_volumes(records, volume_transforms(axis=2), cache="disk", folder=tmp_path)
    store = LabelStore.from_volumes(volumes, folder=tmp_path / "labels", scratch=tmp_path)
    dataset = SliceDataset(volumes, store=store)
    for index in range(len(dataset)):
        item = dataset[index]
        assert mapped_files() == 2  # the labels; the image is a float32 copy of its slice
        del item
    for number in range(len(records)):
        dataset.slices(number)
    store.replace(1, "c", torch.ones(30, 33, 6, dtype=torch.uint8), epoch=1, dice_before=0.0)
    store.commit(1)
    store.discard_after(0)
    assert mapped_files() == 0


# Labels in files


def test_a_label_store_in_files_does_the_same(tmp_path: Path) -> None:
    volumes = load_volumes([record(tmp_path, name) for name in "ab"], volume_transforms(axis=2, slice_size=(40, 40)))
    stores = {}
    for name, scratch in (("ram", None), ("disk", tmp_path / "scratch")):
        store = LabelStore.from_volumes(volumes, folder=tmp_path / name, scratch=scratch)
        store.replace(2, "b", torch.full((40, 40, 6), 2), epoch=1, dice_before=0.5)
        store.replace(1, "a", torch.ones(40, 40, dtype=torch.uint8), epoch=1, dice_before=0.25, index=(2, 3))
        assert store.commit(1) == 1
        stores[name] = store
    first, second = stores.values()
    assert first.records == second.records
    for network in (1, 2):
        for case in "ab":
            assert torch.equal(first.label(network, case), second.label(network, case))
            assert torch.equal(first.initial(case), second.initial(case))
    assert second.rollback(0) == 2
    assert torch.equal(second.label(2, "b"), second.initial("b"))
    resumed = LabelStore.from_volumes(volumes, folder=tmp_path / "ram", resume=True, scratch=tmp_path / "scratch")
    assert torch.equal(resumed.label(2, "b"), first.label(2, "b"))


def test_a_store_in_files_exports_labels_from_files_to_their_grid(tmp_path: Path) -> None:
    entry = record(tmp_path)
    transform = volume_transforms(axis=2, slice_size=(40, 40))
    volumes = load_volumes([entry], transform, cache="disk", folder=tmp_path / "scratch")
    LabelStore.from_volumes(volumes, folder=tmp_path / "run" / "labels", scratch=tmp_path / "scratch")
    result = export(tmp_path / "run", 0, folder=tmp_path / "out")
    assert (result.resampled, result.cropped) == ((), ())
    written, given = nibabel.load(tmp_path / "out" / "network_1" / "a.nii.gz"), nibabel.load(entry["label"])
    assert np.array_equal(np.asarray(written.dataobj), np.asarray(given.dataobj))
    assert np.array_equal(written.affine, given.affine)


def test_worker_processes_see_slices_and_corrections(tmp_path: Path) -> None:
    volumes = load_volumes([record(tmp_path)], volume_transforms(axis=2), cache="disk", folder=tmp_path)
    store = LabelStore.from_volumes(volumes, scratch=tmp_path)
    dataset = SliceDataset(volumes, store=store)
    loader = DataLoader(dataset, batch_size=6, num_workers=1, persistent_workers=True, multiprocessing_context="fork")
    spawned = pickle.loads(pickle.dumps(dataset))  # what a worker gets that is not forked
    (before,) = list(loader)
    assert torch.equal(before["image"], dataset.slices(0))
    assert torch.equal(spawned.slices(0), dataset.slices(0))
    store.replace(2, "a", torch.full((30, 33, 6), 2), epoch=1, dice_before=0.0)
    (after,) = list(loader)
    for labels in (after["label_2"], spawned[3]["label_2"]):
        assert bool((labels == 2).all())
    assert torch.equal(after["label_1"], before["label_1"])
    del spawned
    assert torch.equal(dataset[0]["image"], before["image"][0])  # a copy does not remove the files
