"""Batch normalisation with the statistics of the global batch, for training in many processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from aide_monai.utils import distributed


class GlobalBatchNorm(_BatchNorm):
    """Normalises by mean and variance over the samples of all processes, on any device and through any backend.

    torch's own ``SyncBatchNorm`` works on GPUs only. In training mode every process must call it with at least one
    sample, equally often. In evaluation mode, and in one process, it is plain batch normalisation of any dimension.
    Parameters, buffers and their names are those of ``BatchNorm2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalised (B, C, spatial...), in the dtype of ``input``."""
        if not self.training or distributed.world_size() == 1:
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        values = input.float()
        number = distributed.total(torch.tensor([float(values[:, 0].numel())], device=input.device))
        mean = _Total.apply(values.sum(dim=axes)) / number
        centred = values - mean.view(shape)
        variance = _Total.apply(centred.square().sum(dim=axes)) / number
        if self.track_running_stats:
            self._follow(mean.detach(), variance.detach() * number / (number - 1))
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any dimension will do."""

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, value in ((self.running_mean, mean), (self.running_var, variance)):
            assert running is not None
            running.lerp_(value.to(running.dtype), momentum)


class _Total(torch.autograd.Function):
    """Sum over the processes; so is the gradient, for the loss of the batch is the sum of theirs."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return distributed.total(values)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return distributed.total(gradients[0])


def synchronise_batch_norm(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Let every batch normalisation of a network use the global batch; one process leaves the network as it is.

    Layers are replaced in place and keep their parameters, so optimisers and checkpoints are not affected.

    Args:
        network: the network; itself no normalisation layer.
        device: where it will run: torch's ``SyncBatchNorm`` on GPUs, ``GlobalBatchNorm`` elsewhere.
    """
    if distributed.world_size() == 1:
        return network
    if torch.device(device).type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for name, layer in list(network.named_children()):
        if isinstance(layer, _BatchNorm):
            replaced = GlobalBatchNorm(
                layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
            )
            for key, value in (*layer._parameters.items(), *layer._buffers.items()):
                setattr(replaced, key, value)
            replaced.train(layer.training)
            setattr(network, name, replaced)
        else:
            synchronise_batch_norm(layer, device)
    return network


def is_synchronised(network: nn.Module) -> bool:
    """Whether a network has layers that need every process whenever they are called in training mode."""
    return any(isinstance(layer, (GlobalBatchNorm, nn.SyncBatchNorm)) for layer in network.modules())
