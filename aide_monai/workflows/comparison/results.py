"""The per-case table of a comparison: every method, setting and seed in one CSV file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aide_monai.reports.tables import COLUMNS as SCORE_COLUMNS
from aide_monai.reports.tables import Row, read_rows
from aide_monai.reports.text import csv_bytes
from aide_monai.utils.files import write_atomically

COLUMNS = ("setting", "seed", "fold", "train_hqa", "train_lqa", "pp", "patient", *SCORE_COLUMNS, "qubiq")
_INTEGERS = ("seed", "fold", "train_hqa", "train_lqa", "pp", "label", "tp", "fp", "fn")
_TEXTS = ("setting", "patient", "method", "network", "case", "label_name")


def write_results(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write per-case rows of a comparison; all reads back exactly, and the file appears whole or not at all.

    Args:
        path: CSV file; its folder is made.
        rows: dictionaries with keys of ``COLUMNS``; what is absent or None stays empty. Scores as in
            ``tables.write_csv``; "pp": whether the largest component was kept; "train_hqa" and "train_lqa": cases of
            high- and low-quality labels in training; "patient": whose case it is, the unit of all statistics; "qubiq":
            QUBIQ score, 0..1.
    """
    content = csv_bytes(COLUMNS, ({key: _plain(row.get(key)) for key in COLUMNS} for row in rows))
    write_atomically(path, lambda file: file.write(content))


def read_results(path: str | Path) -> list[Row]:
    """Read what ``write_results`` wrote.

    Raises:
        InputError: the file is missing, has other columns, or a value is not a number.
    """
    return read_rows(path, COLUMNS, _value, what="the per-case results of a comparison")


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def _value(key: str, text: str) -> Any:
    if key in _TEXTS:
        return text
    if text == "":
        return None
    return int(text) if key in _INTEGERS else float(text)
