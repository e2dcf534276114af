"""How networks are called: precision and memory layout."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from aide_monai.errors import InputError
from aide_monai.networks.fast_layers import use_fast_layers
from aide_monai.networks.folded import FoldedNetwork

AMP_DTYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by number of axes, batch and channels included
_X86 = ("x86_64", "AMD64")
logger = logging.getLogger(__name__)


def hardware_amp() -> str:
    """ "bf16" where the CPU multiplies bfloat16 in hardware, else "off"; a sensible ``amp`` for CPU training."""
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "off"


def require_device(device: torch.device | str) -> None:
    """Refuse a device that is none, or that this machine does not have.

    Raises:
        InputError: naming it.
    """
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device is {device!r}; expected cpu, cuda, cuda:1, ...") from error
    if wanted.type not in ("cpu", "cuda"):
        try:
            torch.zeros(1, device=wanted).item()
        except (RuntimeError, NotImplementedError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f'device is "{device}", which cannot be used here ({reason}); expected cpu or cuda'
            ) from error
    count = torch.cuda.device_count()
    if wanted.type == "cuda" and (wanted.index or 0) >= count:
        known = ", ".join(["cpu", *(f"cuda:{index}" for index in range(count))])
        raise InputError(f'device is "{device}"; found {count} GPUs that PyTorch can use; expected one of {known}')


def choose_device(device: str) -> str:
    """The device that "auto" stands for, the first GPU where there is one; any other as it is.

    Raises:
        InputError: as ``require_device``.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    require_device(device)
    return device


def place(network: nn.Module, device: torch.device | str, *, channels_last: bool = False) -> nn.Module:
    """Move a network to ``device`` and, if asked, its weights to the channels-last layout.

    On a CPU, layers for which there is a faster way are replaced (``use_fast_layers``); all parameters stay.

    Raises:
        InputError: as ``require_device``.
    """
    require_device(device)
    network = network.to(device)
    if torch.device(device).type == "cpu":
        use_fast_layers(network)
    if channels_last:
        for weight in network.parameters():
            if weight.ndim in CHANNELS_LAST:
                weight.data = weight.data.contiguous(memory_format=CHANNELS_LAST[weight.ndim])
    return network


@cache
def _warn_of_slow_bf16() -> None:
    if platform.machine() in _X86 and hardware_amp() == "off":
        logger.warning('amp is "bf16", but this CPU has no bfloat16 instructions and is slower with it; expected "off"')


class AutocastInferer(Inferer):
    """Calls a network in a chosen precision and memory layout; the output is float32.

    MONAI's own ``amp`` flag is for CUDA alone; this one also serves bfloat16 on CPUs. Where a CPU has no instructions
    for it, which makes it slower than float32 (a training step 1.7 times with AVX-512, 8 with AVX2), it warns once.

    Args:
        amp: "off", "bf16" or "fp16".
        channels_last: use the channels-last layout.
        inferer: how the network is called then; None calls it.

    Raises:
        ValueError: if ``amp`` is unknown.
    """

    def __init__(self, amp: str = "off", *, channels_last: bool = False, inferer: Inferer | None = None) -> None:
        super().__init__()
        if amp not in AMP_DTYPES:
            raise ValueError(f"amp is {amp!r}; expected one of {', '.join(AMP_DTYPES)}")
        self.dtype = AMP_DTYPES[amp]
        self.channels_last = channels_last
        self.inferer = inferer

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Logits (B, C, spatial...) float32 of ``network`` for ``inputs`` (B, M, spatial...)."""
        layout = CHANNELS_LAST[inputs.ndim] if self.channels_last else torch.contiguous_format
        inputs = inputs.contiguous(memory_format=layout)
        if self.dtype == torch.bfloat16 and inputs.device.type == "cpu":
            _warn_of_slow_bf16()
        with torch.autocast(inputs.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            if self.inferer is None:
                logits = network(inputs, *args, **kwargs)
            else:
                logits = self.inferer(inputs, network, *args, **kwargs)
        return logits.float()


class Predictor:
    """Predicts with a network that is being trained: in evaluation mode, without a gradient, folded for speed.

    The network's weights, running statistics and mode stay as they are.

    Args:
        network: (B, M, spatial...) to logits (B, C, spatial...).
        inferer: how it is called, for example an ``AutocastInferer``.
    """

    def __init__(self, network: nn.Module, inferer: Callable[..., Tensor]) -> None:
        self.inferer = inferer
        self.folded = FoldedNetwork(network)

    def refresh(self) -> None:
        """Take over the network's present weights; predictions are those of the last refresh."""
        self.folded.refresh()

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """Logits (B, C, spatial...) float32 for ``image`` (B, M, spatial...)."""
        return self.inferer(image, self.folded).float()


def predictors_of(engine: Any) -> list[Predictor]:
    """Fresh predictors of the networks that an engine trains: of a ``TwoNetworkTrainer``, or MONAI's trainers of one.

    Raises:
        ValueError: if the engine has no network.
    """
    predictors = getattr(engine, "predictors", None)
    if predictors is None:
        networks = getattr(engine, "networks", None) or (getattr(engine, "network", None),)
        inferers = getattr(engine, "inferers", None) or [getattr(engine, "inferer", AutocastInferer())] * len(networks)
        if networks[0] is None:
            raise ValueError(
                f"{type(engine).__name__} has no network; expected a TwoNetworkTrainer, or an engine with a network as "
                "MONAI's SupervisedTrainer"
            )
        predictors = [Predictor(network, inferer) for network, inferer in zip(networks, inferers, strict=True)]
    for predictor in predictors:
        predictor.refresh()
    return list(predictors)
