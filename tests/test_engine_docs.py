"""The table of options in the documentation is what the code does."""

from __future__ import annotations

import re
from dataclasses import asdict
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
