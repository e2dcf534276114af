"""Pictures of a run: learning curves, label quality, scores per case, and overlays on the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from aide_monai.utils.files import write_atomically

# Okabe and Ito's palette, which colour-blind readers can tell apart
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
REFERENCE_COLOUR, LABEL_COLOUR = "#009E73", "#D55E00"
_AXIS_TITLES = {
    "dsc": "DSC",
    "ravd": "RAVD (%)",
    "assd": "ASSD (mm)",
    "mssd": "MSSD (mm)",
    "hd95": "HD95 (mm)",
    "nsd": "NSD",
}


@dataclass(frozen=True)
class Overlay:
    """One panel: an image slice with contours.

    Attributes:
        image: (H, W) intensities.
        reference: (H, W) integer mask, drawn as a thin line; None for none.
        mask: (H, W) integer mask, drawn as a bold line; None for none.
        title: text above the panel.
        aspect: height of a pixel over its width.
    """

    image: ArrayLike
    reference: ArrayLike | None
    mask: ArrayLike | None
    title: str
    aspect: float = 1.0


def learning_curves(epochs: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path) -> None:
    """Loss of every method per epoch, each on axes of its own, for they differ in kind; and what AIDE logs beside it.

    Args:
        epochs: method to rows with "epoch" and "loss"; rows may have "consistency" (lambda), "dsc_train" and
            "disagreement", all in 0..1.
        path: PNG file.
    """
    across = min(3, max(1, len(epochs)))
    down = max(1, -(-len(epochs) // across))
    figure = Figure(figsize=(3 * across + 5, max(3.5, 2.3 * down)), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(3 * across, 5))
    left, right = parts
    losses, details = left.subplots(down, across, squeeze=False).ravel(), right.subplots()
    for axes, colour, (method, rows) in zip(losses, cycle(COLOURS), epochs.items(), strict=False):
        axes.plot(_column(rows, "epoch"), _column(rows, "loss"), color=colour, marker="o", ms=3)
        _finish(axes, f"Loss of {method}", "epoch", "")
        for key, name, style in (
            ("dsc_train", "Dice with the training labels", "-"),
            ("consistency", "consistency ramp λ", "--"),
            ("disagreement", "disagreement of the networks", ":"),
        ):
            if rows and key in rows[0]:
                details.plot(_column(rows, "epoch"), _column(rows, key), style, color=colour, label=f"{method}: {name}")
    for axes in losses[len(epochs) :]:
        axes.set_axis_off()
    _finish(details, "What two networks log", "epoch", "value")
    details.set_ylim(-0.03, 1.03)
    save(figure, path)


def label_quality(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """How good the corrected labels are after every epoch, and how many were replaced.

    Args:
        rows: "epoch", "network" (1 or 2), "mean_dice" of the current labels with the clean ones (0..1), "corrected"
            (units replaced after that epoch); epoch 0 holds the labels as given.
        path: PNG file.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    bars = axes.twinx()
    for network, colour in zip((1, 2), COLOURS, strict=False):
        mine = [row for row in rows if row["network"] == network]
        axes.plot(
            _column(mine, "epoch"),
            _column(mine, "mean_dice"),
            color=colour,
            marker="o",
            label=f"labels of network {network}",
        )
        bars.bar(
            _column(mine, "epoch") + 0.3 * (network - 1.5), _column(mine, "corrected"), 0.3, color=colour, alpha=0.2
        )
    start = next(row["mean_dice"] for row in rows if row["epoch"] == 0)
    axes.axhline(start, color="grey", lw=1, ls="--", label="labels as given")
    axes.set_zorder(bars.get_zorder() + 1)
    axes.patch.set_visible(False)
    bars.set_ylabel("labels replaced (bars)")
    _finish(axes, "Quality of the low-quality labels", "epoch", "mean Dice with the clean labels")
    save(figure, path)


def memorisation(epochs: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path) -> None:
    """How well predictions on training images fit the labels that were given and the clean ones, after every epoch.

    Where the given labels are fitted ever better and the clean ones ever worse, a network memorises the mistakes of
    its labels (the paper's Supplementary Fig. 11).

    Args:
        epochs: method to rows with "epoch", "fit_given" and "fit_clean" (mean Dice, 0..1); rows may have
            "label_quality_1" and "label_quality_2", the Dice of the current labels with the clean ones.
        path: PNG file.
    """
    figure = Figure(figsize=(5.5 * len(epochs), 4), layout="constrained")
    panels = figure.subplots(1, len(epochs), squeeze=False, sharey=True)[0]
    for axes, (method, rows) in zip(panels, epochs.items(), strict=True):
        for key, name, colour, style in (
            ("fit_given", "prediction, label as given", LABEL_COLOUR, "-"),
            ("fit_clean", "prediction, clean label", REFERENCE_COLOUR, "-"),
            ("label_quality_1", "label of network 1, clean label", COLOURS[0], "--"),
            ("label_quality_2", "label of network 2, clean label", COLOURS[1], "--"),
        ):
            if key in rows[0]:
                axes.plot(_column(rows, "epoch"), _column(rows, key), style, color=colour, label=name, marker="o", ms=3)
        _finish(axes, method, "epoch", "mean Dice")
    save(figure, path)


def per_case_boxplot(rows: Sequence[Mapping[str, Any]], path: str | Path, *, metric: str = "dsc") -> None:
    """Box plot of one metric over cases, one box per method, with every case as a dot.

    Args:
        rows: per-case rows; for methods with two networks, those of the mean. Infinite values are left out.
        path: PNG file.
        metric: "dsc", "ravd", "assd", "mssd", "hd95" or "nsd".
    """
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["network"] in ("mean", "single"):
            values.setdefault(row["method"], []).append(row[metric])
    figure = Figure(figsize=(1.6 * len(values) + 2, 4), layout="constrained")
    axes = figure.subplots()
    boxes(axes, values)
    axes.set_ylabel(_AXIS_TITLES[metric])
    axes.set_title("Held-out cases")
    save(figure, path)


def metric_boxplots(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Box plots of all metrics over cases, one box per label, with every case as a dot.

    Args:
        rows: per-case rows of one method. Infinite values are left out.
        path: PNG file.
    """
    names = list(dict.fromkeys(row["label_name"] for row in rows))
    known = {key: title for key, title in _AXIS_TITLES.items() if all(row.get(key) is not None for row in rows)}
    figure = Figure(figsize=(3 * (1.2 * len(names) + 1.6), 8), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(2, 3).flat, known.items(), strict=False):
        columns = [[row[metric] for row in rows if row["label_name"] == name] for name in names]
        boxes(axes, dict(zip(names, columns, strict=True)))
        axes.set_ylabel(title)
        infinite = sum(not np.isfinite(value) for column in columns for value in column)
        axes.set_title(f"{infinite} infinite, not shown" if infinite else "", fontsize=9)
    save(figure, path)


def overlays(panels: Sequence[Sequence[Overlay]], path: str | Path, *, title: str, legend: tuple[str, str]) -> None:
    """A grid of image slices with contours.

    Args:
        panels: rows of panels, all of one length.
        path: PNG file.
        title: text above the figure.
        legend: names of the thin reference line and the bold mask line.
    """
    figure = Figure(figsize=(2.6 * len(panels[0]), 2.6 * len(panels) + 0.9), layout="constrained")
    grid = figure.subplots(len(panels), len(panels[0]), squeeze=False)
    for line, axes_of_line in zip(panels, grid, strict=True):
        for panel, axes in zip(line, axes_of_line, strict=True):
            _draw(panel, axes)
            axes.set_title(panel.title, fontsize=8)
            axes.set_axis_off()
    figure.suptitle(f"{title}\n{legend[0]}: green, {legend[1]}: orange", fontsize=11)
    save(figure, path)


def contact_sheet(panels: Sequence[Overlay], path: str | Path, *, title: str, columns: int = 8) -> None:
    """Many small panels in rows.

    Args:
        panels: in reading order.
        path: PNG file.
        title: text above the figure.
        columns: panels in a row.
    """
    rows = -(-len(panels) // columns)
    width, height, side = 1.9, 2.2, 1.8  # inches of a panel with its title, and of the square for its image
    figure = Figure(figsize=(width * columns, height * rows + 0.6))
    # one system of axes, in inches: most of the time of many small ones goes into ticks that nobody sees
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width * columns), ylim=(0, height * rows + 0.6))
    axes.set_axis_off()
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        x, y = width * (column + 0.5), height * (rows - row - 1) + side / 2 + 0.03
        down, across = np.shape(panel.image)
        scale = side / 2 / max(down * panel.aspect, across)
        half = scale * across, scale * down * panel.aspect
        _draw(panel, axes, (x - half[0], x + half[0], y - half[1], y + half[1]))
        axes.text(x, y + half[1] + 0.04, panel.title, fontsize=8, ha="center", va="bottom", linespacing=1)
    axes.text(width * columns / 2, height * rows + 0.3, title, fontsize=11, ha="center", va="center")
    axes.set(xlim=(0, width * columns), ylim=(0, height * rows + 0.6), aspect="auto")
    save(figure, path)


def histograms(
    values: Mapping[str, Mapping[str, float]], marked: Mapping[str, Sequence[str]], path: str | Path
) -> None:
    """One histogram over cases per quantity, with some cases marked by name.

    Args:
        values: name of the quantity to case to value.
        marked: name of the quantity to cases that are marked.
        path: PNG file.
    """
    columns = min(len(values), 3)
    rows = -(-len(values) // columns)
    figure = Figure(figsize=(4.2 * columns, 3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, column) in zip(grid, values.items(), strict=False):
        axes.hist(list(column.values()), bins=min(30, max(5, len(column) // 2)), color=COLOURS[0], alpha=0.7)
        for case in marked.get(name, ()):
            axes.axvline(column[case], color=LABEL_COLOUR, lw=1)
            axes.text(
                column[case],
                0.97,
                case,
                rotation=90,
                fontsize=7,
                ha="right",
                va="top",
                color=LABEL_COLOUR,
                transform=axes.get_xaxis_transform(),
            )
        axes.set_title(name, fontsize=9)
        axes.set_ylabel("cases", fontsize=8)
    for axes in grid[len(values) :]:
        axes.set_axis_off()
    save(figure, path)


def boxes(axes: Axes, values: Mapping[str, Sequence[float]]) -> None:
    """One box per name over its finite values, with every value as a dot."""
    finite = {name: [value for value in column if np.isfinite(value)] for name, column in values.items()}
    axes.boxplot(list(finite.values()), tick_labels=list(finite), showfliers=False, medianprops={"color": "black"})
    for position, (colour, dots) in enumerate(zip(cycle(COLOURS), finite.values(), strict=False), start=1):
        spread = np.linspace(-0.12, 0.12, len(dots)) if len(dots) > 1 else np.zeros(len(dots))
        axes.plot(position + spread, dots, "o", color=colour, alpha=0.6, ms=4)
    axes.grid(axis="y", alpha=0.3)


def _draw(panel: Overlay, axes: Axes, place: tuple[float, float, float, float] | None = None) -> None:
    """The image and its contours; at ``place`` (left, right, bottom, top) of axes that hold others too."""
    image = np.asarray(panel.image, dtype=float)
    low, high = np.percentile(image, (1, 99))
    own: dict[str, Any] = {} if place is None else {"extent": place, "origin": "upper"}
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=panel.aspect, interpolation="nearest", **own)
    for mask, colour, width in ((panel.mask, LABEL_COLOUR, 1.8), (panel.reference, REFERENCE_COLOUR, 1.0)):
        for outline in _outlines(mask):
            axes.contour(outline, [0.5], colors=[colour], linewidths=width, **own)


def _outlines(mask: ArrayLike | None) -> list[NDArray[np.bool_]]:
    """The mask of each class that is present."""
    if mask is None:
        return []
    classes = np.asarray(mask)
    return [classes == value for value in np.unique(classes) if value and not (classes == value).all()]


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    return np.array([float(row[key]) for row in rows])


def _finish(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if x == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all; its folder is made. Names are printed as they are, dollar signs too.

    Raises:
        InputError: if the disk refuses it.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))
