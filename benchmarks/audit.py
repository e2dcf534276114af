"""How well wrong labels are found, on real labels with mistakes made on purpose and predictions that never saw them.

    python -m benchmarks.audit --data FOLDER --predictions MASKS [--merge] [--rates 0.1] [--seeds 0 1 2]

Each line is one kind of mistake, made in a share of the labels that are right otherwise. The scores are learned
without that kind ("leave one kind out"). AP is the average precision of finding the cases. Beside it stands that of
rivals with the same predictions: 1 - Dice with them, the mean cross-entropy of the label, and chance. "kind" is how
often the kind is named right. "IoU" is the median overlap of what is proposed to change and what was changed in the
wrong cases, "error" the expected calibration error over all cases. Mistakes that change less than 3 % of a label do
not count.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aide_monai.audit.examine import examine
from aide_monai.audit.kinds import (
    EXTRA,
    LARGE,
    MIRRORED,
    MISSING,
    MISTAKES,
    OTHER,
    SHIFTED,
    SLICES,
    SMALL,
    WRONG_CLASS,
)
from aide_monai.audit.rank import Labelled, as_volume, ranking
from aide_monai.data.checks.voxels import label_problems
from aide_monai.data.predictions import find_predictions, read_prediction
from aide_monai.data.sources import find_datalist
from aide_monai.io.ahead import open_apart
from aide_monai.io.grid import through_plane_axis

Label = npt.NDArray[np.uint8]

RIGHT = {
    "larger": (LARGE,),
    "smaller": (SMALL,),
    "uneven": (LARGE, SMALL),
    "elastic": (LARGE, SMALL, SHIFTED),
    "dropped": (SLICES, MISSING, SMALL),
    "other slice": (SHIFTED,),
    "shifted": (SHIFTED,),
    "mirrored": (MIRRORED,),
    "swapped": (WRONG_CLASS, MISSING, SMALL),
    "missing": (MISSING, SMALL, SLICES),
    "copied": (SLICES,),
    "extra": (EXTRA,),
    "other patient": (OTHER, SHIFTED, LARGE, SMALL, MIRRORED),
}
"""Kinds that are right for a mistake; with one class "swapped" and "missing" are half of it gone."""


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--predictions", required=True)
    parser.add_argument("--merge", action="store_true", help="all structures are one")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    volumes = load(Path(asked.data), Path(asked.predictions), merge=asked.merge)
    print(f"{len(volumes)} labels\n")
    print("| mistake | rate | AP | 1 - Dice | cross-entropy | chance | kind | IoU | error |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for rate in asked.rates:
        for name in RIGHT:
            found = [measure(volumes, name, rate, seed) for seed in asked.seeds]
            means = [statistics.fmean(values) for values in zip(*found, strict=True)]
            print(f"| {name} | {rate:g} | " + " | ".join(f"{value:.2f}" for value in means) + " |", flush=True)


def load(data: Path, predictions: Path, *, merge: bool) -> list[Labelled]:
    """Labels with their predictions."""
    datalist = find_datalist(data)
    found = find_predictions(predictions)
    volumes = []
    for case in datalist.cases:
        if case.label is None or case.name not in found:
            continue
        volume = open_apart(case.label)
        label = label_problems(volume.decode(), case.name, case.label, datalist)[1]
        assert label is not None
        label = np.minimum(label, 1) if merge else label
        number = 2 if merge else len(datalist.labels)
        classes = {value: min(value, 1) if merge else value for value in range(256)}
        shares = read_prediction(found[case.name], volume.grid, classes=classes, number=number)
        axis = through_plane_axis(volume.affine)
        volumes.append(as_volume(case.name, label, shares, volume.grid.spacing_mm, axis, number))
    return volumes


def spoil(volumes: list[Labelled], index: int, name: str, rng: np.random.Generator) -> Label:
    """The label of a case with a mistake."""
    volume = volumes[index]
    if name == "other patient":
        return fitted(volumes[(index + 1) % len(volumes)].label, volume.label.shape)
    return MISTAKES[name](volume.label, volume.spacing_mm, volume.axis, rng)


def fitted(label: Label, shape: tuple[int, ...]) -> Label:
    """Cut or padded around its middle."""
    result = np.zeros(shape, np.uint8)
    source, target = [], []
    for has, wants in zip(label.shape, shape, strict=True):
        common = min(has, wants)
        source.append(slice((has - common) // 2, (has - common) // 2 + common))
        target.append(slice((wants - common) // 2, (wants - common) // 2 + common))
    result[tuple(target)] = label[tuple(source)]
    return result


def measure(volumes: list[Labelled], name: str, rate: float, seed: int) -> list[float]:
    """The numbers of a line."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(volumes), max(1, round(rate * len(volumes))), replace=False)
    labels = {volume.case: volume.label for volume in volumes}
    wrong = {}
    for index in sorted(chosen.tolist()):
        label = spoil(volumes, index, name, rng)
        changed = label != volumes[index].label
        if np.count_nonzero(changed) > 0.03 * np.count_nonzero(volumes[index].label):
            wrong[volumes[index].case] = changed
            labels[volumes[index].case] = label
    if not wrong:
        return [float("nan")] * 7
    given = [replace(v, label=labels[v.case]) for v in volumes]
    others = [kind for kind in MISTAKES if kind != name]
    verdicts = ranking(given, number=len(given), expected=rate, seed=seed, mistakes=others).cases
    scores = {verdict.case: verdict.score for verdict in verdicts}
    kinds = [verdict.kind in RIGHT[name] for verdict in verdicts if verdict.case in wrong]
    return [
        average_precision(scores, wrong),
        average_precision({v.case: 1 - dice(v) for v in given}, wrong),
        average_precision({v.case: cross_entropy(v) for v in given}, wrong),
        len(wrong) / len(given),
        statistics.fmean(kinds),
        statistics.median(overlap(v, wrong[v.case]) for v in given if v.case in wrong),
        calibration_error(scores, wrong),
    ]


def average_precision(scores: dict[str, float], wrong: dict[str, Label]) -> float:
    """Mean of the precision at each wrong case, in descending order of the scores."""
    hits = [case in wrong for case in sorted(scores, key=lambda case: -scores[case])]
    return statistics.fmean(sum(hits[: n + 1]) / (n + 1) for n, hit in enumerate(hits) if hit)


def dice(volume: Labelled) -> float:
    """Mean over the classes of the Dice of label and prediction."""
    predicted = volume.shares.argmax(axis=0)
    found = []
    for index in range(1, len(volume.shares)):
        one, other = volume.label == index, predicted == index
        total = np.count_nonzero(one) + np.count_nonzero(other)
        found.append(2 * np.count_nonzero(one & other) / total if total else 1.0)
    return statistics.fmean(found)


def cross_entropy(volume: Labelled) -> float:
    """Mean over all voxels."""
    given = np.take_along_axis(volume.shares, volume.label[None].astype(np.int64), axis=0)
    return float(-np.log(np.maximum(given, 1e-6)).mean())


def overlap(volume: Labelled, changed: npt.NDArray[np.bool_]) -> float:
    """IoU of what the proposal changes and what was changed."""
    found = examine(volume.label, volume.shares, spacing_mm=volume.spacing_mm, axis=volume.axis)
    marked = found.proposal != volume.label
    return float(np.count_nonzero(marked & changed) / max(np.count_nonzero(marked | changed), 1))


def calibration_error(scores: dict[str, float], wrong: dict[str, Label], bins: int = 5) -> float:
    """Mean distance of what is said from what is so, in bins of equal width."""
    cases = list(scores)
    said = np.array([scores[case] for case in cases])
    so = np.array([case in wrong for case in cases], dtype=float)
    place = np.minimum((said * bins).astype(int), bins - 1)
    return float(sum(abs((said - so)[place == n].sum()) for n in range(bins)) / len(cases))


if __name__ == "__main__":
    main()
