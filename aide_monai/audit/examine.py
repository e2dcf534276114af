"""One label against predictions that never saw it: what disagrees, where, and what kind of mistake that looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aide_monai.audit.alternatives import alternatives, mean_dice
from aide_monai.audit.kinds import (
    EXTRA,
    LARGE,
    MISSING,
    OTHER,
    SLICES,
    SMALL,
    WRONG_CLASS,
)

Label = npt.NDArray[np.uint8]
Shares = npt.NDArray[np.float32]
Box = tuple[slice, slice, slice]

_SURE = 0.5
"""By so much the predicted class is likelier than the one of the label where the label counts as contradicted."""

_FEWEST = 8
_SMALLEST = 0.002
"""Regions have at least so many voxels, and this share of what is marked or predicted."""

_RIM = 2
"""So many voxels around what is contradicted go with it, where label and prediction differ in the same way."""

_GAIN = 0.1
"""A label that fits by so much better when it is moved, mirrored or renamed has been."""

_STRUCTURES = (MISSING, EXTRA, WRONG_CLASS, SLICES)
"""Kinds of regions that are more than a border drawn elsewhere."""

CASE_MEASURES = (
    "worst class",
    "mean class",
    "volume",
    "contradicted",
    "largest region",
    "structures",
    "worst slice",
    "copied slices",
    "alternative",
    "uncertain",
)
SUSPECT_MEASURES = ("contradiction", "size", "share", "uncertain", "of the case", "structure")


@dataclass(frozen=True)
class Suspect:
    """A connected region, or a slice, in which a label is contradicted.

    Attributes:
        kind: one of ``KINDS``.
        label: class that is concerned, 1 to K - 1.
        voxels: number of contradicted voxels.
        volume_ml: of these.
        centre: voxel index (x, y, z) of the middle.
        box: first voxel and the one after the last, of each axis.
        measures: values of ``SUSPECT_MEASURES``.
    """

    kind: str
    label: int
    voxels: int
    volume_ml: float
    centre: tuple[int, int, int]
    box: tuple[tuple[int, int], ...]
    measures: tuple[float, ...]

    @property
    def window(self) -> Box:
        """The box as an index into a volume."""
        first, second, third = (slice(*side) for side in self.box)
        return first, second, third


@dataclass(frozen=True)
class Examined:
    """What one label and its predictions have to say.

    Attributes:
        kind: what the whole disagreement looks like most, one of ``KINDS``; "" where nothing stands out.
        measures: values of ``CASE_MEASURES``, each larger for worse labels.
        regions: contradicted regions, largest first.
        slices: contradicted slices by their number along the slice axis.
        proposal: (X, Y, Z) the label with its contradicted regions as predicted.
    """

    kind: str
    measures: tuple[float, ...]
    regions: tuple[Suspect, ...]
    slices: dict[int, Suspect]
    proposal: Label


def examine(label: Label, shares: Shares, *, spacing_mm: Sequence[float], axis: int) -> Examined:
    """Compare a label with what is predicted.

    Args:
        label: (X, Y, Z) class indices 0 to K - 1.
        shares: (K, X, Y, Z) predicted probability of each class, the mean of all models; adds up to 1.
        spacing_mm: voxel size of each axis.
        axis: slice axis.

    Examples:
        >>> import numpy as np
        >>> from aide_monai.audit import examine
        >>> truth = np.zeros((20, 20, 5), np.uint8)
        >>> truth[4:9, 4:9] = truth[12:17, 12:17] = 1
        >>> label = truth.copy()
        >>> label[12:] = 0  # the second structure was forgotten
        >>> found = examine(label, np.stack([truth != 1, truth == 1]).astype("f4"), spacing_mm=(1, 1, 2), axis=2)
        >>> found.kind, found.regions[0].volume_ml
        ('missing structure', 0.25)
    """
    predicted = shares.argmax(axis=0).astype(np.uint8)
    box = _box_of((label > 0) | (predicted > 0))
    view = _View(label[box], predicted[box], shares[(slice(None), *box)], tuple(map(float, spacing_mm)), axis)
    offset = tuple(side.start for side in box)
    regions, proposal = _regions(view, offset)
    slices = _slices(view, offset)
    kind, gain = _kind(view, regions)
    whole = label.copy()
    whole[box] = proposal
    return Examined(kind, _measures(view, regions, slices, gain), regions, slices, whole)


@dataclass(frozen=True)
class _View:
    """Both within the smallest box that holds them, in a margin of one voxel."""

    label: Label
    predicted: Label
    shares: Shares
    spacing: tuple[float, ...]
    axis: int

    @cached_property
    def foreground(self) -> npt.NDArray[np.bool_]:
        """What is marked or predicted."""
        return (self.label > 0) | (self.predicted > 0)

    @cached_property
    def number(self) -> int:
        """Voxels that are marked or predicted, at least 1."""
        return max(int(np.count_nonzero(self.foreground)), 1)

    @cached_property
    def contradicted(self) -> float:
        """Mean contradiction of these."""
        return float(self.contradiction[self.foreground].sum()) / self.number

    @cached_property
    def contradiction(self) -> npt.NDArray[np.float32]:
        """By how much the predicted class is likelier than the label's, 0..1."""
        given = np.take_along_axis(self.shares, self.label[None].astype(np.int64), axis=0)[0]
        most: npt.NDArray[np.float32] = self.shares.max(axis=0)
        return most - given

    @cached_property
    def uncertainty(self) -> npt.NDArray[np.float32]:
        """1 minus the share of the predicted class."""
        return 1 - self.shares.max(axis=0)

    def classes(self) -> list[int]:
        """Classes that are marked or predicted."""
        return sorted({*np.unique(self.label).tolist(), *np.unique(self.predicted).tolist()} - {0})


def _box_of(mask: npt.NDArray[np.bool_]) -> Box:
    found = ndimage.find_objects(mask.astype(np.uint8))
    sides = found[0] if found and found[0] is not None else (slice(0, 1),) * 3
    first, second, third = (
        slice(max(side.start - 1, 0), min(side.stop + 1, size)) for side, size in zip(sides, mask.shape, strict=True)
    )
    return first, second, third


def _surprises(view: _View) -> tuple[list[float], list[float]]:
    """Per class: by how much the soft Dice is below that of the prediction with itself, and the ratio of volumes."""
    lacks, ratios = [], []
    for index in view.classes():
        share, mine = view.shares[index], view.label == index
        total = float(share.sum())
        agreed = 2 * float(share[mine].sum()) / max(total + np.count_nonzero(mine), 1e-6)
        own = view.predicted == index
        alone = 2 * float(share[own].sum()) / max(total + np.count_nonzero(own), 1e-6)
        lacks.append(max(alone, 0.5) - agreed)
        ratios.append(min(abs(float(np.log((np.count_nonzero(mine) + 1) / (total + 1)))), 3.0))
    return lacks, ratios


def _measures(view: _View, regions: Sequence[Suspect], slices: dict[int, Suspect], gain: float) -> tuple[float, ...]:
    lacks, ratios = _surprises(view)
    number = view.number
    largest = regions[0].voxels / number if regions else 0.0
    worst = max((one.measures[2] for one in slices.values()), default=0.0)
    return (
        max(lacks, default=0.0),
        float(np.mean(lacks)) if lacks else 0.0,
        max(ratios, default=0.0),
        view.contradicted,
        largest,
        sum(region.voxels for region in regions if region.kind in _STRUCTURES) / number,
        worst,
        _copied(view),
        max(gain, 0.0),
        -float(view.uncertainty[view.foreground].sum()) / number,
    )


def _copied(view: _View) -> float:
    """The share of neighbouring marked slices with equal labels whose predictions differ."""
    label, predicted = (np.moveaxis(voxels, view.axis, 0) for voxels in (view.label, view.predicted))
    both = label[1:].any(axis=(1, 2)) & label[:-1].any(axis=(1, 2))
    same = (label[1:] == label[:-1]).all(axis=(1, 2)) & both
    differ = (predicted[1:] != predicted[:-1]).any(axis=(1, 2))
    return int(np.count_nonzero(same & differ)) / max(int(np.count_nonzero(both)), 1)


def _suspect(
    view: _View, where: npt.NDArray[np.bool_], kind: str, label: int, box: Box, offset: Sequence[int]
) -> Suspect:
    """A region of the view; ``where`` is its mask within ``box``."""
    contradiction, uncertainty = (values[box][where] for values in (view.contradiction, view.uncertainty))
    voxels = int(np.count_nonzero(where))
    volume = voxels * float(np.prod(view.spacing)) / 1000
    centre = [round(float(places.mean())) for places in np.nonzero(where)]
    first, second, third = (c + side.start + o for c, side, o in zip(centre, box, offset, strict=True))
    return Suspect(
        kind,
        label,
        voxels,
        volume,
        (first, second, third),
        tuple((side.start + o, side.stop + o) for side, o in zip(box, offset, strict=True)),
        (
            float(contradiction.mean()),
            float(np.log(voxels)),
            voxels / view.number,
            -float(uncertainty.mean()),
            view.contradicted,
            float(kind in _STRUCTURES),
        ),
    )


def _regions(view: _View, offset: Sequence[int]) -> tuple[tuple[Suspect, ...], Label]:
    """Contradicted regions, largest first, and the label with these as predicted."""
    sure = (view.contradiction > _SURE) & (view.label != view.predicted)
    least = max(_FEWEST, _SMALLEST * view.number)
    regions = []
    proposal = view.label.copy()
    found: list[Box]
    everywhere = np.ones((3, 3, 3), bool)
    for change in np.unique(np.stack([view.label[sure], view.predicted[sure]]), axis=1).T:
        given, predicted = (int(index) for index in change)
        differs = (view.label == given) & (view.predicted == predicted)
        # a contradicted structure ends where its prediction does, which is less sure there
        whole = ndimage.binary_dilation(sure & differs, everywhere, iterations=_RIM, mask=differs)
        places, _ = ndimage.label(whole, structure=everywhere)
        found = ndimage.find_objects(places)  # type: ignore[assignment]
        for index, box in enumerate(found, start=1):
            where = places[box] == index
            core = where & sure[box]
            if np.count_nonzero(core) >= least:
                kind = _region_kind(view, box, core, given, predicted)
                regions.append(_suspect(view, where, kind, given or predicted, box, offset))
                proposal[box][where] = predicted
    return tuple(sorted(regions, key=lambda region: -region.voxels)), proposal


def _region_kind(view: _View, box: Box, where: npt.NDArray[np.bool_], given: int, predicted: int) -> str:
    if given and predicted:
        return WRONG_CLASS
    index = given or predicted
    counterpart = view.predicted if given else view.label  # what it would be a part of
    wider = tuple(
        slice(max(side.start - 1, 0), min(side.stop + 1, size))
        for side, size in zip(box, view.label.shape, strict=True)
    )
    grown = np.zeros([side.stop - side.start for side in wider], dtype=bool)
    inner = tuple(
        slice(side.start - outer.start, side.stop - outer.start) for side, outer in zip(box, wider, strict=True)
    )
    grown[inner] = where
    grown = ndimage.binary_dilation(grown, structure=np.ones((3, 3, 3), bool))
    if not (counterpart[wider][grown] == index).any():
        return EXTRA if given else MISSING
    if _whole_slices(view, box, where, index, given=bool(given)):
        return SLICES
    return LARGE if given else SMALL


def _whole_slices(view: _View, box: Box, where: npt.NDArray[np.bool_], index: int, *, given: bool) -> bool:
    """Whether most of a region lies in slices that one side leaves empty of the class, between ones it does not."""
    filled, empty = (view.label, view.predicted) if given else (view.predicted, view.label)
    has = [np.moveaxis(side == index, view.axis, 0).any(axis=(1, 2)) for side in (filled, empty)]
    lone = has[0] & ~has[1]
    inside = np.flatnonzero(has[1])
    if given or not len(inside):
        return False
    between = np.zeros_like(lone)
    between[inside[0] : inside[-1] + 1] = True
    counts = np.moveaxis(where, view.axis, 0).sum(axis=(1, 2))
    return bool(counts[(lone & between)[box[view.axis]]].sum() > 0.5 * counts.sum())


def _slices(view: _View, offset: Sequence[int]) -> dict[int, Suspect]:
    """The slices with a contradicted voxel."""
    found = {}
    sure = view.contradiction > _SURE
    for number in range(view.label.shape[view.axis]):
        box = [slice(0, size) for size in view.label.shape]
        box[view.axis] = slice(number, number + 1)
        here: Box = (box[0], box[1], box[2])
        where = sure[here]
        if where.any():
            label, predicted = view.label[here][where], view.predicted[here][where]
            index = int(np.bincount(np.where(label > 0, label, predicted)).argmax())
            kind = LARGE if np.count_nonzero(label) > np.count_nonzero(predicted) else SMALL
            suspect = _suspect(view, where, kind, index, here, offset)
            union = max(int(np.count_nonzero(view.foreground[here])), 1)
            of_slice = (*suspect.measures[:2], suspect.voxels / union, *suspect.measures[3:])
            found[number + offset[view.axis]] = replace(suspect, measures=of_slice)
    return found


def _kind(view: _View, regions: Sequence[Suspect]) -> tuple[str, float]:
    """What explains the disagreement best, and what a label that is moved, mirrored or renamed would gain in Dice."""
    classes = view.classes()
    base = mean_dice(view.label, view.predicted, classes)
    gains = {kind: dice - base for kind, dice in alternatives(view.label, view.predicted, classes).items()}
    best = max(gains, key=lambda kind: gains[kind], default=OTHER)
    gain = gains.get(best, 0.0)
    if gain > max(_GAIN, 0.4 * (1 - base)):
        return best, gain
    marked, predicted = view.label > 0, view.predicted > 0
    sides = int(np.count_nonzero(marked)), int(np.count_nonzero(predicted))
    shared = 2 * int(np.count_nonzero(marked & predicted)) / max(sum(sides), 1)
    if min(sides) and shared < 0.1:
        return OTHER, gain
    if _copied(view) > 0:
        return SLICES, gain
    sizes: dict[str, int] = {}
    for region in regions:
        sizes[region.kind] = sizes.get(region.kind, 0) + region.voxels
    if not sizes:
        return "", gain
    return max(sizes, key=lambda kind: sizes[kind]), gain
