"""What may be wrong with a label, and mistakes of every kind made on purpose, to learn what each looks like."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aide_monai.transforms.label_noise import (
    Label,
    deform,
    drop_components,
    resize,
    shift_boundary,
    shift_slices,
)

MISSING = "missing structure"
EXTRA = "extra structure"
LARGE = "border too large"
SMALL = "border too small"
WRONG_CLASS = "wrong class"
SHIFTED = "shifted"
MIRRORED = "mirrored or reversed"
SLICES = "slices missing or copied"
OTHER = "other organ"

KINDS = (MISSING, EXTRA, LARGE, SMALL, WRONG_CLASS, SHIFTED, MIRRORED, SLICES, OTHER)
"""Kinds of suspicion, of cases and of regions; a border that is wrong here and there counts as what outweighs."""

Mistake = Callable[[Label, Sequence[float], int, np.random.Generator], Label]


def radius_mm(label: Label, spacing_mm: Sequence[float]) -> float:
    """Radius of the ball (the disc, for one slice) that is as large as the foreground."""
    flat = 1 in label.shape
    size = np.count_nonzero(label) * float(np.prod([s for s, n in zip(spacing_mm, label.shape, strict=True) if n > 1]))
    return float(np.sqrt(size / np.pi) if flat else np.cbrt(3 * size / (4 * np.pi)))


def _size(label: Label, spacing: Sequence[float], rng: np.random.Generator) -> float:
    """A distance in mm that is much for this label: 15 to 50 % of its radius."""
    return float(rng.uniform(0.15, 0.5) * radius_mm(label, spacing))


def _larger(label: Label, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    return resize(label, distance_mm=_size(label, spacing, rng), spacing_mm=spacing)


def _smaller(label: Label, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    return resize(label, distance_mm=-_size(label, spacing, rng), spacing_mm=spacing)


def _uneven(label: Label, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    return shift_boundary(label, magnitude_mm=_size(label, spacing, rng), spacing_mm=spacing, generator=rng)


def _elastic(label: Label, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    return deform(label, magnitude_mm=_size(label, spacing, rng), spacing_mm=spacing, generator=rng)


def _dropped(label: Label, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    return drop_components(label, share=0.5, axis=axis, generator=rng)


def _other_slice(label: Label, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    steps = max(1, round(_size(label, spacing, rng) / spacing[axis]))
    return shift_slices(label, slices=int(rng.choice([-steps, steps])), axis=axis)


def _shifted(label: Label, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    across = int(rng.choice([a for a in range(3) if a != axis]))
    steps = max(1, round(_size(label, spacing, rng) / spacing[across]))
    return shift_slices(label, slices=int(rng.choice([-steps, steps])), axis=across)


def _mirrored(label: Label, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    return np.flip(label, int(rng.integers(3))).copy()


def _swapped(label: Label, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    """Two classes change their names; a class alone loses half of itself."""
    classes = np.unique(label[label > 0])
    if len(classes) < 2:
        return _missing(label, spacing, axis, rng)
    first, second = rng.choice(classes, 2, replace=False)
    table = np.arange(256, dtype=np.uint8)
    table[[first, second]] = second, first
    return table[label]


def _missing(label: Label, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    """A class vanishes, or half of the only one."""
    classes = np.unique(label[label > 0])
    gone = label == rng.choice(classes)
    if len(classes) < 2:
        places = np.argwhere(gone)
        along = int(np.ptp(places, axis=0).argmax())
        middle = [slice(None)] * 3
        half = int(np.median(places[:, along]))
        middle[along] = slice(half, None) if rng.random() < 0.5 else slice(None, half)
        kept = np.ones_like(gone)
        kept[tuple(middle)] = False
        gone = gone & ~kept
    return np.where(gone, 0, label).astype(np.uint8)


def _copied(label: Label, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    """The label of one slice on the next three."""
    result = label.copy()
    stack = result.swapaxes(0, axis)
    marked = np.flatnonzero(stack.reshape(len(stack), -1).any(axis=1))
    start = int(rng.choice(marked))
    stack[start + 1 : start + 4] = stack[start]
    return result


def _extra(label: Label, spacing: Sequence[float], axis: int, rng: np.random.Generator) -> Label:
    """A ball of a third of the radius where nothing is marked."""
    index = rng.choice(np.unique(label[label > 0]))
    radius = max(radius_mm(label, spacing) / 3, 1.5 * min(spacing))
    free = np.argwhere(label == 0)
    centre = free[rng.integers(len(free))]
    places = np.ogrid[tuple(slice(0, n) for n in label.shape)]
    far = sum(((p - c) * s) ** 2 for p, c, s in zip(places, centre, spacing, strict=True))
    return np.where((far <= radius**2) & (label == 0), index, label).astype(np.uint8)


MISTAKES: dict[str, Mistake] = {
    "larger": _larger,
    "smaller": _smaller,
    "uneven": _uneven,
    "elastic": _elastic,
    "dropped": _dropped,
    "other slice": _other_slice,
    "shifted": _shifted,
    "mirrored": _mirrored,
    "swapped": _swapped,
    "missing": _missing,
    "copied": _copied,
    "extra": _extra,
}
"""(label, spacing in mm, slice axis, generator) to the label with this mistake."""
