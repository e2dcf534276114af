"""Every task as one of learning from noisy labels: which cases are trusted, which are doubtful, which are held out."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aide_monai.data.case import Case
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.qubiq import qubiq_cases, qubiq_datalist
from aide_monai.data.split import split_cases
from aide_monai.errors import InputError, Problem
from aide_monai.ignored import IGNORED
from aide_monai.io.ahead import images_ahead, read_apart
from aide_monai.io.channels import Channels
from aide_monai.io.grid import through_plane_axis
from aide_monai.io.writers import write_label
from aide_monai.stream.preprocessing import load_volumes, slice_geometry, volume_transforms
from aide_monai.stream.volume_cache import VolumeCache
from aide_monai.transforms.label_noise import check_noise, corrupt


@dataclass(frozen=True, kw_only=True)
class Task:
    """Cases with their roles, and how they are read.

    Attributes:
        datalist: training cases (trusted "high", doubtful "low", or still without a label), validation and test cases.
            Those whose label was hidden or replaced keep it as ``clean_label``.
        labels: class index to name.
        classes: stored label value to class index.
        axis: slice axis.
        slice_size: window (H, W) in pixels.
        preprocessing: further arguments of ``volume_transforms``.
        raters: case to the mask files of all raters, for the QUBIQ score; empty for other data.
    """

    datalist: Datalist
    labels: Mapping[int, str]
    classes: Mapping[int, int]
    axis: int
    slice_size: tuple[int, int]
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    raters: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        datalist: Datalist,
        *,
        classes: Mapping[Any, int] | None = None,
        merge: bool = False,
        raters: Mapping[str, Sequence[str]] | None = None,
        axis: int | None = None,
        slice_size: Sequence[int] | None = None,
        **preprocessing: Any,
    ) -> Task:
        """Task on a data set, with what is not given read from its files.

        Args:
            datalist: the cases.
            classes: stored label value to class index; None keeps those of the datalist. Classes that share an index
                are merged, and their names joined.
            merge: all structures become one class.
            raters: see the class.
            axis: slice axis; None: the through-plane axis of the first case.
            slice_size: window (H, W) in pixels; None: the smallest that holds every case.
            preprocessing: see the class.
        """
        stored = datalist.stored_classes
        mapping = {int(k): int(v) for k, v in (classes or stored).items()}
        if merge:
            mapping = {value: index if index == IGNORED else min(index, 1) for value, index in mapping.items()}
        if datalist.ignore is not None:
            mapping[datalist.ignore] = IGNORED
        names: dict[int, list[str]] = {0: ["background"]}
        for value, index in sorted(mapping.items()):
            if index and index != IGNORED:
                names.setdefault(index, []).append(datalist.labels.get(stored.get(value, value), f"label {value}"))
        if axis is None or slice_size is None:
            found_axis, found_size = slice_geometry(datalist.records)
            axis, slice_size = found_axis if axis is None else axis, slice_size or found_size
        return cls(
            datalist=datalist,
            labels={index: " + ".join(dict.fromkeys(parts)) for index, parts in sorted(names.items())},
            classes=mapping,
            axis=axis,
            slice_size=(int(slice_size[0]), int(slice_size[1])),
            preprocessing=preprocessing,
            raters=raters or {},
        )

    def training_volumes(self, cases: Iterable[Case], *, clean: bool = True) -> VolumeCache:
        """Cases as volumes on the network's grid, with "label" and, where known, "clean_label"."""
        keys = ["image", "label", "clean_label"] if clean else ["image", "label"]
        return load_volumes([self.datalist.loadable(case) for case in cases], self.transform(keys))

    def test_volumes(self, split: str = "test") -> VolumeCache:
        """The cases to score; their labels stay on the grid of their files."""
        return load_volumes(self.datalist.split(split), self.transform(["image", "label"], fit_labels=False))

    def transform(self, keys: Sequence[str], *, fit_labels: bool = True) -> Any:
        """The deterministic preprocessing, see ``volume_transforms``."""
        return volume_transforms(
            keys=keys,
            classes=self.classes,
            axis=self.axis,
            slice_size=self.slice_size,
            resample_labels=self.datalist.resample_labels,
            fit_labels=fit_labels,
            **self.preprocessing,
        )


def semi_supervised(
    datalist: Datalist, *, labeled: int, unlabeled: int | None, test: int | None = None, seed: int
) -> Datalist:
    """SSL: few training cases keep their label, others lose it; the held-out cases stay.

    Args:
        datalist: cases with held-out ones among them, see ``HoldOut``.
        labeled: as in ``split_cases``, and so are the others.
        unlabeled: see there.
        test: see there; 0 where nothing is held out.
        seed: seed of the drawing.
    """
    return split_cases(datalist, labeled=labeled, unlabeled=unlabeled, test=test, seed=seed)


def with_hidden_as_test(datalist: Datalist) -> Datalist:
    """The training cases whose label is hidden once more, as test cases: see ``HoldOut.transductive``."""
    scored = [
        Case(
            name=f"{case.name}_scored",
            patient=case.patient or case.name,
            image=case.image,
            label=case.clean_label,
            quality="high",
            annotated=case.annotated,
            split="test",
        )
        for case in datalist.of_split("training")
        if case.label is None and case.clean_label is not None
    ]
    return replace(datalist, cases=datalist.cases + scored)


def domain_adaptation(domains: Mapping[str, Datalist], *, source: str, target: str) -> Datalist:
    """UDA: source cases are trusted, target cases lose their label, and the target's held-out cases are the test.

    Cases get the name of their domain in front, for two domains may use the same names.

    Args:
        domains: name to cases with held-out ones among them, see ``HoldOut``. Test cases of the source are left out.
        source: name of the labelled domain.
        target: name of the other one.

    Raises:
        InputError: an unknown domain, one domain twice, or domains with different labels or channels.
    """
    unknown = [name for name in (source, target) if name not in domains]
    if unknown or source == target:
        raise InputError(
            f"source {source!r}, target {target!r}: expected two of the domains {', '.join(sorted(domains))}"
        )
    first, second = domains[source], domains[target]
    if first.labels.keys() != second.labels.keys() or first.stored_classes != second.stored_classes:
        raise InputError(
            f"{source} has the labels {dict(first.labels)} and {target} {dict(second.labels)}; expected the same "
            "structures: leave others out, or give both one coding"
        )
    if len(first.modality) != len(second.modality):
        raise InputError(f"{source} has {len(first.modality)} channels and {target} {len(second.modality)}")

    def named(case: Case, domain: str) -> Case:
        patient = None if case.patient is None else f"{domain}_{case.patient}"
        return replace(case, name=f"{domain}_{case.name}", domain=domain, patient=patient)

    trusted = [case for case in first.of_split("training") + first.of_split("validation") if case.trusted]
    cases = [named(replace(case, split="training"), source) for case in trusted]
    cases += [named(case.hidden(), target) for case in second.of_split("training")]
    cases += [named(case, target) for case in second.of_split("validation") + second.of_split("test")]
    resample = first.resample_labels or second.resample_labels
    return replace(first, name=f"{source} to {target}", cases=cases, resample_labels=resample)


def rated_by(datalist: Datalist, masks: Mapping[str, Mapping[int, str]], *, rater: int | str) -> Datalist:
    """NLL: the training labels are those of one rater, or of all raters, each image with every rater's mask.

    Args:
        datalist: cases with a trusted label, held-out ones among them; that label becomes ``clean_label``.
        masks: case to mask file by number of the rater.
        rater: number of a rater, or "all". A training case that the rater did not annotate is left out.

    Raises:
        InputError: nobody has this number.
    """
    known = sorted({number for files in masks.values() for number in files})
    if rater != "all" and rater not in known:
        raise InputError(f"rater {rater!r}: expected one of {', '.join(map(str, known))}, or all")
    cases: list[Case] = []
    for case in datalist.cases:
        if case.split != "training":
            cases.append(case)
            continue
        for number, file in masks[case.name].items():
            if rater in ("all", number):
                name = f"{case.name}_rater{number}" if rater == "all" else case.name
                noisy = replace(case.hidden(), name=name, label=file, quality="low", rater=str(number))
                cases.append(replace(noisy, patient=case.name))
    return replace(datalist, cases=cases)


def with_label_noise(datalist: Datalist, folder: str | Path, *, rate: float, seed: int) -> Datalist:
    """NLL: a stated share of the training labels is corrupted; which ones, nobody is told.

    ``floor(rate * n)`` cases, drawn by ``seed``, get a corrupted label in ``folder``, which ``write_label_noise``
    writes; with one seed those of a lower rate are among those of a higher one, with the same noise. All training
    labels count as "low", the trusted ones become ``clean_label``.

    Args:
        datalist: labelled cases, held-out ones among them.
        folder: where corrupted labels are to lie.
        rate: share 0..1.
        seed: seed of the noise.

    Raises:
        InputError: a rate out of range.
    """
    if not 0 <= rate <= 1:
        raise InputError(f"noise rate is {rate}; expected a share from 0 to 1")
    training = sorted(case.name for case in datalist.of_split("training") if case.label is not None)
    order = np.random.default_rng(seed).permutation(len(training))
    chosen = {training[index] for index in order[: int(rate * len(training) + 1e-9)]}
    cases: list[Case] = []
    for case in datalist.cases:
        if case.name in training:
            label = str(Path(os.path.abspath(folder)) / f"{case.name}.nii.gz") if case.name in chosen else case.label
            case = replace(case.hidden(), label=label, quality="low")
        cases.append(case)
    return replace(datalist, cases=cases)


def write_label_noise(
    datalist: Datalist,
    folder: str | Path,
    *,
    kinds: Sequence[str],
    magnitude_mm: float,
    seed: int,
    axis: int | None = None,
) -> None:
    """Write the corrupted labels that ``with_label_noise`` has named.

    Args:
        datalist: what it returned.
        folder: as there; labels that lie elsewhere are nobody's noise.
        kinds: kinds of noise, see ``NOISES``; one is drawn for each label.
        magnitude_mm: size of the noise.
        seed: seed of the noise.
        axis: slice axis; None: the through-plane axis of each label.

    Raises:
        InputError: unknown noise, or one report of all labels that cannot be read.
    """
    check_noise(kinds, magnitude_mm)
    written = Path(os.path.abspath(folder))
    drawn = [
        (case.name, Path(case.label), case.clean_label)
        for case in datalist.of_split("training")
        if case.label is not None and case.clean_label is not None and Path(case.label).parent == written
    ]
    problems: list[Problem] = []
    with images_ahead([[clean] for _, _, clean in drawn]):
        for name, path, clean in drawn:
            try:
                read = read_apart([clean])
            except InputError as error:
                problems += error.problems
                continue
            generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
            _write_corrupted(read, path, kinds, magnitude_mm, axis, generator)
    if problems:
        raise InputError(f"{datalist.name}: labels that cannot be read", problems=problems)


def qubiq_truth(root: str | Path, folder: str | Path, **options: Any) -> tuple[Datalist, dict[str, dict[int, str]]]:
    """QUBIQ cases with the majority of all raters as trusted label, and the mask files of every rater by case.

    Args:
        root: folder of the download.
        folder: where the fused labels are written.
        options: ``task`` and ``subtask``, see ``qubiq_datalist``.
    """
    datalist = qubiq_datalist(root, rater="majority", fused_dir=folder, **options)
    return datalist, {case.case: dict(case.masks) for case in qubiq_cases(root, **options)}


def _write_corrupted(
    clean: Channels,
    path: Path,
    kinds: Sequence[str],
    magnitude_mm: float,
    axis: int | None,
    generator: np.random.Generator,
) -> None:
    voxels: NDArray[np.uint8] = np.rint(clean.voxels).astype(np.uint8).reshape(clean.shape)
    noisy = corrupt(
        voxels,
        kinds,
        magnitude_mm=magnitude_mm,
        spacing_mm=np.linalg.norm(clean.affine[:3, :3], axis=0).tolist(),
        axis=through_plane_axis(clean.affine) if axis is None else axis,
        generator=generator,
    )
    write_label(path, torch.from_numpy(noisy), clean.affine, clean.place)
