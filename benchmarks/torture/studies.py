"""A MONAI Label server with 2,000 images: how long an annotator waits for the next one.

The limit is for what an annotator waits, by the clock; the processor's time of the server stands
beside it, because a machine that does something else as well makes everybody wait.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.torture.requests import start_server
from benchmarks.torture.results import Outcome

GOAL = 50
PIECE = 50
LIMIT_S = 1.0


def run(first: int, last: int, folder: Path) -> Outcome:
    """Ask for the next image, again and again; AIDE_TORTURE_STUDIES is the number of images, 2,000 by default."""
    outcome = Outcome()
    images = int(os.environ.get("AIDE_TORTURE_STUDIES", "2000"))
    server = start_server(folder, images=images)
    try:
        for number in range(first, last):
            start, work = time.monotonic(), _processor_s(server.process.pid)
            served = server.post("/activelearning/suspicious").get("id")
            seconds, work = time.monotonic() - start, _processor_s(server.process.pid) - work
            problem = "" if served and seconds < LIMIT_S else f"{served}, {seconds:.1f} s"
            figures = {"longest_s": round(seconds, 2), "longest_of_the_processor_s": round(work, 2)}
            outcome.add(f"next of {images} images", problem, number=number, **figures)
    finally:
        server.stop()
    return outcome


def _processor_s(process: int) -> float:
    """Seconds of the processor that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
