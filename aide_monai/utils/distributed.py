"""Many processes that train as one: who is who, what they exchange, and what they say when one of them is gone.

Without ``torch.distributed`` there is one process, the main one; then nothing is exchanged, and every function here is
the plain call that its name says. What is exchanged are tensors and plain containers, never code.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from aide_monai.errors import InputError, MainProcessError
from aide_monai.utils.processes import launched

T = TypeVar("T")
_SIGNS_OF_A_LOST_PROCESS = ("gloo", "NCCL", "Connection closed", "Connection reset", "Timed out", "timed out")


class LostProcessError(InputError):
    """Another process of the run has ended, or has not answered for the time that ``initialize`` allows."""


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that writes files and messages (rank 0)."""
    return rank() == 0


def initialize(*, timeout_minutes: float = 30.0) -> None:
    """Join the processes that torchrun has started; nothing happens if they are joined already, or if there is one.

    CPU tensors go through gloo, CUDA tensors through NCCL. Only the main process logs what is below an error.

    Args:
        timeout_minutes: how long a process waits for another one before it gives up. It must be longer than what one
            process does alone: loading the volumes, or writing a checkpoint.

    Raises:
        LostProcessError: if the processes cannot find each other.
    """
    if dist.is_initialized() or not launched():
        return
    # Default arguments in these would hold the group, were they imported later.
    import monai.bundle  # noqa: F401
    import torch.distributed.nn

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _exchange():
        dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    if not is_main():
        logging.getLogger("aide_monai").setLevel(logging.ERROR)


def finalize() -> None:
    """Leave the other processes, at the end of a run.

    Nothing may hold the group any more: gloo's threads end with it, and one that still works when Python ends aborts
    the process.
    """
    _Groups.host = None
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def local_device() -> str:
    """The device of this process: a GPU of its own where there are any, else the CPU.

    Raises:
        InputError: if there are more processes on this machine than GPUs.
    """
    if not torch.cuda.is_available():
        return "cpu"
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise InputError(
            f"this machine has {torch.cuda.device_count()} GPUs and at least {local + 1} processes; expected one GPU "
            "for each: ask for fewer (aide train --processes, torchrun --nproc_per_node), or train on the CPU with "
            "--device cpu"
        )
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def gather(content: T) -> list[T]:
    """What every process has passed, in order of rank: tensors, numbers, text and containers of these."""
    if world_size() == 1:
        return [content]
    packed = _pack(content)
    sizes = [int(size) for size in all_gather(torch.tensor([len(packed)]))]
    padded = torch.zeros(max(sizes), dtype=torch.uint8)
    padded[: len(packed)] = packed
    return [_unpack(other[:size]) for other, size in zip(all_gather(padded), sizes, strict=True)]


def broadcast(content: T) -> T:
    """What the main process has passed; what the others pass does not matter."""
    if world_size() == 1:
        return content
    packed = _pack(content) if is_main() else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor([len(packed)])
    with _exchange():
        dist.broadcast(size, 0, group=_host_group())
        if not is_main():
            packed = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(packed, 0, group=_host_group())
    return _unpack(packed)


def on_main(function: Callable[[], T]) -> T:
    """Call a function in the main process alone; every process gets its result, or learns that it has failed.

    Raises:
        MainProcessError: in the others, whatever it was that the function has raised in the main process.
    """
    if world_size() == 1:
        return function()
    result: Any = None
    error: BaseException | None = None
    if is_main():
        try:
            result = function()
        except BaseException as failure:  # the others would wait for it
            error = failure
    message = broadcast(None if error is None else _told(error))
    if message is not None:
        raise error or MainProcessError(message)
    return broadcast(result)


def _told(error: BaseException) -> str:
    if isinstance(error, InputError):
        return str(error)
    reason = (str(error).strip() or "no reason given").splitlines()[0]
    return (
        f"the main process of this run has failed ({type(error).__name__}: {reason}); expected it to go on. What was "
        "saved before is intact: see what it says, then continue with --resume"
    )


def total(values: Tensor) -> Tensor:
    """Sum over the processes of a tensor that has the same shape in all of them."""
    if world_size() == 1:
        return values
    group, device = _channel(values.device)
    summed = values.detach().to(device, copy=True).contiguous()
    with _exchange():
        dist.all_reduce(summed, group=group)
    return summed.to(values.device)


def sum_gradients(network: nn.Module) -> Callable[[], None]:
    """Start to add up the gradients of all processes; the function that is returned waits for the sums.

    All gradients of a network go in one message. A parameter that had no gradient in any process keeps none.
    """
    if world_size() == 1:
        return lambda: None
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    has_gradient = torch.tensor([float(p.grad is not None) for p in parameters], device=found[0].device)
    group, device = _channel(found[0].device)
    flat = torch.cat([*(gradient.flatten() for gradient in found), has_gradient]).to(device)
    with _exchange():
        work = dist.all_reduce(flat, group=group, async_op=True)

    def finish() -> None:
        with _exchange():
            work.wait()
        *sums, used = flat.split([*(p.numel() for p in parameters), len(parameters)])
        # A GPU need not be waited for to know that a gradient that is here is somewhere.
        elsewhere = used.tolist() if any(p.grad is None for p in parameters) else None
        for number, (parameter, gradient) in enumerate(zip(parameters, sums, strict=True)):
            if parameter.grad is not None:
                parameter.grad.copy_(gradient.view_as(parameter))
            elif elsewhere is not None and elsewhere[number]:
                parameter.grad = torch.empty_like(parameter).copy_(gradient.view_as(parameter))

    return finish


def data_parallel(network: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
    """Let an engine with one network train as one with those of the other processes.

    All start from the main one's weights, and every step of ``optimizer`` is made with the mean of the gradients. It
    must be made in all processes or in none, so not with a gradient scaler, by which each skips steps of its own.
    Torch's ``DistributedDataParallel`` would hold the group past ``finalize``.

    Args:
        network: what the engine trains; place it on its device first.
        optimizer: of its parameters.

    Returns:
        The network itself.
    """

    def average_gradients(*_: Any) -> None:
        sum_gradients(network)()
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.grad /= world_size()

    if world_size() > 1:
        copy_from_main(network)
        optimizer.register_step_pre_hook(average_gradients)
    return network


def copy_from_main(network: nn.Module) -> None:
    """Give every process the weights and buffers of the main one."""
    if world_size() == 1:
        return
    for tensor in (*network.parameters(), *network.buffers()):
        group, device = _channel(tensor.device)
        copied = tensor.detach().to(device, copy=True).contiguous()
        with _exchange():
            dist.broadcast(copied, 0, group=group)
        tensor.detach().copy_(copied)


def average_buffers(network: nn.Module) -> None:
    """Replace the buffers, which are running statistics, by their mean over the processes; counts by the largest."""
    if world_size() == 1:
        return
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.copy_(total(buffer) / world_size())
        else:
            buffer.copy_(torch.stack(all_gather(buffer.detach().clone())).amax(dim=0))


def require_same_weights(*networks: nn.Module) -> None:
    """Make sure that every process has the same weights, bit for bit.

    Raises:
        RuntimeError: if they have drifted apart, which no input may cause.
    """
    if world_size() == 1:
        return
    sums = torch.stack([p.detach().double().sum() for network in networks for p in network.parameters()]).cpu()
    everyone = torch.stack(all_gather(sums))
    if not bool(((everyone == everyone[0]) | (everyone.isnan() & everyone[0].isnan())).all()):
        raise RuntimeError(
            "the weights of the processes have drifted apart; expected the same in all: use an optimiser and hooks "
            "that do the same everywhere"
        )


def lost_process(error: BaseException) -> LostProcessError | None:
    """The sentence for an error of any part of a program, if a process that is gone, or silent, is behind it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LostProcessError):
            return cause
        signs = isinstance(cause, RuntimeError) and any(sign in str(cause) for sign in _SIGNS_OF_A_LOST_PROCESS)
        if signs or isinstance(cause, dist.DistError):
            reason = (
                re.sub(r"^\[[^]]*\] ", "", str(cause).strip() or type(cause).__name__).splitlines()[0].split(". ")[0]
            )
            return LostProcessError(
                f"process {os.environ.get('RANK', '0')} has lost another process of this run, which has ended or does "
                f"not answer ({reason}); expected all of them to the end. What was saved before is intact: see what "
                "the others say, then continue with --resume"
            )
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def _exchange() -> Iterator[None]:
    """Turn what torch raises when another process is gone into one sentence."""
    try:
        yield
    except RuntimeError as error:
        lost = lost_process(error)
        if lost is None:
            raise
        raise lost from error


class _Groups:
    host: dist.ProcessGroup | None = None


def _host_group() -> dist.ProcessGroup | None:
    """The group through which CPU tensors go: the default one, or one of our own beside pure NCCL."""
    if "cpu:" in dist.distributed_c10d.get_backend_config():
        return None
    if _Groups.host is None:
        _Groups.host = dist.new_group(backend="gloo")
    return _Groups.host


def _channel(device: torch.device) -> tuple[dist.ProcessGroup | None, torch.device]:
    """The group for tensors of a device, and the device that they have to be on for it."""
    if f"{device.type}:nccl" in dist.distributed_c10d.get_backend_config():
        return None, device
    return _host_group(), torch.device("cpu")


def all_gather(values: Tensor) -> list[Tensor]:
    """A tensor of the same shape and type from every process, in order of rank."""
    group, device = _channel(values.device)
    sent = values.to(device).contiguous()
    received = [torch.empty_like(sent) for _ in range(world_size())]
    with _exchange():
        dist.all_gather(received, sent, group=group)
    return [other.to(values.device) for other in received]


def _pack(content: Any) -> Tensor:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)


def _unpack(packed: Tensor) -> Any:
    return torch.load(io.BytesIO(packed.numpy().tobytes()), map_location="cpu", weights_only=True)
