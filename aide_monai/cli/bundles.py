"""The verbs of the ``aide`` command that make something to run: bundle list and copy, new-bundle, label-app."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aide_monai.cli.console import command_line, console, print_json, tell_next
from aide_monai.cli.options import AsJSON, Roots
from aide_monai.errors import InputError
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
    tell_next("Train it", "aide", "train", folder, "--dataset-dir", "DATA", "--run-dir", "RUN")


def new_bundle(
    name: Annotated[Path, typer.Argument(help="New folder; its name becomes the bundle's.")],
    datalist: Annotated[
        Path | None, typer.Option(help="Datalist (JSON) of the data set, see aide prepare and aide check.")
    ] = None,
    root: Roots = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Bring a bundle up to date with this version; its parameters stay.")
    ] = False,
) -> None:
    """Write a MONAI bundle for a data set of your own."""
    from aide_monai.workflows.new_bundle import new_bundle as write
    from aide_monai.workflows.new_bundle import refresh_bundle

    if refresh == (datalist is not None):
        raise InputError("expected --datalist for a new bundle, or --refresh for one that is there")
    if refresh:
        refresh_bundle(name)
    elif datalist is not None:
        write(name, datalist, roots=[str(folder) for folder in root or ()])
    console.print(str(name), soft_wrap=True)
    tell_next("Train it", "aide", "train", name, "--dataset-dir", datalist or "DATA", "--run-dir", "RUN")


def label_app(
    folder: Annotated[Path, typer.Argument(help="New folder of the app, or one that this command has made.")],
    bundle: Annotated[Path, typer.Option(help="Bundle to serve; its copy in the app is what MONAI Label trains.")],
    weights: Annotated[
        Path | None, typer.Option(help="Trained weights, such as RUN/models/model.pt. Default: the bundle's own.")
    ] = None,
    studies: Annotated[Path, typer.Option(help="Folder of the images, for the command that is printed.")] = Path(
        "STUDIES"
    ),
) -> None:
    """Make an app for a MONAI Label server: it learns from unlabelled images too, and asks for the label that helps."""
    from aide_monai.label_app.create import create_app

    trained = create_app(folder, bundle, weights=weights)
    if not trained:
        console.print("The networks are untrained: label an image, train, then trust predictions.", style="yellow")
    console.print("Start the server in the environment of make label-env:", style="dim")
    server = ("python", "-m", "monailabel.main", "start_server", "--app", folder, "--studies", studies)
    console.print(command_line(*server, "--host", "127.0.0.1"), soft_wrap=True, highlight=False)
