"""One HTML page that opens without a network: text, tables and pictures in one file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from aide_monai.reports.table import Table
from aide_monai.utils.files import write_atomically

PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("aide_monai.reports", "pages"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


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
    page = PAGES.get_template("report.html").render(title=title, sections=sections, base64=_base64)
    write_atomically(path, lambda file: file.write(page.encode()))


def _base64(file: Path) -> str:
    return base64.b64encode(Path(file).read_bytes()).decode()
