"""Spacing and orientation of every case, and hashes that tell when its files have changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import nibabel
import numpy as np
from rich.progress import track

from aide_monai.data.case import Case
from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError, Problem
from aide_monai.io.location import Location, as_paths
from aide_monai.io.opening import content_hash, image_header


def with_details(datalist: Datalist, *, progress: bool = False) -> Datalist:
    """The data set with "spacing" (mm), "orientation" and "sha256" in every case.

    Spacing and orientation are those of the (first) image, in the order of its axes as MONAI loads them. "sha256" has
    the keys "image", "label" and "clean_label" as far as the case has them; a list of images has a list.

    Raises:
        InputError: one report of all files that cannot be read.
    """
    cases: list[Case] = []
    problems: list[Problem] = []
    for case in track(datalist.cases, description="Reading", disable=not progress):
        try:
            affine = image_header(case.images[0]).affine
            spacing = tuple(round(float(step), 6) for step in np.linalg.norm(affine[:3, :3], axis=0))
            orientation = "".join(nibabel.aff2axcodes(affine))
            cases.append(replace(case, spacing=spacing, orientation=orientation, sha256=hashes(case)))
        except InputError as error:
            problems += error.at("", case=case.name).problems
        except OSError as error:
            problems.append(Problem(str(error), case=case.name))
    if problems:
        raise InputError(f"{datalist.name}: files that cannot be read", problems=problems)
    return replace(datalist, cases=cases)


def hashes(case: Case) -> dict[str, str | list[str]]:
    """The content hash of every file of a case, by key."""
    found: dict[str, str | list[str]] = {}
    for key, paths in _files(case).items():
        each = [content_hash(Location.parse(path).files()) for path in paths]
        found[key] = each if isinstance(getattr(case, key), tuple) else each[0]
    return found


def changed_files(case: Case) -> Iterator[str]:
    """Paths of a case whose files are not those that "sha256" was made of; none without it."""
    written = case.sha256 or {}
    for key, paths in _files(case).items():
        for path, digest in zip(paths, as_paths(written.get(key, [])), strict=False):
            if content_hash(Location.parse(path).files()) != digest:
                yield path


def _files(case: Case) -> dict[str, tuple[str, ...]]:
    labels = {"label": case.label, "clean_label": case.clean_label}
    return {"image": case.images} | {key: (path,) for key, path in labels.items() if path is not None}
