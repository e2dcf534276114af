"""Equal scans under different names: found by what they show, whatever was done to their intensities."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import nibabel
import numpy as np
from numpy.typing import NDArray

from aide_monai.data.case import Case
from aide_monai.errors import Problem
from aide_monai.io.ahead import read_apart

GRID = (32, 32, 16)
_COARSE = (8, 8, 4)
_BLOCK = 256
LIKENESS = 0.98

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Twins:
    """Two scans that show the same.

    Attributes:
        first, second: their names.
        likeness: correlation of their signatures, 1 for equal ones.
    """

    first: str
    second: str
    likeness: float


def signature(voxels: NDArray[np.generic], affine: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """What a scan shows, on a coarse grid and without its intensity scale.

    The volume is turned to RAS (a stored flip or another order of axes makes no difference), averaged onto 32 x 32 x 16
    blocks, and described twice: by the averages, which see through noise, and by their ranks, which see through every
    change of contrast that keeps the order of intensities, such as windowing to 8 bit or a gamma curve.

    Args:
        voxels: (X, Y, Z), real numbers, finite.
        affine: (4, 4) voxel index to mm.

    Returns:
        (2, N) rows of mean 0 and length 1; None for a scan that is constant on the coarse grid.
    """
    from scipy.stats import rankdata  # only who compares scans waits for it

    turned = nibabel.orientations.apply_orientation(voxels, nibabel.orientations.io_orientation(affine))
    coarse = block_means(np.asarray(turned, dtype=np.float32), GRID).ravel()
    rows = np.stack([coarse.astype(np.float64), rankdata(coarse)])
    rows -= rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if coarse.min() == coarse.max():
        return None
    return (rows / lengths).astype(np.float32)


def block_means(voxels: NDArray[np.float32], blocks: Sequence[int]) -> NDArray[np.float32]:
    """A volume averaged onto so many blocks along each axis.

    Block i of n along an axis of N voxels has the voxels from ``floor(i N / n)`` to before ``ceil((i + 1) N / n)``, so
    that neighbours share a voxel that their border runs through, and an axis of fewer voxels than blocks repeats them.

    Examples:
        >>> import numpy as np
        >>> from aide_monai.data.checks.duplicates import block_means
        >>> block_means(np.array([1, 2, 6], dtype=np.float32), (2,)).tolist()
        [1.5, 4.0]
    """
    for axis, number in enumerate(blocks):
        size = voxels.shape[axis]
        edges = np.arange(number + 1) * size
        first, last = edges[:-1] // number, -(-edges[1:] // number)
        place = np.arange(size)
        inside = (place >= first[:, None]) & (place < last[:, None])
        weights = (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)
        voxels = np.moveaxis(np.tensordot(weights, voxels, axes=(1, axis)), 0, axis)
    return voxels


def find_twins(signatures: Mapping[str, NDArray[np.float32] | None], *, likeness: float = LIKENESS) -> list[Twins]:
    """All pairs whose signatures, of averages or of ranks, correlate at least by ``likeness``.

    The default lies between copies of one scan (8 bit, clipped, gamma, noise of 2 %: above 0.99 by one of the two
    measures) and different patients (below 0.96), as measured on the QUBIQ, ACDC, MS-CMR and hippocampus scans. Two
    phases of one heart count as one scan (0.998). A copy that was cropped or turned is not found.

    Args:
        signatures: by name; None never matches.
        likeness: correlation from which two scans are one, 0..1.

    Returns:
        Pairs in the order of the names, as given.
    """
    names = [name for name, rows in signatures.items() if rows is not None]
    stacked = [rows for rows in signatures.values() if rows is not None]
    twins = []
    for i, j in _candidates(stacked, likeness):
        alike = float((stacked[i] * stacked[j]).sum(axis=1).max())
        if alike >= likeness:
            twins.append(Twins(names[i], names[j], min(alike, 1.0)))
    return twins


def _candidates(signatures: Sequence[NDArray[np.float32]], likeness: float) -> Iterator[tuple[int, int]]:
    """All pairs that may be so alike, in order; told by 1/64 of the numbers, in memory that grows with the scans alone.

    Rows of length 1 that correlate by r lie sqrt(2 - 2 r) apart. Means over blocks, scaled to be a projection, lie no
    further apart than what they are means of, so that no pair is lost.
    """
    if len(signatures) < 2:
        return
    size = [whole // part for whole, part in zip(GRID, _COARSE, strict=True)]
    split = (2, *(number for pair in zip(_COARSE, size, strict=True) for number in pair))
    means = [rows.reshape(split).mean(axis=(2, 4, 6)).reshape(2, -1) for rows in signatures]
    coarse = np.stack(means, axis=1) * np.float32(np.sqrt(np.prod(size)))
    squares = (coarse**2).sum(axis=2)
    most = 2 - 2 * likeness + 1e-4  # with room for rounding
    for first in range(0, len(signatures), _BLOCK):
        block = slice(first, first + _BLOCK)
        rest = slice(first, None)
        near = np.zeros((len(squares[0, block]), len(squares[0, rest])), dtype=bool)
        for rows, lengths in zip(coarse, squares, strict=True):
            near |= lengths[block, None] + lengths[None, rest] - 2 * rows[block] @ rows[rest].T <= most
        for i, j in np.argwhere(np.triu(near, k=1)).tolist():
            yield first + i, first + j


def image_signature(case: Case) -> NDArray[np.float32] | None:
    """`signature` of the (first) image of a case.

    Raises:
        InputError: the image cannot be read.
    """
    found = read_apart([case.images[0]])
    return signature(found.voxels if found.channel_axis is None else found.voxels[..., 0], found.affine)


def leaks(cases: Sequence[Case], twins: Sequence[Twins]) -> list[Problem]:
    """One problem per pair of equal scans in two splits or two domains; other pairs are told by a log message.

    Args:
        cases: all of them.
        twins: pairs by name.
    """
    by_name = {case.name: case for case in cases}
    problems = []
    for pair in twins:
        one, other = by_name[pair.first], by_name[pair.second]
        kinds = (("domain", one.domain, other.domain), ("split", one.split, other.split))
        between = [f"{kind} {first} and {second}" for kind, first, second in kinds if first != second]
        both, found = f"cases {pair.first} and {pair.second}", f"one scan (likeness {pair.likeness:.4f})"
        if between:
            found += f" in {' and in '.join(between)}: a leak"
            problems.append(Problem(found, advice="remove one of the two", place=both))
        else:
            logger.warning("%s: found %s in two cases; look at them", both, found)
    return problems
