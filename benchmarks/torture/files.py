"""Mutated files of nine formats, read through ``aide check`` and ``aide evaluate``: a volume or a clear error, soon.

Nothing of what is fed in is kept: a try is made again by its number alone.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from PIL import Image

from aide_monai.io.dicom.seg import write_dicom_seg
from aide_monai.io.dicom.series import one_series
from benchmarks.torture.forks import Ended, aide, fork
from benchmarks.torture.mutations import mutated
from benchmarks.torture.results import Outcome
from tests.io.dicom.dicom_files import TRANSFER_SYNTAXES, write_series

GOAL = 20_000
PIECE = 450
LIMIT_MB = 1536
LIMIT_S = 10.0  # for each file of a command, on a machine that does much else
SHAPE = (32, 32, 4)
AFFINE = np.diag([-0.9, -0.8, 2.5, 1.0])

IMAGES = {
    "NIfTI": "scan.nii",
    "NIfTI.gz": "scan.nii.gz",
    "MHD + raw": "scan.mhd",
    "MHA": "scan.mha",
    "NRRD": "scan.nrrd",
    "DICOM": "",
}
MASKS = {".seg.nrrd": "mask.seg.nrrd", "DICOM SEG": "mask.dcm", "PNG": "mask"}
FORMATS = (*IMAGES, *MASKS)


def run(first: int, last: int, folder: Path) -> Outcome:
    """Try mutated files by their numbers, those of a format in one command."""
    outcome = Outcome()
    sound = folder / "sound"
    ended = fork(lambda: write_sound(sound), folder / "log.txt")
    assert not ended.problem, ended.output
    for place, kind in enumerate(FORMATS):
        numbers = [number for number in range(first, last) if number % len(FORMATS) == place]
        if not numbers:
            continue
        for problem, tried, ended in _settled(kind, numbers, sound, folder / "batch"):
            outcome.add(
                kind,
                problem,
                number=tried[0],
                tried=len(tried),
                refused_by_name=_refused(ended.output),
                decoders_that_died=len(re.findall(r"at which its decoder died", ended.output)),
                deaths=ended.status < 0 and not ended.hung,
                hangs=ended.hung,
                peak_MB=round(ended.peak_mb),
            )
    return outcome


def _settled(kind: str, numbers: list[int], sound: Path, folder: Path) -> list[tuple[str, list[int], Ended]]:
    """Problem, tries and end of a batch; one that does not hold is tried again file by file."""
    shutil.rmtree(folder, ignore_errors=True)
    ended = (_check if kind in IMAGES else _evaluate)(kind, numbers, sound, folder)
    problem = ended.problem or (f"{ended.peak_mb:.0f} MB" if ended.peak_mb > LIMIT_MB else "")
    if not problem or len(numbers) == 1:
        return [(problem, numbers, ended)]
    singles = [found for number in numbers for found in _settled(kind, [number], sound, folder)]
    if any(single for single, *_ in singles):
        return singles
    return [(f"{problem}, but not one by one", numbers, ended)]


def _refused(output: str) -> int:
    """How many files a report names, of ``aide check``, or of ``aide evaluate``, which lists the first ones only."""
    counted = re.search(r"cases that cannot be scored: (\d+) problem", output)
    return int(counted[1]) if counted else len(set(re.findall(r"^error .*?\b(n\d+n)\b", output, re.MULTILINE)))


def _check(kind: str, numbers: list[int], sound: Path, folder: Path) -> Ended:
    """``aide check`` of a data set whose images are mutated."""
    records = []
    for number in numbers:
        case = f"n{number}n"
        place = folder / case
        rng = np.random.default_rng([2027, number])
        name = IMAGES[kind] or list(TRANSFER_SYNTAXES)[int(rng.integers(len(TRANSFER_SYNTAXES)))]
        _mutated_copy(sound / name, place, rng)
        records.append({"case": case, "image": f"{case}/{name}"})
    content = {"name": "mutated", "labels": {"0": "background", "1": "organ"}, "modality": {"0": "scan"}}
    (folder / "datalist.json").write_text(json.dumps({**content, "training": records}))
    arguments = ["check", folder / "datalist.json", "--out", folder / "report"]
    return aide(arguments, folder / "log.txt", limit_s=60 + LIMIT_S * len(numbers))


def _evaluate(kind: str, numbers: list[int], sound: Path, folder: Path) -> Ended:
    """``aide evaluate`` of mutated masks against sound ones."""
    name = MASKS[kind]
    for number in numbers:
        case = f"n{number}n"
        scratch = folder / "scratch"
        for side in ("pred", "ref"):
            shutil.rmtree(scratch, ignore_errors=True)
            if side == "pred":
                _mutated_copy(sound / name, scratch, np.random.default_rng([2027, number]))
            else:
                _copy(sound / name, scratch)
            target = folder / side / f"{case}{name.removeprefix('mask')}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(scratch / name, target)
    arguments = ["evaluate", "--pred", folder / "pred", "--ref", folder / "ref", "--out", folder / "scores"]
    return aide([*arguments, "--spacing", "1,1,2"], folder / "log.txt", limit_s=60 + LIMIT_S * len(numbers))


def _copy(source: Path, folder: Path) -> list[Path]:
    """The files of a sound location in a folder of their own."""
    folder.mkdir(parents=True)
    if source.is_dir():
        shutil.copytree(source, folder / source.name)
    else:
        for file in sorted(source.parent.glob(f"{source.name.partition('.')[0]}.*")):
            if file == source or (source.suffix == ".mhd" and file.suffix == ".raw"):
                shutil.copy(file, folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _mutated_copy(source: Path, folder: Path, rng: np.random.Generator) -> None:
    files = _copy(source, folder)
    victim = files[int(rng.integers(len(files)))]
    victim.write_bytes(mutated(victim.read_bytes(), rng))


def write_sound(folder: Path) -> None:
    """One sound volume in every format: smooth noise, and a box as its mask."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    voxels = (rng.normal(size=SHAPE).cumsum(0).cumsum(1) * 20 + 500).clip(0, 4000).astype(np.int16)
    mask = np.zeros(SHAPE, np.uint8)
    mask[8:20, 9:22, 1:3] = 1
    for name in ("scan.nii", "scan.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), folder / name)
    for name in ("scan.mhd", "scan.mha", "scan.nrrd", "mask.seg.nrrd"):
        image = sitk.GetImageFromArray(np.ascontiguousarray((mask if "seg" in name else voxels).T))
        image.SetSpacing([float(step) for step in np.abs(np.diag(AFFINE)[:3])])
        if "seg" in name:
            image.SetMetaData("Segment0_ID", "Segment_1")
            image.SetMetaData("Segment0_LabelValue", "1")
            image.SetMetaData("Segment0_Name", "organ")
        sitk.WriteImage(image, str(folder / name), useCompression=name.endswith("nrrd"))
    for syntax in TRANSFER_SYNTAXES:
        write_series(folder / syntax, voxels, transfer_syntax=syntax)
    write_dicom_seg(folder / "mask.dcm", mask, one_series(str(folder / "explicit")), {0: "background", 1: "organ"})
    (folder / "mask").mkdir()
    for z in range(SHAPE[2]):
        Image.fromarray(mask[:, :, z].T * 255).save(folder / "mask" / f"{z:02d}.png")
