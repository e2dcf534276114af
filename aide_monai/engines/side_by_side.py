"""Two networks on one stream that do not know of each other: the control of everything that makes them exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aide_monai.engines.two_network import TwoNetworkTrainer
from aide_monai.losses import PerSampleDiceCELoss
from aide_monai.utils.share import Share


class SideBySideTrainer(TwoNetworkTrainer):
    """Trains two networks on the same batches, each on all samples and its own labels.

    They differ by their first weights alone. What AIDE or co-teaching gains over the mean of such two networks is not
    gained by having two of them, by averaged weights (``average``), or by what the batches are made of.

    Args:
        device: where training runs.
        max_epochs: number of epochs.
        train_data_loader: as for ``TwoNetworkTrainer``.
        network_1: first network, (B, M, spatial...) to logits (B, C, spatial...).
        optimizer_1: its optimiser.
        network_2: second network; start it from another seed.
        optimizer_2: its optimiser.
        loss_function: per-sample segmentation loss, (logits, label) to (B,); eq. 1 by default.
        kwargs: as in ``TwoNetworkTrainer``.

    Raises:
        ValueError: as ``TwoNetworkTrainer``.

    Examples:
        >>> from aide_monai import find_datalist, load_volumes, volume_transforms, write_phantoms
        >>> folder = write_phantoms("phantoms", cases=2, shape=(32, 32, 4))
        >>> volumes = load_volumes(find_datalist(folder).records, volume_transforms(axis=2))
        >>> import torch
        >>> from monai.networks.nets import BasicUNet
        >>> from aide_monai import seeded, slice_loader, SliceDataset
        >>> build = lambda: BasicUNet(2, 1, 2, features=(4, 4, 4, 4, 4, 4), norm="batch")
        >>> first, second = seeded(build, 1), seeded(build, 2)
        >>> from aide_monai.engines import SideBySideTrainer
        >>> trainer = SideBySideTrainer(
        ...     "cpu", 1, slice_loader(SliceDataset(volumes), batch_size=4, steps=2, seed=0),
        ...     first, torch.optim.Adam(first.parameters()), second, torch.optim.Adam(second.parameters()),
        ...     average=0.99,
        ... )
        >>> trainer.run()
        >>> trainer.state.iteration
        2
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Iterable,
        network_1: nn.Module,
        optimizer_1: Optimizer,
        network_2: nn.Module,
        optimizer_2: Optimizer,
        *,
        loss_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        self.segmentation_loss = loss_function or PerSampleDiceCELoss()
        super().__init__(
            device, max_epochs, train_data_loader, network_1, optimizer_1, network_2, optimizer_2, **kwargs
        )

    def compute_losses(
        self, image: Tensor, logits: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Mean loss of each network over the batch; see ``TwoNetworkTrainer.compute_losses``."""
        samples = Share.of(len(image)).total
        first, second = (self.segmentation_loss(o, y).sum() / samples for o, y in zip(logits, labels, strict=True))
        return first, second, {}
