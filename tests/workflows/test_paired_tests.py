"""Two methods on the same cases."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from aide_monai.errors import InputError
from aide_monai.reports.tables import paired_tests_table, write_csv
from aide_monai.workflows.paired_tests import paired_tests, read_method


def rows(dsc: list[float], *, method: str = "A", network: str = "single", **changed: Any) -> list[dict[str, Any]]:
    scores = {"ravd": 10.0, "ravd_signed": -10.0, "assd": 1.0, "mssd": 5.0, "tp": 1, "fp": 2, "fn": 3}
    scores |= {"hd95": 4.0, "nsd": 0.75, "tolerance_mm": 2.0} | changed
    return [
        {"method": method, "network": network, "case": f"c{i}", "label": 1, "label_name": "liver", "dsc": value}
        | scores
        for i, value in enumerate(dsc)
    ]


def test_the_tests_are_scipys() -> None:
    first, second = [0.9, 0.8, 0.7, 0.95], [0.8, 0.75, 0.71, 0.6]
    entry = paired_tests(rows(first), rows(second)[::-1])[0]  # the order of the rows does not matter
    assert (entry["metric"], entry["n"], entry["n_infinite"]) == ("dsc", 4, 0)
    assert entry["difference"] == pytest.approx(0.4900 / 4)
    assert entry["p_t"] == pytest.approx(stats.ttest_rel(first, second).pvalue)
    interval = stats.ttest_rel(first, second).confidence_interval()
    assert (entry["low"], entry["high"]) == pytest.approx((interval.low, interval.high))
    assert entry["p_wilcoxon"] == pytest.approx(stats.wilcoxon(first, second).pvalue)


def test_equal_columns_do_not_differ() -> None:
    ravd = paired_tests(rows([0.5, 0.6]), rows([0.5, 0.7]))[1]
    assert (ravd["metric"], ravd["difference"], ravd["p_t"], ravd["p_wilcoxon"]) == ("ravd", 0.0, 1.0, 1.0)


def test_infinite_pairs_are_left_out_and_said() -> None:
    first, second = rows([0.5, 0.6, 0.7]), rows([0.4, 0.6, 0.8])
    second[1]["assd"] = math.inf
    comparison = paired_tests(first, second)
    assd = next(entry for entry in comparison if entry["metric"] == "assd")
    assert (assd["n"], assd["n_infinite"]) == (2, 1)
    table = paired_tests_table(comparison)
    assert [line[2] for line in table.lines if line[1] == "ASSD (mm)"] == ["2 of 3"]
    assert "without those where a distance of A or B is infinite" in table.markdown()


@pytest.mark.parametrize("how", ["by the pattern", "by another pattern", "by the column"])
def test_a_patient_counts_once(how: str) -> None:
    """Three patients, the first with two phases."""
    first, second = rows([0.9, 0.7, 0.6, 0.5]), rows([0.7, 0.5, 0.5, 0.2])
    names = {
        "by the pattern": ["p1_frame01", "p1_frame12", "p2_frame01", "p3"],
        "by another pattern": ["1-a", "1-b", "2-a", "3"],
        "by the column": ["a", "b", "c", "d"],
    }[how]
    for row, other, case, patient in zip(first, second, names, "1123", strict=True):
        row["case"] = other["case"] = case
        if how == "by the column":
            other["patient"] = patient
    options = {"patients": r"(\d)-."} if how == "by another pattern" else {}
    entry = paired_tests(first, second, **options)[0]
    expected = stats.ttest_rel([0.8, 0.6, 0.5], [0.6, 0.5, 0.2])
    assert (entry["cases"], entry["patients"], entry["n"]) == (4, 3, 3)
    assert entry["p_t"] == pytest.approx(expected.pvalue)
    assert "mean over its cases (4 of 3 patients)" in paired_tests_table([entry]).markdown()


def test_a_table_may_have_a_column_of_patients(tmp_path: Path) -> None:
    table = tmp_path / "per_case.csv"
    write_csv(table, rows([0.7, 0.8]))
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([header + ",patient", *(f"{line},p" for line in lines)]) + "\n")
    assert [row["patient"] for row in read_method(str(table))] == ["p", "p"]
    table.write_text("\n".join([header + ",colour", *(f"{line},p" for line in lines)]) + "\n")
    with pytest.raises(InputError, match="and perhaps patient"):
        read_method(str(table))


def test_one_pair_is_no_test() -> None:
    entry = paired_tests(rows([0.5]), rows([0.6]))[0]
    assert entry["n"] == 1
    assert math.isnan(entry["p_t"])


def test_other_cases_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r'(?s)same cases.*case "c2", liver: only in A'):
        paired_tests(rows([0.5, 0.6, 0.7]), rows([0.5, 0.6]))


def test_doubled_rows_are_refused() -> None:
    with pytest.raises(InputError, match="found 4 rows for 2 cases and labels"):
        paired_tests(rows([0.5, 0.6]) * 2, rows([0.5, 0.6]))


def test_a_method_is_chosen_by_name(tmp_path: Path) -> None:
    table = tmp_path / "per_case.csv"
    aide = rows([0.7, 0.8], method="AIDE", network="mean")
    write_csv(table, [*aide, *rows([0.1, 0.2], method="AIDE", network="network_1"), *rows([0.5, 0.6], method="noisy")])
    assert read_method(f"{table}:AIDE") == aide
    with pytest.raises(InputError, match=r'found the methods "AIDE", "noisy"; expected one of them, as "FILE:METHOD"'):
        read_method(str(table))
    with pytest.raises(InputError, match="expected one of them"):
        read_method(f"{table}:aide")
    write_csv(table, aide)
    assert read_method(str(table)) == aide
    with pytest.raises(InputError, match="no such file"):
        read_method(str(tmp_path / "absent.csv"))
