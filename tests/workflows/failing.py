"""Two processes, of which the main one fails and lives on; ``test_many_processes.py`` starts them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aide_monai.utils import distributed
from aide_monai.workflows.bundle import run_bundle
from tests.waiting import wait_for


def alone() -> None:
    """What the main process alone does, and cannot."""
    distributed.on_main(lambda: {}["key"])


def in_a_bundle(bundle: Path) -> None:
    """A run in which the main process fails while the other one waits for it."""
    (bundle / "configs").mkdir(parents=True, exist_ok=True)
    for name, step in (("main", "$[][0]"), ("other", "$distributed.broadcast(None)")):
        content = {"imports": ["$from aide_monai.utils import distributed"], "bundle_root": ".", "run": [step]}
        if distributed.is_main() == (name == "main"):
            (bundle / "configs" / f"{name}.json").write_text(json.dumps(content))
    run_bundle(bundle, ["main" if distributed.is_main() else "other"])


def fail(folder: Path, name: str, function: Callable[[], Any]) -> None:
    """The main process stays until the other one has said what it knows."""
    told, rank = folder / f"{name}.txt", distributed.rank()
    try:
        function()
    except Exception as error:
        if rank == 0:
            wait_for(told.exists, what="what the other process knows")
        else:
            told.write_text(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    distributed.initialize(timeout_minutes=30)
    fail(Path(sys.argv[1]), "alone", alone)
    fail(Path(sys.argv[1]), "in a bundle", lambda: in_a_bundle(Path(sys.argv[1]) / "bundle"))
