"""Surface distances: candidate cores, other libraries, and memory.

    python benchmarks/surface_distance.py --repeats 7 --data FOLDER

Each line is one pair of masks; the numbers are medians in ms of runs that alternate between the candidates, so that a
busy machine slows all of them alike. `--data` names the folder with the real scans (else AIDE_DATA); without it the two
real pairs are left out. Cores get the cropped masks and return the distances of both directions, border extraction
included; libraries get the whole masks and return all they have of DSC, ASSD, MSSD, HD95 and NSD.

MedPy (GPL), surface-distance, edt and pykdtree (LGPL) are never needed by the package. Columns of those that are not
installed are left out; for all of them, best in an environment of its own:

    pip install MedPy surface-distance edt pykdtree

Cores, medians of 3 on two cores of an Intel Xeon with little other work:

    core, ms                   chosen  look-ups     tree  tree, tuned  tree, all  scipy edt  pykdtree     edt  edt, all
    512x512x78 shifted 2 mm      14.0      61.2    174.3        129.5       99.1      790.0     112.3   319.8     345.6
    512x512x78 other surface     14.8      94.6    201.2        159.1      115.0      753.2     127.9   312.9     337.3
    512x512x78 5 mm larger       19.2     290.1    342.3        242.7      159.2      934.7     177.7   284.7     306.2
    512x512x78 far off           33.9     379.0   1212.8        362.5      284.0      699.1     230.4   231.4     257.7
    256x256x33 liver              2.6       9.3     30.3         18.4       18.6       38.9      16.6    42.7      46.8
    640x640 slice                 0.3       1.5      1.1          1.1        1.7        3.6       1.0     2.1       2.3
    256x256x64 many parts        11.9      46.1     87.7         68.5       64.8     2091.2     124.4   676.0     531.1
    256x256x100 nearly full      72.0     820.3   1836.4        836.5      835.1     2033.9      76.3   403.9     373.2
    real liver 50x256x256         3.4      11.6     21.5         15.0       15.1       32.0      11.5    25.3      20.8
    real hippocampus              0.2       0.8      1.7          1.1        1.6        2.7       1.1     3.0       3.1

"chosen" (`border_kernels.py`) is the only one that was never behind. "look-ups" asks for the 100 nearest voxels in
order of distance and a tuned k-d tree for what they leave open; it was the package's core before: 3 to 6 times slower
where masks agree, 11 to 15 times where they do not. scipy's tree suffers most from flat borders far away (nearly full),
pykdtree does not. edt is float32 and needs 4 bytes per voxel of the box. "chosen" costs a dependency (numba) and a
compilation of 3 to 6 s at the very first call of an installation.

Within `chosen`, CPU time of both directions: with the envelope alone 84 ms for "shifted 2 mm", 62 for "5 mm larger" and
46 for "far off"; when every plane tries the search first and pays up to four times the envelope's price for it, 17, 27
and 77. So each plane decides by the mean squared distance of the plane before.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom
from scipy.spatial import cKDTree

from aide_monai.metrics import mask_border, segmentation_scores
from aide_monai.metrics.masks import joint_crop
from aide_monai.metrics.surface_distance import cropped_distances

Mask = npt.NDArray[np.bool_]
Spacing = tuple[float, ...]
Directed = Callable[[Mask, Mask, Spacing], npt.NDArray[np.floating]]
TUNED = {"balanced_tree": False, "compact_nodes": False, "leafsize": 64}


@dataclass
class Case:
    """One pair of masks with its spacing in mm."""

    name: str
    prediction: Mask
    reference: Mask
    spacing: Spacing


# Pairs of masks


def ellipsoid(
    shape: tuple[int, ...], spacing: Spacing, centre: Spacing, axes: Spacing, *, rough: float = 0.0, seed: int = 0
) -> Mask:
    """An ellipsoid in mm, with a smooth random surface when `rough` is above 0."""
    grid = np.ogrid[tuple(slice(0, size) for size in shape)]
    radius = sum(((x * step - c) / a) ** 2 for x, step, c, a in zip(grid, spacing, centre, axes, strict=True))
    if rough:
        coarse = np.random.default_rng(seed).normal(size=[max(2, size // 8) for size in shape])
        noise = zoom(coarse, [size / n for size, n in zip(shape, coarse.shape, strict=True)], order=1)
        radius = radius + rough * noise
    return np.asarray(radius < 1)


def synthetic_cases() -> Iterator[Case]:
    """Pairs of about a liver's size, and pairs made to be hard."""
    shape, spacing = (512, 512, 78), (0.73, 0.73, 2.0)
    centre, liver = (187.0, 187.0, 78.0), (95.0, 75.0, 50.0)
    rough = ellipsoid(shape, spacing, centre, liver, rough=0.1)
    smooth = ellipsoid(shape, spacing, centre, liver)
    shifted = ellipsoid(shape, spacing, (189.0, 188.0, 79.0), liver, rough=0.1)
    yield Case("512x512x78 shifted 2 mm", shifted, rough, spacing)
    yield Case("512x512x78 other surface", ellipsoid(shape, spacing, centre, liver, rough=0.1, seed=1), rough, spacing)
    yield Case("512x512x78 5 mm larger", ellipsoid(shape, spacing, centre, (100.0, 80.0, 55.0)), smooth, spacing)
    yield Case(
        "512x512x78 far off", ellipsoid(shape, spacing, (150.0, 200.0, 70.0), (60.0, 60.0, 40.0)), smooth, spacing
    )
    shape, spacing, centre = (256, 256, 33), (1.5, 1.5, 5.5), (190.0, 190.0, 90.0)
    first, second = (ellipsoid(shape, spacing, centre, liver, rough=0.1, seed=seed) for seed in (0, 1))
    yield Case("256x256x33 liver", first, second, spacing)
    shape, spacing = (640, 640), (0.4, 0.4)
    first = ellipsoid(shape, spacing, (130.0, 127.0), (58.0, 41.0))
    yield Case("640x640 slice", first, ellipsoid(shape, spacing, (128.0, 128.0), (60.0, 40.0)), spacing)
    shape, rng = (256, 256, 64), np.random.default_rng(0)
    field = gaussian_filter(rng.normal(size=shape), 2)
    other = field + 0.3 * gaussian_filter(rng.normal(size=shape), 2)
    level = np.quantile(field, 0.99)
    yield Case("256x256x64 many parts", other > level, field > level, (1.0, 1.0, 2.0))
    first, second = np.ones((2, 256, 256, 100), dtype=bool)
    first[:3] = second[:, :4] = first[50:60, 50:60, 20] = second[100:110, 100:110, 50] = False
    yield Case("256x256x100 nearly full", first, second, (1.0, 1.0, 2.0))


def real_cases(data: Path) -> Iterator[Case]:
    """A published liver prediction, and a hippocampus against its smoothed, shifted self."""
    scan = data / "chaos/Train_Sets/MR/10/T1DUAL"
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in (scan / "DICOM_anon/InPhase").glob("*.dcm")]
    headers.sort(key=lambda header: float(header.ImagePositionPatient[2]))
    step = float(headers[1].ImagePositionPatient[2]) - float(headers[0].ImagePositionPatient[2])
    names = [Path(str(header.filename)).with_suffix(".png").name for header in headers]
    folders = data / "chaos/reference_predictions/30cases_aide/10", scan / "Ground"
    first, second = (
        np.stack([np.abs(np.asarray(Image.open(folder / name)).astype(int) - 63) <= 8 for name in names])
        for folder in folders
    )
    yield Case("real liver 50x256x256", first, second, (step, *map(float, headers[0].PixelSpacing)))
    label = np.asarray(nib.load(min((data / "msd_hippocampus/labelsTr").glob("*.nii.gz"))).dataobj) > 0
    moved = gaussian_filter(np.roll(label, 1, axis=0).astype(float), 1) > 0.5
    yield Case("real hippocampus", moved, label, (1.0, 1.0, 1.0))


# Cores


def tree(source: Mask, target: Mask, spacing: Spacing) -> npt.NDArray[np.floating]:
    """A k-d tree with scipy's default options, asked for every voxel."""
    return cKDTree(np.argwhere(target) * spacing).query(np.argwhere(source) * spacing)[0]


def tuned_tree(source: Mask, target: Mask, spacing: Spacing, *, workers: int = 1) -> npt.NDArray[np.floating]:
    """A k-d tree with cheap construction and wide leaves, asked only for voxels that are not on both borders."""
    distances = np.zeros(np.count_nonzero(source))
    points = np.argwhere(source & ~target) * spacing
    distances[~target[source]] = cKDTree(np.argwhere(target) * spacing, **TUNED).query(points, workers=workers)[0]
    return distances


def scipy_transform(source: Mask, target: Mask, spacing: Spacing) -> npt.NDArray[np.floating]:
    """scipy's Euclidean distance transform of the joint bounding box."""
    return distance_transform_edt(~target, sampling=spacing)[source]


def edt_transform(source: Mask, target: Mask, spacing: Spacing, *, parallel: int = 1) -> npt.NDArray[np.floating]:
    """The `edt` package's transform of the joint bounding box; float32."""
    import edt

    return edt.edt(~target, anisotropy=spacing, parallel=parallel)[source]


def both_ways(directed: Directed) -> Callable[[Mask, Mask, Spacing], tuple[npt.NDArray[np.floating], ...]]:
    """A core from one direction."""

    def core(prediction: Mask, reference: Mask, spacing: Spacing) -> tuple[npt.NDArray[np.floating], ...]:
        borders = mask_border(prediction), mask_border(reference)
        return directed(*borders, spacing), directed(*borders[::-1], spacing)

    return core


def looked_up(source: Mask, target: Mask, spacing: Spacing, *, look_ups: int = 100) -> npt.NDArray[np.floating]:
    """The nearest voxels looked up in order of distance, then the tuned tree for what they leave open."""
    volume = {2: math.pi, 3: 4 * math.pi / 3}[len(spacing)]
    radius = (look_ups * math.prod(spacing) / volume) ** (1 / len(spacing))
    reach = [min(int(radius / step), size - 1) for step, size in zip(spacing, source.shape, strict=True)]
    steps = np.indices([2 * n + 1 for n in reach]).reshape(len(reach), -1).T - reach
    lengths = np.linalg.norm(steps * spacing, axis=1)
    order = np.argsort(lengths, kind="stable")[: int(np.count_nonzero(lengths <= radius))][:look_ups]
    grid, queries = (np.pad(mask, [(n, n) for n in reach]) for mask in (target, source))
    flat, voxels = grid.reshape(-1), np.flatnonzero(queries)
    distances = np.full(len(voxels), np.inf)
    left = np.arange(len(voxels))
    for offset, length in zip(steps[order] @ np.array(grid.strides), lengths[order], strict=True):
        hit = flat[voxels[left] + offset]
        distances[left[hit]] = length
        left = left[~hit]
    if len(left):
        points = np.column_stack(np.unravel_index(voxels[left], grid.shape)) * spacing
        distances[left] = cKDTree(np.argwhere(grid) * spacing, **TUNED).query(points)[0]
    return distances


def pykdtree_tree(source: Mask, target: Mask, spacing: Spacing) -> npt.NDArray[np.floating]:
    """The `pykdtree` package's tree."""
    from pykdtree.kdtree import KDTree

    return KDTree(np.argwhere(target) * spacing).query(np.argwhere(source) * spacing)[0]


def chosen(prediction: Mask, reference: Mask, spacing: Spacing) -> tuple[npt.NDArray[np.floating], ...]:
    """The package's core."""
    found = cropped_distances(prediction, reference, spacing, "chaos")
    return found.from_prediction, found.from_reference


def cores() -> dict[str, Callable[..., tuple[npt.NDArray[np.floating], ...]]]:
    """Candidates by column name."""
    found = {
        "chosen": chosen,
        "look-ups, tree": both_ways(looked_up),
        "tree": both_ways(tree),
        "tree, tuned": both_ways(tuned_tree),
        "tree, all CPUs": both_ways(lambda *masks: tuned_tree(*masks, workers=-1)),
        "scipy edt": both_ways(scipy_transform),
    }
    if importlib.util.find_spec("pykdtree"):
        found["pykdtree"] = both_ways(pykdtree_tree)
    if importlib.util.find_spec("edt"):
        found["edt"] = both_ways(edt_transform)
        found["edt, all CPUs"] = both_ways(lambda *masks: edt_transform(*masks, parallel=os.cpu_count() or 1))
    return found


# Libraries


def monai_scores(case: Case) -> None:
    """MONAI's five functions, on (1, 1, spatial...) tensors."""
    masks = [torch.from_numpy(mask)[None, None] for mask in (case.prediction, case.reference)]
    options = {"include_background": True, "spacing": case.spacing}
    compute_average_surface_distance(*masks, symmetric=True, **options)
    compute_hausdorff_distance(*masks, **options)
    compute_hausdorff_distance(*masks, percentile=95, **options)
    compute_surface_dice(*masks, [2.0], **options)
    compute_dice(*masks, include_background=True)


def simpleitk_scores(case: Case) -> None:
    """SimpleITK's contour, Hausdorff and overlap filters."""
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (case.prediction, case.reference)]
    for image in images:
        image.SetSpacing(case.spacing[::-1])
    contours = [sitk.BinaryContour(image, False, 0, 1) for image in images]
    sitk.HausdorffDistanceImageFilter().Execute(*contours)
    sitk.LabelOverlapMeasuresImageFilter().Execute(*images)


def deepmind_scores(case: Case) -> None:
    """surface-distance-based-measures."""
    import surface_distance

    found = surface_distance.compute_surface_distances(case.reference, case.prediction, case.spacing)
    surface_distance.compute_average_surface_distance(found)
    surface_distance.compute_robust_hausdorff(found, 100)
    surface_distance.compute_robust_hausdorff(found, 95)
    surface_distance.compute_surface_dice_at_tolerance(found, 2.0)
    surface_distance.compute_dice_coefficient(case.reference, case.prediction)


def medpy_scores(case: Case) -> None:
    """MedPy."""
    from medpy.metric import binary

    binary.assd(case.prediction, case.reference, voxelspacing=case.spacing)
    binary.hd(case.prediction, case.reference, voxelspacing=case.spacing)
    binary.dc(case.prediction, case.reference)


def libraries() -> dict[str, Callable[[Case], object]]:
    """Libraries that can be imported, by column name."""
    found: dict[str, Callable[[Case], object]] = {
        "aide_monai": lambda case: segmentation_scores(case.prediction, case.reference, spacing_mm=case.spacing),
        "MONAI": monai_scores,
        "SimpleITK": simpleitk_scores,
    }
    # This file has the name of one of them, so its own folder must not be searched.
    sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
    if importlib.util.find_spec("surface_distance"):
        found["surface-distance"] = deepmind_scores
    if importlib.util.find_spec("medpy"):
        found["MedPy"] = medpy_scores
    return found


# Measuring


def medians(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median time of each run in ms, taken in turns; MedPy, which takes up to a minute, runs once."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats):
        for name, run in runs.items():
            if turn and name == "MedPy":
                continue
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(taken) for name, taken in times.items()}


def peak_bytes_per_voxel(case: Case) -> float:
    """Growth of a fresh process while it scores the case, above the two masks it holds (Linux)."""
    program = (
        "import sys, numpy as np; from aide_monai.metrics import segmentation_scores as score\n"
        "tiny = np.zeros((40, 40, 9), bool); tiny[0] = True; other = tiny.copy(); other[39] = True\n"
        "score(tiny, other, spacing_mm=(1, 1, 1))\n"
        "with np.load(sys.argv[1]) as f: masks = f['a'], f['b']; spacing = f['c']\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"
        "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "before = peak(); score(*masks, spacing_mm=spacing); print((peak() - before) * 1024 / masks[0].size)"
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "case.npz"
        np.savez(file, a=case.prediction, b=case.reference, c=case.spacing)
        result = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True)
    return float(result.stdout)


def main() -> None:
    """Prints one table of cores and one of libraries, as Markdown."""
    parser = argparse.ArgumentParser(description="Time and memory of surface distances.")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--data", type=Path, default=os.environ.get("AIDE_DATA"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    tiny = np.eye(9, dtype=np.bool_)
    segmentation_scores(tiny, tiny[::-1], spacing_mm=(1, 1))  # a new installation compiles at its first call
    cases = [*synthetic_cases(), *(real_cases(Path(arguments.data)) if arguments.data else ())]
    candidates, others = cores(), libraries()
    print("| core, ms |", " | ".join(candidates), "|")
    print("|---|" + "---|" * len(candidates))
    for case in cases:
        crop = joint_crop(case.prediction, case.reference, case.spacing)
        expected = np.sort(np.concatenate(candidates["tree"](*crop)))
        for name, core in candidates.items():
            # Each core has an order of its own; edt is float32.
            exact = 1e-3 if name.startswith("edt") else 1e-9
            found = np.sort(np.concatenate(core(*crop)))
            np.testing.assert_allclose(found, expected, rtol=0, atol=exact, err_msg=name)
        runs = {name: partial(core, *crop) for name, core in candidates.items()}
        print(f"| {case.name} |", " | ".join(f"{t:.1f}" for t in medians(runs, arguments.repeats).values()), "|")
    print("\n| library, ms |", " | ".join(others), "| peak, bytes per voxel |")
    print("|---|" + "---|" * (len(others) + 1))
    for case in cases:
        runs = {name: partial(score, case) for name, score in others.items()}
        taken = medians(runs, arguments.repeats)
        print(
            f"| {case.name} |", " | ".join(f"{t:.1f}" for t in taken.values()), f"| {peak_bytes_per_voxel(case):.2f} |"
        )


if __name__ == "__main__":
    main()
