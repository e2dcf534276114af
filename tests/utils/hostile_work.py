"""Stand-ins for decoders that die, hang or take too much, for the workers of ``aide_monai.utils.workers``."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

import numpy as np

from aide_monai.errors import InputError, Problem


def work(job: str):
    """ "die 7", "signal 9", "sleep", "take BYTES", "refuse", "bug", "strange", "warn", "number K", "wait FILE"."""
    kind, _, text = job.partition(" ")
    if kind == "die":
        os._exit(int(text))
    if kind == "signal":
        os.kill(os.getpid(), int(text))
    if kind == "sleep":
        time.sleep(600)
    if kind == "take":
        return {}, [np.ones(int(text), np.uint8)[:1]]
    if kind == "refuse":
        raise InputError(
            "found nothing", problems=[Problem("2 axes", "3", "cut", Path("x.nii"), "a", "warning"), "two"]
        )
    if kind == "bug":
        raise KeyError("a mistake of ours")
    if kind == "strange":
        return {"value": object()}, []
    if kind == "warn":
        warnings.warn("a doubt", stacklevel=2)
    if kind == "pid":
        return {"pid": os.getpid()}, []
    if kind == "wait":  # for the other process, so that it passes only when two work at a time
        mine, other = text.split(":")
        Path(mine).touch()
        while not Path(other).exists():
            time.sleep(0.01)
    if kind == "arrays":
        records = np.zeros(3, [("R", "u1"), ("G", "<i2")])
        records["G"] = 7
        whole = np.arange(24, dtype=">i2").reshape(2, 3, 4)
        return {}, [
            whole,
            whole.transpose(2, 0, 1),
            whole[::-1, 1:],
            np.float32(3) * np.ones(()),
            np.empty((0, 3)),
            records,
        ]
    return {"job": job}, []
