"""Where the commands print: text from data is shown as it is."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aide_monai.utils.progress import ProgressLines, is_quiet, shows_bars
from aide_monai.utils.texts import as_json

console = Console(markup=False, emoji=False)  # paths and names may hold brackets and colons
errors = Console(stderr=True, markup=False, emoji=False)


@contextmanager
def progress_bar(*, silent: bool = False) -> Iterator[Callable[[str, float, float], None]]:
    """A bar on the terminal, lines elsewhere; what is given is called with the stage, what is done, and the total."""
    if silent or is_quiet():
        yield lambda stage, done, total: None
        return
    if not shows_bars(console):
        yield ProgressLines(lambda line: console.print(line, highlight=False, soft_wrap=True))
        return
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


def print_json(content: object) -> None:
    """Print what a program reads: JSON alone, with "inf" and "nan" for numbers that JSON does not have."""
    sys.stdout.write(json.dumps(as_json(content), indent=2, allow_nan=False) + "\n")


def command_line(*words: object) -> str:
    """A command as it can be typed, whatever its paths hold."""
    return shlex.join(map(str, words))


def shows_progress() -> bool:
    """Whether a workflow may draw bars of its own."""
    return console.is_terminal and not is_quiet()


def tell_next(title: str, *words: object) -> None:
    """Print the command that comes next."""
    hint(f"{title}: {command_line(*words)}")


def hint(text: str) -> None:
    """Print what helps and is no result."""
    if not is_quiet():
        console.print(text, style="dim", soft_wrap=True, highlight=False)
