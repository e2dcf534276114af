"""The ``aide`` command. Every verb calls one workflow; a user's mistake ends in one sentence and exit code 2."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from aide_monai import __version__
from aide_monai.cli import audit, bundles, data, experiments, info, prepare, training
from aide_monai.cli.console import console, errors
from aide_monai.cli.usage import UsageError, advise
from aide_monai.errors import InputError, MainProcessError
from aide_monai.reports.text import literal
from aide_monai.utils.processes import Stopped, end_at_signals, end_with_parent, stop_at_signals, stop_behind

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("_", "-"),  # --run_dir, as bundles spell it, is --run-dir
    },
)
_OPEN = {"allow_extra_args": True, "ignore_unknown_options": True}  # further options override values of a bundle

app.command()(experiments.run)
app.command()(experiments.demo)
app.add_typer(prepare.app, name="prepare")
app.command()(data.check)
app.command()(data.plan)
app.command(context_settings=_OPEN)(training.train)
app.command(context_settings=_OPEN)(training.predict)
app.command()(data.evaluate)
app.command()(training.labels)
app.command()(audit.audit)
app.command()(experiments.compare)
app.add_typer(bundles.app, name="bundle")
app.command("new-bundle")(bundles.new_bundle)
app.command("label-app")(bundles.label_app)
app.command()(info.info)


def _tell_version(wanted: bool) -> None:
    if wanted:
        console.print(f"aide-monai {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def aide(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Train segmentation models from few good labels and many doubtful ones."""


def run(command: Callable[[], Any]) -> int:
    """Call a command and return its exit code.

    That of the command, if it has one; 2, with the message alone, for a user's mistake or a full disk; 128 and the
    number of the signal that has stopped it, with what to do next.
    """
    try:
        return command() or 0
    except (Exception, Stopped) as error:
        from aide_monai.utils.files import refused_by_disk

        stop = stop_behind(error)
        if stop is not None:
            if os.environ.get("RANK", "0") == "0":  # of several processes, which have left each other by now
                errors.print(literal(stop.advice), soft_wrap=True)
            return stop.code
        told = advise(error) if isinstance(error, UsageError) else error
        mistake = told if isinstance(told, InputError) else refused_by_disk(error)
        if mistake is None:
            raise
        if str(mistake) and not isinstance(mistake, MainProcessError):
            errors.print(literal("Error:", "bold red") + literal(f" {mistake}"), soft_wrap=True)
        return 2


def main() -> None:
    """Entry point of the ``aide`` command."""
    # It tells at every start that a CUDA decoder is absent, which concerns nobody here.
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    # It announces every exception; the sentence or the traceback that follows says the same.
    logging.getLogger("ignite.engine").setLevel(logging.CRITICAL)
    stop_at_signals()
    end_with_parent()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the name of a file may be no UTF-8
    try:
        sys.exit(run(lambda: app(prog_name="aide", standalone_mode=False)))
    finally:
        end_at_signals()
