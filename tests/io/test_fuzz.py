"""Readers against mutated real files: whatever happens to their bytes, a volume or a clear error comes out, and soon.

``AIDE_FUZZ_SEEDS=500`` runs more seeds than the suite does.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from aide_monai.errors import InputError
from aide_monai.io.location import open_location
from benchmarks.torture.mutations import mutated
from tests.io.dicom.dicom_files import TRANSFER_SYNTAXES, write_series

SEEDS = int(os.environ.get("AIDE_FUZZ_SEEDS", "40"))
LIMIT_S = 10
MEMORY_BYTES = 2**30


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory, aide_data: Path) -> dict[str, Path]:
    """One sound location per format: real scans, and real ones written in the other formats."""
    root = tmp_path_factory.mktemp("originals")
    chaos = aide_data / "chaos" / "Train_Sets" / "MR" / "37" / "T1DUAL"
    found: dict[str, Path] = {}
    for name, place in (("chaos", "DICOM_anon/InPhase"), ("png", "Ground")):
        (root / name).mkdir()
        for file in sorted((chaos / place).iterdir())[12:16]:
            shutil.copy(file, root / name)
        found[name] = root / name
    hippocampus = nibabel.load(aide_data / "msd_hippocampus" / "imagesTr" / "hippocampus_001.nii.gz")
    voxels = np.asarray(hippocampus.dataobj).astype(np.int16)
    for name in ("a.nii", "b.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(voxels, hippocampus.affine), root / name)
        found[name] = root / name
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    for name, packed in (("c.mhd", False), ("d.mhd", True), ("e.mha", False), ("f.nrrd", True)):
        sitk.WriteImage(image, str(root / name), useCompression=packed)
        found[name] = root / name
    crop = np.ascontiguousarray(np.tile(voxels[:32, :32, :3], 1))
    for syntax in TRANSFER_SYNTAXES:
        write_series(root / syntax, crop, transfer_syntax=syntax)
        found[syntax] = root / syntax
    return found


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """An alarm ends what hangs; a test that needs it has failed."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"longer than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_volume_or_a_clear_error(originals: dict[str, Path], tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng([2021, seed])
    name = list(originals)[seed % len(originals)]
    source = originals[name]
    if source.is_dir():
        location = Path(shutil.copytree(source, tmp_path / name))
        victims = sorted(location.iterdir())
    else:
        for file in source.parent.glob(f"{source.stem}.*"):
            shutil.copy(file, tmp_path)
        location = tmp_path / name
        victims = sorted(tmp_path.glob(f"{source.stem}.*"))
    victim = victims[int(rng.integers(len(victims)))]
    victim.write_bytes(mutated(victim.read_bytes(), rng))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        volume = open_location(str(location))
        if volume.channels is not None:
            assert volume.decode().shape[:3] == volume.shape
    except InputError:
        pass
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MEMORY_BYTES, f"{grown / 2**20:.0f} MiB for a file of {victim.stat().st_size} bytes"
