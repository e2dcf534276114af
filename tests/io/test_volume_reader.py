"""Volumes and single channels of files through MONAI's LoadImaged."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.transforms import LoadImage, LoadImaged

from aide_monai.errors import InputError
from aide_monai.io.location import Location, open_location
from aide_monai.io.readers import VolumeReader

AFFINE = np.array([[0, -2.0, 0, 5], [3, 0, 0, -7], [0, 0, 4, 9], [0, 0, 0, 1]])


def nifti(file: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    nibabel.save(nibabel.Nifti1Image(voxels, affine), file)
    return str(file)


def load(path: str | list[str], **options: object) -> torch.Tensor:
    return LoadImage(reader=VolumeReader, ensure_channel_first=True, **options)(path)


def numbered(*shape: int, dtype: type = np.int16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def test_paths_that_name_a_channel() -> None:
    assert str(Location.parse("/a/b.nii.gz").channel(2)) == "/a/b.nii.gz#channel=2"
    assert Location.parse("/a/b.nii.gz#channel=2") == Location("/a/b.nii.gz", "channel=2")
    assert Location.parse("/a/b#1.nii.gz") == Location("/a/b#1.nii.gz")
    assert Location.parse("/a/b.nii#channel=-1") == Location("/a/b.nii#channel=-1")


def test_a_volume_as_monai_reads_it(tmp_path: Path) -> None:
    file = nifti(tmp_path / "a.nii.gz", numbered(2, 3, 4))
    ours, monais = load(file), LoadImage(ensure_channel_first=True)(file)
    assert torch.equal(ours, monais)
    assert torch.equal(ours.affine, monais.affine)
    assert ours.meta["filename_or_obj"] == file
    assert load(file, dtype=None).dtype == torch.int16


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int64, np.float32])
def test_metaimages_of_every_type(tmp_path: Path, dtype: type) -> None:
    """MONAI's ITKReader fails on int8, the type of PROMISE12's labels, and on int64."""
    image = sitk.GetImageFromArray(numbered(4, 3, 2, dtype=dtype))
    image.SetSpacing((2, 3, 4))
    image.SetOrigin((5, 6, 7))
    for name in ("a.mhd", "a.nrrd"):
        sitk.WriteImage(image, str(tmp_path / name))
        loaded = load(str(tmp_path / name), dtype=None)
        assert np.array_equal(loaded[0].numpy(), numbered(4, 3, 2).T)
        assert loaded.affine.tolist() == [[-2, 0, 0, -5], [0, -3, 0, -6], [0, 0, 4, 7], [0, 0, 0, 1]]


def test_a_flat_file_gets_a_slice_axis(tmp_path: Path) -> None:
    flat = nifti(tmp_path / "flat.nii", numbered(2, 3))
    assert load(flat).shape == (1, 2, 3, 1)
    assert load(nifti(tmp_path / "one.nii", numbered(2, 3, 1))).shape == (1, 2, 3, 1)


def test_channels_last_and_lists_of_files_become_channels(tmp_path: Path) -> None:
    voxels = numbered(2, 3, 4, 5)
    file = nifti(tmp_path / "a.nii", voxels)
    assert np.array_equal(load(file).numpy(), np.moveaxis(voxels, -1, 0))
    files = [nifti(tmp_path / f"{k}.nii", voxels[..., k]) for k in range(2)]
    assert np.array_equal(load(files).numpy(), np.moveaxis(voxels[..., :2], -1, 0))


def test_channels_are_picked_in_the_order_of_the_list(tmp_path: Path) -> None:
    voxels = numbered(2, 3, 4, 5)
    file = nifti(tmp_path / "a.nii", voxels)
    picked = load([str(Location.parse(file).channel(3)), str(Location.parse(file).channel(0))])
    assert np.array_equal(picked.numpy(), np.moveaxis(voxels[..., [3, 0]], -1, 0))
    assert load(str(Location.parse(file).channel(4))).shape == (1, 2, 3, 4)


def test_one_file_of_many_channels_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = nifti(tmp_path / "a.nii", numbered(2, 3, 4, 5))
    calls = []
    original = nibabel.Nifti1Image.dataobj.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(nibabel.Nifti1Image, "dataobj", property(lambda self: calls.append(1) or original(self)))
    VolumeReader().get_data([str(Location.parse(file).channel(k)) for k in range(5)])
    assert len(calls) == 1


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 1, 4)])
def test_channels_of_a_single_slice(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """QUBIQ's brain tumours: with or without the slice axis, four channels on the last one."""
    voxels = numbered(*shape)
    file = nifti(tmp_path / "a.nii", voxels)
    picked = load([str(Location.parse(file).channel(k)) for k in range(4)])
    assert picked.shape == (4, 2, 3, 1)
    assert np.array_equal(picked.numpy(), voxels.reshape(2, 3, 4).transpose(2, 0, 1)[..., None])
    volume = open_location(str(Location.parse(file).channel(1)))
    assert (volume.shape, volume.channels) == ((2, 3, 1), 1)
    assert np.array_equal(volume.decode()[..., 0, 0], voxels.reshape(2, 3, 4)[..., 1])


def test_a_further_axis_of_one(tmp_path: Path) -> None:
    file = nifti(tmp_path / "a.nii", numbered(2, 3, 4, 1))
    assert load(file).shape == (1, 2, 3, 4)
    assert np.array_equal(load(str(Location.parse(file).channel(0))).numpy(), load(file).numpy())


def test_big_endian_files_keep_their_type(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nibabel.save(nibabel.Nifti1Image(numbered(2, 3, 4), AFFINE, header), tmp_path / "a.nii")
    loaded = load(str(tmp_path / "a.nii"), dtype=None)
    assert loaded.dtype == torch.int16
    assert np.array_equal(loaded[0].numpy(), numbered(2, 3, 4))


@pytest.mark.parametrize("name", ["a.nii#channel=5", "none.nii", "b.nii#channel=4"])
def test_what_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    nifti(tmp_path / "a.nii", numbered(2, 3, 4, 5))
    nifti(tmp_path / "b.nii", numbered(2, 3, 4))
    found = {"a": "shape 2 x 3 x 4 x 5 without a channel 5", "n": "no such file", "b": "shape 2 x 3 x 4 without a"}
    with pytest.raises(InputError, match=f"{tmp_path}/{name}: found {found[name[0]]}.*; expected a volume"):
        load(str(tmp_path / name))


def test_a_damaged_file_is_named_through_loadimaged(tmp_path: Path) -> None:
    file = Path(nifti(tmp_path / "a.nii", numbered(20, 30, 40)))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match=rf"{file}: found voxels that cannot be read, truncated or damaged"):
        LoadImaged("image", reader=VolumeReader)({"image": str(file)})


def test_several_further_axes_and_several_grids_are_refused(tmp_path: Path) -> None:
    five = nifti(tmp_path / "five.nii", numbered(2, 3, 4, 5, 6))
    with pytest.raises(InputError, match="found shape 2 x 3 x 4 x 5 x 6 with several further axes"):
        load(five)
    one = nifti(tmp_path / "one.nii", numbered(2, 3, 4))
    large = nifti(tmp_path / "large.nii", numbered(2, 3, 5))
    with pytest.raises(InputError, match=rf"{large}: found shape 2 x 3 x 5; expected shape 2 x 3 x 4 as in {one}"):
        load([one, large])
    shifted = AFFINE.copy()
    shifted[0, 3] += 1
    moved = nifti(tmp_path / "moved.nii", numbered(2, 3, 4), shifted)
    with pytest.raises(InputError, match=r"found affine \[0 -2 0 6; .*; expected affine \[0 -2 0 5; .* as in"):
        load([one, moved])


def test_other_files_are_left_to_other_readers(tmp_path: Path) -> None:
    assert not VolumeReader().verify_suffix("a.png")
    assert VolumeReader().verify_suffix(["a.nii.gz#channel=1", "B.MHD"])
    with pytest.raises(InputError, match=r"a\.png: found another kind of file; expected files that end in \.nii\.gz"):
        VolumeReader().read("a.png")
    with pytest.raises(InputError, match="no files; expected at least one volume"):
        VolumeReader().get_data([])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_keeps_its_place_in_space(tmp_path: Path, axis: int) -> None:
    voxels = numbered(4, 5, 6)
    file = nifti(tmp_path / "a.nii", voxels)
    path = str(Location.parse(file).slice(axis, 3))
    assert path == f"{file}#{'xyz'[axis]}=3"
    loaded = load(path)
    assert np.array_equal(loaded[0].numpy(), voxels.take([3], axis=axis))
    start = np.zeros(4)
    start[[axis, 3]] = 3, 1
    assert loaded.affine[:, 3].tolist() == (AFFINE @ start).tolist()
    assert loaded.affine[:3, :3].tolist() == AFFINE[:3, :3].tolist()
    assert open_location(path).shape == tuple(loaded.shape[1:])
    with pytest.raises(InputError, match=rf"shape 4 x 5 x 6 without {'xyz'[axis]}=6"):
        load(str(Location.parse(file).slice(axis, 6)))


def test_one_slice_of_one_channel(tmp_path: Path) -> None:
    voxels = numbered(2, 3, 4, 5)
    file = nifti(tmp_path / "a.nii", voxels)
    path = str(Location.parse(file).channel(2).slice(2, 1))
    assert path == f"{file}#channel=2&z=1"
    assert Location.parse(path).numbers == {"channel": 2, "z": 1}
    assert Location.parse(file).slice(2, 1).numbers == {"z": 1}
    assert np.array_equal(
        load([path, str(Location.parse(file).channel(0).slice(2, 1))]).numpy()[..., 0],
        voxels[:, :, 1, [2, 0]].transpose(2, 0, 1),
    )
    assert np.array_equal(
        load(str(Location.parse(file).slice(2, 1))).numpy()[..., 0], voxels[:, :, 1].transpose(2, 0, 1)
    )
    with pytest.raises(InputError, match="expected shape 2 x 3 x 4 as in"):
        load([file, str(Location.parse(file).slice(2, 1))])
