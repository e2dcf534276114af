"""The tables of a comparison: the summary in the paper's notation, and the tests against the other methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aide_monai.metrics import GapClosure, gap_closure
from aide_monai.reports.table import Table
from aide_monai.reports.tables import METRICS, NEWER, Row, infinite_notes, score_cell, tolerance_note
from aide_monai.workflows.comparison.differences import patient_values, reported, seeds_and_patients

QUBIQ = ("qubiq", "QUBIQ score", "%", 100.0, 1)
# the QUBIQ score is one of some data alone, and without post-processing; earlier versions lacked the others
_NOT_ALWAYS = (QUBIQ, *(metric for metric in METRICS if metric[0] in NEWER))
_Row = Mapping[str, Any]
Bounds = tuple[str, str]
"""Names of the methods at which a gap closure is 0 and 1."""


def summarize_comparison(rows: Sequence[_Row], *, closures: Mapping[str, Bounds] | None = None) -> list[Row]:
    """One row per setting, method and post-processing, in order of first appearance.

    The value of a seed is the mean over its patients, see ``patient_values``; mean and spread are over the seeds.
    Infinite distances are left out of the mean of a seed, and counted.

    Args:
        rows: per-case rows, see ``reports.results``.
        closures: name of a gap closure to the methods at which it is 0 and 1.

    Returns:
        Dictionaries with "setting", "method", "pp", "train_hqa", "train_lqa" (means over the seeds), "seeds",
        "patients", for each metric "<metric>_mean", "<metric>_std" (NaN for one seed) and "<metric>_infinite", in the
        units of the tables, and "closures": name to a ``GapClosure`` of the DSC or None. The key "qubiq_mean" is there
        for QUBIQ data.
    """
    groups: dict[tuple[str, str, bool], list[_Row]] = {}
    for row in reported(rows):
        groups.setdefault((row["setting"], row["method"], bool(row["pp"])), []).append(row)
    summary = []
    for (setting, method, pp), mine in groups.items():
        by_seed = {
            seed: [row for row in mine if row["seed"] == seed] for seed in dict.fromkeys(r["seed"] for r in mine)
        }
        entry: Row = {
            "setting": setting,
            "method": method,
            "pp": pp,
            "seeds": len(by_seed),
            "patients": len({row["patient"] for row in mine}),
            "tolerance_mm": mine[0].get("tolerance_mm"),
        }
        for key in ("train_hqa", "train_lqa"):
            entry[key] = round(float(np.mean([row[key] for row in mine])))
        for key, _, _, factor, _ in (*METRICS, QUBIQ):
            entry |= _over_seeds([patient_values(seed, key) for seed in by_seed.values()], key, factor)
        entry["closures"] = {
            name: _closure(groups, (setting, method, pp), bounds) for name, bounds in (closures or {}).items()
        }
        summary.append(entry)
    return summary


def _over_seeds(by_seed: Sequence[Mapping[str, float]], key: str, factor: float) -> Row:
    finite = [[v for v in values.values() if math.isfinite(v)] for values in by_seed]
    means = [factor * float(np.mean(values)) for values in finite if values]
    return {
        f"{key}_mean": float(np.mean(means)) if means else math.nan,
        f"{key}_std": float(np.std(means, ddof=1)) if len(means) > 1 else math.nan,
        f"{key}_number": sum(len(values) for values in by_seed),
        f"{key}_infinite": sum(not math.isfinite(v) for values in by_seed for v in values.values()),
    }


def _closure(
    groups: Mapping[tuple[str, str, bool], Sequence[_Row]], key: tuple[str, str, bool], bounds: Bounds
) -> GapClosure | None:
    setting, method, pp = key
    names = [(setting, name, pp) for name in (bounds[0], method, bounds[1])]
    if method in bounds or not all(name in groups for name in names):
        return None
    values, seeds = seeds_and_patients([groups[name] for name in names], "dsc")
    return gap_closure(*values) if seeds else None


_HOW_TESTED = (
    "two-sided, over seeds and patients together (crossed random effects), adjusted by Holm for all rows with this "
    "metric and PP. A patient is the mean over its cases and their classes. Of one seed, P says nothing about another."
)


def summary_table(
    summary: Sequence[Mapping[str, Any]],
    tests: Sequence[Mapping[str, Any]] = (),
    *,
    tested: str | None = None,
    closures: Mapping[str, Bounds] | None = None,
) -> Table:
    """The summary as a table, with P of the DSC (QUBIQ score for such data) against the tested method.

    Args:
        summary: see ``summarize_comparison``.
        tests: see ``differences``.
        tested: name of the method that was tested.
        closures: as in ``summarize_comparison``.
    """
    metrics = [m for m in (*METRICS, QUBIQ) if m not in _NOT_ALWAYS or any(_known(entry, m[0]) for entry in summary)]
    key = metrics[-1][0] if metrics[-1] is QUBIQ else "dsc"
    shown = {n: both for n, both in (closures or {}).items() if any(entry["closures"].get(n) for entry in summary)}
    of_key = {(t["setting"], t["method"], t["pp"]): t for t in tests if t["metric"] == key}
    header = ["setting", "train HQA", "train LQA", "method", "PP"]
    header += [f"{title} ({unit})" for _, title, unit, _, _ in metrics]
    header += [*shown] + [f"P against {tested}"] * (tested is not None)
    lines = []
    for entry in summary:
        line = [entry["setting"], str(entry["train_hqa"]), str(entry["train_lqa"]), entry["method"]]
        line += ["yes" if entry["pp"] else "no", *(_cell(entry, metric) for metric in metrics)]
        line += [_closure_text(entry["closures"][name]) for name in shown]
        if tested is not None:
            test = of_key.get((entry["setting"], entry["method"], entry["pp"]))
            counts = "" if test is None else f" ({test['patients']} x {test['seeds']})"
            line.append("" if test is None else _p_text(test["p_holm"]) + counts)
        lines.append(line)
    values = "Mean over the patients of one seed"
    if max(entry["seeds"] for entry in summary) > 1:
        values = f"Mean ± standard deviation over {_range(summary, 'seeds')} seeds"
    title = next(title for name, title, *_ in metrics if name == key)
    notes = [
        f"{values}. HQA and LQA: cases with high- and low-quality annotations in training. PP: largest component kept."
    ]
    if tested is not None:
        notes.append(f"P, of the {title}, with (patients x seeds): {_HOW_TESTED}")
    if shown:
        ends = "; ".join(f'{name}: 0 is "{low}", 1 is "{high}"' for name, (low, high) in shown.items())
        notes.append(f"Of the DSC, with 95 % intervals over seeds and patients (Fieller): {ends}.")
    return Table(header, lines, 5, notes + infinite_notes(summary, "patients of all seeds") + tolerance_note(summary))


def differences_table(tests: Sequence[Mapping[str, Any]], *, tested: str) -> Table:
    """All tests against the other methods.

    Args:
        tests: see ``differences``.
        tested: name of the method A.
    """
    header = ["setting", "method", "PP", "metric", "patients", "seeds", tested, "method's", f"{tested} - method"]
    header += ["95 % interval", "of each seed", "P", "P (Holm)"]
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
                str(test["patients"]) + (f" (of {test['patients'] + test['infinite']})" if test["infinite"] else ""),
                str(test["seeds"]),
                numbers["mean_a"],
                numbers["mean_b"],
                numbers["difference"],
                f"{numbers['low']} to {numbers['high']}",
                ", ".join(f"{factor * value:.{digits}f}" for value in test["by_seed"].values()),
                _p_text(test["p"]),
                _p_text(test["p_holm"]),
            ]
        )
    return Table(header, lines, 4, [f"P is {_HOW_TESTED}"])


def stars(p: float) -> str:
    """Marks of the paper's figures: ``***`` P <= 0.001, ``**`` P <= 0.005, ``*`` P <= 0.05, else ``ns``."""
    return next((mark for limit, mark in ((0.001, "***"), (0.005, "**"), (0.05, "*")) if p <= limit), "ns")


def _range(summary: Sequence[Mapping[str, Any]], key: str) -> str:
    numbers = sorted({entry[key] for entry in summary})
    return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def _known(entry: Mapping[str, Any], key: str) -> bool:
    return not math.isnan(entry[f"{key}_mean"])


def _cell(entry: Mapping[str, Any], metric: tuple[str, str, str, float, int]) -> str:
    key, _, _, _, digits = metric
    if metric in _NOT_ALWAYS and not _known(entry, key) and not entry[f"{key}_infinite"]:
        return ""
    counts = {"infinite": entry[f"{key}_infinite"], "number": entry[f"{key}_number"]}
    return score_cell(entry[f"{key}_mean"], entry[f"{key}_std"], **counts, digits=digits)


def _closure_text(closure: GapClosure | None) -> str:
    if closure is None:
        return ""
    interval = "" if math.isnan(closure.low) else f" [{closure.low:.2f}, {closure.high:.2f}]"
    return f"{closure.value:.2f}{interval}"


def _p_text(p: float) -> str:
    if math.isnan(p):
        return ""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"
