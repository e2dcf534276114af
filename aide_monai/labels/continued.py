"""A run that continues an earlier one with more cases or better labels: what becomes of each label."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from aide_monai.errors import InputError, Problem
from aide_monai.labels.history import Generation, LabelHistory
from aide_monai.labels.manifest import NETWORKS, labels_folder
from aide_monai.utils.mapped_tensor import MappedTensor, current
from aide_monai.utils.texts import names_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Since:
    """What has become of the cases of an earlier run.

    Attributes:
        kept: given as before; they go on with the labels that the earlier run ended with.
        reviewed: trusted now, which they were not; they begin with the label that is given now.
        changed: given with another label than before, and as trusted or doubtful as before; likewise.
        new: cases that the earlier run did not have.
        left_out: its cases that this run does not have.
    """

    kept: tuple[str, ...]
    reviewed: tuple[str, ...]
    changed: tuple[str, ...]
    new: tuple[str, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        groups = [(field.name.replace("_", " "), getattr(self, field.name)) for field in fields(self)]
        return "; ".join(f"{len(cases)} {what} ({names_text(cases)})" for what, cases in groups if cases)


def continue_history(history: LabelHistory, run: str | Path, given: Mapping[str, Tensor | MappedTensor]) -> Since:
    """Begin a history with all generations of an earlier run, and a further one with what was given anew since.

    Cases that the earlier run did not have count as given in its generation 0.

    Args:
        history: of the new run, without a generation.
        run: folder of the earlier run.
        given: case to the label (uint8) that the new run is given.

    Returns:
        What became of each case; it is also told in the log.

    Raises:
        InputError: if there are no labels of one run, a label is damaged or has another shape, or the folder cannot be
            written.
    """
    folder = labels_folder(run)
    before = LabelHistory.load(folder)
    problems = [
        Problem(
            f"shape {before.shapes[case]}", f"{shape}, as this run has it", "train with the same slice_size", case=case
        )
        for case, shape in history.shapes.items()
        if case in before.shapes and before.shapes[case] != shape
    ]
    if problems:
        raise InputError(f"{folder}: the labels cannot be continued", problems=problems)
    since = _since(history, before, given)
    number = {case: f"{index:05d}" for index, case in enumerate(history.shapes)}

    def file_of(case: str, file: str) -> str:
        return f"{Path(file).parent}/{number[case]}_{Path(file).name.partition('_')[2]}"

    generations: list[Generation] = []
    copies: dict[str, Path] = {}
    for entry in before.generations:
        mine = {key: file for key, file in entry.files.items() if key.partition("/")[2] in number}
        files = {key: file_of(key.partition("/")[2], file) for key, file in mine.items()}
        copies |= {files[key]: folder / file for key, file in mine.items()}
        records = tuple(record for record in entry.records if record.case in number)
        generations.append(replace(entry, files=files, records=records))
    labels: dict[str, Tensor | MappedTensor] = {}
    last = f"generation_{len(generations):04d}"
    first: dict[str, str] = {}
    begun: dict[str, str] = {}
    for cases, place, target in (
        (since.new, "generation_0000", first),
        ((*since.reviewed, *since.changed), last, begun),
    ):
        for case in cases:
            file = f"{place}/{number[case]}_network_1.npz"
            labels[file] = given[case]
            target |= {f"{network}/{case}": file for network in NETWORKS}
    generations[0] = replace(generations[0], files={**generations[0].files, **first})
    generations.append(Generation(epoch=0, files=begun, continues=Path(run).resolve().name))
    history.grids = before.grids | history.grids
    history.begin(generations, copies=copies, labels=labels)
    logger.warning("%s, continued from generation %d: %s", run, before.generation, since)
    return since


def _since(history: LabelHistory, before: LabelHistory, given: Mapping[str, Tensor | MappedTensor]) -> Since:
    groups: dict[str, list[str]] = {field.name: [] for field in fields(Since)}
    for case in history.shapes:
        if case not in before.shapes:
            groups["new"].append(case)
        elif case in history.high_quality - before.high_quality:
            groups["reviewed"].append(case)
        elif torch.equal(before.read(0, 1, case), current(given[case])):
            groups["kept"].append(case)
        else:
            groups["changed"].append(case)
    groups["left_out"] = [case for case in before.shapes if case not in history.shapes]
    return Since(**{name: tuple(cases) for name, cases in groups.items()})
