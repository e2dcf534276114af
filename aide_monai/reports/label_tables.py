"""What happened to the labels of a run, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from aide_monai.reports.text import literal


def generations_table(rows: Sequence[Mapping[str, Any]], *, title: str) -> Table:
    """The generations, see ``workflows.labels.list_generations``."""
    table = Table(title=literal(title, "table.title"), caption="The labels of the last generation are in force.")
    for name in ("generation", "epoch"):
        table.add_column(name, justify="right")
    table.add_column("change")
    for name in ("cases changed", "voxels changed", "mean Dice before"):
        table.add_column(name, justify="right")
    for row in rows:
        given = row["generation"] == 0
        table.add_row(
            str(row["generation"]),
            str(row["epoch"]),
            literal(row["change"]),
            "" if given else str(row["cases"]),
            "" if given or row["voxels"] is None else f"{row['voxels']:,}",
            "" if row["dice_before"] is None else f"{row['dice_before']:.3f}",
        )
    return table


def diff_table(rows: Sequence[Mapping[str, Any]], first: int, second: int, *, title: str) -> Table:
    """The labels that differ between two generations, see ``workflows.labels.diff``."""
    labels = len(rows)
    cases = len({row["case"] for row in rows})
    voxels = sum(row["voxels"] for row in rows)
    table = Table(
        title=literal(title, "table.title"),
        caption=f"{labels} labels of {cases} cases differ, {voxels:,} voxels in all.",
    )
    table.add_column("case", overflow="fold", min_width=max((len(row["case"]) for row in rows), default=None))
    for name in ("network", f"foreground in {first}", f"foreground in {second}", "voxels changed", "Dice of both"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            literal(row["case"]),
            str(row["network"]),
            f"{row['foreground_first']:,}",
            f"{row['foreground_second']:,}",
            f"{row['voxels']:,}",
            f"{row['dice']:.3f}",
        )
    return table
