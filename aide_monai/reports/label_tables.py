"""What happened to the labels of a run, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aide_monai.reports.table import Table


def generations_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The generations, see ``workflows.labels.list_generations``."""
    header = ["change", "generation", "epoch", "cases changed", "voxels changed", "mean Dice before"]
    lines = []
    for row in rows:
        given = row["generation"] == 0
        lines.append(
            [
                row["change"],
                str(row["generation"]),
                str(row["epoch"]),
                "" if given else str(row["cases"]),
                "" if given or row["voxels"] is None else f"{row['voxels']:,}",
                "" if row["dice_before"] is None else f"{row['dice_before']:.3f}",
            ]
        )
    return Table(header, lines, 1, ["The labels of the last generation are in force."])


def diff_table(rows: Sequence[Mapping[str, Any]], first: int, second: int) -> Table:
    """The labels that differ between two generations, see ``workflows.labels.diff``."""
    header = ["case", "networks", f"foreground in {first}", f"foreground in {second}", "voxels changed", "Dice of both"]
    lines = [
        [
            row["case"],
            " and ".join(map(str, row["networks"])),
            f"{row['foreground_first']:,}",
            f"{row['foreground_second']:,}",
            f"{row['voxels']:,}",
            f"{row['dice']:.3f}",
        ]
        for row in rows
    ]
    labels, cases = sum(len(row["networks"]) for row in rows), len({row["case"] for row in rows})
    voxels = sum(row["voxels"] * len(row["networks"]) for row in rows)
    return Table(header, lines, 1, [f"{labels} labels of {cases} cases differ, {voxels:,} voxels in all."])
