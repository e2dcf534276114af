"""Per-case, per-class scores of an evaluator's predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys

from aide_monai.errors import InputError
from aide_monai.metrics import class_scores
from aide_monai.metrics.masks import as_array
from aide_monai.reports.tables import Row, write_csv
from aide_monai.transforms import largest_components
from aide_monai.utils import distributed


class CaseScores:
    """Scores every predicted volume against its label, all six metrics in one pass per case and class.

    Distances in mm come from the label's affine, shear included. Rows are collected in ``rows`` and, with ``path``,
    written as CSV when the evaluator is done; ``engine.state.metrics`` gets the mean DSC as "dsc".

    Args:
        labels: class index to name, from 0 (background) without gaps; every index above 0 is scored.
        method: name of the method, for tables that compare several.
        network: "mean", "network_1", "network_2" or "single".
        path: CSV file, or None.
        keep_largest: keep the largest component of each class of a prediction, 6-connected ("PP").
    """

    def __init__(
        self,
        labels: Mapping[Any, str],
        *,
        method: str = "model",
        network: str = "single",
        path: str | Path | None = None,
        keep_largest: bool = False,
    ) -> None:
        self.labels = {int(index): name for index, name in labels.items()}
        if sorted(self.labels) != list(range(len(self.labels))) or len(self.labels) < 2:
            raise InputError(
                f"labels name the classes {sorted(self.labels)}; expected 0 (background), 1, 2, ... without gaps"
            )
        self.method = method
        self.network = network
        self.path = path
        self.keep_largest = keep_largest
        self.rows: list[Row] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler with an evaluator that decollates and whose "pred" holds class indices (1, X, Y, Z)."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._score)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Any) -> None:
        self.rows = []

    def _score(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            label, prediction = output[Keys.LABEL][0], output[Keys.PRED][0]
            case = str(item.get("case", label.meta.get("filename_or_obj", len(self.rows))))
            if label.shape != prediction.shape:
                raise InputError(
                    f"case {case!r}: prediction has shape {tuple(prediction.shape)}, label {tuple(label.shape)}; "
                    "expected one grid"
                )
            if self.keep_largest:
                prediction = largest_components(prediction)
            scores = class_scores(
                as_array(prediction).astype(np.uint8),
                as_array(label).astype(np.uint8),
                num_classes=len(self.labels),
                spacing_mm=as_array(output[Keys.LABEL].affine)[:3, :3],
            )
            self.rows += [
                {
                    "method": self.method,
                    "network": self.network,
                    "pp": self.keep_largest,
                    "case": case,
                    "label": index,
                    "label_name": self.labels[index],
                    **asdict(score),
                }
                for index, score in scores.items()
            ]

    def _finish(self, engine: Any) -> None:
        engine.state.metrics["dsc"] = float(np.mean([row["dsc"] for row in self.rows]))
        if self.path is not None and distributed.is_main():
            write_csv(self.path, self.rows)
