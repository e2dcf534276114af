"""The tables of a comparison, by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aide_monai.errors import InputError
from aide_monai.reports.html import Section, write_page
from aide_monai.reports.table import Table
from aide_monai.workflows.comparison import figures as pictures
from aide_monai.workflows.comparison.differences import differences, patient_values, shared_runs
from aide_monai.workflows.comparison.results import read_results, write_results
from aide_monai.workflows.comparison.tables import differences_table, stars, summarize_comparison, summary_table

CLOSURES = {"gap closure": ("noisy", "clean")}


def row(method: str, seed: int, case: str, dsc: float, **changed: Any) -> dict[str, Any]:
    scores = {"ravd": 10.0, "ravd_signed": -10.0, "assd": 1.0, "mssd": 5.0, "tp": 1, "fp": 2, "fn": 3, "qubiq": None}
    scores |= {"hd95": 4.0, "nsd": 0.75, "tolerance_mm": 2.0}
    run = {"setting": "2 labelled", "seed": seed, "fold": None, "pp": 0, "train_hqa": 2, "train_lqa": 8}
    return {
        **run,
        **scores,
        "method": method,
        "network": "single",
        "case": case,
        "patient": case,
        "label": 1,
        "label_name": "liver",
        "dsc": dsc,
        **changed,
    }


ROWS = [
    *(row("noisy", seed, case, 0.5 + 0.1 * seed) for seed in (0, 1) for case in "ab"),
    *(row("AIDE", seed, case, 0.7, network="mean") for seed in (0, 1) for case in "ab"),
    *(row("AIDE", seed, case, 0.1, network="network_1") for seed in (0, 1) for case in "ab"),
    *(row("clean", seed, case, 0.75) for seed in (0, 1) for case in "ab"),
]


def entry(summary: list[dict[str, Any]], method: str) -> dict[str, Any]:
    return next(e for e in summary if e["method"] == method)


def test_mean_and_spread_are_over_the_seeds() -> None:
    summary = summarize_comparison(ROWS, closures=CLOSURES)
    noisy = entry(summary, "noisy")
    assert noisy["dsc_mean"] == pytest.approx(55)
    assert noisy["dsc_std"] == pytest.approx(math.sqrt(50))  # of 50 and 60
    assert (noisy["seeds"], noisy["patients"], noisy["train_hqa"], noisy["train_lqa"]) == (2, 2, 2, 8)
    assert noisy["closures"]["gap closure"] is None
    assert entry(summary, "AIDE")["dsc_mean"] == pytest.approx(70)  # single networks do not count
    assert entry(summary, "AIDE")["closures"]["gap closure"].value == pytest.approx((70 - 55) / (75 - 55))


def test_a_closure_uses_the_seeds_that_all_three_have() -> None:
    rows = [r for r in ROWS if not (r["method"] == "clean" and r["seed"] == 1)]
    closure = entry(summarize_comparison(rows, closures=CLOSURES), "AIDE")["closures"]["gap closure"]
    assert closure.value == pytest.approx((70 - 50) / (75 - 50))


def test_of_an_unfinished_cross_validation_the_same_runs_are_compared() -> None:
    """The second seed is worse for both methods, and AIDE lacks its second fold."""
    cases = [(seed, fold, case, 0.8 - 0.2 * seed) for seed in (0, 1) for fold, case in ((1, "a"), (2, "b"))]
    noisy = [row("noisy", seed, case, dsc, fold=fold) for seed, fold, case, dsc in cases]
    aide = [row("AIDE", seed, case, dsc, fold=fold) for seed, fold, case, dsc in cases[:3]]
    left, right = shared_runs(noisy, aide)
    assert [(r["seed"], r["fold"], r["dsc"]) for r in left] == [(r["seed"], r["fold"], r["dsc"]) for r in right]
    assert len(left) == 3
    (test,) = (test for test in differences(noisy + aide, "AIDE") if test["metric"] == "dsc")
    assert test["difference"] == 0


def test_cases_average_over_classes_and_seeds_and_infinity_stays() -> None:
    rows = [row("A", 0, "a", 0.2), row("A", 0, "a", 0.4, label=2), row("A", 1, "a", 0.9), row("A", 0, "b", 1.0)]
    assert patient_values(rows, "dsc") == {"a": pytest.approx(0.5), "b": 1.0}
    rows[0]["assd"] = math.inf
    assert patient_values(rows, "assd")["a"] == math.inf
    assert patient_values(rows, "qubiq") == {}
    assert patient_values([{**r, "patient": "p"} for r in rows], "dsc") == {
        "p": pytest.approx((0.2 + 0.4 + 0.9 + 1) / 4)
    }
    left, right = shared_runs(rows, [row("B", 1, "a", 0.1)])
    assert (len(left), len(right)) == (1, 1)


def test_the_table_is_in_the_papers_notation() -> None:
    rows = [*ROWS, row("noisy", 0, "a", 0.6, pp=1, assd=math.inf), row("noisy", 0, "b", 0.6, pp=1)]
    test = {"setting": "2 labelled", "method": "noisy", "pp": False, "metric": "dsc", "patients": 2, "seeds": 2}
    closures = CLOSURES | {"other": ("AIDE", "clean")}
    summary = summarize_comparison(rows, closures=closures)
    table = summary_table(summary, [{**test, "p_holm": 0.012}], tested="AIDE", closures=closures)
    assert 'gap closure: 0 is "noisy", 1 is "clean"; other: 0 is "AIDE", 1 is "clean".' in table.notes[2]
    assert table.header[:6] == ["setting", "train HQA", "train LQA", "method", "PP", "DSC (%)"]
    assert table.header[-3:] == ["gap closure", "other", "P against AIDE"]
    assert table.lines[0][3:6] == ["noisy", "no", "55.0 ± 7.1"]
    assert table.lines[0][-1] == "0.012 (2 x 2)"
    assert table.lines[1][-3].startswith("0.75 [")
    assert table.lines[1][-2:] == ["", ""]
    assert table.lines[0][-3] == ""
    assert table.lines[0][-2].startswith("-3.00 [")
    last = table.lines[-1]
    assert last[4:6] == ["yes", "60.0"]
    assert last[7] == "1.00 (inf, 1 of 2)"
    assert table.notes[-2].startswith("inf: patients of all seeds without a distance")
    assert table.notes[-1] == "NSD: share of both borders within 2 mm of the other one."
    assert "over 1 to 2 seeds" in table.notes[0]
    assert len(table.markdown().splitlines()) == 2 + 4 + 6  # each note is a paragraph


def test_the_closure_of_one_patient_has_no_interval() -> None:
    rows = [r for r in ROWS if r["patient"] == "a"]
    table = summary_table(summarize_comparison(rows, closures=CLOSURES), closures=CLOSURES)
    assert table.lines[1][-1] == "0.75"


def test_the_qubiq_score_is_shown_where_it_is_known() -> None:
    rows = [row("noisy", 0, "a", 0.5, qubiq=0.8), row("AIDE", 0, "a", 0.6, qubiq=0.9)]
    test = {"setting": "2 labelled", "method": "noisy", "pp": False, "metric": "qubiq", "patients": 4, "seeds": 1}
    table = summary_table(summarize_comparison(rows), [{**test, "p_holm": 0.5}], tested="AIDE")
    assert "QUBIQ score (%)" in table.header
    assert table.lines[0][-2:] == ["80.0", "0.5 (4 x 1)"]
    assert "gap closure" not in table.header


def test_a_test_is_over_the_seeds_and_patients_that_both_methods_have() -> None:
    gains = {(0, "a"): 0.01, (0, "b"): 0.02, (0, "c"): 0.03, (1, "a"): 0.03, (1, "b"): 0.04, (1, "c"): 0.08}
    rows = [row("noisy", seed, case, 0.5) for seed, case in gains] + [row("noisy", 2, case, 0.9) for case in "abc"]
    rows += [
        row("AIDE", seed, case, 0.5 + gain, label=label) for (seed, case), gain in gains.items() for label in (1, 2)
    ]
    rows += [row("third", seed, case, 0.4) for seed, case in gains]
    rows[0]["assd"] = math.inf
    tests = differences(rows, "AIDE")
    first = next(t for t in tests if (t["method"], t["metric"]) == ("noisy", "dsc"))
    assert (first["patients"], first["seeds"], first["infinite"]) == (3, 2, 0)
    assert first["by_seed"] == {0: pytest.approx(0.02), 1: pytest.approx(0.05)}
    # as in the test of crossed_test by hand
    reach = (4.5 / 2 * 12.7062047 + 3.25 / 3 * 4.3026527) / math.sqrt(4.5 / 2 + 3.25 / 3)
    assert (100 * first["low"], 100 * first["high"]) == pytest.approx((3.5 - reach, 3.5 + reach))
    other = next(t for t in tests if (t["method"], t["metric"]) == ("third", "dsc"))
    smaller, larger = sorted([first["p"], other["p"]])
    assert sorted([first["p_holm"], other["p_holm"]]) == pytest.approx(sorted([2 * smaller, max(2 * smaller, larger)]))
    assd = next(t for t in tests if (t["method"], t["metric"]) == ("noisy", "assd"))
    assert (assd["patients"], assd["infinite"]) == (2, 1)


def test_the_tests_are_told_in_the_units_of_the_tables() -> None:
    numbers = {"mean_a": 0.8, "mean_b": 0.7, "difference": 0.1, "low": 0.05, "high": 0.15, "p": 1e-9, "p_holm": 0.2}
    test = {"setting": "s", "method": "noisy", "pp": True, "metric": "dsc", "patients": 4, "infinite": 1, "seeds": 2}
    table = differences_table([{**test, **numbers, "by_seed": {0: 0.08, 3: 0.12}}], tested="AIDE")
    assert table.lines[0] == [
        *("s", "noisy", "yes", "DSC (%)", "4 (of 5)", "2", "80.0", "70.0", "10.0", "5.0 to 15.0", "8.0, 12.0"),
        *("< 0.0001", "0.2"),
    ]


@pytest.mark.parametrize(
    ("p", "mark"), [(0.2, "ns"), (0.05, "*"), (0.01, "*"), (0.005, "**"), (0.001, "***"), (math.nan, "ns")]
)
def test_marks(p: float, mark: str) -> None:
    assert stars(p) == mark


def test_results_read_back_exactly(tmp_path: Path) -> None:
    rows = [row("A", 0, "a", 1 / 3, assd=math.inf, qubiq=0.1), row("B, 2", 1, "b", 0.2, fold=3, pp=True)]
    write_results(tmp_path / "deep" / "r.csv", rows)
    found = read_results(tmp_path / "deep" / "r.csv")
    assert found[0] == rows[0]
    assert found[1] == {**rows[1], "pp": 1}
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="found columns"):
        read_results(tmp_path / "other.csv")
    text = (tmp_path / "deep" / "r.csv").read_text()
    (tmp_path / "bad.csv").write_text(text.replace("0.3333333333333333", "x"))
    with pytest.raises(InputError, match=r"line 2: .*expected numbers"):
        read_results(tmp_path / "bad.csv")


def test_names_are_no_formulas_for_a_spreadsheet(tmp_path: Path) -> None:
    rows = [row("=A1", 0, "@case", 0.5, setting="-2 labelled", patient="+p", label_name="\tliver", ravd_signed=-10.0)]
    write_results(tmp_path / "r.csv", rows)
    assert read_results(tmp_path / "r.csv") == rows
    line = (tmp_path / "r.csv").read_text().splitlines()[1]
    for name in ("'=A1", "'@case", "'-2 labelled", "'+p", "'\tliver"):
        assert name in line.split(",")
    assert "-10.0" in line.split(",")


def test_figures_are_drawn_for_odd_input_too(tmp_path: Path) -> None:
    values = {"one": {"noisy": [0.1], "AIDE": [0.5, math.inf]}, "two": {"noisy": [0.1, 0.2, 0.3]}}
    pictures.marked_boxplots(values, {"one": {"noisy": "*"}}, tmp_path / "a.png", reference="AIDE", unit="DSC")
    maps = {"noisy": {("A", "B"): 40.0}, "AIDE": {("A", "B"): 60.0, ("B", "A"): 80.0}}
    pictures.transfer_heatmaps(maps, tmp_path / "b.png")
    pictures.efficiency_curve({"AIDE": [(5, 80, 1), (2, 70, math.nan)]}, tmp_path / "c.png")
    pictures.memorisation_curves({"one": {"AIDE": ([0.1, 0.2], [0.3, 0.4])}}, tmp_path / "d.png")
    pictures.label_quality_curves({"one": {"AIDE": [0.1, 0.2]}}, tmp_path / "e.png")
    assert all(path.stat().st_size > 5000 for path in tmp_path.glob("*.png"))
    assert len(list(tmp_path.glob("*.png"))) == 5


def test_a_page_escapes_what_it_shows_and_holds_its_pictures(tmp_path: Path) -> None:
    from matplotlib.image import imsave

    imsave(tmp_path / "p.png", np.zeros((4, 4)))
    table = Table(["name", "DSC"], [["<b>", "1*"]], 1, ["* a note"])
    section = Section("A & B", ["a < b"], table, [(tmp_path / "p.png", 'a "caption"')], code="{}")
    write_page(tmp_path / "page.html", "Title", [section])
    page = (tmp_path / "page.html").read_text()
    assert "<h2>A &amp; B</h2>" in page
    assert '<td class="text">&lt;b&gt;</td><td>1*</td>' in page
    assert "<p>a &lt; b</p>" in page
    assert 'src="data:image/png;base64,' in page
    assert "* a note" in page
