"""The figures of a comparison: scores with significance marks, transfer heat maps, and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aide_monai.reports.figures import COLOURS, boxes, save


def marked_boxplots(
    values: Mapping[str, Mapping[str, Sequence[float]]],
    marks: Mapping[str, Mapping[str, str]],
    path: str | Path,
    *,
    reference: str,
    unit: str,
) -> None:
    """Box plots of a score, one panel per setting and one box per method, with significance marks (Fig. 4).

    Args:
        values: setting to method to one value per patient.
        marks: setting to method to the mark of its difference from the reference ("***", "ns", ...).
        path: PNG file.
        reference: method that the marks refer to; a bracket leads from it to each marked method.
        unit: name of the score, for the axis.
    """
    columns = min(len(values), 3)
    rows = -(-len(values) // columns)
    widest = max(len(methods) for methods in values.values())
    figure = Figure(figsize=(columns * (0.8 * widest + 1.2), 4.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (setting, methods) in zip(grid, values.items(), strict=False):
        boxes(axes, methods)
        axes.set_title(setting, fontsize=10)
        axes.set_ylabel(unit)
        axes.tick_params(axis="x", rotation=30)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
        _brackets(axes, list(methods), marks.get(setting, {}), reference, methods)
    for axes in grid[len(values) :]:
        axes.set_axis_off()
    save(figure, path)


def _brackets(
    axes: Axes,
    methods: Sequence[str],
    marks: Mapping[str, str],
    reference: str,
    values: Mapping[str, Sequence[float]],
) -> None:
    finite = [v for column in values.values() for v in column if math.isfinite(v)]
    if reference not in methods or not finite:
        return
    top, step = max(finite), 0.07 * max(max(finite) - min(finite), 1e-3)
    home = methods.index(reference) + 1
    near_first = sorted((m for m in methods if m in marks), key=lambda m: abs(methods.index(m) + 1 - home))
    for level, method in enumerate(near_first, start=1):
        height, place = top + level * step, methods.index(method) + 1
        axes.plot([place, place, home, home], [height - step / 4, height, height, height - step / 4], "k-", lw=0.8)
        axes.text((place + home) / 2, height, marks[method], ha="center", va="bottom", fontsize=8)


def transfer_heatmaps(
    maps: Mapping[str, Mapping[tuple[str, str], float]], path: str | Path, *, unit: str = "DSC (%)"
) -> None:
    """How well every domain serves every other one, a map per method on one scale (Fig. 3).

    Args:
        maps: method to (source, target) to its score.
        path: PNG file.
        unit: name of the score.
    """
    domains = list(dict.fromkeys(name for pairs in maps.values() for pair in pairs for name in pair))
    scores = [score for pairs in maps.values() for score in pairs.values()]
    size = 1.1 * len(domains) + 1.2
    figure = Figure(figsize=(size * len(maps) + 0.8, size + 0.4), layout="constrained")
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, (method, pairs) in zip(panels, maps.items(), strict=True):
        table = np.array([[pairs.get((source, target), np.nan) for target in domains] for source in domains])
        image = axes.imshow(table, cmap="viridis", vmin=min(scores), vmax=max(scores))
        for (row, column), value in np.ndenumerate(table):
            if np.isfinite(value):
                dark = value < (min(scores) + max(scores)) / 2
                axes.text(column, row, f"{value:.1f}", ha="center", va="center", color="white" if dark else "black")
        axes.set_xticks(range(len(domains)), domains)
        axes.set_yticks(range(len(domains)), domains)
        axes.set_xlabel("target")
        axes.set_ylabel("source")
        axes.set_title(method, fontsize=10)
    figure.colorbar(image, ax=list(panels), label=unit, shrink=0.8)
    save(figure, path)


def efficiency_curve(points: Mapping[str, Sequence[tuple[float, float, float]]], path: str | Path) -> None:
    """Score against the number of labelled cases, a line per method.

    Args:
        points: method to (labelled cases, mean DSC in percent, standard deviation or NaN).
        path: PNG file.
    """
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for colour, (method, line) in zip(cycle(COLOURS), points.items(), strict=False):
        x, y, spread = (np.array(column) for column in zip(*sorted(line), strict=True))
        axes.errorbar(x, y, yerr=np.nan_to_num(spread), color=colour, marker="o", ms=4, capsize=3, label=method)
    axes.set_xticks(sorted({x for line in points.values() for x, *_ in line}))
    _finish(axes, "Annotation efficiency", "labelled training cases", "DSC of held-out cases (%)")
    save(figure, path)


def memorisation_curves(
    curves: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], path: str | Path
) -> None:
    """Fit to the clean (bold) and to the given labels (dashed) of low-quality training cases, per epoch.

    Args:
        curves: setting to method to (fit to the clean labels, fit to the given labels), Dice per epoch.
        path: PNG file.
    """
    columns = min(len(curves), 3)
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.8 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (setting, methods) in zip(grid, curves.items(), strict=False):
        for colour, (method, (clean, given)) in zip(cycle(COLOURS), methods.items(), strict=False):
            axes.plot(range(1, len(clean) + 1), clean, "-", color=colour, label=method)
            axes.plot(range(1, len(given) + 1), given, "--", color=colour, lw=1)
        _finish(axes, setting, "epoch", "Dice with clean (—) and given (- -) labels")
    for axes in grid[len(curves) :]:
        axes.set_axis_off()
    save(figure, path)


def label_quality_curves(curves: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path) -> None:
    """Quality of the current labels per epoch, a panel per setting and a line per method that changes labels.

    Args:
        curves: setting to method to mean Dice of the labels with the clean ones, after each epoch.
        path: PNG file.
    """
    columns = min(len(curves), 3)
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (setting, methods) in zip(grid, curves.items(), strict=False):
        for colour, (method, line) in zip(cycle(COLOURS), methods.items(), strict=False):
            axes.plot(range(1, len(line) + 1), line, "-o", ms=3, color=colour, label=method)
        _finish(axes, setting, "epoch", "mean Dice of the labels")
    for axes in grid[len(curves) :]:
        axes.set_axis_off()
    save(figure, path)


def _finish(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if x == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8)


def significance(tests: Sequence[Mapping[str, Any]], *, metric: str) -> dict[str, dict[str, float]]:
    """Setting to method to P (Holm) of a metric without post-processing."""
    found: dict[str, dict[str, float]] = {}
    for test in tests:
        if test["metric"] == metric and not test["pp"]:
            found.setdefault(test["setting"], {})[test["method"]] = test["p_holm"]
    return found
