"""One table, in every form in which it is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rich import box
from rich.table import Table as RichTable

from aide_monai.reports.text import csv_bytes, literal, markdown_text


@dataclass(frozen=True)
class Table:
    """A table to print, paste, store or put on a page (``reports.html`` shows it there).

    Attributes:
        header: titles of the columns.
        lines: cells, as plain text: every form shows it as it is.
        left: number of columns at the left that hold text.
        notes: what the reader must know, as plain text.

    Examples:
        >>> table = Table(["case", "DSC (%)"], [["a*b", "81.2"]], left=1)
        >>> print(table.markdown())
        | case | DSC (%) |
        | --- | ---: |
        | a\\*b | 81.2 |
        >>> print(table.json())
        [{"case": "a*b", "DSC (%)": "81.2"}]
    """

    header: list[str]
    lines: list[list[str]]
    left: int
    notes: list[str] = field(default_factory=list)

    def first(self, number: int) -> Table:
        """The first lines, with a note on how many there are beside them.

        >>> print(Table(["case"], [["a"], ["b"], ["c"]], left=1).first(1).markdown())
        | case |
        | --- |
        | a |
        <BLANKLINE>
        2 more.
        """
        left = len(self.lines) - number
        return self if left <= 0 else replace(self, lines=self.lines[:number], notes=[f"{left} more.", *self.notes])

    def markdown(self) -> str:
        """As Markdown."""
        rule = ["---"] * self.left + ["---:"] * (len(self.header) - self.left)
        cells = [list(map(markdown_text, self.header)), rule, *(list(map(markdown_text, line)) for line in self.lines)]
        lines = ["| " + " | ".join(line) + " |" for line in cells]
        return "\n".join(lines + (["", *map(markdown_text, self.notes)] if self.notes else []))

    def rich(self, title: str, *, without: Sequence[str] = ()) -> RichTable:
        """For the terminal; a text that is too long goes on in the next line, and none is cut.

        Args:
            title: above the table.
            without: columns that are left out.
        """
        # Without frame and padding, because it must fit 80 columns.
        caption = literal("\n".join(self.notes), "table.caption") if self.notes else None
        table = RichTable(title=literal(title, "table.title"), caption=caption, box=box.SIMPLE_HEAD, padding=0)
        shown = [index for index, name in enumerate(self.header) if name not in without]
        for index in shown:
            text = index < self.left
            # What a line is about is read before its numbers: its own column gives way last.
            width = max((len(line[index]) for line in self.lines), default=None) if index == 0 else None
            table.add_column(
                literal(self.header[index]),
                justify="left" if text else "right",
                overflow="fold",
                min_width=width,
            )
        for line in self.lines:
            table.add_row(*(literal(line[index]) for index in shown))
        return table

    def csv(self) -> bytes:
        """As CSV in UTF-8, without the notes; no text of it is run by a spreadsheet."""
        return csv_bytes(self.header, (dict(zip(self.header, line, strict=True)) for line in self.lines))

    def json(self) -> str:
        """As a list of objects, without the notes."""
        return json.dumps([dict(zip(self.header, line, strict=True)) for line in self.lines], ensure_ascii=False)
