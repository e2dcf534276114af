"""How differently two networks see the same batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from ignite.engine import Engine, Events
from torch import Tensor

from aide_monai.algorithm import confusion, mean_dice
from aide_monai.utils import distributed

logger = logging.getLogger(__name__)


class Disagreement:
    """Logs one minus the mean Dice between the predictions of both networks, per epoch.

    ``engine.state.metrics["disagreement"]`` is in 0..1. Networks that agree everywhere cannot teach each other, so a
    value below ``minimum`` is warned about once.

    Args:
        minimum: smallest disagreement that is still worth two networks.
        output_transform: from the engine's output to the logits (B, C, spatial...) of both networks; those of a
            ``TwoNetworkTrainer`` by default, for other engines for example ``from_engine(["pred_1", "pred_2"])``.
    """

    def __init__(
        self,
        minimum: float = 1e-4,
        *,
        output_transform: Callable[[Any], Sequence[Tensor]] = lambda output: (output["logits_1"], output["logits_2"]),
    ) -> None:
        self.minimum = minimum
        self.output_transform = output_transform
        self._total: Tensor | float = 0.0  # on the device until the epoch ends: a GPU need not wait
        self._batches = 0
        self._warned = False

    def attach(self, engine: Engine) -> None:
        """Register the handler with an engine that trains or evaluates two networks."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._log)

    def _add(self, engine: Any) -> None:
        first, second = self.output_transform(engine.state.output)
        counts = confusion(first.argmax(dim=1), second.argmax(dim=1), num_classes=first.shape[1]).sum(dim=0)
        self._total = self._total + (1 - mean_dice(distributed.total(counts)[None]))
        self._batches += 1

    def _log(self, engine: Any) -> None:
        value = float(self._total) / max(self._batches, 1)
        engine.state.metrics["disagreement"] = value
        self._total, self._batches = 0.0, 0
        if value < self.minimum and not self._warned:
            self._warned = True
            logger.warning(
                "The two networks predict the same everywhere (disagreement %.1g): they cannot correct each other. "
                "Start them from different seeds; if both find background alone, train longer or check the labels.",
                value,
            )
