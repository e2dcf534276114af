"""The pictures of one run: what its methods learned, predicted and corrected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aide_monai.algorithm import unit_dice
from aide_monai.handlers import LabelQuality
from aide_monai.handlers.epoch_log import read_epochs
from aide_monai.ignored import marked
from aide_monai.labels import LabelStore
from aide_monai.reports import figures
from aide_monai.reports.figures import Overlay
from aide_monai.reports.tables import Row
from aide_monai.stream.training_set import Volume
from aide_monai.workflows.comparison.job import Job
from aide_monai.workflows.comparison.training import clean_labels
from aide_monai.workflows.evaluate import on_file_grid, predict


def draw_figures(folder: Path, jobs: Sequence[Job], *, tested: str | None = None) -> list[Path]:
    """Draw learning curves, scores per case, predictions, and what AIDE's correction did to the training labels.

    Args:
        folder: where the PNG files go.
        jobs: finished jobs of one setting and seed, in the order of the figures.
        tested: name of the job of AIDE that is shown, where there are several; else the first.

    Returns:
        The files. Without a job of AIDE there are no pictures of predictions and corrections.
    """
    rows = [row for job in jobs for row in job.rows() if not row["pp"]]
    logs = {job.method.name: read_epochs(job.folder / "epochs.csv") for job in jobs}
    drawn = [folder / "learning_curves.png", folder / "per_case_dsc.png"]
    figures.learning_curves(logs, drawn[0])
    figures.per_case_boxplot(rows, drawn[1], metric="dsc")
    memorised = {method: log for method, log in logs.items() if log and "fit_given" in log[0]}
    if memorised:
        drawn.append(folder / "memorisation.png")
        figures.memorisation(memorised, drawn[-1])
    of_aide = [job for job in jobs if job.method.engine == "aide"]
    aide = next((job for job in of_aide if job.method.name == tested), of_aide[0] if of_aide else None)
    if aide is None:
        return drawn
    drawn.append(folder / "predictions.png")
    figures.overlays(
        _prediction_panels(aide, jobs),
        drawn[-1],
        title=f"Held-out cases: the worst, the median and the best of {aide.method.name}",
        legend=("reference", "prediction"),
    )
    volumes = aide.task.training_volumes(aide.training_cases())
    clean, store = clean_labels(volumes), LabelStore.from_volumes(volumes, folder=aide.folder / "labels", resume=True)
    if clean:
        quality = LabelQuality(store, clean, num_classes=len(aide.task.labels))
        drawn += [folder / "label_quality.png", folder / "label_correction.png"]
        figures.label_quality(_quality_rows(logs[aide.method.name], store, quality), drawn[-2])
        figures.overlays(
            _correction_panels(volumes, store, clean, order=by_gain(store, clean), axis=aide.task.axis),
            drawn[-1],
            title="Training labels: the most improved, the median and the least",
            legend=("clean label", "label that is trained on"),
        )
    elif changed := _by_change(store):
        drawn.append(folder / "label_correction.png")
        given = {case: store.initial(case) for case in changed}
        figures.overlays(
            _correction_panels(volumes, store, given, order=changed, axis=aide.task.axis),
            drawn[-1],
            title="Training labels: the most changed, the median and the least",
            legend=("label as given", "label that is trained on"),
        )
    return drawn


def _quality_rows(log: Sequence[Mapping[str, Any]], store: LabelStore, quality: LabelQuality) -> list[Row]:
    replaced = Counter((change.epoch, change.network) for change in store.records)
    start = quality.of({case: store.initial(case) for case in quality.clean})
    rows = [{"epoch": 0, "network": network, "mean_dice": start, "corrected": 0} for network in (1, 2)]
    for epoch in log:
        for network in (1, 2):
            rows.append(
                {
                    "epoch": int(epoch["epoch"]),
                    "network": network,
                    "mean_dice": float(epoch[f"label_quality_{network}"]),
                    "corrected": replaced[int(epoch["epoch"]), network],
                }
            )
    return rows


def _correction_panels(
    volumes: Sequence[Volume],
    store: LabelStore,
    references: Mapping[str, Tensor],
    *,
    order: Sequence[str],
    axis: int,
) -> list[list[Overlay]]:
    """The label before, and after for both networks, of the first case of an order, the median, and the last."""
    by_case = {volume["case"]: volume for volume in volumes}
    panels = []
    for case in dict.fromkeys([order[0], order[len(order) // 2], order[-1]]):
        candidates = {
            "as given": store.initial(case),
            "network 1, corrected": store.label(1, case),
            "network 2, corrected": store.label(2, case),
        }
        number = _fullest_slice(references[case], axis)
        panels.append(
            [
                _panel(by_case[case], name, label, references[case], axis=axis, number=number)
                for name, label in candidates.items()
            ]
        )
    return panels


def _by_change(store: LabelStore) -> list[str]:
    """Cases with a replaced label, those first whose labels are least like the given ones."""
    replaced = sorted({change.case for change in store.records})
    given = {case: store.initial(case) for case in replaced}
    return sorted(replaced, key=lambda case: sum(_dice(store.label(n, case), given[case]) for n in (1, 2)))


def _dice(mask: Tensor, reference: Tensor) -> float:
    """Mean Dice over the classes of two masks (X, Y, Z) uint8."""
    classes = max(int(mask.max()), int(reference.max()), 1) + 1
    return float(unit_dice(mask[None], reference[None], num_classes=classes, unit="case"))


def by_gain(store: LabelStore, clean: Mapping[str, Tensor]) -> list[str]:
    """Cases, those first whose labels came closest to the clean ones: by the Dice gained, mean of both networks."""

    def gain(case: str) -> float:
        labels = [store.initial(case), *(store.label(network, case) for network in (1, 2))]
        given, *corrected = (_dice(label, clean[case]) for label in labels)
        return float(np.mean(corrected)) - given

    return sorted(clean, key=gain, reverse=True)


def _prediction_panels(aide: Job, jobs: Sequence[Job]) -> list[list[Overlay]]:
    """The prediction of every method for the worst, the median and the best case of AIDE."""
    scores: dict[str, list[float]] = {}
    for row in aide.rows():
        if row["network"] == "mean" and not row["pp"]:
            scores.setdefault(row["case"], []).append(row["dsc"])
    order = sorted(scores, key=lambda case: float(np.mean(scores[case])))
    chosen = list(dict.fromkeys([order[0], order[len(order) // 2], order[-1]]))
    volumes = aide.task.test_volumes(aide.split)
    test = {volume["case"]: volume for volume in volumes}
    axis, slice_size = aide.task.axis, aide.task.slice_size
    models: dict[str, nn.Module] = {job.method.name: job.load_network() for job in jobs}
    panels = []
    for volume in (test[case] for case in chosen):
        label = volume["label"].as_tensor()[0]
        number = _fullest_slice(label, axis)
        shown = {**volume, "image": on_file_grid(volume["image"], volumes.transform)}
        how: dict[str, Any] = {"axis": axis, "slice_size": slice_size, "transform": volumes.transform}
        panels.append(
            [
                _panel(
                    shown,
                    method,
                    predict(model, volume["image"], **how),
                    label,
                    axis=axis,
                    number=number,
                )
                for method, model in models.items()
            ]
        )
    return panels


def _panel(volume: Volume, name: str, mask: Tensor, reference: Tensor, *, axis: int, number: int) -> Overlay:
    """One slice, x to the right and y downwards, with the Dice of the whole volume in the title."""
    spacing = torch.as_tensor(volume["image"].affine)[:3, :3].norm(dim=0)
    width, height = (float(s) for i, s in enumerate(spacing) if i != axis)
    return Overlay(
        image=volume["image"].as_tensor()[0].select(axis, number).T,
        reference=reference.where(marked(reference), 0).select(axis, number).T,
        mask=mask.where(marked(mask), 0).select(axis, number).T,
        title=f"{volume['case']}\n{name}, Dice {_dice(mask, reference):.2f}",
        aspect=height / width,
    )


def _fullest_slice(mask: Tensor, axis: int) -> int:
    """Index of the slice with the most foreground."""
    return int((mask > 0).movedim(axis, 0).flatten(1).sum(dim=1).argmax())
