"""Texts from data, shown as they are: in a spreadsheet, in Markdown and on a terminal."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.text import Text

_FORMULA = re.compile("'*[-=+@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # a spreadsheet takes the wide ones as well
# What means something within a line of Markdown. Not a line's first characters: in a table there are none.
_MARKUP = re.compile(r"[\\`*|~$]|<(?=[^\s\d])|&(?=[#\w])|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])")


def csv_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A CSV file, in UTF-8, no text of which a spreadsheet would run as a formula; numbers stay numbers.

    Such a text gets an apostrophe in front, which ``as_given`` takes away.

    Args:
        columns: the header.
        rows: dictionaries with keys among the columns; what is absent or None stays empty.

    Examples:
        >>> csv_bytes(["case", "change"], [{"case": "=1+1", "change": -0.5}])
        b"case,change\\r\\n'=1+1,-0.5\\r\\n"
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=columns)
    writer.writeheader()
    writer.writerows({key: _guarded(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _guarded(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def as_given(cell: str) -> str:
    """A text from a file of ``csv_bytes`` as it was before.

    Examples:
        >>> as_given("'=1+1"), as_given("'quoted'")
        ('=1+1', "'quoted'")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def visible(text: object) -> str:
    """A text whose control characters, which may move a terminal's cursor, are written out; lines stay lines.

    Examples:
        >>> print(visible("two\\x1b[2Jlines"))
        two\\x1b[2Jlines
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cs") and character != "\n"
        else character
        for character in str(text)
    )


def markdown_text(text: object) -> str:
    """A text within a line of Markdown that is shown as it is, markup and HTML included.

    Examples:
        >>> print(markdown_text("<b>5*3</b> of label_1"))
        \\<b>5\\*3\\</b> of label_1
    """
    return _MARKUP.sub(lambda match: "\\" + match[0], " ".join(visible(text).split("\n")))


def literal(text: object, style: str = "") -> Text:
    """A text that rich prints as it is: brackets are no markup, ``:name:`` is no picture.

    Examples:
        >>> literal("[bold]:smile:").plain
        '[bold]:smile:'
    """
    return Text(visible(text), style=style)
