"""Small files that claim, or unpack to, much: refused before memory is made for them, and within their folder."""

from __future__ import annotations

import gzip
import resource
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from aide_monai.errors import InputError
from aide_monai.io.location import open_location


def nifti_header(shape: tuple[int, ...], *, vox_offset: float = 352) -> bytes:
    header = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.float64), np.eye(4)).header
    header.set_data_shape(shape)
    header["vox_offset"] = vox_offset
    return header.binaryblock + bytes(4)


def refused(path: Path, match: str) -> None:
    """The location is refused, and the process has not grown by 200 MiB on the way."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=match):
        open_location(str(path)).decode()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("shape", [(2000, 2000, 2000), (1000, 1000, 1000)])
def test_sizes_that_cannot_be_true(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    data = nifti_header(shape) + bytes(1000)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    refused(tmp_path / name, "more than 2147483648" if shape[0] == 2000 else "too few for 1000 x 1000 x 1000 voxels")


def test_a_gzip_file_of_zeros_without_end(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = packer.compress(nifti_header((4, 4, 4))) + b"".join(packer.compress(bytes(2**24)) for _ in range(32))
    (tmp_path / "x.nii.gz").write_bytes(data + packer.flush())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert open_location(str(tmp_path / "x.nii.gz")).decode().shape == (4, 4, 4, 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_an_extension_of_a_gigabyte(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = (
        nifti_header((4, 4, 4), vox_offset=2.0**30)[:348] + bytes([1, 0, 0, 0]) + (2**30 - 352).to_bytes(4, "little")
    )
    data = packer.compress(start) + b"".join(packer.compress(bytes(2**24)) for _ in range(8))
    (tmp_path / "x.nii.gz").write_bytes(data + packer.flush())
    refused(tmp_path / "x.nii.gz", "voxels that start at byte 1.07374e")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "line", "bomb"),
    [
        ("x.mhd", b"DimSize = 4 4 4", b"DimSize = 900 900 900"),
        ("x.mha", b"DimSize = 4 4 4", b"DimSize = 900 900 900"),
        ("x.nrrd", b"sizes: 4 4 4", b"sizes: 900 900 900"),
    ],
)
def test_other_formats(tmp_path: Path, name: str, line: bytes, bomb: bytes, packed: bool) -> None:
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkFloat64), str(tmp_path / name), useCompression=packed)
    data = (tmp_path / name).read_bytes()
    assert line in data
    (tmp_path / name).write_bytes(data.replace(line, bomb))
    refused(tmp_path / name, "too few for 900 x 900 x 900 voxels of 8 bytes")


@pytest.mark.parametrize("target", ["/etc/hostname", "../secret.raw", "link.raw"])
@pytest.mark.parametrize("name", ["x.mhd", "x.nrrd"])
def test_voxels_out_of_the_folder(tmp_path: Path, target: str, name: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(bytes(64))
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    lines = {
        "x.mhd": f"NDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = {target}\n",
        "x.nrrd": f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: {target}\n\n",
    }
    (folder / name).write_text(lines[name])
    refused(folder / name, "voxels in .* outside")


def test_a_long_nrrd_header_with_voxels_out_of_the_folder(tmp_path: Path) -> None:
    comments = "".join(f"# {k:060d}\n" for k in range(2000))
    fields = "type: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: /etc/hostname\n\n"
    (tmp_path / "x.nrrd").write_text(f"NRRD0004\n{comments}{fields}")
    refused(tmp_path / "x.nrrd", "voxels in .* outside")
