"""Run the attacks that have not been run yet, for a limited time, and write what was seen into the docs.

    python -m benchmarks.torture                                  # all that is missing, then docs/reliability.md
    python -m benchmarks.torture files requests --minutes 30      # two kinds
    python -m benchmarks.torture kills --first 0 --last 4 --results four.jsonl --no-page

A piece that is stopped is made again by the next call; pieces that are finished stay. Exit code 1: something did not
hold.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.torture import page
from benchmarks.torture.kinds import KINDS
from benchmarks.torture.results import Results

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def main() -> int:
    """Parse the arguments and run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--results", type=Path, default=Path("runs/torture/results.jsonl"))
    parser.add_argument("--minutes", type=float, default=240.0, help="start no piece after this time")
    parser.add_argument("--first", type=int, default=0, help="number of the first try")
    parser.add_argument("--last", type=int, help="number after the last try; default: the goal of the kind")
    parser.add_argument("--again", action="store_true", help="also the pieces that are finished")
    parser.add_argument("--no-page", action="store_true", help="leave docs/reliability.md as it is")
    args = parser.parse_args()
    if unknown := [name for name in args.kinds if name not in KINDS]:
        parser.error(f"{unknown[0]} is no kind; expected some of {', '.join(KINDS)}")
    results = Results(args.results)
    failures = _run_all(args, results)
    if not args.no_page:
        page.write(PAGE, results)
    return 1 if failures else 0


def _run_all(args: argparse.Namespace, results: Results) -> int:
    """Run the pieces that are missing; the number of tries that did not hold."""
    end, failures = time.monotonic() + 60 * args.minutes, 0
    for name in args.kinds or KINDS:
        kind = KINDS[name]
        last = kind.goal if args.last is None else args.last
        done = set() if args.again else {(piece.first, piece.last) for piece in results.pieces(name)}
        for first in range(args.first, last, kind.piece):
            span = first, min(first + kind.piece, last)
            if span in done:
                continue
            if time.monotonic() > end:
                print("the time is up; call again to go on", flush=True)
                return failures
            failures += _run(name, *span, results)
    return failures


def _run(name: str, first: int, last: int, results: Results) -> int:
    """Make a piece and keep its results; the number of tries that did not hold."""
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    start = time.monotonic()
    try:
        outcome = KINDS[name].run(first, last, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - start
    results.add(name, first, last, outcome, seconds)
    print(f"{name} {first} to {last}: {len(outcome.failures)} did not hold, {seconds:.0f} s", flush=True)
    for failure in outcome.failures:
        print(f"  {failure}", flush=True)
    return len(outcome.failures)


if __name__ == "__main__":
    sys.exit(main())
