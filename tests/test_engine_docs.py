"""The table of options in the documentation is what the code does."""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from aide_monai.options import PROFILES, AIDEOptions

PAGE = (Path(__file__).parents[1] / "docs" / "engine.md").read_text()


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_table_of_options_has_every_option_with_its_value_in_every_profile() -> None:
    header = re.search(r"^\| option \|(.*)\|$", PAGE, re.MULTILINE)
    assert header is not None
    assert re.findall(r"`(\w+)`", header[1]) == list(PROFILES)
    rows = {
        name: [cell.strip() for cell in cells.split("|")]
        for name, cells in re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE, re.MULTILINE)
    }
    profiles = [asdict(AIDEOptions.from_profile(profile)) for profile in PROFILES]
    assert {name: rows.get(name) for name in profiles[0]} == {
        name: [shown(value), *("" if p[name] == value else shown(p[name]) for p in profiles[1:])]
        for name, value in profiles[0].items()
    }


def test_the_second_table_has_the_options_that_only_the_released_run_needs() -> None:
    """No other profile sets them, and they are the last ones in the code too."""
    _, _, table = PAGE.partition("Five more only reproduce the released run")
    table, _, _ = table.strip().partition("\n\n`improved` is")
    names = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert names == [field.name for field in fields(AIDEOptions)][-5:]
    assert [profile for profile, options in PROFILES.items() if set(names) & set(options)] == ["original"]
    assert set(names) <= set(PROFILES["original"])
