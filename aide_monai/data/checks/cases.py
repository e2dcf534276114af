"""What cases must have in common, and what they must not share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import nibabel
import numpy as np
import numpy.typing as npt

from aide_monai.data.case import SPLITS, Case
from aide_monai.data.checks.duplicates import find_twins
from aide_monai.data.datalist import Datalist
from aide_monai.errors import Problem, Severity
from aide_monai.io.grid import Grid, through_plane_axis

SAME_SCAN = 0.995
"""Likeness from which two scans are one; from 0.98 on, somebody should look."""

EIGHT_BITS = 255
_LARGE_LABEL = 100  # voxels; equal labels of two small objects are no wonder


@dataclass(frozen=True)
class Facts:
    """What is kept of a file after it was read.

    Attributes:
        shape, affine, doubts, modality, echo_ms, acquired: see ``Volume``.
        digest: of the content, "" when unknown or constant.
        signature: of an image, see ``duplicates.signature``.
        highest: highest value of an image of integers that are not negative, else None.
        marked: marked voxels of a label.
    """

    shape: tuple[int, ...]
    affine: npt.NDArray[np.float64]
    doubts: tuple[str, ...]
    modality: str = ""
    echo_ms: float | None = None
    acquired: str = ""
    digest: str = ""
    signature: npt.NDArray[np.float32] | None = None
    highest: float | None = None
    marked: int = 0

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        return Grid(self.shape, self.affine)


Uses = list[tuple[Case, str]]  # with the path as the case has it


def compare_cases(datalist: Datalist, facts: Mapping[str, Facts]) -> Iterator[Problem]:
    """All problems that only the comparison of cases shows.

    Args:
        datalist: the data set.
        facts: real path (and selection) -> what is known of it; files that could not be read are absent.
    """
    yield from _patient_leaks(datalist)
    yield from _file_leaks(datalist, facts)
    yield from _scan_leaks(datalist, facts)
    yield from _shared_labels(datalist, facts)
    yield from _channel_order(datalist, facts)
    yield from _odd_ones(datalist, facts)
    yield from _missing_raters(datalist)


def key_of(path: str) -> str:
    """What stands for a file under all its names."""
    return os.path.realpath(path)


def _patient_leaks(datalist: Datalist) -> Iterator[Problem]:
    by_patient: dict[str, Uses] = {}
    for case in datalist.cases:
        if case.patient is not None:
            by_patient.setdefault(case.patient, []).append((case, ""))
    for patient, uses in by_patient.items():
        yield from _leaks(uses, f'the same patient "{patient}"')


def _file_leaks(datalist: Datalist, facts: Mapping[str, Facts]) -> Iterator[Problem]:
    """A file of two groups is told once: by its path, or else by its content."""
    by_path: dict[str, Uses] = {}
    by_content: dict[str, Uses] = {}
    for case in datalist.cases:
        for file in case.images:
            by_path.setdefault(key_of(file), []).append((case, file))
            if digest := _digest(facts, file):
                uses = by_content.setdefault(digest, [])
                uses += [] if uses and uses[-1][0] is case else [(case, file)]
        for file in case.labels:
            by_path.setdefault(key_of(file), []).append((case, file))
        digests = [digest for file in case.images if (digest := _digest(facts, file))]
        if len(set(digests)) < len(digests):
            found = "two channels with the same content"
            yield Problem(found, "two images", "correct the paths", case.images[0], case.name)
    for uses in by_path.values():
        yield from _leaks(uses, "the same file")
    for uses in by_content.values():
        if len({key_of(file) for _, file in uses}) > 1:
            yield from _leaks(uses, "the same image content")


def _scan_leaks(datalist: Datalist, facts: Mapping[str, Facts]) -> Iterator[Problem]:
    """One scan in two splits or domains under other intensities or a mirrored storage."""
    first: dict[str, tuple[Case, str]] = {}
    for case in datalist.cases:
        first.setdefault(key_of(case.images[0]), (case, case.images[0]))
    signatures = {key: facts[key].signature for key in first if key in facts}
    for twins in find_twins(signatures):
        one, other = first[twins.first], first[twins.second]
        same_content = facts[twins.first].digest == facts[twins.second].digest != ""
        same_patient = one[0].patient is not None and one[0].patient == other[0].patient
        if not same_content and not same_patient:
            certain = twins.likeness >= SAME_SCAN
            yield from _leaks([one, other], f"one scan (likeness {twins.likeness:.4f})", certain=certain)


def _shared_labels(datalist: Datalist, facts: Mapping[str, Facts]) -> Iterator[Problem]:
    """One label for two images: a file copied to the wrong place."""
    first: dict[str, tuple[Case, str]] = {}
    for case in datalist.cases:
        if case.label is None or not (digest := _digest(facts, case.label)):
            continue
        other, file = first.setdefault(digest, (case, case.label))
        images = [{key_of(path) for path in each.images} for each in (case, other)]
        if images[0].isdisjoint(images[1]) and facts[key_of(case.label)].marked >= _LARGE_LABEL:
            found = f'the same label content as case "{other.name}" ({file})'
            advice = "look which of the two images it was drawn on, and replace the other"
            yield Problem(found, "a label of its own", advice, case.label, case.name)


def _channel_order(datalist: Datalist, facts: Mapping[str, Facts]) -> Iterator[Problem]:
    """Channels that are swapped in some cases, as echo times and times of acquisition tell."""
    names = [datalist.modality[channel].lower() for channel in sorted(datalist.modality)]
    for what, unit in (("echo_ms", "echo times {} ms"), ("acquired", "times of acquisition {}")):
        if what == "acquired" and not any("contrast" in name for name in names):
            continue
        orders: dict[str, tuple[tuple[int, ...], str]] = {}
        for case in datalist.cases:
            known = [facts[key_of(path)] for path in case.images if key_of(path) in facts]
            values = [getattr(fact, what) for fact in known]
            if len(values) == len(names) > 1 and all(values) and len(set(values)) == len(values):
                text = unit.format(", ".join(f"{value:g}" if what == "echo_ms" else value for value in values))
                orders[case.name] = tuple(np.argsort(values).tolist()), text
        if not orders:
            continue
        usual = _known_order(names) if what == "echo_ms" else tuple(range(len(names)))
        usual = usual or Counter(order for order, _ in orders.values()).most_common(1)[0][0]
        example = next((name for name, (order, _) in orders.items() if order == usual), None)
        for name, (order, text) in orders.items():
            if order != usual:
                expected = f"the order {', '.join(datalist.modality[channel] for channel in sorted(datalist.modality))}"
                expected += f', as in case "{example}"' if example else ""
                yield Problem(f"channels of {text}", expected, "put the images into the order of modality", "", name)


def _known_order(names: list[str]) -> tuple[int, ...] | None:
    """Fat and water are out of phase first."""
    inside = [k for k, name in enumerate(names) if "in-phase" in name and "out" not in name]
    outside = [k for k, name in enumerate(names) if "out-of-phase" in name or "out-phase" in name]
    return (outside[0], inside[0]) if len(names) == 2 and inside and outside else None


def _odd_ones(datalist: Datalist, facts: Mapping[str, Facts]) -> Iterator[Problem]:
    """Cases of another modality, direction of slices, orientation or number of bits than most."""
    images = {
        case.name: (case.images[0], facts[key]) for case in datalist.cases if (key := key_of(case.images[0])) in facts
    }
    kinds = {case: fact.modality for case, (_, fact) in images.items() if fact.modality}
    axes = {case: "xyz"[through_plane_axis(fact.affine)] for case, (_, fact) in images.items()}
    codes = {case: "".join(nibabel.aff2axcodes(fact.affine)) for case, (_, fact) in images.items()}
    for values, what, advice in (
        (kinds, "modality", "leave them out, or make a data set of their own"),
        (axes, "slices across", "bring all volumes to one orientation, or name the slice axis"),
        (codes, "orientation", "bring all volumes to one orientation (Orientationd) before training"),
    ):
        counts = Counter(values.values())
        usual = max(counts, key=lambda value: counts[value], default="")
        for value in sorted(counts.keys() - {usual}):
            cases = [case for case, own in values.items() if own == value]
            more = f" (and {len(cases) - 1} more cases)" if len(cases) > 1 else ""
            found = f"{what} {value}{more}"
            yield Problem(
                found, f"{usual}, as {counts[usual]} cases have", advice, images[cases[0]][0], cases[0], "warning"
            )
    highest = [fact.highest for _, fact in images.values() if fact.highest is not None]
    if highest and float(np.median(highest)) > 1.5 * EIGHT_BITS:
        for case, (path, fact) in images.items():
            if fact.highest == EIGHT_BITS:
                expected = f"about {np.median(highest):g} at the top, as in other cases"
                advice = "look for a conversion to 8 bits; convert it again without"
                yield Problem(f"values that end at {EIGHT_BITS}", expected, advice, path, case, "warning")


def _missing_raters(datalist: Datalist) -> Iterator[Problem]:
    raters: dict[str, set[str]] = {}
    for case in datalist.cases:
        if case.rater is not None and case.rater.isdecimal():
            raters.setdefault(case.patient or case.name, set()).add(case.rater)
    if max(map(len, raters.values()), default=1) == 1:
        return
    everyone = set().union(*raters.values())
    for patient, known in raters.items():
        if missing := sorted(everyone - known):
            found = f"labels of {len(known)} of {len(everyone)} raters; missing: {', '.join(missing)}"
            advice = "add the files; nothing, if they were never drawn"
            yield Problem(found, "labels of all raters", advice, "", patient, "warning")


def _leaks(uses: Uses, what: str, *, certain: bool = True) -> Iterator[Problem]:
    """One problem per pair of splits, or of domains, that the uses of one thing fall into."""
    groups: tuple[tuple[str, Sequence[str]], ...] = (("split", SPLITS), ("domain", ()))
    for group, order in groups:
        first_of: dict[str, tuple[Case, str]] = {}
        for case, file in uses:
            member = getattr(case, group)
            if member is not None:
                first_of.setdefault(member, (case, file))
        members = [member for member in order if member in first_of] or list(first_of)
        for other in members[1:]:
            (one, _), (two, file) = first_of[members[0]], first_of[other]
            places = f'{group} "{members[0]}" (case "{one.name}") and {group} "{other}" (case "{two.name}")'
            severity: Severity = "error" if certain else "warning"
            found = f"{what} in {places}: a leak"
            yield Problem(found, "it in one of them", "remove one of the two", file, two.name, severity)


def _digest(facts: Mapping[str, Facts], path: str) -> str:
    fact = facts.get(key_of(path))
    return fact.digest if fact else ""
