"""The co-teaching engine, a rival of AIDE: two networks that drop the samples the other one distrusts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aide_monai.algorithm import forget_rate, has_verdict, small_loss_mask
from aide_monai.engines.two_network import TwoNetworkTrainer
from aide_monai.losses import PerSampleDiceCELoss
from aide_monai.options import CO_TEACHING_RANGES
from aide_monai.utils.share import Share
from aide_monai.utils.validation import require_numbers


class CoTeachingTrainer(TwoNetworkTrainer):
    """Trains two networks, each on the other's small-loss samples alone (Han et al., NeurIPS 2018).

    Both rank a batch by their own loss, as in AIDE; but the samples that a network's peer does not keep are dropped.
    The dropped share rises linearly from 0 in the first epoch to ``max_forget_rate`` after the warm-up. Labels never
    change.

    Args:
        device: where training runs.
        max_epochs: number of epochs.
        train_data_loader: as for ``TwoNetworkTrainer``.
        network_1: first network, (B, M, spatial...) to logits (B, C, spatial...).
        optimizer_1: its optimiser.
        network_2: second network; start it from another seed.
        optimizer_2: its optimiser.
        max_forget_rate: share of a batch that is dropped after the warm-up, 0..0.9999.
        warmup_epochs: epochs until then; 0 drops from the start.
        loss_function: per-sample segmentation loss, (logits, label) to (B,); eq. 1 by default.
        kwargs: as in ``TwoNetworkTrainer``.

    Raises:
        InputError: if a number is out of range.
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
        >>> from aide_monai import CoTeachingTrainer
        >>> trainer = CoTeachingTrainer(
        ...     "cpu", 1, slice_loader(SliceDataset(volumes), batch_size=4, steps=2, seed=0),
        ...     first, torch.optim.Adam(first.parameters()), second, torch.optim.Adam(second.parameters()),
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
        max_forget_rate: float = 0.5,
        warmup_epochs: int = 20,
        loss_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        require_numbers({"max_forget_rate": max_forget_rate, "warmup_epochs": warmup_epochs}, CO_TEACHING_RANGES)
        self.max_forget_rate = max_forget_rate
        self.warmup_epochs = warmup_epochs
        self.segmentation_loss = loss_function or PerSampleDiceCELoss()
        super().__init__(
            device, max_epochs, train_data_loader, network_1, optimizer_1, network_2, optimizer_2, **kwargs
        )

    def compute_losses(
        self, image: Tensor, logits: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Mean loss of each network over what the other keeps; see ``TwoNetworkTrainer.compute_losses``."""
        keep = 1 - forget_rate(self.state.epoch, self.warmup_epochs, self.max_forget_rate)
        first, second = (self.segmentation_loss(o, y) for o, y in zip(logits, labels, strict=True))
        share = Share.of(len(image))  # samples are ranked among all of the batch, wherever they are
        kept_1, kept_2 = (
            small_loss_mask(share.gather(loss), keep, judged=share.gather(has_verdict(label)))
            for loss, label in zip((first, second), labels, strict=True)
        )
        here = {"kept_1": kept_1[share.part], "kept_2": kept_2[share.part]}
        return first[here["kept_2"]].sum() / kept_2.sum(), second[here["kept_1"]].sum() / kept_1.sum(), here
