"""Notices early when training drifts towards predicting nothing but background."""

from __future__ import annotations

import logging
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from aide_monai.utils import distributed

logger = logging.getLogger(__name__)


class CollapseWarning:
    """Logs what the small-loss selection keeps, and warns in a sentence when a collapse begins.

    Small-loss samples tend to be the slices without foreground; when they fill the kept half of every batch, the
    suspicious half follows nothing but its own pseudo-labels and small structures vanish. Per epoch, in
    ``engine.state.metrics``: "kept_empty" (share of kept samples whose label has no foreground) and, when the data say
    so, "kept_high_quality" (share of kept samples with a trusted label). Attach it after ``GlobalLabelCorrection``,
    whose "foreground_ratio" (predicted over labelled foreground voxels) it reads.

    Args:
        minimum_foreground: ratio of predicted to labelled foreground below which a collapse is announced, once it was
            above before.
    """

    def __init__(self, minimum_foreground: float = 0.25) -> None:
        self.minimum_foreground = minimum_foreground
        self._was_above = False
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
        """The ratio of the epoch before is still there, also in a run that is resumed (``RunCheckpoint``)."""
        self._was_above = self._is_above(engine)

    def _is_above(self, engine: Any) -> bool:
        return engine.state.metrics.get("foreground_ratio", 0.0) >= self.minimum_foreground

    def _add(self, engine: Any) -> None:
        output = engine.state.output
        for network in (1, 2):
            kept, label = output[f"kept_{network}"], output[f"label_{network}"]
            trusted = torch.zeros_like(kept)
            if output["high_quality"] is not None:
                self._quality_known = True
                trusted = torch.as_tensor(output["high_quality"], device=kept.device)
            empty = ~label.flatten(1).any(dim=1)
            counts = torch.stack([kept.sum(), (kept & empty).sum(), (kept & trusted).sum()])
            self._counts = counts if self._counts is None else self._counts + counts

    def _log(self, engine: Any) -> None:
        metrics = engine.state.metrics
        counts = torch.zeros(3, dtype=torch.int64) if self._counts is None else self._counts.cpu()
        kept, empty, high_quality = distributed.total(counts).tolist()
        metrics["kept_empty"] = empty / max(kept, 1)
        if self._quality_known:
            metrics["kept_high_quality"] = high_quality / max(kept, 1)
        self._reset()
        if self._was_above and not self._is_above(engine):
            logger.warning(
                "Epoch %d: the networks predict only %.0f %% of the labelled foreground, and %.0f %% of the kept"
                " samples are empty: training is collapsing to background. The best checkpoint so far is kept; raise "
                "warmup_epochs, lower consistency_weight, or use unit='slice'.",
                engine.state.epoch,
                100 * metrics["foreground_ratio"],
                100 * metrics["kept_empty"],
            )
