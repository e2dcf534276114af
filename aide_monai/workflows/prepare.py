"""From a folder of volumes to a checked and split data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from aide_monai.data.checks.datalist import require_valid
from aide_monai.data.datalist import Datalist
from aide_monai.data.fingerprints import with_details
from aide_monai.data.sources import find_datalist, is_datalist
from aide_monai.data.sources.layouts import LAYOUTS
from aide_monai.data.split import SplitSettings, adapt_domains
from aide_monai.errors import InputError
from aide_monai.moved import moved_name
from aide_monai.utils.files import require_place, require_unused
from aide_monai.utils.validation import require_choices

FORMS = ("datalist", "nnunet", "studies")
"""What ``write_datalist`` writes."""

_FLAGS = {"times_s": "times", "merge_zones": "zones"}  # options that the command line calls otherwise


def write_datalist(
    layout: str,
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    split: SplitSettings | None = None,
    paper_split: bool = False,
    form: str = FORMS[0],
    force: bool = False,
    progress: bool = False,
    **options: Any,
) -> Datalist:
    """Find the cases of a download, split and check them, and write the datalist.

    Args:
        layout: a key of ``LAYOUTS``.
        folders: as many as the layout has.
        out: JSON file of the datalist, or the new folder of another form.
        split: which cases are labelled, unlabelled and held out.
        paper_split: the paper's numbers: CHAOS by the authors' case lists, prostate 30/10, 30/10 and 27/10, QUBIQ by
            the challenge's folders, breast 100 held-out cases of each centre; ``split`` may then only have a seed.
        form: "datalist"; "nnunet" for a raw data folder of nnU-Net, see ``write_nnunet``; or "studies" for a server
            of MONAI Label, see ``write_studies``.
        force: replace a datalist that is there already.
        progress: show progress bars.
        options: of the layout's source.

    Raises:
        InputError: an unknown layout, an option of another layout, an ``out`` that exists, or one report of all
            problems; then no datalist is written.
    """
    require_choices({"--as": form}, {"--as": FORMS})
    _require_free(out, form, force=force)
    if layout not in LAYOUTS:
        raise InputError(f'layout "{layout}": expected one of {", ".join(LAYOUTS)}')
    known = LAYOUTS[layout]
    foreign = [option for option in options if option not in known.options]
    if foreign:
        users = [name for name, other in LAYOUTS.items() if foreign[0] in other.options]
        name = "--" + _FLAGS.get(foreign[0], foreign[0].replace("_", "-"))
        raise InputError(f"{name} is an option of {', '.join(users)}, not of {layout}; leave it out")
    if len(folders) != len(known.folders):
        raise InputError(
            f"{layout}: found {len(folders)} folders; expected {len(known.folders)}: {' and '.join(known.folders)}"
        )
    split = split or SplitSettings()
    if paper_split:
        if known.paper is None:
            raise InputError(f"--paper-split: the paper has no data set of the layout {layout}; leave it out")
        if replace(split, seed=0) != SplitSettings():
            raise InputError("found --paper-split with another split; expected one of them")
        options |= known.paper
        options |= {"seed": split.seed} if layout in ("promise12", "prostate", "breast") else {}
    datalist = split.apply(known.source(*folders, **options))
    require_valid(datalist, progress=progress)
    if form != "datalist":
        from aide_monai.workflows.nnunet import write_nnunet  # waits for PyTorch
        from aide_monai.workflows.studies import write_studies

        (write_nnunet if form == "nnunet" else write_studies)(datalist, out, progress=progress)
        return datalist
    datalist = with_details(datalist, progress=progress)
    datalist.save(out)
    return datalist


def _require_free(out: str | Path, form: str, *, force: bool) -> None:
    """Refuse a place for the result that is taken, but for a datalist that may be replaced."""
    require_place(out, folder=form != "datalist")
    if form != "datalist":
        require_unused(out, "the data set")
    elif Path(out).exists() and not is_datalist(Path(out)):
        raise InputError(f"{out}: found a file that is no datalist and would be lost; choose another name")
    elif Path(out).exists() and not force:
        raise InputError(f"{out}: found a datalist; choose another name, or replace it (--force)")


def prepare_datalist(
    root: str | Path,
    *,
    layout: str | None = None,
    folders: Sequence[str] = (".",),
    source: Mapping[str, Any] | None = None,
    domains: Sequence[str] | None = None,
    labeled: int | None = None,
    unlabeled: int | None = None,
    test: int | None = None,
    seed: int = 0,
    roots: Sequence[str | Path] = (),
) -> Datalist:
    """Find the cases of a training job, split them, and check every file once.

    Args:
        root: folder of the data; without a ``layout`` one that ``find_datalist`` recognises, or a datalist.
        layout: how the data were downloaded, a key of ``LAYOUTS``; None recognises it.
        folders: of a layout with several folders, each of them below ``root``.
        source: options of the layout's source, see there; None stands for its default.
        domains: source and target domain, see ``adapt_domains``; None leaves all domains as they are.
        labeled: training cases that keep their label; None takes the data set as it is.
        unlabeled: training cases whose label is hidden; None takes all that are left over, see ``split_cases``.
        test: held-out cases; None takes all that are left over.
        seed: seed of the split.
        roots: further folders that the files of a datalist may lie in.

    Returns:
        The data set with training and, when it was split here, test cases.

    Raises:
        InputError: if the folder cannot be used, there are too few cases, or files have problems (one report of all).
    """
    if layout is None:
        found = find_datalist(root, roots=roots)
    elif isinstance(layout, str) and layout in LAYOUTS:
        options = {key: value for key, value in (source or {}).items() if value is not None}
        found = LAYOUTS[layout].source(*(Path(root) / folder for folder in folders), **options)
    else:
        raise InputError(f'layout "{layout}": expected one of {", ".join(LAYOUTS)}')
    if domains is not None:
        found = adapt_domains(found, domains)
    datalist = SplitSettings(labeled=labeled, unlabeled=unlabeled, test=test, seed=seed).apply(found)
    if labeled is not None and not datalist.split("test"):
        raise InputError(
            f"{root}: no case is left to hold out for the test: {len(found.cases)} cases, {labeled} labelled and "
            f"{unlabeled} unlabelled asked for; ask for fewer training cases"
        )
    require_valid(datalist)
    return datalist


def __getattr__(name: str) -> object:
    return moved_name(__name__, name)
