"""Per-case scores as CSV, and their summary as tables to read and to paste."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from aide_monai.errors import InputError
from aide_monai.reports.table import Table
from aide_monai.reports.text import as_given, csv_bytes
from aide_monai.utils.files import write_atomically

COLUMNS = (
    "method",
    "network",
    "case",
    "label",
    "label_name",
    "dsc",
    "ravd",
    "ravd_signed",
    "assd",
    "mssd",
    "tp",
    "fp",
    "fn",
    "hd95",
    "nsd",
    "tolerance_mm",
)
NEWER = ("hd95", "nsd", "tolerance_mm")
"""Columns that tables of earlier versions lack."""
Row: TypeAlias = dict[str, Any]
"""One line of a table of results by column, such as "case", "label" and "dsc"."""

_INTEGERS = ("label", "tp", "fp", "fn")
_TEXTS = ("method", "network", "case", "label_name", "patient")
# metric in the rows, title, unit, factor from the rows to the table, digits
METRICS = (
    ("dsc", "DSC", "%", 100.0, 1),
    ("ravd", "RAVD", "%", 1.0, 1),
    ("assd", "ASSD", "mm", 1.0, 2),
    ("mssd", "MSSD", "mm", 1.0, 1),
    ("hd95", "HD95", "mm", 1.0, 1),
    ("nsd", "NSD", "%", 100.0, 1),
)


def metrics_of(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, float, int]]:
    """Those of ``METRICS`` that all rows have: tables of earlier versions lack some.

    Examples:
        >>> from aide_monai.reports.tables import metrics_of
        >>> [title for _, title, *_ in metrics_of([{"dsc": 0.9, "assd": 1.2, "hd95": None}])]
        ['DSC', 'ASSD']
    """
    return [metric for metric in METRICS if all(row.get(metric[0]) is not None for row in rows)]


def tolerance_note(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the NSD of rows calls right, where they have one."""
    found = sorted({row["tolerance_mm"] for row in rows if row.get("tolerance_mm") is not None})
    named = " or ".join(f"{tolerance:g}" for tolerance in found)
    return [f"NSD: share of both borders within {named} mm of the other one."] if found else []


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write per-case rows; all reads back exactly, and the file appears whole or not at all.

    A name that a spreadsheet would run as a formula has an apostrophe in front in the file.

    Args:
        path: CSV file; its folder is made.
        rows: dictionaries with the keys ``COLUMNS``, but for ``NEWER`` ones: DSC and NSD as ratios, RAVD in percent,
            distances in mm.
    """
    content = csv_bytes(COLUMNS, ({key: row.get(key) if key in NEWER else row[key] for key in COLUMNS} for row in rows))
    write_atomically(path, lambda file: file.write(content))


def read_csv(path: str | Path) -> list[Row]:
    """Read what ``write_csv`` wrote, now or before there were ``NEWER`` columns, which are None then.

    A last column "patient" may have been added.

    Raises:
        InputError: if the file is missing, has other columns, or a value is not a number.
    """
    return read_rows(path, COLUMNS, _parsed, what="a table of per-case scores", optional=("patient",))


def read_rows(
    path: str | Path,
    columns: Sequence[str],
    parse: Callable[[str, str], Any],
    *,
    what: str,
    optional: Sequence[str] = (),
) -> list[Row]:
    """Rows of a CSV file.

    Columns that are ``NEWER`` than the file are None.

    Args:
        path: the file.
        columns: the header it must have.
        parse: name of a column and text of a cell to its value.
        what: what the file should be, for the error.
        optional: columns that may come after these.

    Raises:
        InputError: if the file is missing, has other columns, or a value is not a number.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected {what}")
    try:
        text = path.read_bytes().decode()  # a line feed within a name stays what it is
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: found a file that is no text; expected {what}, as CSV") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    rows = []
    try:
        found = tuple(reader.fieldnames or ())
        known = tuple(columns), tuple(column for column in columns if column not in NEWER)
        if found not in (*known, *((*header, *optional) for header in known)):
            more = f", and perhaps {', '.join(optional)}" if optional else ""
            raise InputError(f"{path}: found columns {reader.fieldnames}; expected {', '.join(columns)}{more}")
        for line in reader:
            values = {key: parse(key, as_given(value)) for key, value in line.items()}
            rows.append(dict.fromkeys(NEWER) | values)
    except InputError:
        raise
    except (csv.Error, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; expected numbers") from error
    return rows


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row per method and network, in order of first appearance.

    A case counts once: its value is the mean over the classes. Infinite distances are left out of mean and standard
    deviation, and counted.

    Args:
        rows: per-case rows.

    Returns:
        Dictionaries with "method", "network", "cases", "tolerance_mm", that of the NSD, and for each metric
        "<metric>_mean", "<metric>_std" (DSC, RAVD and NSD in percent, distances in mm; sample standard deviation over
        cases) and "<metric>_infinite" (cases left out).
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["network"]), []).append(row)
    summary: list[Row] = []
    for (method, network), mine in groups.items():
        cases = list(_by_case(mine).values())
        named = {"method": method, "network": network, "cases": len(cases)}
        summary.append(named | _totals(cases) | {"tolerance_mm": mine[0].get("tolerance_mm")})
    return summary


def summarize_labels(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row per label and, for several labels, one for all, in which a case is the mean over its labels.

    Args:
        rows: per-case rows of one method.

    Returns:
        Dictionaries as in ``summarize``, with "label_name" instead of "method" and "network".
    """
    names = list(dict.fromkeys(row["label_name"] for row in rows))
    groups = {name: [[row] for row in rows if row["label_name"] == name] for name in names}
    if len(names) > 1:
        groups["mean of labels"] = list(_by_case(rows).values())
    tolerance = {"tolerance_mm": rows[0].get("tolerance_mm")}
    return [{"label_name": name, "cases": len(cases), **_totals(cases), **tolerance} for name, cases in groups.items()]


def markdown_table(summary: Sequence[Mapping[str, Any]]) -> str:
    """The summary as a Markdown table."""
    return scores_table(summary).markdown()


def scores_table(summary: Sequence[Mapping[str, Any]]) -> Table:
    """The summary as a table, with a note on infinite distances when there are any."""
    first = "method" if "method" in summary[0] else "label"
    metrics = [metric for metric in METRICS if all(f"{metric[0]}_mean" in entry for entry in summary)]
    header = [first, *(f"{title} ({unit})" for _, title, unit, _, _ in metrics)]
    lines = []
    for entry in summary:
        line = [_name(entry)]
        for key, _, _, _, digits in metrics:
            counts = {"infinite": entry[f"{key}_infinite"], "number": entry["cases"]}
            line.append(score_cell(entry[f"{key}_mean"], entry[f"{key}_std"], **counts, digits=digits))
        lines.append(line)
    notes = infinite_notes(summary, "cases") + tolerance_note(summary)
    return Table(header, lines, 1, notes)


def cases_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Every case and label of one method in a line."""
    metrics = metrics_of(rows)
    header = ["case", "label", *(f"{title} ({unit})" for _, title, unit, _, _ in metrics)]
    lines = [
        [row["case"], row["label_name"], *(f"{factor * row[key]:.{digits}f}" for key, _, _, factor, digits in metrics)]
        for row in rows
    ]
    return Table(header, lines, 2, tolerance_note(rows))


def paired_tests_table(comparison: Sequence[Mapping[str, Any]]) -> Table:
    """A comparison, see ``workflows.paired_tests``, as a table."""
    header = ["label", "metric", "patients", "A", "B", "A - B", "95 % interval", "P (t-test)", "P (Wilcoxon)"]
    lines = []
    for entry in comparison:
        _, title, unit, factor, digits = next(metric for metric in METRICS if metric[0] == entry["metric"])
        numbers = {
            key: f"{factor * entry[key]:.{digits}f}" for key in ("mean_a", "mean_b", "difference", "low", "high")
        }
        lines.append(
            [
                entry["label_name"],
                f"{title} ({unit})",
                str(entry["n"]) + (f" of {entry['n'] + entry['n_infinite']}" if entry["n_infinite"] else ""),
                numbers["mean_a"],
                numbers["mean_b"],
                numbers["difference"],
                f"{numbers['low']} to {numbers['high']}",
                f"{entry['p_t']:.2g}",
                f"{entry['p_wilcoxon']:.2g}",
            ]
        )
    return Table(header, lines, 2, _comparison_notes(comparison))


def _by_case(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    cases: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        cases.setdefault(row["case"], []).append(row)
    return cases


def _totals(cases: Sequence[Sequence[Mapping[str, Any]]]) -> Row:
    """Mean, spread and number of infinite cases of every metric; a case is the mean over its rows."""
    from aide_monai.metrics import aggregate  # only who has scores waits for it

    totals: Row = {}
    for key, _, _, factor, _ in metrics_of([row for case in cases for row in case]):
        total = aggregate(factor * np.mean([row[key] for row in case]) for case in cases)
        totals |= {f"{key}_mean": total.mean, f"{key}_std": total.std, f"{key}_infinite": total.n_infinite}
    return totals


def _comparison_notes(comparison: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = [
        f"A patient is the mean over its cases ({comparison[0]['cases']} of {comparison[0]['patients']} patients). P "
        "and intervals are those of two models as they are, and say nothing about another training of them."
    ]
    if any(entry["n_infinite"] for entry in comparison):
        notes.append("n of N patients: without those where a distance of A or B is infinite.")
    return notes


def score_cell(mean: float, std: float, *, infinite: int, number: int, digits: int) -> str:
    """Mean and spread over the finite values, and in the same cell how many of all are infinite.

    Examples:
        >>> from aide_monai.reports.tables import score_cell
        >>> score_cell(8.91, 2.1, infinite=2, number=12, digits=1)
        '8.9 ± 2.1 (inf, 2 of 12)'
    """
    failed = f"inf, {infinite} of {number}" if infinite else ""
    if math.isnan(mean):
        return failed
    spread = "" if math.isnan(std) else f" ± {std:.{digits}f}"  # a single value has none
    return f"{mean:.{digits}f}{spread}" + (f" ({failed})" if failed else "")


def infinite_notes(summary: Sequence[Mapping[str, Any]], of: str) -> list[str]:
    """What "inf" in a cell means, where there is one."""
    some = any(entry.get(f"{key}_infinite") for entry in summary for key, *_ in METRICS)
    text = f"inf: {of} without a distance, nothing predicted or nothing to find; mean and spread are of the others."
    return [text] if some else []


def _name(entry: Mapping[str, Any]) -> str:
    """What a line is about: the label, or the method and, if it has several, which network."""
    if "label_name" in entry:
        return str(entry["label_name"])
    return str(entry["method"]) if entry["network"] == "single" else f"{entry['method']} {entry['network']}"


def _parsed(key: str, value: str) -> Any:
    if key in _TEXTS:
        return value
    if key in NEWER and value == "":
        return None
    return int(value) if key in _INTEGERS else float(value)
