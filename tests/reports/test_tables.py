"""Per-case tables and their summary."""

from __future__ import annotations

import csv
import math
from io import StringIO

import pytest
from rich.console import Console

from aide_monai.errors import InputError
from aide_monai.reports.tables import (
    COLUMNS,
    cases_table,
    markdown_table,
    read_csv,
    score_cell,
    scores_table,
    summarize,
    write_csv,
)


def row(method, case, dsc, *, network="single", label=1, assd=1.0, mssd=5.0):
    scores = {"dsc": dsc, "ravd": 10.0, "ravd_signed": -10.0, "assd": assd, "mssd": mssd, "tp": 1, "fp": 2, "fn": 3}
    scores |= {"hd95": 4.0, "nsd": 0.75, "tolerance_mm": 2.0}
    return {"method": method, "network": network, "case": case, "label": label, "label_name": "liver", **scores}


ROWS = [
    row("noisy labels", "a", 0.6),
    row("noisy labels", "b", 0.8),
    row("AIDE", "a", 0.8, network="mean"),
    row("AIDE", "b", 0.82, network="mean"),
    row("AIDE", "a", 0.7, network="network_1"),
    row("AIDE", "b", 0.7, network="network_1"),
    row("clean labels", "a", 0.9),
    row("clean labels", "b", 0.9),
]


def test_numbers_read_back_exactly(tmp_path):
    rows = [row("AIDE", "a", 1 / 3, assd=math.inf), row("AIDE", "Fall 7, links", 0.1)]
    write_csv(tmp_path / "sub" / "per_case.csv", rows)
    assert read_csv(tmp_path / "sub" / "per_case.csv") == rows
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["per_case.csv"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("a,b\n1,2\n", "found columns"), (",".join(COLUMNS) + "\n" + "x," * 12 + "x\n", "line 2")],
)
def test_a_wrong_table_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "per_case.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_csv(path)
    with pytest.raises(InputError, match="no such file"):
        read_csv(tmp_path / "absent.csv")


def test_summary_by_hand():
    summary = {(entry["method"], entry["network"]): entry for entry in summarize(ROWS)}
    noisy = summary["noisy labels", "single"]
    assert noisy["dsc_mean"] == pytest.approx(70.0)
    assert noisy["dsc_std"] == pytest.approx(math.sqrt(200.0))  # sample deviation of 60 and 80
    assert noisy["cases"] == 2
    assert summary["AIDE", "mean"]["dsc_mean"] == pytest.approx(81.0)
    assert summary["AIDE", "network_1"]["dsc_std"] == pytest.approx(0.0)


def test_a_case_counts_once_whatever_its_number_of_classes():
    rows = [row("AIDE", "a", 0.2), row("AIDE", "a", 0.4, label=2), row("AIDE", "b", 0.9)]
    assert summarize(rows)[0]["dsc_mean"] == pytest.approx(100 * (0.3 + 0.9) / 2)


def test_infinite_distances_are_counted_and_said():
    rows = [row("AIDE", "a", 0.0, assd=math.inf, mssd=math.inf), row("AIDE", "b", 0.5), row("AIDE", "c", 0.5)]
    summary = summarize(rows)
    assert summary[0]["assd_mean"] == 1.0
    assert summary[0]["assd_infinite"] == 1
    table = markdown_table(summary)
    assert "| 1.00 ± 0.00 (inf, 1 of 3) |" in table
    assert "inf: cases without a distance" in table


def test_a_cell_of_failures_alone():
    assert score_cell(math.nan, math.nan, infinite=12, number=12, digits=1) == "inf, 12 of 12"


def test_tables_show_every_method():
    summary = summarize(ROWS)
    lines = markdown_table(summary).splitlines()
    assert lines[6:] == ["", "NSD: share of both borders within 2 mm of the other one."]
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert "81.0" in lines[3]
    out = StringIO()
    Console(file=out, width=120).print(scores_table(summary).rich("All methods"))
    printed = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "AIDE network_1 70.0 ± 0.0 10.0 ± 0.0 1.00 ± 0.00 5.0 ± 0.0 4.0 ± 0.0 75.0 ± 0.0" in printed
    assert "clean labels" in out.getvalue()


def test_a_bar_in_a_name_is_no_column():
    lines = markdown_table(summarize([{**row, "method": f"a|{row['method']}"} for row in ROWS])).splitlines()
    assert lines[2].startswith("| a\\|")
    assert lines[2].count("|") == lines[0].count("|") + 1


@pytest.mark.parametrize("content", [b"\xff\xfe no text", b"a\0b\n"])
def test_a_file_that_is_no_table_of_text(tmp_path, content):
    (tmp_path / "scores.xlsx").write_bytes(content)
    with pytest.raises(InputError, match=r"scores\.xlsx"):
        read_csv(tmp_path / "scores.xlsx")


WIDE = "\uff1d"  # what a Japanese keyboard writes for "="
FORMULAS = ("=SUM(A1)", "+1", "-2", "@cell", "\tx", "\rx", "\nx", f"{WIDE}1", "-", "'=1", "''-1")
OTHERS = ("'quoted'", "a=b", "[bold]x[/]", ":smile:")


def test_names_are_text_for_a_spreadsheet_and_read_back_as_they_are(tmp_path):
    rows = [{**row(name, name, -0.5), "label_name": name} for name in FORMULAS + OTHERS]
    write_csv(tmp_path / "per_case.csv", rows)
    assert read_csv(tmp_path / "per_case.csv") == rows
    with (tmp_path / "per_case.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for key in ("method", "case", "label_name"):
        assert [line[key] for line in lines] == [*(f"'{name}" for name in FORMULAS), *OTHERS]
    assert {line["dsc"] for line in lines} == {"-0.5"}  # a number stays one


def test_names_are_shown_as_they_are():
    """In Markdown by backslashes, which take their meaning from the marks; on a terminal letter by letter."""
    names = ["<b>a</b>", "*a* _b_ `c` ~~d~~", "[a](b)", "a|b", "a\\*b", "&lt;", "$a$", "label_1 < 2 & [3, 4]", "a\nb"]
    summary = summarize([{**row("x", "a", 0.5), "method": name} for name in names])
    lines = markdown_table(summary).splitlines()[2:-2]
    assert [line.split(" | ")[0] for line in lines] == [
        r"| \<b>a\</b>",
        r"| \*a\* \_b\_ \`c\` \~\~d\~\~",
        r"| [a\](b)",
        r"| a\|b",
        r"| a\\\*b",
        r"| \&lt;",
        r"| \$a\$",
        "| label_1 < 2 & [3, 4]",
        "| a b",
    ]
    out = StringIO()
    summary = summarize([{**row("x", "a", 0.5), "method": name} for name in ("[red]a[/red]", ":smile:", "\x1b[31mb")])
    Console(file=out, width=120).print(scores_table(summary).rich("[bold]title[/]"))
    for shown in ("[red]a[/red]", ":smile:", "\\x1b[31mb", "[bold]title[/]"):
        assert shown in out.getvalue()


def test_tables_of_earlier_versions_are_read_and_shown(tmp_path):
    file = tmp_path / "per_case.csv"
    write_csv(file, ROWS)
    lines = [line.rsplit(",", 3)[0] for line in file.read_text().splitlines()]
    assert lines[0].endswith(",tp,fp,fn")  # as it was before HD95 and NSD
    file.write_text("\n".join(lines) + "\n")
    rows = read_csv(file)
    assert [{**row, "hd95": 4.0, "nsd": 0.75, "tolerance_mm": 2.0} for row in rows] == ROWS
    assert {row["hd95"] for row in rows} == {None}
    table = scores_table(summarize(rows))
    assert "MSSD (mm)" in table.header
    assert not {"HD95 (mm)", "NSD (%)"} & set(table.header)
    assert "NSD" not in "".join(table.notes)
    assert cases_table(rows).header == ["case", "label", "DSC (%)", "RAVD (%)", "ASSD (mm)", "MSSD (mm)"]


def test_every_case_in_a_line():
    table = cases_table([row("AIDE", "a", 0.5, assd=math.inf)])
    assert table.lines[0][:1] + table.lines[0][2:] == ["a", "50.0", "10.0", "inf", "5.0", "4.0", "75.0"]
    assert table.notes == ["NSD: share of both borders within 2 mm of the other one."]
