"""One HTML page that opens without a network: text, tables and pictures in one file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from aide_monai.reports.table import Table
from aide_monai.utils.files import write_atomically

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 1200px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.25em; margin-top: 2em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
th, td { padding: 3px 9px; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th { background: #f3f3f3; } .text { text-align: left; }
img { max-width: 100%; margin: 0.5em 0; } p.note { color: #555; font-size: 13px; }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; }
"""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: heading.
        text: paragraphs.
        table: a table, or None.
        pictures: PNG files with their captions.
        code: text in a fixed-width font, or "".
    """

    title: str
    text: Sequence[str] = ()
    table: Table | None = None
    pictures: Sequence[tuple[Path, str]] = field(default_factory=tuple)
    code: str = ""


def write_page(path: str | Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page; the file appears whole or not at all, and refers to nothing outside itself."""
    body = [f"<h1>{escape(title)}</h1>", *(part for section in sections for part in _section(section))]
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )
    write_atomically(path, lambda file: file.write(page.encode()))


def _section(section: Section) -> list[str]:
    parts = [f"<h2>{escape(section.title)}</h2>", *(f"<p>{escape(text)}</p>" for text in section.text)]
    if section.table is not None:
        parts += _table(section.table)
    for file, caption in section.pictures:
        data = base64.b64encode(Path(file).read_bytes()).decode()
        parts.append(
            f'<p class="note">{escape(caption)}</p><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        )
    if section.code:
        parts.append(f"<pre>{escape(section.code)}</pre>")
    return parts


def _table(table: Table) -> list[str]:
    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="text"' if i < table.left else "" for i in range(len(cells))]
        texts = [escape(cell) for cell in cells]
        return "<tr>" + "".join(f"<{tag}{k}>{t}</{tag}>" for k, t in zip(kinds, texts, strict=True)) + "</tr>"

    rows = [line(table.header, "th"), *(line(cells, "td") for cells in table.lines)]
    notes = [f'<p class="note">{escape(note)}</p>' for note in table.notes]
    return ["<table>", *rows, "</table>", *notes]
