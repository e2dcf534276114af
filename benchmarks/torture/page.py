"""The tables of ``docs/reliability.md``, made of the results file; what was not reached is said."""

from __future__ import annotations

from pathlib import Path

from benchmarks.torture.kinds import KINDS, Kind
from benchmarks.torture.results import Outcome, Piece, Results, total

BEGIN, END = "<!-- tables: made by make torture -->", "<!-- end of the tables -->"


def write(page: Path, results: Results) -> None:
    """Replace what stands between the two marks of a page."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    tables = "\n".join(_section(kind, results.pieces(name)) for name, kind in KINDS.items())
    page.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{rest.partition(END)[2]}")


def _section(kind: Kind, pieces: list[Piece]) -> str:
    found = total(piece.outcome for piece in pieces)
    tried = int(sum(numbers["tried"] for numbers in found.groups.values()))
    held = int(sum(numbers["held"] for numbers in found.groups.values()))
    lines = [f"### {kind.title}", "", f"{held:,} of {tried:,} held."]
    if tried < kind.goal:
        lines[-1] += f" {kind.goal - tried:,} of {kind.goal:,} have not been run yet."
    if pieces:
        lines[-1] += f" {_when(pieces)}"
        lines += ["", *_table(found)]
    return "\n".join([*lines, ""])


def _when(pieces: list[Piece]) -> str:
    """Days, commits and processors of the pieces, oldest first."""
    parts = [list(dict.fromkeys(getattr(piece, name) for piece in pieces)) for name in ("date", "commit", "processor")]
    dates, commits, processors = (values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}" for values in parts)
    minutes = sum(piece.seconds for piece in pieces) / 60
    return f"Run on {dates} at {commits}, {processors}, {minutes:.0f} minutes."


def _table(found: Outcome) -> list[str]:
    columns = list(dict.fromkeys(name for numbers in found.groups.values() for name in numbers))
    lines = [f"| what | {' | '.join(columns)} |", f"|---{'|---:' * len(columns)}|"]
    for group, numbers in found.groups.items():
        cells = [f"{numbers[name]:,.10g}" if name in numbers else "" for name in columns]
        lines.append(f"| {group} | {' | '.join(cells)} |")
    return lines
