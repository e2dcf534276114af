"""Options that several verbs have, and what is typed in one text: numbers, names, spacings."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated

import typer

from aide_monai.errors import InputError
from aide_monai.utils.progress import set_quiet
from aide_monai.utils.validation import is_text


def _silence(quiet: bool) -> bool:
    set_quiet(quiet)
    return quiet


Device = Annotated[str, typer.Option(help="auto (the first GPU, if there is one), cpu, cuda, cuda:1, ...")]
RunDir = Annotated[Path | None, typer.Option(help="Folder of the run: labels, log, weights. Default: in the bundle.")]
DatasetDir = Annotated[Path | None, typer.Option(help="Folder of the data set, or a datalist. Default: data/ here.")]
CkptPath = Annotated[Path | None, typer.Option(help="File of the weights. Default: models/model.pt in the run folder.")]
Layout = Annotated[
    str | None,
    typer.Option(help="Layout of a folder that does not show what it is, as aide prepare names it: chaos, qubiq, ..."),
]
Profile = Annotated[str, typer.Option(help="AIDE's options: improved, paper or original.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Results and errors alone: no progress, no hints.", callback=_silence),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables for people.")]
Roots = Annotated[
    list[Path] | None,
    typer.Option(help="Folder of the files, unless they lie beside the datalist; may be repeated."),
]


def numbers(option: str, text: str, separator: str = ",") -> list[int]:
    """Whole numbers from ``1,2``.

    Raises:
        InputError: naming the option.
    """
    try:
        return [int(part) for part in text.split(separator)]
    except ValueError:
        raise InputError(f'{option} is "{text}"; expected whole numbers with "{separator}" between them') from None


def label_names(text: str | None, option: str = "--labels") -> dict[int, str] | None:
    """Label values with names from ``1=liver,2=spleen``.

    Raises:
        InputError: naming the option.
    """
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    labels = {
        int(value): name.strip()
        for value, _, name in pairs
        if re.fullmatch("[0-9]{1,5}", value.strip()) and is_text(name)
    }
    if len(labels) < len(pairs) or not all(0 < value < 65536 for value in labels):
        raise InputError(f"{option} is {text!r}; expected values from 1 with names, such as 1=liver,2=spleen")
    return labels


def spacing_mm(text: str | None) -> tuple[float, float, float] | None:
    """Column, row and slice spacing in mm from ``1.89,1.89,5.5``.

    Raises:
        InputError: naming the option.
    """
    if text is None:
        return None
    try:
        column, row, between = (float(part) for part in text.split(","))
        if all(0 < step < math.inf for step in (column, row, between)):
            return column, row, between
    except ValueError:
        pass  # the same sentence
    raise InputError(f"--spacing is {text!r}; expected three positive numbers in mm, such as 1.89,1.89,5.5")
