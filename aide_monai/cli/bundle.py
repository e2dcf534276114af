"""``aide bundle``: the bundles that come with the package, without a clone of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aide_monai.cli.console import console, print_json
from aide_monai.cli.options import AsJSON
from aide_monai.reports.table import Table

app = typer.Typer(no_args_is_help=True)


@app.callback()
def bundle() -> None:
    """List the bundles that come with the package, or copy one."""


@app.command("list")
def show(as_json: AsJSON = False) -> None:
    """List the bundles, with the task of each."""
    from aide_monai.workflows.bundle_library import list_bundles

    known = list_bundles()
    if as_json:
        print_json(known)
    else:
        console.print(Table(["bundle", "task"], [[*line] for line in known.items()], 2, []).rich("Bundles"))


@app.command("copy")
def copy(
    name: Annotated[str, typer.Argument(help="Name of the bundle, see aide bundle list.")],
    folder: Annotated[Path, typer.Argument(help="New folder.")],
) -> None:
    """Copy a bundle, to train it and to change it."""
    from aide_monai.workflows.bundle_library import copy_bundle

    copy_bundle(name, folder)
    console.print(str(folder), soft_wrap=True)
    command = f"aide train {folder} --dataset-dir DATA --run-dir RUN"
    console.print(f"Train it: {command}", style="dim", soft_wrap=True, highlight=False)
