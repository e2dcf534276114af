"""Cases, slices and regions in the order in which somebody should look at them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aide_monai.audit.calibration import Calibration, calibrate
from aide_monai.audit.examine import CASE_MEASURES, Examined, Suspect, examine
from aide_monai.audit.kinds import MISTAKES
from aide_monai.errors import InputError, Problem
from aide_monai.ignored import IGNORED
from aide_monai.metrics.masks import ArrayLike
from aide_monai.utils.validation import require_choices, require_numbers

_MOST_SPOILT = 240
_CHANGED = 0.03
"""A mistake that changes less than this share of a label is none to learn from."""
_BORDER = 0.7
"""Standard deviation in voxels of the Gaussian that makes shares of a mask."""

_SUM = 0.02
"""By so much probabilities may miss 1."""


@dataclass(frozen=True)
class CaseAudit:
    """The verdict on one label.

    Attributes:
        case: its name.
        score: probability 0..1 that the label is wrong.
        kind: what it looks like, one of ``KINDS``; "" where nothing stands out.
        regions: contradicted regions with the probability 0..1 of each, most likely first.
        slices: contradicted slices by number, likewise.
        measures: what was seen, by the names of ``CASE_MEASURES``.
    """

    case: str
    score: float
    kind: str
    regions: tuple[tuple[Suspect, float], ...]
    slices: tuple[tuple[int, float], ...]
    measures: Mapping[str, float]


@dataclass(frozen=True)
class Ranking:
    """All labels, most suspicious first.

    Attributes:
        cases: verdicts.
        calibration: of the cases' scores; ``calibration.error`` says how far they can be trusted.
    """

    cases: list[CaseAudit]
    calibration: Calibration


@dataclass(frozen=True)
class Labelled:
    """One label and what was predicted for it.

    Attributes:
        case: its name.
        label: (X, Y, Z) uint8 class indices.
        shares: (K, X, Y, Z) float32 probabilities.
        spacing_mm: voxel size.
        axis: slice axis.
        silent: (X, Y, Z) bool, voxels without a verdict; label and shares are background there.
    """

    case: str
    label: npt.NDArray[np.uint8]
    shares: npt.NDArray[np.float32]
    spacing_mm: tuple[float, ...]
    axis: int
    silent: npt.NDArray[np.bool_]


def rank(
    labels: Mapping[str, ArrayLike],
    probabilities: Mapping[str, ArrayLike],
    *,
    spacing_mm: Sequence[float] | Mapping[str, Sequence[float]],
    axis: int = 2,
    expected: float = 0.1,
    seed: int = 0,
    mistakes: Sequence[str] = tuple(MISTAKES),
) -> Ranking:
    """Rank labels by how likely they are wrong, judged by predictions of models that were not trained on them.

    Scores are probabilities: the labels are spoilt on purpose in the ways of ``MISTAKES``, and a logistic model learns
    to tell these from the labels as they are. Of labels at 0.8 about 80 % are wrong, where mistakes are of these kinds
    and ``expected`` is right; ``Ranking.calibration.error`` is the mean distance from that on cases not learned from.

    Args:
        labels: class indices (X, Y, Z), or (X, Y) of an image, by case; 255 is a voxel without a verdict, not judged.
        probabilities: of the same cases (K, X, Y, Z), or (M, K, X, Y, Z) of M models, which count alike; 0..1, adding
            up to 1 over the K classes. A mask of class indices (X, Y, Z) is taken for sure within, and for half sure at
            its border.
        spacing_mm: voxel size of each axis, of all cases or by case.
        axis: slice axis.
        expected: share of labels that is expected to be wrong, 0..1.
        seed: of the mistakes.
        mistakes: names in ``MISTAKES``, which scores are learned from.

    Raises:
        InputError: one report of all cases without a partner, shapes that differ, values that are no probabilities.

    Examples:
        >>> import numpy as np
        >>> from aide_monai.audit import rank
        >>> truth = {f"c{n}": np.pad(np.ones((6 + n % 3, 8, 6), np.uint8), 4) for n in range(6)}
        >>> labels = {**truth, "c3": np.roll(truth["c3"], 3, axis=0)}
        >>> worst = rank(labels, truth, spacing_mm=(1.0, 1.0, 1.0)).cases[0]
        >>> worst.case, worst.kind
        ('c3', 'shifted')
    """
    problems = [
        Problem("no prediction", "one for every label", "add it, or leave the case out", case=case)
        for case in labels
        if case not in probabilities
    ]
    problems += [Problem("no label", "one for every prediction", case=case) for case in probabilities.keys() - labels]
    if not labels:
        problems.append(Problem("no labels", "at least one"))
    for case in labels.keys() & probabilities.keys():
        found = volume_problem(np.asarray(labels[case]), np.asarray(probabilities[case]))
        problems += [Problem(found.found, found.expected, found.advice, case=case)] if found else []
    if problems:
        raise InputError("labels that cannot be ranked", problems=problems)

    def volumes() -> Iterator[Labelled]:
        for case, label in labels.items():
            steps = spacing_mm[case] if isinstance(spacing_mm, Mapping) else spacing_mm
            yield as_volume(case, np.asarray(label), np.asarray(probabilities[case]), steps, axis)

    return ranking(volumes(), number=len(labels), expected=expected, seed=seed, mistakes=mistakes)


def ranking(
    volumes: Iterable[Labelled],
    *,
    number: int,
    expected: float = 0.1,
    seed: int = 0,
    mistakes: Sequence[str] = tuple(MISTAKES),
    on_examined: Any = None,
) -> Ranking:
    """As ``rank``, of volumes that are read one after another.

    Args:
        volumes: checked ones, see ``volume_problem``.
        number: how many there are.
        expected, seed, mistakes: see ``rank``.
        on_examined: called with each volume and what was found, ``Examined``, to draw or write it.

    Raises:
        InputError: ``expected`` is out of range.
    """
    require_numbers({"expected": expected}, {"expected": (0.001, 0.9)})
    for name in mistakes:
        require_choices({"mistakes": name}, {"mistakes": tuple(MISTAKES)})
    times = max(1, min(len(mistakes), round(_MOST_SPOILT / max(number, 1))))
    every = max(1, round(number * times / _MOST_SPOILT))
    names: list[str] = []
    found: list[Examined] = []
    spoilt: list[tuple[int, Examined, npt.NDArray[np.bool_], int]] = []
    order = np.random.default_rng(seed)
    for index, volume in enumerate(volumes):
        seen = _examined(volume, volume.label)
        names.append(volume.case)
        found.append(seen)
        if on_examined is not None:
            on_examined(volume, seen)
        if index % every == 0 and volume.label.any():
            for name in order.permutation(list(mistakes))[:times]:
                label = MISTAKES[str(name)](volume.label, volume.spacing_mm, volume.axis, order)
                label = np.where(volume.silent, 0, label).astype(np.uint8)
                changed = label != volume.label
                if np.count_nonzero(changed) > _CHANGED * np.count_nonzero(volume.label):
                    spoilt.append((index, _examined(volume, label), changed, volume.axis))
    return _scored(names, found, spoilt, expected)


def _examined(volume: Labelled, label: npt.NDArray[np.uint8]) -> Examined:
    return examine(label, volume.shares, spacing_mm=volume.spacing_mm, axis=volume.axis)


def _scored(
    names: Sequence[str],
    found: Sequence[Examined],
    spoilt: Sequence[tuple[int, Examined, npt.NDArray[np.bool_], int]],
    expected: float,
) -> Ranking:
    """Learn what is likely wrong from what was spoilt, and say so of everything."""
    cases = calibrate(
        [seen.measures for seen in found],
        [seen.measures for _, seen, *_ in spoilt],
        expected=expected,
        doubtful=expected,
        groups=(range(len(found)), [index for index, *_ in spoilt]),
    )
    scores = cases([seen.measures for seen in found])
    likely = [seen for seen, score in zip(found, scores, strict=True) if score < 0.5]  # the labels that are right
    hit = [r.measures for _, seen, changed, _ in spoilt for r in seen.regions if _mostly(changed, r)]
    regions = _of_parts([[r.measures for r in seen.regions] for seen in likely], hit, len(spoilt), expected)
    hit = [
        one.measures
        for _, seen, changed, axis in spoilt
        for number, one in seen.slices.items()
        if changed.take(number, axis=axis).any()
    ]
    slices = _of_parts([[s.measures for s in seen.slices.values()] for seen in likely], hit, len(spoilt), expected)
    verdicts = []
    for name, seen, score in zip(names, found, scores, strict=True):
        of_regions = zip(seen.regions, regions([r.measures for r in seen.regions]).tolist(), strict=True)
        of_slices = zip(seen.slices, slices([s.measures for s in seen.slices.values()]).tolist(), strict=True)
        verdicts.append(
            CaseAudit(
                name,
                float(score),
                seen.kind,
                tuple(sorted(of_regions, key=lambda both: -both[1])),
                tuple(sorted(of_slices, key=lambda both: -both[1])),
                dict(zip(CASE_MEASURES, seen.measures, strict=True)),
            )
        )
    return Ranking(sorted(verdicts, key=lambda verdict: -verdict.score), cases)


def _of_parts(
    right: Sequence[Sequence[Sequence[float]]], wrong: Sequence[Sequence[float]], copies: int, expected: float
) -> Calibration:
    """Of regions or slices: those of labels that are likely right, by label, against those that were spoilt.

    How many of all are wrong follows from how many a right and a spoilt label have.
    """
    given = [measures for of_label in right for measures in of_label]
    of_right = (len(given) + 0.5) / max(len(right), 1)
    of_wrong = (len(wrong) + 0.5) / max(copies, 1)
    share = expected * of_wrong / (expected * of_wrong + (1 - expected) * of_right)
    return calibrate(given, wrong, expected=float(np.clip(share, 0.01, 0.99)))


def _mostly(changed: npt.NDArray[np.bool_], region: Suspect) -> bool:
    """Whether at least half of what is contradicted was spoilt; the box may hold other changes too."""
    return bool(2 * np.count_nonzero(changed[region.window]) >= region.voxels)


def volume_problem(label: npt.NDArray[Any], shares: npt.NDArray[Any]) -> Problem | None:
    """What is wrong with a label and its probabilities, or None; see ``rank`` for what they have to be."""
    if shares.shape == label.shape:
        if shares.dtype.kind not in "biu" and not np.array_equal(shares, np.rint(shares)):
            return Problem("one number per voxel", "a share of each class, (K, X, Y, Z), or a mask of whole numbers")
        return None
    if shares.shape[-label.ndim :] != label.shape or shares.ndim not in (label.ndim + 1, label.ndim + 2):
        found = f"probabilities of shape {shares.shape} for a label of shape {label.shape}"
        return Problem(found, "(K, X, Y, Z) or (M, K, X, Y, Z) on the grid of the label")
    classes = shares.shape[-label.ndim - 1]
    highest = int(label.max(initial=0, where=label != IGNORED))
    if highest >= classes:
        return Problem(f"the class {highest} in the label", f"below {classes}, as many as there are shares")
    if not np.isfinite(shares).all():
        return Problem("probabilities that are no numbers", "0 to 1", "predict the case again")
    if shares.min() < -1e-3 or shares.max() > 1 + 1e-3:
        found = f"values from {shares.min():.3g} to {shares.max():.3g}"
        return Problem(found, "probabilities, 0 to 1", "apply softmax if these are logits")
    total = shares.sum(axis=-label.ndim - 1, dtype=np.float64)
    if abs(total - 1).max() > _SUM:
        found = f"probabilities that add up to {total.min():.3g} to {total.max():.3g} over the classes"
        return Problem(found, "1", "write all classes, the background first; normalise those of a sigmoid")
    return None


def as_volume(
    case: str,
    label: npt.NDArray[Any],
    shares: npt.NDArray[Any],
    spacing_mm: Sequence[float],
    axis: int,
    classes: int = 2,
    looked_for: Sequence[int] | None = None,
) -> Labelled:
    """A checked label and its probabilities, with three axes and of one model; ``classes`` are there at least.

    Where nobody has judged, there is nothing to contradict: voxels without a verdict are background for both, and so
    is what is predicted of classes that nobody has ``looked_for`` (None: all were).
    """
    from scipy.ndimage import gaussian_filter

    flat = label.ndim == 2
    silent = label == IGNORED
    label = np.where(silent, 0, label)
    if shares.shape == label.shape:
        most = max(classes, int(label.max(initial=0)) + 1, int(shares.max(initial=0)) + 1)
        masks = [gaussian_filter((shares == k).astype(np.float32), _BORDER) for k in range(most)]
        shares = np.stack(masks)
    elif shares.ndim == label.ndim + 2:
        shares = shares.mean(axis=0)
    label, shares = label.astype(np.uint8), shares.astype(np.float32)
    unknown = [] if looked_for is None else [index for index in range(1, len(shares)) if index not in looked_for]
    shares[0] += shares[unknown].sum(axis=0)
    shares[unknown] = 0
    shares[:, silent] = 0
    shares[0, silent] = 1
    if flat:
        label, shares, silent, axis = label[..., None], shares[..., None], silent[..., None], 2
        spacing_mm = [*spacing_mm, 1.0][:3]
    return Labelled(case, label, shares, tuple(map(float, spacing_mm)), axis, silent)
