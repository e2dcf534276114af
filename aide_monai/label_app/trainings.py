"""What became of the trainings of a served bundle, also of those that ended with their server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from aide_monai.errors import InputError
from aide_monai.handlers.checkpoint import saved_epoch
from aide_monai.utils.files import JsonObject, read_object, write_text
from aide_monai.utils.locks import is_locked
from aide_monai.utils.mapped_tensor import remove_left_over

RECORD = "training.json"


@contextmanager
def recorded(run: Path) -> Iterator[None]:
    """Note in the folder of a training, while the block runs and after it, how the training stands.

    Args:
        run: its folder, ``runs/001``, ... of the bundle.

    Raises:
        InputError: if nothing can be written there.
    """
    record: JsonObject = {"state": "running", "started": _now()}
    _write(run, record)
    try:
        yield
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        _write(run, record | {"state": "failed", "ended": _now(), "reason": reason})
        raise
    _write(run, record | {"state": "finished", "ended": _now()})


def last_training(bundle: str | Path) -> JsonObject | None:
    """The last training of a bundle that a server has started; None if there is none.

    Args:
        bundle: folder of the bundle, which a training locks as long as it lasts.

    Returns:
        "run", its folder in ``runs``; "state": "running", "finished", "failed", or "ended early" if it went with its
        server, by a signal or for lack of memory; "epochs" that were finished; "started" and "ended", as far as that is
        known, and the "reason" of a failure.
    """
    bundle = Path(bundle)
    found = sorted(bundle.glob(f"runs/*/{RECORD}"), key=lambda file: file.parent.name)
    if not found:
        return None
    try:
        record = read_object(found[-1], advice="the training may be made again")
    except InputError as error:
        record = {"state": "unknown", "reason": str(error)}
    run = found[-1].parent
    if record.get("state") == "running" and not is_locked(bundle):
        record["state"] = "ended early"
    return {"run": run.name, **record, "epochs": saved_epoch(run / "checkpoint.pt")}


def remove_scratch(bundle: str | Path) -> None:
    """Remove what trainings of a bundle that were killed have left of ``cache="disk"``: each has a folder of its own.

    Args:
        bundle: folder of the bundle.
    """
    for cache in Path(bundle).glob("runs/*/cache"):
        remove_left_over(cache)


def _now() -> str:
    return datetime.now().isoformat(sep=" ", timespec="seconds")


def _write(run: Path, record: JsonObject) -> None:
    write_text(run / RECORD, json.dumps(record, indent=1))
