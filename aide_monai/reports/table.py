"""One table, in every form in which it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """A table to print, paste or put on a page.

    Attributes:
        header: titles of the columns.
        lines: cells, as text.
        left: number of columns at the left that hold text.
        notes: what the reader must know.
    """

    header: list[str]
    lines: list[list[str]]
    left: int
    notes: list[str]

    def markdown(self) -> str:
        """As Markdown."""
        lines = markdown_lines(self.header, self.lines, self.left)
        return "\n".join(lines + (["", *self.notes] if self.notes else []))


def _markdown(header: list[str], body: list[list[str]], left: int, notes: list[str]) -> str:
    notes = ["", "\\" + " ".join(notes)] if notes else []
    return "\n".join([*markdown_lines(header, body, left), *notes])


def markdown_lines(header: Sequence[str], body: Sequence[Sequence[str]], left: int) -> list[str]:
    """A Markdown table, line by line.

    Args:
        header: names of the columns.
        body: cells of each line, as text.
        left: number of columns at the left that hold text; the others are aligned right.
    """
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (header, rule, *body)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _rich(header: list[str], body: list[list[str]], left: int, notes: list[str], title: str) -> RichTable:
    # Without frame and padding, because it must fit 80 columns.
    table = RichTable(title=title, caption="\n".join(notes) or None, box=box.SIMPLE_HEAD, padding=0)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index < left else "right")
    for line in body:
        table.add_row(*line)
    return table
