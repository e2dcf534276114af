"""A MONAI Label server with 2,000 images: how long an annotator waits for the next one."""

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
            start = time.monotonic()
            served = server.post("/activelearning/suspicious").get("id")
            seconds = time.monotonic() - start
            problem = "" if served and seconds < LIMIT_S else f"{served}, {seconds:.1f} s"
            outcome.add(f"next of {images} images", problem, number=number, longest_s=round(seconds, 2))
    finally:
        server.stop()
    return outcome
