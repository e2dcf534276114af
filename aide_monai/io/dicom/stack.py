"""Slices to volumes: which slices belong together, in which order, and where the volume lies.

A group of slices is one volume when it has one series, image type, echo time, orientation, size and pixel spacing, and
one slice per place; an orientation that drifts by less than half a degree is one, and a doubt. Slices are sorted by
their position along the slice normal: file names, instance numbers and SliceThickness say nothing about where a slice
lies. The affine is in RAS and belongs to an array (x, y, z) with x along the rows of pixels and z along the normal, as
MONAI's readers have it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from aide_monai.errors import Problem
from aide_monai.io.dicom.header import DicomSlice
from aide_monai.io.grid import SHEARED, Grid
from aide_monai.utils.axes import COSINE_TOLERANCE

SAME_PLACE_MM = 0.02
# A slice may lie this far from its place in an even stack: rounded positions, not a missing slice
POSITION_TOLERANCE_MM = 0.05
POSITION_TOLERANCE = 0.02  # of the spacing

SAME_ORIENTATION = 0.0087  # half a degree

_PHASE_KEYS = ("temporal_position", "b_value", "direction", "acquisition", "trigger_ms")


@dataclass(frozen=True)
class DicomSeries:
    """The slices of one volume.

    Attributes:
        slices: sorted along the normal.
        uid, description, modality, image_type, echo_ms, acquired: of the first slice, see `DicomSlice`.
        phase, phases: number of this volume, from 1, among those that share everything but the time (or b-value,
            acquisition number, trigger time), in this order.
        shape: voxels (x, y, z).
        affine: (4, 4) float64, index (x, y, z) to millimetres, RAS.
        problems: what is wrong with it, naming the files: slices missing, doubled, unevenly spaced or displaced.
        doubts: what is strange about it.
        selector: text that selects it among all volumes of the folder, such as "echo=2.302".
    """

    slices: tuple[DicomSlice, ...]
    phase: int = 1
    phases: int = 1
    affine: np.ndarray = field(default_factory=lambda: np.eye(4), repr=False)
    problems: tuple[Problem, ...] = ()
    doubts: tuple[str, ...] = ()
    selector: str = ""

    @property
    def files(self) -> list[str]:
        """Files in the order of the slices, each once."""
        return list(dict.fromkeys(one.file for one in self.slices))

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return self.slices[0].series_uid

    @property
    def description(self) -> str:
        """SeriesDescription."""
        return self.slices[0].description

    @property
    def modality(self) -> str:
        """Modality, such as "MR"."""
        return self.slices[0].modality

    @property
    def image_type(self) -> tuple[str, ...]:
        """ImageType."""
        return self.slices[0].image_type

    @property
    def echo_ms(self) -> float | None:
        """Echo time in ms."""
        return self.slices[0].echo_ms

    @property
    def acquired(self) -> str:
        """Time of the earliest slice, sorts by time; "" when unknown."""
        return min(one.acquired for one in self.slices)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels (x, y, z)."""
        return self.slices[0].pixels.columns, self.slices[0].pixels.rows, len(self.slices)

    @property
    def grid(self) -> Grid:
        """Where the voxels lie; z from the positions of the slices."""
        return Grid(self.shape, self.affine)

    def __str__(self) -> str:
        size = " x ".join(map(str, self.shape))
        spacing = " x ".join(f"{value:.4g}" for value in self.grid.spacing_mm)
        parts = [self.modality, self.description, f"{size} voxels of {spacing} mm"]
        parts += [f"echo {self.echo_ms:g} ms"] if self.echo_ms is not None else []
        parts += [f"b {self.slices[0].b_value:g} s/mm2"] if self.slices[0].b_value is not None else []
        parts += [f"phase {self.phase} of {self.phases}"] if self.phases > 1 else []
        return ", ".join(filter(None, parts))


def to_volumes(slices: Sequence[DicomSlice]) -> list[DicomSeries]:
    """All volumes that the slices make, by series number; those with problems among them, ``selector`` left empty.

    Slices at the same places are told apart by temporal position, b-value, gradient direction, acquisition number and
    trigger time, by the first one or the fewest together that give volumes with one slice per place; else by the order
    of trigger times, times of acquisition or instance numbers at each place. Otherwise they are doubled.
    """
    return [_placed(one) for group in _groups(slices) for one in _phases(group)]


def _groups(slices: Sequence[DicomSlice]) -> list[list[DicomSlice]]:
    """Slices of one series, kind, size and orientation; numbers that differ by rounding alone count as equal."""
    groups: dict[tuple[object, ...], list[tuple[np.ndarray, list[DicomSlice]]]] = {}
    for one in slices:
        exact = (one.series_uid, one.image_type, one.pixels.rows, one.pixels.columns, one.echo_ms is None)
        spacing = [value * COSINE_TOLERANCE / 1e-4 for value in one.spacing]  # equal within 1e-4 mm
        echo = (one.echo_ms or 0) * COSINE_TOLERANCE / 0.01  # equal within 0.01 ms
        cosines = np.multiply(one.orientation, COSINE_TOLERANCE / SAME_ORIENTATION)
        close = np.array([*cosines, *spacing, echo])
        alike = groups.setdefault(exact, [])
        for first, members in alike:
            if np.abs(first - close).max() <= COSINE_TOLERANCE:
                members.append(one)
                break
        else:
            alike.append((close, [one]))
    found = [members for alike in groups.values() for _, members in alike]
    return sorted(found, key=lambda group: _order(group[0]))


def _order(one: DicomSlice) -> tuple[object, ...]:
    number = float("inf") if one.series_number is None else one.series_number
    return number, one.series_uid, one.image_type, one.echo_ms or 0.0, one.file


def _phases(group: list[DicomSlice]) -> list[DicomSeries]:
    """Divide slices at the same places into volumes; slices that nothing tells apart stay together, as doubled."""
    places = _places(group)
    count = max(map(len, places))
    if count == 1:
        return [DicomSeries(_flat(places))]
    copies = any(len({(one.sop_uid, one.frame) for one in place}) < len(place) for place in places)
    if copies or "MOSAIC" in group[0].image_type:
        return [DicomSeries(_flat(places))]
    parts = _by_values(group, count) or _by_order(places, count)
    if not parts:
        return [DicomSeries(_flat(places))]
    return [DicomSeries(_flat(_places(part)), number + 1, count) for number, part in enumerate(parts)]


def _by_values(group: list[DicomSlice], count: int) -> list[list[DicomSlice]]:
    """So many volumes that some elements tell apart, the fewest of them; nothing when there are none."""
    for keys in (keys for size in range(1, len(_PHASE_KEYS) + 1) for keys in combinations(_PHASE_KEYS, size)):
        volumes: dict[tuple[object, ...], list[DicomSlice]] = {}
        for one in group:
            values = [getattr(one, key) for key in keys]
            # the image without diffusion has no direction: nothing goes before anything
            volumes.setdefault(tuple(() if value is None else (value,) for value in values), []).append(one)
        missing = any(value == () for place in volumes for value in place) and len(keys) == 1
        if len(volumes) == count and not missing and all(max(map(len, _places(one))) == 1 for one in volumes.values()):
            known = [number for number, key in enumerate(keys) if key != "direction"]  # directions have no order

            def order(place: tuple[object, ...], volumes: Any = volumes, known: Any = known) -> tuple[object, ...]:
                taken = min((one.instance or 0, one.frame, one.file) for one in volumes[place])
                return *(place[number] for number in known), *taken

            return [volumes[place] for place in sorted(volumes, key=order)]
    return []


def _by_order(places: list[list[DicomSlice]], count: int) -> list[list[DicomSlice]]:
    """So many volumes by the order in which each place was taken; nothing when it is not known at every place."""
    if any(len(place) != count for place in places):
        return []
    orders: tuple[Callable[[DicomSlice], object], ...] = (
        lambda one: one.trigger_ms,
        lambda one: one.acquired or None,
        lambda one: one.instance,
    )
    for order in orders:
        values = [[order(one) for one in place] for place in places]
        if all(None not in found and len(set(found)) == count for found in values):
            sorted_places = [sorted(place, key=order) for place in places]  # type: ignore[arg-type]
            return [[place[number] for place in sorted_places] for number in range(count)]
    return []


def _places(slices: list[DicomSlice]) -> list[list[DicomSlice]]:
    """Slices sorted along the normal; those at the same place together."""
    normal = _normal(slices[0])
    distances = np.array([one.position for one in slices]) @ normal
    places: list[list[DicomSlice]] = []
    start = -np.inf
    for index in np.argsort(distances, kind="stable"):
        if distances[index] - start > SAME_PLACE_MM:
            places.append([])
            start = distances[index]
        places[-1].append(slices[index])
    return places


def _flat(places: list[list[DicomSlice]]) -> tuple[DicomSlice, ...]:
    return tuple(one for place in places for one in place)


def _normal(one: DicomSlice) -> np.ndarray:
    normal = np.cross(one.orientation[:3], one.orientation[3:])
    return normal / np.linalg.norm(normal)


def _placed(series: DicomSeries) -> DicomSeries:
    """Add affine, problems and doubts."""
    first = series.slices[0]
    if "MOSAIC" in first.image_type:
        found = "a mosaic, all slices of a volume side by side in one picture"
        mosaic = Problem(found, "a file for each", "convert the series to NIfTI by dcm2niix", first.file)
        return replace(series, problems=(mosaic,))
    positions = np.array([one.position for one in series.slices])
    axes, normal, doubts = np.reshape(first.orientation, (2, 3)), _normal(first), []
    drift = _drift(series.slices)
    if drift > COSINE_TOLERANCE:
        doubts.append(f"a direction that drifts by {np.degrees(drift):.2g} degrees; its mean is used")
        axes, positions = _straightened(series.slices)
        normal = np.cross(*axes)
    if len(positions) > 1:
        step = (positions[-1] - positions[0]) / (len(positions) - 1)
    else:
        step = normal * (first.thickness or 1.0)
        size = (
            f"{first.thickness:g} mm, its SliceThickness" if first.thickness else "1 mm, for want of a SliceThickness"
        )
        doubts.append(f"one slice alone, taken to be {size}")
    lps = np.eye(4)
    lps[:3, 0] = axes[0] * first.spacing[1]
    lps[:3, 1] = axes[1] * first.spacing[0]
    lps[:3, 2], lps[:3, 3] = step, positions[0]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    problems = _uneven(series.slices, positions, normal)
    if not problems and Grid(series.shape, affine).sheared:
        doubts.append(SHEARED)
    return replace(series, affine=affine, problems=tuple(problems), doubts=tuple(doubts))


def _drift(slices: tuple[DicomSlice, ...]) -> float:
    """Largest angle between the directions of the first slice and those of another, as a change of cosines."""
    return float(np.abs(np.array([one.orientation for one in slices]) - slices[0].orientation).max())


def _straightened(slices: tuple[DicomSlice, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The mean direction of slices (2, 3), at right angles, and where their first pixels lie (N, 3) when they are
    turned to it about their middles, which stay."""
    first = slices[0]
    half = np.array([(first.pixels.columns - 1) * first.spacing[1], (first.pixels.rows - 1) * first.spacing[0]]) / 2
    directions = np.array([one.orientation for one in slices]).reshape(-1, 2, 3)
    rows, columns = directions.mean(axis=0)
    rows = rows / np.linalg.norm(rows)
    columns = columns - rows * (rows @ columns)
    axes = np.stack([rows, columns / np.linalg.norm(columns)])
    middles = np.array([one.position for one in slices]) + half @ directions
    return axes, middles - half @ axes


def _uneven(slices: tuple[DicomSlice, ...], positions: np.ndarray, normal: np.ndarray) -> list[Problem]:
    gaps = np.diff(positions @ normal)
    real = [gap for gap in gaps.tolist() if gap > SAME_PLACE_MM]
    spacing = statistics.median(real) if real else 0.0
    tolerance = max(POSITION_TOLERANCE_MM, POSITION_TOLERANCE * spacing)
    problems: list[Problem] = []
    for one, other, gap in zip(slices, slices[1:], gaps.tolist(), strict=False):
        between = f"{_file(one)} and {_file(other)}"
        missing = round(gap / spacing) - 1 if spacing else 0
        if gap <= SAME_PLACE_MM:
            problems.append(Problem("two slices at one place", "one", "remove one of them", between))
        elif missing > 0 and abs(gap - (missing + 1) * spacing) <= tolerance:
            number = "1 slice is" if missing == 1 else f"{missing} slices are"
            found = f"{gap:.5g} mm between them, others {spacing:.5g}: {number} missing"
            problems.append(Problem(found, "even spacing", "add the missing files", between))
        elif abs(gap - spacing) > tolerance:
            found = f"{gap:.5g} mm between them, others {spacing:.5g}"
            advice = "export the series again, or resample it to even slices"
            problems.append(Problem(found, "even spacing", advice, between))
    if problems or len(slices) < 3:
        return problems
    even = positions[0] + np.arange(len(slices))[:, None] * (positions[-1] - positions[0]) / (len(slices) - 1)
    distances = np.linalg.norm(positions - even, axis=1)
    return [
        Problem(
            f"a slice {distance:.3g} mm beside its place in the stack",
            "the slices on one line",
            "export the series again",
            _file(one),
        )
        for one, distance in zip(slices, distances.tolist(), strict=True)
        if distance > tolerance
    ]


def _file(one: DicomSlice) -> str:
    return one.file + (f" (frame {one.frame + 1})" if one.pixels.frames > 1 else "")
