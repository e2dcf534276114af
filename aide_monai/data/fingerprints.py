"""Spacing and orientation of every case, and hashes that tell when its files have changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import nibabel
import numpy as np
from rich.progress import track

from aide_monai.data.datalist import PATH_KEYS, Datalist
from aide_monai.errors import InputError, Problem
from aide_monai.io.location import content_hash, files_of, image_header
from aide_monai.io.paths import as_paths


def with_details(datalist: Datalist, *, progress: bool = False) -> Datalist:
    """The data set with "spacing" (mm), "orientation" and "sha256" in every record.

    Spacing and orientation are those of the (first) image, in the order of its axes as MONAI loads them. "sha256" has
    the keys "image", "label" and "clean_label" as far as the record has them; a list of images has a list.

    Raises:
        InputError: one report of all files that cannot be read.
    """
    records: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for record in track(datalist.records, description="Reading", disable=not progress):
        try:
            affine = image_header(as_paths(record["image"])[0]).affine
            details = {
                "spacing": [round(float(step), 6) for step in np.linalg.norm(affine[:3, :3], axis=0)],
                "orientation": "".join(nibabel.aff2axcodes(affine)),
                "sha256": hashes(record),
            }
            records.append({**record, **details})
        except InputError as error:
            problems += error.at("", case=record["case"]).problems
        except OSError as error:
            problems.append(Problem(str(error), case=record["case"]))
    if problems:
        raise InputError(f"{datalist.name}: files that cannot be read", problems=problems)
    return replace(datalist, records=records)


def hashes(record: dict[str, Any]) -> dict[str, str | list[str]]:
    """The content hash of every file of a record, by key."""
    found: dict[str, str | list[str]] = {}
    for key in PATH_KEYS:
        if key in record:
            each = [content_hash(files_of(path)) for path in as_paths(record[key])]
            found[key] = each[0] if isinstance(record[key], str) else each
    return found


def changed_files(record: dict[str, Any]) -> Iterator[str]:
    """Paths of a record whose files are not those that "sha256" was made of; none without it."""
    written = record.get("sha256", {})
    for key in PATH_KEYS:
        if key in record and key in written:
            for path, digest in zip(as_paths(record[key]), as_paths(written[key]), strict=False):
                if content_hash(files_of(path)) != digest:
                    yield path
