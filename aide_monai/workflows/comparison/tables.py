"""The tables of a comparison: the summary in the paper's notation, and the tests against AIDE."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from aide_monai.metrics import GapClosure, gap_closure
from aide_monai.reports.table import Table
from aide_monai.reports.tables import METRICS

QUBIQ = ("qubiq", "QUBIQ score", "%", 100.0, 1)
_Row = Mapping[str, Any]


def reported(rows: Iterable[_Row]) -> list[_Row]:
    """Rows that stand for a method: the mean of its two networks, or its one network."""
    return [row for row in rows if row["network"] in ("mean", "single")]


def patient_values(rows: Iterable[_Row], metric: str) -> dict[str, float]:
    """Value of each patient: the mean over its cases, their classes and seeds; infinite when one of them is.

    Cases of one patient are not independent, so a patient counts once, in means, tests and intervals.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        if row[metric] is not None:
            found.setdefault(row["patient"], []).append(row[metric])
    return {patient: float(np.mean(values)) for patient, values in found.items()}


def shared_runs(*groups: Sequence[_Row]) -> list[list[_Row]]:
    """The rows of each group whose seed and fold all groups have, so that an unfinished comparison stays a fair one."""

    def run(row: _Row) -> tuple[Any, Any]:
        return row["seed"], row["fold"]

    common = set.intersection(*({run(row) for row in rows} for rows in groups)) if groups else set()
    return [[row for row in rows if run(row) in common] for rows in groups]


def summarize_comparison(rows: Sequence[_Row], *, noisy: str | None, clean: str | None) -> list[dict[str, Any]]:
    """One row per setting, method and post-processing, in order of first appearance.

    The value of a seed is the mean over its patients, see ``patient_values``; mean and spread are over the seeds.
    Infinite distances are left out of the mean of a seed, and counted.

    Args:
        rows: per-case rows, see ``reports.results``.
        noisy: method with gap closure 0; None: no gap closures.
        clean: method with gap closure 1, likewise.

    Returns:
        Dictionaries with "setting", "method", "pp", "train_hqa", "train_lqa" (means over the seeds), "seeds",
        "patients", for each metric "<metric>_mean", "<metric>_std" (NaN for one seed) and "<metric>_infinite", in the
        units of the tables, and "gap_closure", a ``GapClosure`` of the DSC or None. The key "qubiq_mean" is there for
        QUBIQ data.
    """
    groups: dict[tuple[str, str, bool], list[_Row]] = {}
    for row in reported(rows):
        groups.setdefault((row["setting"], row["method"], bool(row["pp"])), []).append(row)
    summary = []
    for (setting, method, pp), mine in groups.items():
        by_seed = {
            seed: [row for row in mine if row["seed"] == seed] for seed in dict.fromkeys(r["seed"] for r in mine)
        }
        entry: dict[str, Any] = {
            "setting": setting,
            "method": method,
            "pp": pp,
            "seeds": len(by_seed),
            "patients": len({row["patient"] for row in mine}),
        }
        for key in ("train_hqa", "train_lqa"):
            entry[key] = round(float(np.mean([row[key] for row in mine])))
        for key, _, _, factor, _ in (*METRICS, QUBIQ):
            entry |= _over_seeds([patient_values(seed, key) for seed in by_seed.values()], key, factor)
        entry["gap_closure"] = _closure(groups, setting, method, pp, noisy, clean)
        summary.append(entry)
    return summary


def _over_seeds(by_seed: Sequence[Mapping[str, float]], key: str, factor: float) -> dict[str, Any]:
    finite = [[v for v in values.values() if math.isfinite(v)] for values in by_seed]
    means = [factor * float(np.mean(values)) for values in finite if values]
    return {
        f"{key}_mean": float(np.mean(means)) if means else math.nan,
        f"{key}_std": float(np.std(means, ddof=1)) if len(means) > 1 else math.nan,
        f"{key}_infinite": sum(not math.isfinite(v) for values in by_seed for v in values.values()),
    }


def _closure(
    groups: Mapping[tuple[str, str, bool], Sequence[_Row]],
    setting: str,
    method: str,
    pp: bool,
    noisy: str | None,
    clean: str | None,
) -> GapClosure | None:
    names = [noisy, method, clean]
    if method in (noisy, clean) or not all(name is not None and (setting, name, pp) in groups for name in names):
        return None
    three = shared_runs(*(groups[setting, str(name), pp] for name in names))
    columns = [patient_values(rows, "dsc") for rows in three]
    if not all(columns) or len({tuple(sorted(column)) for column in columns}) > 1:
        return None
    return gap_closure(*([column[patient] for patient in columns[0]] for column in columns))


def summary_table(summary: Sequence[Mapping[str, Any]], tests: Sequence[Mapping[str, Any]] = ()) -> Table:
    """The summary as a table, with P of the paired t-test of DSC (QUBIQ score for such data) against AIDE.

    Args:
        summary: see ``summarize_comparison``.
        tests: dictionaries with "setting", "method", "pp", "metric", "p_t".
    """
    metrics = [m for m in (*METRICS, QUBIQ) if m[0] != "qubiq" or any(_known(entry, "qubiq") for entry in summary)]
    key = metrics[-1][0] if metrics[-1] is QUBIQ else "dsc"
    closures = any(entry["gap_closure"] for entry in summary)
    p_values = {(t["setting"], t["method"], t["pp"]): t["p_t"] for t in tests if t["metric"] == key}
    header = ["setting", "train HQA", "train LQA", "method", "PP"]
    header += [f"{title} ({unit})" for _, title, unit, _, _ in metrics]
    header += ["gap closure"] * closures + ["P against AIDE"]
    lines = []
    for entry in summary:
        line = [entry["setting"], str(entry["train_hqa"]), str(entry["train_lqa"]), entry["method"]]
        line += ["yes" if entry["pp"] else "no", *(_cell(entry, metric) for metric in metrics)]
        if closures:
            line.append(_closure_text(entry["gap_closure"]))
        p = p_values.get((entry["setting"], entry["method"], entry["pp"]))
        line.append("" if p is None else _p_text(p))
        lines.append(line)
    values = "Mean over the patients of one seed"
    if max(entry["seeds"] for entry in summary) > 1:
        values = f"Mean ± standard deviation over {_range(summary, 'seeds')} seeds"
    title = next(title for name, title, *_ in metrics if name == key)
    notes = [
        f"{values}. HQA and LQA: cases with high- and low-quality annotations in training. PP: largest component kept. "
        f"P: two-sided paired t-test of the {title} over {_range(summary, 'patients')} patients, each the mean over "
        "its cases and seeds."
        + (" Gap closure: of the DSC, with its 95 % bootstrap interval over patients." if closures else "")
    ]
    infinite = [
        f"{e['setting']}, {e['method']}{', PP' if e['pp'] else ''}: {title} {e[f'{name}_infinite']}"
        for e in summary
        for name, title, *_ in METRICS
        if e[f"{name}_infinite"]
    ]
    if infinite:
        notes.append("* without infinite values (nothing predicted, or nothing to find): " + "; ".join(infinite) + ".")
    return Table(header, lines, 5, notes)


def paired_table(tests: Sequence[Mapping[str, Any]], *, aide: str) -> Table:
    """All paired tests against AIDE.

    Args:
        tests: dictionaries with "setting", "method", "pp", and the keys of ``workflows.paired_tests``, whose A is AIDE.
        aide: name of AIDE.
    """
    header = ["setting", "method", "PP", "metric", "n", aide, "method's", f"{aide} - method", "95 % interval"]
    header += ["P (t-test)", "P (Wilcoxon)"]
    lines = []
    for test in tests:
        _, title, unit, factor, digits = next(m for m in (*METRICS, QUBIQ) if m[0] == test["metric"])
        numbers = {k: f"{factor * test[k]:.{digits}f}" for k in ("mean_a", "mean_b", "difference", "low", "high")}
        lines.append(
            [
                test["setting"],
                test["method"],
                "yes" if test["pp"] else "no",
                f"{title} ({unit})",
                str(test["n"]) + (f" (of {test['n'] + test['n_infinite']})" if test["n_infinite"] else ""),
                numbers["mean_a"],
                numbers["mean_b"],
                numbers["difference"],
                f"{numbers['low']} to {numbers['high']}",
                _p_text(test["p_t"]),
                _p_text(test["p_wilcoxon"]),
            ]
        )
    note = "Two-sided paired tests over n patients; a patient is the mean over its cases, their classes and seeds."
    return Table(header, lines, 4, [note])


def stars(p: float) -> str:
    """Significance marks of the paper's figures: ``***`` P <= 0.001, ``**`` P <= 0.01, ``*`` P <= 0.05, else ``ns``."""
    return next((mark for limit, mark in ((0.001, "***"), (0.01, "**"), (0.05, "*")) if p <= limit), "ns")


def _range(summary: Sequence[Mapping[str, Any]], key: str) -> str:
    numbers = sorted({entry[key] for entry in summary})
    return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def _known(entry: Mapping[str, Any], key: str) -> bool:
    return not math.isnan(entry[f"{key}_mean"])


def _cell(entry: Mapping[str, Any], metric: tuple[str, str, str, float, int]) -> str:
    key, _, _, _, digits = metric
    if not _known(entry, key):
        return ""
    spread = "" if math.isnan(entry[f"{key}_std"]) else f" ± {entry[f'{key}_std']:.{digits}f}"
    return f"{entry[f'{key}_mean']:.{digits}f}{spread}" + ("*" if entry[f"{key}_infinite"] else "")


def _closure_text(closure: GapClosure | None) -> str:
    if closure is None:
        return ""
    interval = "" if math.isnan(closure.low) else f" [{closure.low:.2f}, {closure.high:.2f}]"
    return f"{closure.value:.2f}{interval}"


def _p_text(p: float) -> str:
    if math.isnan(p):
        return ""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"
