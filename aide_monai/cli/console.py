"""Where the commands print: text from data is shown as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(markup=False, emoji=False)  # paths and names may hold brackets and colons
errors = Console(stderr=True, markup=False, emoji=False)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, float, float], None]]:
    """A bar on the terminal; what is given is called with the stage, what is done of it, and its total."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=None)

        def update(stage: str, done: float, total: float) -> None:
            progress.update(task, description=stage, completed=done, total=total)

        yield update
