"""What is compared of the rows of a comparison: the patients of the same runs, and tests of their differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aide_monai.metrics import crossed_test, holm
from aide_monai.reports.tables import Row, metrics_of

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
        if row.get(metric) is not None:
            found.setdefault(row["patient"], []).append(row[metric])
    return {patient: float(np.mean(values)) for patient, values in found.items()}


def shared_runs(*groups: Sequence[_Row]) -> list[list[_Row]]:
    """The rows of each group whose seed and fold all groups have, so that an unfinished comparison stays a fair one."""

    def run(row: _Row) -> tuple[Any, Any]:
        return row["seed"], row["fold"]

    common = set.intersection(*({run(row) for row in rows} for rows in groups)) if groups else set()
    return [[row for row in rows if run(row) in common] for rows in groups]


def seeds_and_patients(groups: Sequence[Sequence[_Row]], metric: str) -> tuple[list[NDArray[np.float64]], list[int]]:
    """Values (seeds, patients) of each group of rows, of the seeds and patients that all of them have.

    A seed that lacks patients of another one, of a cross-validation that is not finished, is left out.

    Returns:
        The values, infinite ones among them, and the seeds; no seeds where the groups have none in common.
    """
    shared = shared_runs(*groups)
    seeds = sorted({row["seed"] for row in shared[0]})
    found = [{s: patient_values((r for r in rows if r["seed"] == s), metric) for s in seeds} for rows in shared]
    patients = sorted({patient for of_seed in found[0].values() for patient in of_seed})
    whole = [s for s in seeds if all(sorted(of_seed[s]) == patients for of_seed in found)]
    values = [np.array([[of_seed[s][p] for p in patients] for s in whole], dtype=np.float64) for of_seed in found]
    return values, whole if patients else []


def differences(rows: Sequence[_Row], tested: str) -> list[Row]:
    """Tests of one method against every other one, per setting, post-processing and metric, over seeds and patients.

    Args:
        rows: per-case rows, see ``results``.
        tested: name of the method that the others are compared with.

    Returns:
        Dictionaries with "setting", "method", "pp" and "metric"; "patients", "seeds", "infinite" (patients left out
        because a distance is infinite); "mean_a" (of the tested method), "mean_b", "difference" (A - B), "by_seed" (of
        each seed), "low" and "high" (95 % interval), "p" (``crossed_test``), and "p_holm", which is P for the family
        of all methods and settings with this metric and post-processing. DSC as a ratio, RAVD in percent, distances
        in mm. Where fewer than two patients are left there is no test.
    """
    groups: dict[tuple[str, bool], dict[str, list[_Row]]] = {}
    for row in reported(rows):
        groups.setdefault((row["setting"], bool(row["pp"])), {}).setdefault(row["method"], []).append(row)
    tests: list[Row] = []
    for (setting, pp), methods in groups.items():
        for method, theirs in methods.items():
            if tested in methods and method != tested:
                both = [methods[tested], theirs]
                keys = [key for key, *_ in metrics_of([*both[0], *both[1]])] + ["qubiq"] * all(
                    r["qubiq"] is not None for g in both for r in g
                )
                named = {"setting": setting, "method": method, "pp": pp}
                tests += [{**named, "metric": key, **found} for key in keys if (found := _difference(both, key))]
    for key, pp in {(test["metric"], test["pp"]) for test in tests}:
        family = [test for test in tests if (test["metric"], test["pp"]) == (key, pp)]
        for test, p in zip(family, holm([test["p"] for test in family]), strict=True):
            test["p_holm"] = p
    return tests


def _difference(groups: Sequence[Sequence[_Row]], metric: str) -> Row | None:
    values, seeds = seeds_and_patients(groups, metric)
    finite = np.isfinite(np.concatenate(values)).all(axis=0) if seeds else np.zeros(0, bool)
    if finite.sum() < 2:
        return None
    first, second = (column[:, finite] for column in values)
    found = crossed_test(first, second)
    return {
        "patients": found.patients,
        "seeds": found.seeds,
        "infinite": int((~finite).sum()),
        "mean_a": float(first.mean()),
        "mean_b": float(second.mean()),
        "difference": found.mean_difference,
        "by_seed": dict(zip(seeds, found.by_seed, strict=True)),
        "low": found.low,
        "high": found.high,
        "p": found.p,
    }
