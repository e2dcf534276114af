"""Stops a training whose numbers have become none, before they reach labels or files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from aide_monai.errors import InputError
from aide_monai.utils import distributed

ADVICE = (
    "A resumed run would come to the same end: start a new one with a lower learning_rate, or with amp off; if it "
    "happens again, look for images with voxels that are not finite (aide check)"
)
_NAMES = {"loss_1": "network 1", "loss_2": "network 2", "loss": "the network"}


class FiniteLosses:
    """Stops a run with a sentence when a loss is NaN or infinite, before the step that would spoil the weights.

    A GPU would have to be waited for in every step, so there the losses are looked at when the epoch ends: before any
    label is corrected and anything is saved. Of many processes all stop alike. The engines of this package attach it
    themselves; give it to MONAI's own trainers as their first handler.

    Raises:
        InputError: while training, naming network, epoch and iteration.

    Examples:
        >>> from monai.engines import SupervisedTrainer
        >>> FiniteLosses().attach(SupervisedTrainer("cpu", 1, [], None, None, None))
    """

    def __init__(self) -> None:
        self._reset()

    def attach(self, engine: Engine) -> None:
        """Register the handler with one of MONAI's trainers, or this package's."""
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._look)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._require)

    def _reset(self) -> None:
        self._keys: list[str] = []
        self._first: Tensor | None = None  # iteration in which each loss was first not finite, 0 for none

    def _look(self, engine: Any) -> None:
        output = engine.state.output
        self._keys = [key for key in ("loss_1", "loss_2") if key in output] or ["loss"]
        wrong = ~torch.stack([output[key].detach() for key in self._keys]).isfinite()
        if self._keys == ["loss"]:  # each process has its own; those of two networks are sums over all
            wrong = distributed.total(wrong.long()) > 0
        first = torch.zeros_like(wrong, dtype=torch.long) if self._first is None else self._first
        self._first = torch.where(wrong & (first == 0), engine.state.iteration, first)
        if self._is_free_to_read(self._first):
            self._require(engine)

    @staticmethod
    def _is_free_to_read(numbers: Tensor) -> bool:
        return numbers.device.type == "cpu"

    def _require(self, engine: Any) -> None:
        first = [] if self._first is None else self._first.tolist()
        for key, iteration in zip(self._keys, first, strict=False):
            if iteration:
                stop(
                    f"epoch {engine.state.epoch}, iteration {iteration}: found a loss of {_NAMES[key]} that is NaN or "
                    "infinite; expected a number. The run has stopped; labels and checkpoints are those of the last "
                    f"epoch before. {ADVICE}"
                )


class WatchedNetwork:
    """A network that is called on its device, and of which is known whether its logits were finite.

    Args:
        network: (B, M, spatial...) on ``device`` to logits (B, C, spatial...).
        device: where it is.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], device: torch.device | str) -> None:
        self.network = network
        self.device = device
        self._finite = torch.tensor(True, device=device)

    def __call__(self, image: Tensor) -> Tensor:
        """Logits of ``image``, which may be anywhere."""
        logits = self.network(image.to(self.device))
        self._finite = self._finite & logits.isfinite().all()
        return logits

    def was_finite(self) -> bool:
        """Whether all logits since the last question were."""
        finite, self._finite = bool(self._finite), torch.ones_like(self._finite)
        return finite


def stop(message: str) -> None:
    """Raise an ``InputError`` in all processes, which must all call this; one of them tells it."""

    def refuse() -> None:
        raise InputError(message)

    distributed.on_main(refuse)


def not_finite(network: nn.Module) -> str | None:
    """Name of the first weight that is NaN or infinite, or running statistic that is NaN; None where all are fine.

    Other buffers may hold infinity on purpose, as masks of an attention do.

    Examples:
        >>> layer = nn.Linear(1, 1)
        >>> not_finite(layer)
        >>> _ = nn.init.constant_(layer.bias, float("nan"))
        >>> not_finite(layer)
        'bias'
    """
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            return name
    for name, buffer in network.named_buffers():
        if buffer.isnan().any():
            return name
    return None


def require_finite(network: nn.Module, where: str) -> None:
    """Refuse a network whose weights are not numbers.

    Args:
        network: any.
        where: what the message begins with.

    Raises:
        InputError: naming the first weight that is NaN or infinite.
    """
    name = not_finite(network)
    if name is not None:
        raise InputError(
            f"{where}: found weights that are NaN or infinite ({name}); expected numbers: training has gone wrong "
            "before. Use the weights of another epoch or run; to train anew, lower learning_rate, or turn amp off"
        )
