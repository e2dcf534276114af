"""The page of an audit: suspicious labels as pictures to leaf through, in one file that opens without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from aide_monai.reports.html import PAGES
from aide_monai.reports.table import Table
from aide_monai.utils.files import write_atomically

LABEL_COLOUR, PROPOSAL_COLOUR = (213, 94, 0), (0, 158, 115)
"""Of Okabe and Ito's palette; what both share is drawn as the label."""

_WIDTH = 220  # pixels of a picture, about
_GREYS = 253  # and two colours
_MOST_SLICES = 80
_WINDOW = (1.0, 99.0)  # percentiles of the image that are black and white


@dataclass(frozen=True)
class Shown:
    """A case on the page.

    Attributes:
        case, patient: names; "" for none.
        kind: of the suspicion.
        score: 0..1.
        classes: names of the classes that are concerned.
        regions: kind, class, score, volume in mL and centre of each.
        image, label, proposal: (slices, first axis, second axis).
        start: slice that is shown first.
        spacing_mm: along the first and second axis.
    """

    case: str
    patient: str
    kind: str
    score: float
    classes: list[str]
    regions: list[tuple[str, str, float, float, tuple[int, int, int]]]
    image: npt.NDArray[Any]
    label: npt.NDArray[Any]
    proposal: npt.NDArray[Any]
    start: int
    spacing_mm: tuple[float, ...]


@dataclass(frozen=True)
class Strip:
    """All slices of a case below each other, as one PNG.

    Attributes:
        png: the file, in base 64.
        width, height: of one slice, in pixels.
        numbers: of the slices, in the order of the strip.
        start: place in the strip that is shown first.
    """

    png: str
    width: int
    height: int
    numbers: list[int]
    start: int


def write_audit_page(path: str | Path, title: str, text: Sequence[str], table: Table, shown: Sequence[Shown]) -> None:
    """Write the page; the file appears whole or not at all.

    Args:
        path: HTML file.
        title: heading.
        text: paragraphs.
        table: of all cases.
        shown: cases with their pictures, most suspicious first.
    """
    page = PAGES.get_template("audit.html").render(
        title=title,
        text=text,
        table=table,
        cases=[(one, strip(one)) for one in shown],
        kinds=sorted({one.kind for one in shown} - {""}),
        classes=sorted({name for one in shown for name in one.classes}),
        patients=sorted({one.patient for one in shown} - {""}),
        colours=["#{:02x}{:02x}{:02x}".format(*colour) for colour in (LABEL_COLOUR, PROPOSAL_COLOUR)],
    )
    write_atomically(path, lambda file: file.write(page.encode()))


def strip(shown: Shown) -> Strip:
    """The slices of a case with the contours of label and proposal, pixels square in mm."""
    low, high = np.percentile(shown.image, _WINDOW)
    numbers = _numbers(shown)
    first, second = shown.spacing_mm
    _, across, down = shown.image.shape  # the first axis of a slice runs to the right, the second one up
    scale = max(1, round(_WIDTH / across))
    size = across * scale, max(1, round(down * scale * second / first))
    pictures = []
    for number in numbers:
        grey = np.clip((shown.image[number].astype(np.float32) - low) / max(float(high - low), 1e-6), 0, 1)
        picture = np.array(Image.fromarray((_GREYS * grey).astype(np.uint8).T).resize(size, Image.Resampling.BILINEAR))
        for voxels, colour in ((shown.proposal, _GREYS + 1), (shown.label, _GREYS + 2)):
            mask = np.array(Image.fromarray(voxels[number].astype(np.uint8).T).resize(size, Image.Resampling.NEAREST))
            picture[_contour(mask)] = colour
        pictures.append(picture[::-1])
    image = Image.fromarray(np.concatenate(pictures), "P")
    greys = [level for grey in range(_GREYS + 1) for level in (255 * grey // _GREYS,) * 3]
    image.putpalette([*greys, *PROPOSAL_COLOUR, *LABEL_COLOUR])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    start = int(np.argmin([abs(number - shown.start) for number in numbers]))
    return Strip(base64.b64encode(buffer.getvalue()).decode(), size[0], size[1], numbers, start)


def _numbers(shown: Shown) -> list[int]:
    """The slices to draw: those with something to see and one more at each end, thinned out where they are many."""
    marked = np.flatnonzero((shown.label > 0).any(axis=(1, 2)) | (shown.proposal > 0).any(axis=(1, 2)))
    last = len(shown.image) - 1
    first, final = (max(int(marked[0]) - 1, 0), min(int(marked[-1]) + 1, last)) if len(marked) else (0, last)
    every = range(first, final + 1)
    if len(every) <= _MOST_SLICES:
        return list(every)
    chosen = {every[round(place)] for place in np.linspace(0, len(every) - 1, _MOST_SLICES - 1)}
    return sorted(chosen | {min(max(shown.start, first), final)})


def _contour(mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Pixels of a class that have one of another class beside them."""
    changes: npt.NDArray[np.bool_] = (ndimage.minimum_filter(mask, 3) != ndimage.maximum_filter(mask, 3)) & (mask > 0)
    return changes
