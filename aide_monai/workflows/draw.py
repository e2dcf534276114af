"""The figures of a run: chooses what is worth seeing and lets ``reports.figures`` draw it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aide_monai.algorithm import unit_dice
from aide_monai.data import LabelStore
from aide_monai.handlers import LabelQuality
from aide_monai.reports import figures
from aide_monai.reports.figures import Overlay
from aide_monai.workflows.evaluate import predict
from aide_monai.workflows.train import clean_labels


def draw_figures(
    folder: Path,
    *,
    rows: Sequence[Mapping[str, Any]],
    logs: Mapping[str, Sequence[Mapping[str, Any]]],
    models: Mapping[str, nn.Module],
    volumes: Sequence[dict[str, Any]],
    test: Sequence[dict[str, Any]],
    store: LabelStore,
    num_classes: int,
    axis: int,
    slice_size: Sequence[int],
) -> None:
    """Draw learning curves, scores per case, predictions, and, with clean labels, what the correction did.

    Args:
        folder: where the PNG files go.
        rows: per-case scores.
        logs: method to rows per epoch; those of "AIDE" with the label quality.
        models: method to trained model.
        volumes: preprocessed training volumes.
        test: normalised, unpadded test volumes.
        store: label store of the AIDE run.
        num_classes: C, background included.
        axis: slice axis.
        slice_size: window (H, W) in pixels.
    """
    figures.learning_curves(logs, folder / "learning_curves.png")
    figures.per_case_boxplot(rows, folder / "per_case_dsc.png", metric="dsc")
    figures.overlays(
        _prediction_panels(rows, models, test, axis=axis, slice_size=slice_size),
        folder / "predictions.png",
        title="Held-out cases: the worst, the median and the best of AIDE",
        legend=("reference", "prediction"),
    )
    clean = clean_labels(volumes)
    if clean:
        quality = LabelQuality(store, clean, num_classes=num_classes)
        figures.label_quality(_quality_rows(logs["AIDE"], store, quality), folder / "label_quality.png")
        figures.overlays(
            _correction_panels(volumes, store, clean, axis=axis),
            folder / "label_correction.png",
            title="Training labels that changed most",
            legend=("clean label", "label that is trained on"),
        )


def _quality_rows(log: Sequence[Mapping[str, Any]], store: LabelStore, quality: LabelQuality) -> list[dict[str, Any]]:
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
    volumes: Sequence[dict[str, Any]], store: LabelStore, clean: Mapping[str, Tensor], *, axis: int
) -> list[list[Overlay]]:
    """For the three cases whose labels changed most: the label before, and after for both networks."""
    by_case = {volume["case"]: volume for volume in volumes}

    def changed(case: str) -> int:
        return sum(int((store.label(network, case) != store.initial(case)).sum()) for network in (1, 2))

    panels = []
    for case in sorted(clean, key=changed, reverse=True)[:3]:
        candidates = {
            "as given": store.initial(case),
            "network 1, corrected": store.label(1, case),
            "network 2, corrected": store.label(2, case),
        }
        number = _fullest_slice(clean[case], axis)
        panels.append(
            [
                _panel(by_case[case], name, label, clean[case], axis=axis, number=number)
                for name, label in candidates.items()
            ]
        )
    return panels


def _prediction_panels(
    rows: Sequence[Mapping[str, Any]],
    models: Mapping[str, nn.Module],
    test: Sequence[dict[str, Any]],
    *,
    axis: int,
    slice_size: Sequence[int],
) -> list[list[Overlay]]:
    """The prediction of every method for the worst, the median and the best case of AIDE."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        if (row["method"], row["network"]) == ("AIDE", "mean"):
            scores.setdefault(row["case"], []).append(row["dsc"])
    order = sorted(scores, key=lambda case: float(np.mean(scores[case])))
    chosen = list(dict.fromkeys([order[0], order[len(order) // 2], order[-1]]))
    panels = []
    for volume in (next(v for v in test if v["case"] == case) for case in chosen):
        label = volume["label"].as_tensor()[0]
        number = _fullest_slice(label, axis)
        panels.append(
            [
                _panel(
                    volume,
                    method,
                    predict(model, volume["image"].as_tensor(), axis=axis, slice_size=slice_size),
                    label,
                    axis=axis,
                    number=number,
                )
                for method, model in models.items()
            ]
        )
    return panels


def _panel(volume: dict[str, Any], name: str, mask: Tensor, reference: Tensor, *, axis: int, number: int) -> Overlay:
    """One slice, x to the right and y downwards, with the Dice of the whole volume in the title."""
    spacing = torch.as_tensor(volume["image"].affine)[:3, :3].norm(dim=0)
    width, height = (float(s) for i, s in enumerate(spacing) if i != axis)
    classes = max(int(mask.max()), int(reference.max()), 1) + 1
    dice = float(unit_dice(mask[None], reference[None], num_classes=classes, unit="case"))
    return Overlay(
        image=volume["image"].as_tensor()[0].select(axis, number).T,
        reference=reference.select(axis, number).T,
        mask=mask.select(axis, number).T,
        title=f"{volume['case']}\n{name}, Dice {dice:.2f}",
        aspect=height / width,
    )


def _fullest_slice(mask: Tensor, axis: int) -> int:
    """Index of the slice with the most foreground."""
    return int((mask > 0).movedim(axis, 0).flatten(1).sum(dim=1).argmax())
