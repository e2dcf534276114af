"""Two models on the same cases: what is the difference, and how sure is it?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aide_monai.data.sources.folder import PATIENT_PATTERN, patient_expression, patient_of
from aide_monai.errors import InputError
from aide_monai.metrics import paired_t_test, wilcoxon_signed_rank
from aide_monai.reports.tables import Row, metrics_of, read_csv, tolerance_note

_Key = tuple[str, str]


def paired_tests(
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    *,
    metrics: Sequence[str] | None = None,
    patients: str = PATIENT_PATTERN,
) -> list[Row]:
    """Paired two-sided tests of every metric and label, over the patients; a patient is the mean over its cases.

    Args:
        first: per-case rows of method A.
        second: per-case rows of method B, of the same cases and labels.
        metrics: keys of the rows that are tested; None: all that both have.
        patients: regular expression for the whole name of a case; its first group is the patient, and a case that it
            does not fit is a patient of its own. It is not asked where rows name the "patient".

    Returns:
        A dictionary per label and metric: "label_name", "metric", "cases", "patients", "n" (patients in the test),
        "n_infinite" (those left out because one of both is infinite), "mean_a", "mean_b", "difference" (mean of A - B),
        "low" and "high" (95 % interval of the difference), "p_t" (paired t-test) and "p_wilcoxon" (signed-rank test,
        for few cases). DSC as a ratio, RAVD in percent, distances in mm. NaN where fewer than two pairs are left.

    Raises:
        InputError: if the cases or labels of both differ, or ``patients`` is no expression with a group.
    """
    pattern = patient_expression(patients, "patients")
    by_key = [_by_key(rows) for rows in (first, second)]
    missing = [
        f'case "{case}", {label}: only in {"AB"[i]}'
        for i in (0, 1)
        for case, label in sorted(by_key[i].keys() - by_key[1 - i].keys())
    ]
    if missing:
        raise InputError("the methods cannot be compared; expected the same cases and labels in both", problems=missing)
    if metrics is None:
        metrics = [key for key, *_ in metrics_of([*first, *second])]
    notes = [tolerance_note(rows) for rows in (first, second)]
    if "nsd" in metrics and notes[0] != notes[1]:
        raise InputError(f"A has {notes[0][0]!r}, B {notes[1][0]!r}; expected one tolerance: score both with it again")
    comparison = []
    for label in dict.fromkeys(row["label_name"] for row in first):
        keys = [key for key in by_key[0] if key[1] == label]
        groups: dict[str, list[_Key]] = {}
        for key in keys:
            groups.setdefault(_patient([rows[key] for rows in by_key], pattern), []).append(key)
        counts = {"cases": len(keys), "patients": len(groups)}
        for metric in metrics:
            values = [[np.mean([rows[key][metric] for key in mine]) for mine in groups.values()] for rows in by_key]
            comparison.append({"label_name": label, "metric": metric, **counts, **_tests(np.array(values))})
    return comparison


def _patient(rows: Sequence[Mapping[str, Any]], pattern: re.Pattern[str]) -> str:
    case = str(rows[0]["case"])
    named = [str(row["patient"]) for row in rows if row.get("patient")]
    return named[0] if named else patient_of(case, pattern) or case


def read_method(table: str) -> list[Row]:
    """Rows of one method from a per-case CSV.

    Args:
        table: ``FILE`` or, when a file holds several methods, ``FILE:METHOD``. Of a model of two networks, the rows of
            their mean count.

    Raises:
        InputError: no such file or method, or several methods to choose from.
    """
    file, colon, method = (table, "", "") if Path(table).is_file() else table.rpartition(":")
    rows = [row for row in read_csv(file if colon else table) if row["network"] in ("mean", "single")]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    if not colon and len(methods) == 1:
        method = methods[0]
    if method not in methods:
        found = ", ".join(f'"{name}"' for name in methods) or "no rows"
        raise InputError(f'{file or table}: found the methods {found}; expected one of them, as "FILE:METHOD"')
    return [row for row in rows if row["method"] == method]


def _by_key(rows: Sequence[Mapping[str, Any]]) -> dict[_Key, Mapping[str, Any]]:
    found = {(row["case"], row["label_name"]): row for row in rows}
    if not rows or len(found) < len(rows):
        raise InputError(f"found {len(rows)} rows for {len(found)} cases and labels; expected one row for each")
    return found


def _tests(values: np.ndarray) -> Row:
    """Both tests over the finite pairs of (2, patients) values."""
    finite = np.isfinite(values).all(axis=0)
    first, second = values[:, finite]
    result: Row = {"n": int(finite.sum()), "n_infinite": int((~finite).sum())}
    if result["n"] < 2:
        return result | dict.fromkeys(("mean_a", "mean_b", "difference", "low", "high", "p_t", "p_wilcoxon"), np.nan)
    test = paired_t_test(first.tolist(), second.tolist())
    return result | {
        "mean_a": float(first.mean()),
        "mean_b": float(second.mean()),
        "difference": test.mean_difference,
        "low": test.low,
        "high": test.high,
        "p_t": test.p,
        "p_wilcoxon": wilcoxon_signed_rank(first.tolist(), second.tolist()).p,
    }
