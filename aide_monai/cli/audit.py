"""The verb of the ``aide`` command that looks for wrong labels: audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aide_monai.cli.console import console, print_json, shows_progress
from aide_monai.cli.options import AsJSON, Layout, Quiet, Roots, Seed
from aide_monai.errors import InputError

_TOLD = 15  # cases on the screen


def audit(
    data: Annotated[Path, typer.Argument(help="Folder of the data set, or its datalist (JSON).")],
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of the predictions of a model that was not trained on the labels it judges: masks or "
            "probabilities by case, also nnU-Net's .npz. May be repeated for several models."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="New folder for the report.")] = Path("audit"),
    mapping: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="THEIRS=OURS,...",
            help="What predictions call a class: 5=liver,1=spleen for values of masks, liver=1,spleen=2 for models "
            "that write CASE/liver.nii.gz. Default: the values of the labels.",
        ),
    ] = None,
    resample: Annotated[bool, typer.Option("--resample", help="Bring masks on other grids onto the labels'.")] = False,
    expected: Annotated[float, typer.Option(help="Share of the labels that you expect to be wrong.")] = 0.1,
    root: Roots = None,
    layout: Layout = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: AsJSON = False,
) -> None:
    """Find the labels that are likely wrong: ranked cases and regions with their kind, and a proposal for each."""
    from aide_monai.workflows.audit import AuditSettings, audit_data

    if not predictions:
        raise InputError("no predictions to judge by; expected --predictions DIR, of a model that never saw the labels")
    settings = AuditSettings(
        layout=layout,
        roots=tuple(root or ()),
        classes=_mapping(mapping),
        resample=resample,
        expected=expected,
        seed=seed,
    )
    result = audit_data(data, predictions, out, settings, progress=shows_progress() and not as_json)
    if as_json:
        cases = [
            {"case": one.case, "score": one.score, "kind": one.kind, "regions": len(one.regions)}
            for one in result.ranking.cases
        ]
        print_json({"cases": cases, "folder": result.folder})
        return
    console.print(result.table.first(_TOLD).rich(f"{data}: most suspicious labels first", without=("patient",)))
    console.print("Report, with pictures and proposals:", style="dim")
    console.print(str(result.folder / "report.html"), soft_wrap=True)


def _mapping(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    found = {theirs.strip(): ours.strip() for theirs, equals, ours in pairs if equals}
    if len(found) < len(pairs) or not all(found) or not all(found.values()):
        raise InputError(f"--map is {text!r}; expected pairs such as 5=liver,1=spleen")
    return found
