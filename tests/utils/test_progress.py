"""Lines of progress, by hand."""

from __future__ import annotations

import pytest

from aide_monai.utils.progress import ProgressLines


def test_a_line_for_each_stage_and_each_step_of_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10000, 10))
    monkeypatch.setattr("aide_monai.utils.progress.time.monotonic", lambda: next(clock))
    told: list[str] = []
    lines = ProgressLines(told.append, percent=25)
    lines("reading", 0, 8)
    for done in range(1, 9):
        lines("training", done, 8)
    lines("training", 8, 8)  # nothing new
    assert told == [
        "reading: 0 %",
        "training: 12 %, 0:00:20, 0:02:20 left",
        "training: 38 %, 0:00:30, 0:00:50 left",
        "training: 62 %, 0:00:40, 0:00:24 left",
        "training: 88 %, 0:00:50, 0:00:07 left",
        "training: 100 %, 0:01:00, 0:00:00 left",
    ]
