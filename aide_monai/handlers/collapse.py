"""Notices early when training drifts towards predicting nothing but background."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from aide_monai.ignored import marked
from aide_monai.utils import distributed

logger = logging.getLogger(__name__)

MINIMUM_FOREGROUND = 0.25
"""Share of the labelled foreground that a network predicts at least, unless it has collapsed."""


def collapsed(metrics: Mapping[str, Any], minimum: float = MINIMUM_FOREGROUND) -> list[int]:
    """The networks, 1 or 2, that predict less than a share of the foreground that they are trained to find.

    Args:
        metrics: with "foreground_ratio_1" and "foreground_ratio_2" as ``GlobalLabelCorrection`` logs them; without
            them nothing is known, and none has collapsed.
        minimum: ratio of predicted to labelled foreground below which a network counts as collapsed.

    Examples:
        >>> collapsed({"foreground_ratio_1": 0.9, "foreground_ratio_2": 0.0})
        [2]
    """
    return [network for network in (1, 2) if metrics.get(f"foreground_ratio_{network}", minimum) < minimum]


class CollapseWarning:
    """Logs what the small-loss selection keeps, and warns in a sentence when a network predicts next to nothing.

    Small-loss samples tend to be the slices without foreground; when they fill the kept half of every batch, the
    suspicious half follows nothing but its own pseudo-labels and small structures vanish. Per epoch, in
    ``engine.state.metrics``: "kept_empty" (share of kept samples whose label has no foreground) and, when the data say
    so, "kept_high_quality" (share of kept samples with a trusted label). Attach it after ``GlobalLabelCorrection``,
    whose "foreground_ratio_1" and "foreground_ratio_2" (predicted over labelled foreground voxels) it reads.

    It warns when a network falls below the ratio, and once if one has not reached it in the first epochs.

    Args:
        minimum_foreground: ratio of predicted to labelled foreground below which a network counts as collapsed.
        patience: epochs that a network has to reach it at the start; a shorter training has all of its own.
    """

    def __init__(self, minimum_foreground: float = MINIMUM_FOREGROUND, *, patience: int = 5) -> None:
        self.minimum_foreground = minimum_foreground
        self.patience = patience
        self._reached: set[int] = set()  # networks that were above it in some epoch
        self._above: set[int] = set()  # in the epoch before
        self._reset()

    def attach(self, engine: Engine) -> None:
        """Register the handler with an ``AIDETrainer``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._look_back)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._log)

    def _reset(self) -> None:
        # kept, kept and empty, kept and trusted; on the device until the epoch ends, so that a GPU need not wait
        self._counts: Tensor | None = None
        self._quality_known = False

    def _look_back(self, engine: Any) -> None:
        """The ratios of the epoch before are still there, also in a run that is resumed (``RunCheckpoint``)."""
        metrics = engine.state.metrics
        known = {network for network in (1, 2) if f"foreground_ratio_{network}" in metrics}
        self._above = known - set(collapsed(metrics, self.minimum_foreground))
        self._reached |= self._above

    def _add(self, engine: Any) -> None:
        output = engine.state.output
        for network in (1, 2):
            kept, label = output[f"kept_{network}"], output[f"label_{network}"]
            trusted = torch.zeros_like(kept)
            if output["high_quality"] is not None:
                self._quality_known = True
                trusted = torch.as_tensor(output["high_quality"], device=kept.device)
            empty = ~marked(label).flatten(1).any(dim=1)
            counts = torch.stack([kept.sum(), (kept & empty).sum(), (kept & trusted).sum()])
            self._counts = counts if self._counts is None else self._counts + counts

    def _log(self, engine: Any) -> None:
        state, metrics = engine.state, engine.state.metrics
        counts = torch.zeros(3, dtype=torch.int64) if self._counts is None else self._counts.cpu()
        kept, empty, high_quality = distributed.total(counts).tolist()
        metrics["kept_empty"] = empty / max(kept, 1)
        if self._quality_known:
            metrics["kept_high_quality"] = high_quality / max(kept, 1)
        self._reset()
        low = collapsed(metrics, self.minimum_foreground)
        fallen = [network for network in low if network in self._above]
        if fallen:
            logger.warning(
                "Epoch %d: %s of the labelled foreground, and %.0f %% of the kept samples are empty: training is "
                "collapsing to background. Model selection by dsc_train prefers others; raise warmup_epochs, lower "
                "consistency_weight, or use unit='slice'.",
                state.epoch,
                _predict_only(fallen, metrics),
                100 * metrics["kept_empty"],
            )
        late = [network for network in low if network not in self._reached]
        if late and state.epoch == min(self.patience, state.max_epochs):
            logger.warning(
                "Epoch %d: %s of the labelled foreground, and never predicted more: nothing has been learned yet. "
                "Model selection by dsc_train prefers others; look at the labels and the size of the structures, raise "
                "learning_rate or steps_per_epoch, and set correction_start later than this.",
                state.epoch,
                _predict_only(late, metrics),
            )


def _predict_only(networks: list[int], metrics: Mapping[str, Any]) -> str:
    """Which networks predict how much."""
    shares = dict.fromkeys(f"{100 * metrics[f'foreground_ratio_{network}']:.0f}" for network in networks)
    subject = "both networks predict" if len(networks) == 2 else f"network {networks[0]} predicts"
    return f"{subject} only {' and '.join(shares)} %"
