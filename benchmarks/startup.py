"""How long a mistake and the help take to be told: processor seconds, and the modules that are imported.

    python -m benchmarks.startup

The number of modules is the same in every run; seconds are the median of five processes.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

BUNDLE = str(Path(__file__).parents[1] / "bundles" / "hippocampus_ssl")
COMMANDS = (
    ["--help"],
    ["train", "--help"],
    ["demo", "--data", "nowhere"],
    ["check", "nowhere"],
    ["prepare", "folder", "nowhere", "--out", "new.json"],
    ["train", BUNDLE, "--dataset-dir", "nowhere"],
    ["train", BUNDLE, "--resume"],
    ["train", BUNDLE, "--epoch", "2"],
    ["predict", BUNDLE, "--dataset-dir", "nowhere"],
    ["evaluate", "--pred", "nowhere", "--ref", "nowhere"],
    ["labels", "nowhere"],
    ["compare", f"{BUNDLE}/experiments/ssl.json", "--data", "nowhere"],
    ["new-bundle", "new", "--datalist", "nowhere.json"],
    ["label-app", "new", "--bundle", "nowhere"],
)
_COUNT = """
import os, runpy, sys
try:
    runpy.run_module("aide_monai.cli", run_name="__main__")
except SystemExit:
    pass
times = os.times()
sys.__stdout__.write(f"\\n{len(sys.modules)} {times.user + times.system}")
"""


def measure(arguments: list[str]) -> tuple[int, float]:
    """Imported modules and processor seconds of one command."""
    command = [sys.executable, "-c", _COUNT, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    modules, seconds = told.split()[-2:]
    return int(modules), float(seconds)


def main() -> None:
    """Print a Markdown table."""
    print("| command | modules | processor seconds |\n|---|---:|---:|")
    for arguments in COMMANDS:
        runs = [measure(arguments) for _ in range(5)]
        seconds = statistics.median(second for _, second in runs)
        shown = " ".join(arguments).replace(BUNDLE, "BUNDLE")
        print(f"| `aide {shown}` | {runs[0][0]} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
