"""Raises the weight of the consistency loss over the warm-up epochs."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events

from aide_monai.algorithm import consistency_ramp


class ConsistencyRamp:
    """Sets ``engine.state.consistency`` to lambda at the start of each epoch (Algorithm 1, line 21).

    The value depends on the epoch alone, so a resumed run continues where it was.

    Args:
        warmup_epochs: q_w; lambda is 0 in the first epoch and 1 from epoch ``q_w + 1`` on, or always 1 for 0.
    """

    def __init__(self, warmup_epochs: int) -> None:
        self.warmup_epochs = warmup_epochs

    def attach(self, engine: Engine) -> None:
        """Register the ramp with ``engine``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Set lambda of the current epoch."""
        engine.state.consistency = consistency_ramp(engine.state.epoch, self.warmup_epochs)
