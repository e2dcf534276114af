"""One table, in every form in which it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table as RichTable

from aide_monai.reports.text import literal, markdown_text


@dataclass(frozen=True)
class Table:
    """A table to print, paste or put on a page.

    Attributes:
        header: titles of the columns.
        lines: cells, as plain text: every form shows it as it is.
        left: number of columns at the left that hold text.
        notes: what the reader must know, as plain text.
    """

    header: list[str]
    lines: list[list[str]]
    left: int
    notes: list[str]

    def markdown(self) -> str:
        """As Markdown."""
        lines = markdown_lines(self.header, self.lines, self.left)
        return "\n".join(lines + (["", *map(markdown_text, self.notes)] if self.notes else []))

    def rich(self, title: str, *, without: Sequence[str] = ()) -> RichTable:
        """For the terminal.

        Args:
            title: above the table.
            without: columns that are left out.
        """
        # Without frame and padding, because it must fit 80 columns.
        caption = literal("\n".join(self.notes), "table.caption") if self.notes else None
        table = RichTable(title=literal(title, "table.title"), caption=caption, box=box.SIMPLE_HEAD, padding=0)
        shown = [index for index, name in enumerate(self.header) if name not in without]
        for index in shown:
            table.add_column(literal(self.header[index]), justify="left" if index < self.left else "right")
        for line in self.lines:
            table.add_row(*(literal(line[index]) for index in shown))
        return table


def markdown_lines(header: Sequence[str], body: Sequence[Sequence[str]], left: int) -> list[str]:
    """A Markdown table, line by line; cells are shown as they are.

    Args:
        header: names of the columns.
        body: cells of each line, as text.
        left: number of columns at the left that hold text; the others are aligned right.
    """
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    lines = [list(map(markdown_text, header)), rule, *(list(map(markdown_text, line)) for line in body)]
    return ["| " + " | ".join(line) + " |" for line in lines]
