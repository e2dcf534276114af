"""Validation while training, as far as there is anything to validate on."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events


class Validation:
    """Runs an evaluator after every ``interval`` epochs and hands its mean DSC to the trainer.

    ``engine.state.metrics["dsc_validation"]`` is in 0..1; between two validations it keeps its last value. Nothing
    happens where the evaluator has no cases, as most training jobs with few labels. Attach it before what reads the
    value.

    Args:
        validator: evaluator whose metrics have "dsc", see ``CaseScores``.
        interval: epochs between validations; the first epoch is always validated.

    Raises:
        ValueError: if ``interval`` is below 1.
    """

    def __init__(self, validator: Any, *, interval: int = 1) -> None:
        if interval < 1:
            raise ValueError(f"interval is {interval}; expected a number of epochs, at least 1")
        self.validator = validator
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        if len(self.validator.data_loader) > 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Validate, if it is due."""
        if "dsc_validation" in engine.state.metrics and engine.state.epoch % self.interval:
            return
        self.validator.run(engine.state.epoch)
        engine.state.metrics["dsc_validation"] = self.validator.state.metrics["dsc"]
