"""Data sets of several scanners or hospitals, each in a folder of its own, as the domains of one data set."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from aide_monai.data.case import Case
from aide_monai.data.checks.datalist import collected, refuse
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.files import tell_beside
from aide_monai.data.sources.folder import folder_datalist
from aide_monai.errors import InputError, Problem


def domain_folders(
    root: str | Path,
    *,
    domains: Mapping[str, str],
    held_out: Collection[str] = (),
    label_names: Mapping[int | str, str] | None = None,
    ignore: int | None = None,
) -> Datalist:
    """Cases of several folders in the layout of `folder_datalist`, with "domain".

    Args:
        root: the folder that holds them.
        domains: name of a domain to its folder in ``root``.
        held_out: domains whose labelled cases are test cases; their cases in ``unlabeled/`` stay training cases.
        label_names: name of every label value, the same in all folders; None: as `folder_datalist` finds them.
        ignore: label value of voxels without a verdict, in all folders.

    Raises:
        InputError: as `folder_datalist`; fewer than two domains, an unknown one in ``held_out``, label values that
            differ from domain to domain, or a case name or patient in two domains.
    """
    root = Path(os.path.abspath(root))
    if len(domains) < 2 or not set(held_out) <= set(domains):
        raise InputError(
            f"domains are {dict(domains)}, held out {sorted(held_out)}; expected two or more, and names of them"
        )
    problems: list[Problem] = []
    lists: dict[str, Datalist] = {}
    for name, folder in domains.items():
        place = root / folder
        found = collected(problems, lambda place=place: folder_datalist(place, label_names=label_names, ignore=ignore))  # type: ignore[misc]
        if found is not None:
            lists[name] = found
    if problems:
        refuse(f"{root}: the domains cannot be used", problems, *lists.values())
    tell_beside(root, domains.values(), "no folder of a domain")
    first = next(iter(lists.values()))
    cases: list[Case] = []
    for domain, datalist in lists.items():
        if (datalist.labels, datalist.classes) != (first.labels, first.classes):
            raise InputError(
                f"labels {datalist.labels}",
                expected=f"{first.labels} as in the other domains",
                advice="bring them to one coding",
                place=root / domains[domain],
            )
        for case in datalist.cases:
            test = domain in held_out and case.label is not None
            cases.append(replace(case, domain=domain, split="test" if test else "training"))
    return replace(first, name=root.name, cases=cases)
