"""The committed generations of a label store: label files that never change, and one journal."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aide_monai.errors import InputError
from aide_monai.labels.file_grid import LabelGrid
from aide_monai.labels.journal import Journal
from aide_monai.labels.manifest import NETWORKS
from aide_monai.utils.files import JsonObject, disk_errors, sync_folder
from aide_monai.utils.mapped_tensor import MappedTensor, current


@dataclass(frozen=True)
class LabelChange:
    """Record of one replaced label.

    Attributes:
        epoch: epoch after which the label was replaced (1-based).
        network: the network that trains on this label, 1 or 2.
        case: case identifier.
        slice: index of the slice, or None for the whole case or a patch.
        dice_before: Dice between the prediction that ranked the unit and its label at that time, 0..1; None for a label
            without any verdict, which cannot be ranked.
        voxels_changed: number of voxels whose class changed.
        patch: voxels of the patch, such as "0:32,32:64,0:20", or None for the whole case or a slice.
        filled: only voxels changed that were given without a verdict.
    """

    epoch: int
    network: int
    case: str
    slice: int | None
    dice_before: float | None
    voxels_changed: int
    patch: str | None = None
    filled: bool = False


@dataclass(frozen=True)
class Generation:
    """One committed state of all labels, as its difference from the one before.

    Attributes:
        epoch: epoch after which it was committed, 0 for the labels as given.
        records: what was replaced.
        files: "network/case" to the file, relative to the folder, of every label that differs from before.
        rollback_to: for a rollback, the generation whose labels it brought back.
        continues: of the one that a run began with after those of an earlier run, the name of that run.
    """

    epoch: int
    records: tuple[LabelChange, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    rollback_to: int | None = None
    continues: str | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Generation:
        """The reverse of ``as_json``.

        Raises:
            ValueError, KeyError, TypeError: if the content is no generation.
        """
        target = content.get("rollback_to")
        return cls(
            epoch=int(content["epoch"]),
            records=tuple(LabelChange(**record) for record in content["records"]),
            files=dict(content["files"]),
            rollback_to=None if target is None else int(target),
            continues=content.get("continues"),
        )

    def as_json(self) -> JsonObject:
        """Content for the journal."""
        content: JsonObject = {
            "epoch": self.epoch,
            "records": [_record(change) for change in self.records],
            "files": dict(self.files),
        }
        further = {"rollback_to": self.rollback_to, "continues": self.continues}
        return content | {name: value for name, value in further.items() if value is not None}


def _record(change: LabelChange) -> dict[str, Any]:
    """Without what few changes have and this one has not."""
    rare = {"patch": None, "filled": False}
    return {name: value for name, value in asdict(change).items() if name not in rare or value != rare[name]}


class LabelHistory:
    """All generations of both networks' labels, on disk or, without a folder, as records only.

    A generation is a folder of files that are written once, and lines at the end of the journal, which are written
    after them. So whatever happens while a generation is written, the ones before it stay in force, a rollback only
    points at older files, and a commit costs what it changes, however many there were.

    Args:
        shapes: case to spatial shape of its label.
        high_quality: cases whose label never changes.
        folder: where generations are committed; None keeps records only.
        grids: case to the grid of its label, as far as known.

    Attributes:
        generations: the committed ones, oldest first.
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        high_quality: Iterable[str] = (),
        folder: Path | None = None,
        grids: Mapping[str, LabelGrid] | None = None,
    ) -> None:
        self.shapes = {case: tuple(shape) for case, shape in shapes.items()}
        self.high_quality = frozenset(high_quality)
        self.folder = folder
        self.grids = dict(grids or {})
        self.generations: list[Generation] = []
        self._numbers = {case: number for number, case in enumerate(self.shapes)}
        self._journal = None if folder is None else Journal(folder)
        self._grids_on_disk: Mapping[str, LabelGrid] = {}

    @classmethod
    def load(cls, folder: str | Path) -> LabelHistory:
        """The history of a used folder; label files are opened when they are read.

        Raises:
            InputError: if the journal is missing or damaged.
        """
        folder = Path(folder)
        journal = Journal(folder)
        try:
            content = journal.load()
            history = cls(
                {str(case): tuple(map(int, shape)) for case, shape in content["cases"].items()},
                high_quality=content["high_quality"],
                folder=folder,
                grids={case: LabelGrid.from_json(grid) for case, grid in content.get("grids", {}).items()},
            )
            history.generations = [Generation.from_json(entry) for entry in content["generations"]]
            if not history.generations:
                raise ValueError("no generation")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{journal.file}: not a readable journal of labels ({error}); start in a new folder"
            ) from error
        history._journal, history._grids_on_disk = journal, dict(history.grids)
        return history

    @property
    def generation(self) -> int:
        """Number of the last committed generation; 0 holds the labels as given."""
        return len(self.generations) - 1

    @property
    def beginning(self) -> int:
        """Number of the generation that this run began with: 0, unless it has continued an earlier run."""
        return max((number for number, entry in enumerate(self.generations) if entry.continues), default=0)

    @property
    def records(self) -> list[LabelChange]:
        """Every committed change, oldest first."""
        return [record for entry in self.generations for record in entry.records]

    def append(
        self,
        labels: Mapping[tuple[int, str], Tensor | MappedTensor],
        *,
        epoch: int,
        records: Iterable[LabelChange] = (),
    ) -> None:
        """Commit a new generation.

        Args:
            labels: (network, case) to the label (uint8) of everything that changed; in generation 0 the labels that
                both networks start from, as those of network 1.
            epoch: epoch after which it was changed.
            records: the changes.

        Raises:
            InputError: if the disk is full or read-only, or another program has written here; the generations before
                stay in force.
        """
        number = len(self.generations)
        files: dict[str, str] = {}
        if self.folder is not None:
            self._require_unchanged()
            name = f"generation_{number:04d}"
            shutil.rmtree(self.folder / name, ignore_errors=True)  # left by a run that died before its commit
            files = {
                f"{n}/{case}": f"{name}/{self._numbers[case]:05d}_network_{network}.npz"
                for network, case in sorted(labels)
                for n in (NETWORKS if number == 0 else (network,))
            }
        entry = Generation(epoch=epoch, records=tuple(records), files=files)
        try:
            if self.folder is not None:
                self._write_labels(self.folder / name, {files[f"{n}/{case}"]: y for (n, case), y in labels.items()})
            self._commit([entry])
        except BaseException:
            # On a full disk its space is needed. But it may be in force, when the disk fails after its last byte.
            if self.folder is not None and self._journal is not None and not self._journal.changed_by_another:
                shutil.rmtree(self.folder / name, ignore_errors=True)
            raise

    def begin(
        self,
        generations: Sequence[Generation],
        *,
        copies: Mapping[str, Path],
        labels: Mapping[str, Tensor | MappedTensor],
    ) -> None:
        """Commit the generations of another history as the first ones.

        Args:
            generations: with files as they will be called here.
            copies: file here to the file that it is copied from.
            labels: file here to its label (uint8), for files that are new.

        Raises:
            InputError: as ``append``.
        """
        if self.folder is None:
            raise InputError("this label store has no folder; expected one to continue an earlier run in")
        for number, _ in enumerate(generations):
            folder = self.folder / f"generation_{number:04d}"
            shutil.rmtree(folder, ignore_errors=True)  # left by a run that died before its commit
            with disk_errors(folder):
                folder.mkdir(parents=True)
                for file, source in copies.items():
                    if self.folder / Path(file).parent == folder:
                        shutil.copyfile(source, self.folder / file)
                        (self.folder / file).chmod(0o444)
            self._write_labels(folder, {file: y for file, y in labels.items() if Path(file).parent.name == folder.name})
        self._commit(generations)

    def rollback(self, generation: int) -> None:
        """Commit a new generation with the labels of an earlier one; everything in between stays readable.

        Trusted labels return no further than to the beginning of this run: in one before they may have been doubtful.

        Raises:
            InputError: as ``read`` and ``append``.
        """
        files = {}
        for network in NETWORKS:
            for case in self.shapes:
                target = max(generation, self.beginning) if case in self.high_quality else generation
                self.read(target, network, case)  # a damaged label must not come into force
                file = self.file(target, network, case)
                if file != self.file(self.generation, network, case):
                    files[f"{network}/{case}"] = file
        entry = Generation(epoch=self.generations[generation].epoch, files=files, rollback_to=generation)
        self._commit([entry])

    def discard_after(self, generation: int) -> None:
        """Drop the generations after ``generation``.

        Raises:
            InputError: as ``append``.
        """
        if self._journal is not None:
            self._require_unchanged()
            if not self._journal.started:  # a manifest
                self._commit([])
            self._journal.keep(generation + 1)
        del self.generations[generation + 1 :]
        self.remove_leftovers()

    def read(self, generation: int, network: int, case: str) -> Tensor:
        """The label (uint8) that ``network`` (1 or 2) had in a generation.

        Raises:
            InputError: if there is no such generation, no folder, or the file is missing or damaged.
        """
        path = folder = self.require(generation)
        try:
            path /= self.file(generation, network, case)
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ValueError("the journal points outside the folder")
            with np.load(path, allow_pickle=False) as stored:
                label = as_label(case, stored["label"])
            if label.shape != self.shapes[case]:
                raise ValueError(f"found shape {tuple(label.shape)}")
            return label
        except Exception as error:  # numpy, zipfile and zlib each have their own
            raise InputError(f"{path}: cannot read this stored label ({error}); restore the run folder") from error

    def file(self, generation: int, network: int, case: str) -> str:
        """File, relative to the folder, of the label that ``network`` had in a generation.

        Raises:
            InputError: if there is no such generation, or no folder.
            KeyError: if no generation up to this one has one.
        """
        self.require(generation)
        key = f"{network}/{case}"
        for entry in reversed(self.generations[: generation + 1]):
            if key in entry.files:
                return entry.files[key]
        raise KeyError(key)

    def remove_leftovers(self) -> None:
        """Remove what a killed run has written and not committed, as far as the folder may be written."""
        if self.folder is not None and self._journal is not None:
            self._journal.remove_unfinished()
            for path in self.folder.glob("generation_*"):
                number = path.name.removeprefix("generation_")
                if number.isdecimal() and int(number) > self.generation:
                    shutil.rmtree(path, ignore_errors=True)

    def require(self, generation: int) -> Path:
        """The folder, if it has this generation."""
        if self.folder is None:
            raise InputError("this label store has no folder; earlier generations are kept on disk only")
        if not 0 <= generation <= self.generation:
            raise InputError(f"{self.folder}: there is no generation {generation}; expected 0..{self.generation}")
        return self.folder

    def _write_labels(self, generation: Path, labels: Mapping[str, Tensor | MappedTensor]) -> None:
        assert self.folder is not None
        with disk_errors(generation):
            generation.mkdir(parents=True, exist_ok=True)
        for file, label in sorted(labels.items()):
            _write_label(self.folder / file, current(label).numpy())
        with disk_errors(generation):
            sync_folder(generation)

    def _commit(self, generations: Sequence[Generation]) -> None:
        """Add generations: on disk first, so that a failure leaves the old ones in force."""
        if self._journal is not None:
            self._require_unchanged()
            if self._journal.started and self.grids == self._grids_on_disk:
                self._journal.append([entry.as_json() for entry in generations])
            else:
                head = {
                    "cases": {case: list(shape) for case, shape in self.shapes.items()},
                    "high_quality": sorted(self.high_quality),
                    "grids": {case: asdict(grid) for case, grid in self.grids.items()},
                }
                self._journal.start(head, [entry.as_json() for entry in (*self.generations, *generations)])
                self._grids_on_disk = dict(self.grids)
        self.generations += generations

    def _require_unchanged(self) -> None:
        if self._journal is not None and self._journal.changed_by_another:
            raise InputError(
                f"{self._journal.file}: another program has changed the labels since this one read them; expected one "
                "at a time: stop the other one, then continue with --resume"
            )


def as_label(case: str, label: Any) -> Tensor:
    """A label as uint8 class indices; a copy with its axes in memory as they were.

    Raises:
        InputError: if it is empty or not integers in 0..255, naming the case.
    """
    array = np.asarray(label)
    if array.dtype.kind not in "iub":
        raise InputError(f"label of case {case!r} is {array.dtype}; expected integer class indices")
    if array.size == 0 or array.min() < 0 or array.max() > 255:
        raise InputError(f"label of case {case!r} is empty or leaves 0..255; expected class indices from 0")
    return torch.from_numpy(array.astype(np.uint8, order="K"))


def _write_label(path: Path, label: np.ndarray) -> None:
    with disk_errors(path):
        with path.open("xb") as file:
            np.savez_compressed(file, label=label)
            file.flush()
            os.fsync(file.fileno())
        path.chmod(0o444)
