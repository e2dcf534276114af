"""The current labels of both networks: shared in memory, committed to disk generation by generation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from operator import is_
from pathlib import Path
from typing import Any

from torch import Tensor

from aide_monai.errors import InputError
from aide_monai.labels import verdicts
from aide_monai.labels.continued import continue_history
from aide_monai.labels.file_grid import LabelGrid
from aide_monai.labels.history import Generation, LabelChange, LabelHistory, as_label
from aide_monai.labels.manifest import JOURNAL, NETWORKS, is_used
from aide_monai.labels.volumes import OnlyChannel, case_name, is_high_quality
from aide_monai.utils import distributed
from aide_monai.utils.mapped_tensor import MappedTensor, ScratchFolder, current

__all__ = ["LabelChange", "LabelStore", "case_name", "is_high_quality"]


class LabelStore:
    """Two current labels per case, one for each network; every change is recorded and can be undone.

    In memory the labels are uint8 tensors in shared memory, so data-loader workers see a correction at once. On disk,
    with a ``folder``, each ``commit`` writes the changed labels into a new, immutable generation and then lines at the
    end of a journal: a run that is killed finds its last committed generation intact.

    Voxels that were given without a verdict (``IGNORED``) stay so, until ``fill`` gives them the class that networks
    predict. A correction passes over them, and ``judged`` leaves them out for good: nothing is measured by a fill.

    Of several processes that train together, all hold the same labels in memory and replace them alike, and the main
    one alone reads and writes the folder: the others need not see it. Every process must call the same methods.

    Args:
        labels: case to label volume, class indices (see ``aide_monai.ignored``), any shape; both networks start from
            it (generation 0).
        high_quality: cases whose label is trusted; what it says can never be written.
        folder: where generations are committed; None keeps the store in memory only.
        resume: continue from the last generation of a used ``folder`` instead of refusing it.
        grids: case to the grid that its label came from; with it, labels can be exported to where they were drawn.
        start: folder of an earlier run that this one continues: its generations stay, and cases that are given as they
            were there go on with the labels that it ended with. A used ``folder`` to resume has them already.
        scratch: folder in which the current labels are memory-mapped files instead of shared memory, so that the memory
            of the process does not grow with the number of cases. They are made anew by every run and removed after it.

    Raises:
        InputError: if the folder is used and ``resume`` is off, has other cases, is damaged, or cannot be written; if
            there are no labels, ``high_quality`` names an unknown case, or a label is no integer array in 0..255.

    Examples:
        >>> import torch
        >>> from aide_monai import LabelStore
        >>> store = LabelStore({"a": torch.zeros(4, 4, 2, dtype=torch.uint8)}, folder="labels")
        >>> change = store.replace(1, "a", torch.ones(4, 4, 2, dtype=torch.uint8), epoch=1, dice_before=0.0)
        >>> store.commit(1)
        1
        >>> int(store.label(1, "a").sum()), int(store.label(2, "a").sum())  # network 2 has its own
        (32, 0)
    """

    def __init__(
        self,
        labels: Mapping[str, Any],
        *,
        high_quality: Iterable[str] = (),
        folder: str | Path | None = None,
        resume: bool = False,
        grids: Mapping[str, LabelGrid] | None = None,
        start: str | Path | None = None,
        scratch: str | Path | None = None,
    ) -> None:
        if not labels:
            raise InputError("the label store got no labels; expected at least one case")
        self.cases = tuple(labels)
        self.high_quality = frozenset(high_quality)
        unknown = sorted(self.high_quality - set(self.cases))
        if unknown:
            raise InputError(f"high_quality names {unknown[0]!r}, which has no label; expected one of the cases")
        self._scratch = None if scratch is None else ScratchFolder(scratch)
        self._initial: dict[str, Tensor | MappedTensor] = {}
        self._open: dict[str, Tensor | None] = {}
        self._labels: list[dict[str, Tensor | MappedTensor]] = [{} for _ in NETWORKS]
        for number, (case, label) in enumerate(labels.items()):
            given = as_label(case, label)
            self._open[case] = verdicts.open_values(given)
            self._initial[case] = given if self._scratch is None else self._kept(given, f"{number:05d}_initial")
            for network, labels_of in zip(NETWORKS, self._labels, strict=True):
                labels_of[case] = self._kept(given, f"{number:05d}_network_{network}")
        self._staged: list[LabelChange] = []
        shared = None if folder is None else Path(folder)
        self.folder = shared if distributed.is_main() else None
        self._on_disk = shared is not None
        self._history = LabelHistory(
            {case: label.shape for case, label in self._initial.items()},
            high_quality=self.high_quality,
            folder=self.folder,
            grids=grids,
        )
        if shared is not None and distributed.on_main(lambda: is_used(shared, resume=resume)):
            self._resume(shared)
        elif start is not None:
            self._change_history(lambda: continue_history(self._history, start, self._initial))
            self._load()
        else:
            first = {(1, case): label for case, label in self._initial.items()}
            self._change_history(lambda: self._history.append(first, epoch=0))

    @classmethod
    def from_volumes(
        cls,
        volumes: Sequence[dict[str, Any]],
        *,
        folder: str | Path | None = None,
        resume: bool = False,
        start: str | Path | None = None,
        scratch: str | Path | None = None,
    ) -> LabelStore:
        """Store that starts from the labels of preprocessed volumes.

        Args:
            volumes: dictionaries with "label" (1, X, Y, Z) integers, and as far as they have them "case" and "quality".
                Labels that MONAI has loaded bring their grid along.
            folder, resume, start, scratch: as in the class.

        Raises:
            InputError: as the class, or if a volume has no label.
        """
        labels: dict[str, Any] = {}
        grids, trusted = {}, []
        stored = getattr(volumes, "stored", volumes.__getitem__)  # a VolumeCache need not make images of its slices
        for number in range(len(volumes)):
            volume = stored(number)
            case = case_name(volume, number)
            if case in labels:
                raise InputError(f"two volumes have the case name {case!r}; give every case a name of its own")
            if "label" not in volume:
                raise InputError(f"case {case!r} has no label; standardise the data set first, or leave the case out")
            labels[case] = volume["label"]
            grid = LabelGrid.of(getattr(volume["label"], "like", volume["label"]))
            if grid is not None:
                grids[case] = grid
            if is_high_quality(volume):
                trusted.append(case)
        only = OnlyChannel(labels)
        return cls(only, high_quality=trusted, folder=folder, resume=resume, grids=grids, start=start, scratch=scratch)

    @property
    def scratch(self) -> Path | None:
        """Folder of the files that hold the current labels, where others of this run may lie; None: in memory."""
        return None if self._scratch is None else self._scratch.path

    @property
    def keeps_generations(self) -> bool:
        """Whether there is a folder, from which labels of earlier generations can be read."""
        return self._on_disk

    @property
    def generation(self) -> int:
        """Number of the last committed generation; 0 holds the labels as given."""
        return self._history.generation

    @property
    def beginning(self) -> int:
        """Number of the generation that this run began with: 0, unless it has continued an earlier run."""
        return self._history.beginning

    @property
    def records(self) -> list[LabelChange]:
        """Every committed change, oldest first."""
        return self._history.records

    @property
    def epochs(self) -> list[int]:
        """Epoch of each generation."""
        return [entry.epoch for entry in self._history.generations]

    def label(self, network: int, case: str, index: tuple[Any, ...] | None = None) -> Tensor:
        """The current label (uint8, shared memory) that ``network`` (1 or 2) trains on; read only, use ``replace``."""
        return current(self._labels[network - 1][case])[_region(index)]

    def initial(self, case: str) -> Tensor:
        """The label (uint8) as it was given, before any correction."""
        return current(self._initial[case])

    def judged(self, network: int, case: str) -> Tensor:
        """The current label as far as it was given with a verdict, filled or not, see ``verdicts.judged``."""
        return verdicts.judged(self.label(network, case), self.initial(case), self._open[case])

    def foreground(self, case: str, label: Tensor, index: tuple[Any, ...] | None = None) -> int:
        """Voxels marked in a label of a case (or ``index``, a part of it) where the given one has a verdict."""
        return verdicts.foreground(label, self.initial(case)[_region(index)], self._open[case])

    def replace(
        self,
        network: int,
        case: str,
        label: Tensor,
        *,
        epoch: int,
        dice_before: float,
        index: tuple[int, int] | tuple[slice, ...] | None = None,
    ) -> LabelChange:
        """Replace a label, or a slice or patch of it, in memory; ``commit`` makes it permanent.

        Voxels that were given without a verdict stay as they are.

        Args:
            network: the network that trains on this label, 1 or 2.
            case: case identifier.
            label: new label of the case, or of the slice or patch, integers in 0..255.
            epoch: current epoch (1-based).
            dice_before: Dice that ranked the unit, for the record.
            index: (axis, slice) when one slice is replaced, or a range of voxels along each axis for a patch.

        Raises:
            PermissionError: for a high-quality case; its label never changes.
            ValueError: if the shape differs.
        """
        if case in self.high_quality:
            raise PermissionError(f"case {case!r} is high quality; its label cannot be replaced")
        return self._write(network, case, label, index, epoch=epoch, dice_before=float(dice_before))

    def fill(self, network: int, case: str, label: Tensor, *, epoch: int, dice_before: float | None) -> LabelChange:
        """Give the voxels that were given without a verdict, and these alone, the class that ``label`` has there.

        The arguments are those of ``replace``, for a whole case. Trusted ones can be filled too: what they say stays.
        """
        return self._write(network, case, label, None, epoch=epoch, dice_before=dice_before, filled=True)

    def _write(
        self, network: int, case: str, label: Tensor, index: tuple[Any, ...] | None, *, filled: bool = False, **how: Any
    ) -> LabelChange:
        if network not in (1, 2):
            raise ValueError(f"network is {network}; expected 1 or 2")
        where = _region(index)
        target = self.label(network, case, index)
        if target.shape != label.shape:
            raise ValueError(f"new label of {case!r} has shape {tuple(label.shape)}; expected {tuple(target.shape)}")
        write = verdicts.filled if filled else verdicts.corrected
        new = write(as_label(case, label.cpu()), target, self.initial(case)[where], self._open[case])
        change = LabelChange(
            **how,
            network=network,
            case=case,
            slice=index[1] if index is not None and isinstance(index[1], int) else None,
            voxels_changed=int((target != new).sum()),
            patch=None if index is None or isinstance(index[1], int) else _as_text(where),
            filled=filled,
        )
        target.copy_(new)
        self._staged.append(change)
        return change

    def take_back(self, generation: int, *, epoch: int, dice_before: float) -> None:
        """Make all labels what they were in an earlier generation; ``commit`` makes it permanent, as epoch's change.

        Unlike ``rollback``, which a person asks for, it is a part of the run: resuming from before it repeats it.

        Args:
            generation: the earlier generation. A store without a folder has the first alone, and returns to it.
            epoch, dice_before: as in ``replace``, for the record.

        Raises:
            InputError: as ``read``.
        """
        for network in NETWORKS:
            for case in self.cases:
                earlier = self.read(generation, network, case) if self.keeps_generations else self.initial(case)
                target = self.label(network, case)
                changed = int((target != earlier).sum())
                if changed:
                    target.copy_(earlier)
                    change = LabelChange(epoch, network, case, None, float(dice_before), changed)
                    self._staged.append(change)

    def commit(self, epoch: int) -> int:
        """Make the replaced labels permanent and return the number of the new generation.

        Nothing is written when nothing was replaced since the last commit.

        Raises:
            InputError: if the folder cannot be written; the last commit stays in force, and this one can be repeated.
        """
        if self._staged:
            changed = {(change.network, change.case) for change in self._staged}
            labels = {(network, case): self._labels[network - 1][case] for network, case in changed}
            self._change_history(lambda: self._history.append(labels, epoch=epoch, records=self._staged))
            self._staged.clear()
        return self.generation

    def read(self, generation: int, network: int, case: str) -> Tensor:
        """The label that ``network`` had in an earlier generation (uint8), read from the folder.

        Raises:
            InputError: if there is no such generation, no folder, or the file is missing or damaged.
        """
        if not self._on_disk:
            return self._history.read(generation, network, case)
        return distributed.on_main(lambda: self._history.read(generation, network, case))

    def rollback(self, generation: int) -> int:
        """Return to the labels of an earlier generation, as a new generation, so that nothing is lost.

        Uncommitted replacements are dropped. Returns the number of the new generation.

        Raises:
            InputError: as ``read``, or if the folder cannot be written.
        """
        self._change_history(lambda: self._history.rollback(generation))
        self._load()
        return self.generation

    def resume_from(self, generation: int) -> None:
        """Return to the generation that a checkpoint belongs to.

        What a killed run has committed after its checkpoint is dropped, because the run will commit it again. But a
        rollback that somebody has made since is kept, with all before it: the run continues from its labels.

        Raises:
            InputError: as ``read``, or if the folder cannot be written.
        """
        since = range(generation + 1, len(self._history.generations))
        rollbacks = [number for number in since if self._history.generations[number].rollback_to is not None]
        target = max([generation, *rollbacks])
        if target != self.generation:
            self.discard_after(target)

    def discard_after(self, generation: int) -> None:
        """Drop the generations after ``generation``, and uncommitted replacements.

        Raises:
            InputError: as ``read``, or if the folder cannot be written.
        """
        self.read(generation, 1, self.cases[0])  # there must be such a generation
        if generation < self.generation:
            self._change_history(lambda: self._history.discard_after(generation))
        self._load()

    def _change_history(self, change: Callable[[], object]) -> None:
        """Change the history, which only the main process has on disk, and tell the others what it is now."""
        if not self._on_disk or distributed.world_size() == 1:
            change()
            return
        before = tuple(self._history.generations)

        def changed() -> tuple[int, list[dict[str, Any]]]:
            change()
            now = self._history.generations
            same = sum(takewhile(bool, map(is_, before, now)))
            return same, [entry.as_json() for entry in now[same:]]

        same, generations = distributed.on_main(changed)
        if not distributed.is_main():
            self._history.generations[same:] = [Generation.from_json(entry) for entry in generations]

    def _kept(self, label: Tensor, name: str) -> Tensor | MappedTensor:
        """A copy of a label, which all processes share."""
        if self._scratch is None:
            return label.clone().share_memory_()
        return MappedTensor(self._scratch.path / name, label)

    def _load(self) -> None:
        self._staged.clear()
        for network in NETWORKS:
            for case in self.cases:
                self.label(network, case).copy_(self.read(self.generation, network, case))

    def _resume(self, folder: Path) -> None:
        def load() -> None:
            used = LabelHistory.load(folder)
            if used.shapes != self._history.shapes or used.high_quality != self.high_quality:
                raise InputError(
                    f"{folder / JOURNAL}: holds the labels of {len(used.shapes)} cases that differ in name, shape or "
                    f"quality from the {len(self.cases)} cases of this run; resume with the same data, or choose a new "
                    "folder"
                )
            used.grids = self._history.grids | used.grids
            used.remove_leftovers()
            self._history = used

        self._change_history(load)
        self._load()


def _region(index: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """What an index of ``replace`` selects from a volume."""
    if index is None:
        return ()
    return (*[slice(None)] * index[0], index[1]) if isinstance(index[0], int) else index


def _as_text(window: Sequence[slice]) -> str:
    return ",".join(f"{part.start}:{part.stop}" for part in window)
