"""``aide prepare``: a sub-command per layout, with the options of that layout and those of every split."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aide_monai.cli.console import console, shows_progress
from aide_monai.cli.options import Quiet, Roots, label_names, numbers
from aide_monai.errors import InputError
from aide_monai.reports.text import literal

if TYPE_CHECKING:
    from aide_monai.data.datalist import Datalist

Options = dict[str, Any]
LabelNames = Annotated[
    str | None, typer.Option("--label-names", help="Values that the labels hold, with names: 1=liver,4=tumour.")
]
Ignore = Annotated[int | None, typer.Option(help="Value that labels hold where nobody has said what is there.")]
PatientPattern = Annotated[
    str | None, typer.Option(help="Regular expression whose first group is the patient: (patient[0-9]+).")
]

app = typer.Typer(no_args_is_help=True)


@app.callback()
def prepare() -> None:
    """Find the cases of a download, check and split them, and write the datalist."""


def _split(
    out: Annotated[Path, typer.Option(help="Datalist (JSON) to write, or with --as a new folder.")],
    labeled: Annotated[int | None, typer.Option(help="Training cases that keep their label.")] = None,
    unlabeled: Annotated[int | None, typer.Option(help="Training cases whose label is hidden.")] = None,
    test: Annotated[int | None, typer.Option(help="Cases to hold out; without --labeled of each domain.")] = None,
    fold: Annotated[str | None, typer.Option(help="k/n: hold out part k of n.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    paper_split: Annotated[bool, typer.Option("--paper-split", help="The split of the paper.")] = False,
    form: Annotated[
        str,
        typer.Option(
            "--as", metavar="FORM", help="datalist; nnunet: raw data of nnU-Net v2; or studies: for MONAI Label."
        ),
    ] = "datalist",
    force: Annotated[bool, typer.Option("--force", help="Replace a datalist that is there already.")] = False,
    quiet: Quiet = False,
) -> Options:
    """The arguments of ``write_datalist`` that every layout has."""
    from aide_monai.data.split import SplitSettings

    split = SplitSettings(labeled=labeled, unlabeled=unlabeled, test=test, fold=_fold(fold), seed=seed)
    return {"out": out, "split": split, "paper_split": paper_split, "form": form, "force": force}


def _layout(name: str, **folders: str) -> Callable[[Callable[..., Options]], Callable[..., Options]]:
    """Make a sub-command of a function that turns a layout's own options into those of its source.

    Args:
        name: of the layout.
        folders: name of each folder that the layout has, with its help.
    """

    def add(own: Callable[..., Options]) -> Callable[..., Options]:
        arguments = [
            inspect.Parameter(
                folder,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                annotation=Annotated[Path, typer.Argument(help=text, show_default=False)],
            )
            for folder, text in folders.items()
        ]
        parameters = [inspect.signature(function, eval_str=True).parameters.values() for function in (_split, own)]
        common, special = ([*values] for values in parameters)

        def command(**given: Any) -> None:
            from aide_monai.workflows.prepare import write_datalist

            options = own(**{one.name: given[one.name] for one in special})
            chosen = {key: value for key, value in options.items() if value is not None}
            shared = _split(**{one.name: given[one.name] for one in common})
            datalist = write_datalist(
                name, [given[folder] for folder in folders], **shared, progress=shows_progress(), **chosen
            )
            console.print(literal(f"{datalist.name}: {_counts(datalist)}. Written to:", "dim"))
            console.print(str(shared["out"]), soft_wrap=True)

        every = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*common, *special)]
        command.__signature__ = inspect.Signature([*arguments, *every])  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in (*arguments, *every)}
        command.__doc__ = own.__doc__
        app.command(name)(command)
        return own

    return add


@_layout("folder", folder="Folder with images/ and labels/, and unlabeled/ for images without a label.")
def _folder(
    patient_pattern: PatientPattern = None,
    names: LabelNames = None,
    ignore: Ignore = None,
) -> Options:
    """Images and labels of the same names in images/ and labels/."""
    named = label_names(names, "--label-names")
    return {"patient_pattern": patient_pattern, "label_names": named, "ignore": ignore}


@_layout("decathlon", folder="Folder with dataset.json.")
def _decathlon() -> Options:
    """A task of the Medical Segmentation Decathlon."""
    return {}


@_layout("nnunet", folder="Raw data folder, with dataset.json, imagesTr and labelsTr.")
def _nnunet(
    split_fold: Annotated[
        int | None, typer.Option(help="Number, from 0, of the fold of splits_final.json whose val cases are held out.")
    ] = None,
    splits: Annotated[Path | None, typer.Option(help="splits_final.json. Default: the one in the folder.")] = None,
    patient_pattern: PatientPattern = None,
) -> Options:
    """Raw data of nnU-Net v2: imagesTr/X_0000.nii.gz, labelsTr/X.nii.gz, imagesTs."""
    return {"split_fold": split_fold, "splits": splits, "patient_pattern": patient_pattern}


@_layout("chaos", folder="Folder of the download, with Train_Sets.")
def _chaos(
    modality: Annotated[str | None, typer.Option(help="T1DUAL, T2SPIR or CT.")] = None,
    organs: Annotated[str | None, typer.Option(help="liver,right kidney,left kidney,spleen.")] = None,
) -> Options:
    """CHAOS: abdominal MR and CT, with the liver, kidneys and spleen."""
    return {"modality": modality, "organs": organs and [organ.strip() for organ in organs.split(",")]}


@_layout("nci-isbi", folder="Folder of the download, with ProstateDx-* and Prostate3T-*.")
def _nci_isbi(
    zones: Annotated[bool, typer.Option("--zones", help="Keep the two zones apart.")] = False,
) -> Options:
    """NCI-ISBI 2013: prostate MR of two domains."""
    return {"merge_zones": False if zones else None}


@_layout("promise12", folder="Folder of the download, with CaseXX.mhd.")
def _promise12(
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Keep the cases that Domain 2 has too.")
    ] = False,
) -> Options:
    """PROMISE12: prostate MR, the third domain."""
    return {"keep_duplicates": keep_duplicates or None}


@_layout("prostate", nci_isbi="Folder of NCI-ISBI 2013.", promise12="Folder of PROMISE12.")
def _prostate() -> Options:
    """NCI-ISBI 2013 and PROMISE12: the three domains of the paper."""
    return {}


@_layout("qubiq", folder="Folder of the download, with a folder for each task.")
def _qubiq(
    task: Annotated[str | None, typer.Option(help="Folder of the task, such as brain-growth.")] = None,
    subtask: Annotated[int | None, typer.Option(help="Number of the structure.")] = None,
    rater: Annotated[
        str | None, typer.Option(help="Number of one rater, majority, mean or staple. Default: each by itself.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Fused label of test cases.")] = None,
    fused_dir: Annotated[Path | None, typer.Option(help="Folder for fused labels.")] = None,
) -> Options:
    """QUBIQ: structures that several raters have drawn."""
    number = int(rater) if rater and re.fullmatch("[0-9]{1,9}", rater) else rater
    return {"task": task, "subtask": subtask, "rater": number, "reference": reference, "fused_dir": fused_dir}


@_layout("breast", folder="Folder with CENTRE/PATIENT/.")
def _breast(
    centre: Annotated[str | None, typer.Option(help="GGH, GPPH or HPPH.")] = None,
    phases: Annotated[str | None, typer.Option(help="Numbers of the phases by time, such as 0,1.")] = None,
    times: Annotated[str | None, typer.Option(help="Seconds after the first phase, such as 0,90.")] = None,
    keep_unlabeled: Annotated[bool, typer.Option("--keep-unlabeled", help="Studies without a label too.")] = False,
    subtraction_dir: Annotated[
        Path | None, typer.Option(help="Folder for subtraction images, which become modalities.")
    ] = None,
) -> Options:
    """Breast DCE-MR of several centres, with a file per phase."""
    return {
        "centre": centre,
        "phases": phases and numbers("--phases", phases),
        "times_s": times and numbers("--times", times),
        "keep_unlabeled": keep_unlabeled or None,
        "subtraction_dir": subtraction_dir,
    }


@_layout("domains", folder="Folder that holds a folder with images/ and labels/ for each domain.")
def _domains(
    domains: Annotated[str, typer.Option(help="Folders of the domains: siteA,siteB; or with names: A=siteA,B=siteB.")],
    held_out: Annotated[str | None, typer.Option(help="Domains whose labelled cases are test cases: B,C.")] = None,
    names: LabelNames = None,
    ignore: Ignore = None,
) -> Options:
    """Scanners or hospitals, each in a folder of its own."""
    pairs = [part.strip().partition("=") for part in domains.split(",")]
    return {
        "domains": {name: folder or name for name, _, folder in pairs},
        "held_out": held_out and [name.strip() for name in held_out.split(",")],
        "label_names": label_names(names, "--label-names"),
        "ignore": ignore,
    }


@app.command("merge")
def merge(
    data: Annotated[list[Path], typer.Argument(help="Data sets: folders or datalists (JSON), two or more.")],
    out: Annotated[Path, typer.Option(help="New folder for the labels in one numbering and datalist.json.")],
    root: Roots = None,
    quiet: Quiet = False,
) -> None:
    """Data sets with different structures annotated as one: what one has not is learnt from the others."""
    from aide_monai.workflows.merge import merge_data_sets

    datalist = merge_data_sets(data, out, roots=root or (), progress=shows_progress())
    structures = ", ".join(name for index, name in sorted(datalist.labels.items()) if index)
    console.print(literal(f"{datalist.name}: {structures}; {_counts(datalist)}. Written to:", "dim"))
    console.print(str(out / "datalist.json"), soft_wrap=True)


def _fold(fold: str | None) -> tuple[int, int] | None:
    parts = numbers("--fold", fold, "/") if fold else None
    if parts is not None and len(parts) != 2:
        raise InputError(f'--fold is "{fold}"; expected part and number of parts, such as 1/5')
    return (parts[0], parts[1]) if parts else None


def _counts(datalist: Datalist) -> str:
    counts = ", ".join(f"{len(datalist.split(name))} {name}" for name in ("training", "validation", "test"))
    labelled = sum(case.label is not None for case in datalist.of_split("training"))
    return f"{counts} cases; {labelled} training cases have a label"
