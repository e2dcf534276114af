"""The AIDE engine: two networks that correct each other's labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aide_monai.algorithm import (
    average_views,
    co_correction_loss,
    confidence,
    has_verdict,
    kept_number,
    sharpen,
    small_loss_mask,
)
from aide_monai.engines.two_network import TwoNetworkTrainer
from aide_monai.errors import InputError
from aide_monai.handlers.consistency_ramp import ConsistencyRamp
from aide_monai.ignored import marked
from aide_monai.losses import ConsistencyLoss, PerSampleDiceCELoss
from aide_monai.networks.global_batch_norm import is_synchronised
from aide_monai.options import AIDEOptions
from aide_monai.transforms.rotate_flip import RandomRotateFlip
from aide_monai.utils.share import Share


class AIDETrainer(TwoNetworkTrainer):
    """Trains two networks by cross-model self-correction (Algorithm 1, lines 2-20).

    Each network ranks the batch by its own loss; the other network trains on the small-loss half as it is, and on the
    suspicious half increasingly by consistency with augmented views. Global label correction (lines 21-28) is a
    handler, ``GlobalLabelCorrection``. The consistency ramp is attached by the engine itself and kept in
    ``engine.state.consistency``.

    Args:
        device: where training runs.
        max_epochs: number of epochs Q.
        train_data_loader: batches of "image" with "label_1" and "label_2" (or one "label"), see
            ``prepare_two_labels``.
        network_1: first network, (B, M, spatial...) to logits (B, C, spatial...), 2D or 3D.
        optimizer_1: its optimiser.
        network_2: second network; start it from another seed.
        optimizer_2: its optimiser.
        options: options of the algorithm, ``AIDEOptions()`` by default.
        seed: seed of the random views.
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
        >>> from aide_monai import AIDETrainer
        >>> trainer = AIDETrainer(
        ...     "cpu", 1, slice_loader(SliceDataset(volumes), batch_size=4, steps=2, seed=0),
        ...     first, torch.optim.Adam(first.parameters()), second, torch.optim.Adam(second.parameters()),
        ... )
        >>> trainer.run()
        >>> trainer.state.epoch, trainer.state.iteration
        (1, 2)
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
        options: AIDEOptions | None = None,
        seed: int = 0,
        loss_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        self.options = options or AIDEOptions()
        self.segmentation_loss = loss_function or PerSampleDiceCELoss()
        self.consistency_loss = ConsistencyLoss()
        self.random_views = RandomRotateFlip(
            max_angle=self.options.max_angle,
            flip_probability=self.options.flip_probability,
            flip_axis=self.options.flip_axis,
            seed=seed,
        )
        kwargs = {"average": self.options.average, **kwargs}
        super().__init__(
            device, max_epochs, train_data_loader, network_1, optimizer_1, network_2, optimizer_2, **kwargs
        )
        ConsistencyRamp(self.options.warmup_epochs).attach(self)

    @property
    def generators(self) -> dict[str, torch.Generator]:
        """As in ``TwoNetworkTrainer``, with that of the views."""
        return super().generators | {"views": self.random_views.generator}

    def compute_losses(
        self, image: Tensor, logits: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """One iteration of Algorithm 1 up to the two losses; see ``TwoNetworkTrainer.compute_losses``."""
        options, ramp = self.options, self.state.consistency
        share = Share.of(len(image))
        segmentation = [self.segmentation_loss(o, y) for o, y in zip(logits, labels, strict=True)]
        # Samples are ranked among all of the batch, wherever they are.
        kept = [
            small_loss_mask(
                share.gather(loss),
                options.keep,
                strata=self._strata(label, share),
                judged=share.gather(has_verdict(label)),
            )
            for loss, label in zip(segmentation, labels, strict=True)
        ]
        trusted = (kept[1], kept[0])  # each network trains on what the other one trusts
        suspicious = [self._suspicious(mask) for mask in trusted]

        pseudo: list[Tensor | None] = [None, None]
        # Views that weigh nothing are left out, unless predicting them moves the running statistics all the same.
        if (ramp > 0 and options.consistency_weight > 0) or options.view_statistics == "batch":
            pseudo = [self._pseudo_label(i, image, logits, suspicious[i], share) for i in (0, 1)]
        losses = [
            co_correction_loss(
                segmentation[i],
                trusted[i][share.part],
                consistency=self._consistency(logits[i], share.local(suspicious[i]), pseudo[i]),
                ramp=ramp,
                weight=options.consistency_weight,
                supervised_floor=options.supervised_floor,
                of=(share.total - len(suspicious[i]), len(suspicious[i])),
            )
            for i in (0, 1)
        ]
        return losses[0], losses[1], {"kept_1": kept[0][share.part], "kept_2": kept[1][share.part]}

    def _suspicious(self, trusted: Tensor) -> Tensor:
        """(U,) positions of the samples of the batch that are not trusted; a GPU is asked only if it alone knows U."""
        if self.options.filter_strata != "none":
            return (~trusted).nonzero()[:, 0]
        return trusted.byte().sort(stable=True).indices[: len(trusted) - kept_number(self.options.keep, len(trusted))]

    def _strata(self, label: Tensor, share: Share) -> Tensor | None:
        return None if self.options.filter_strata == "none" else share.gather(marked(label).flatten(1).any(dim=1))

    def _consistency(self, logits: Tensor, suspicious: Tensor, pseudo_label: Tensor | None) -> Tensor | None:
        if pseudo_label is None:
            return None
        weight = confidence(pseudo_label, self.options.confidence)
        return self.consistency_loss(logits[suspicious], pseudo_label, weight)

    @torch.no_grad()
    def _pseudo_label(
        self, index: int, image: Tensor, logits: tuple[Tensor, Tensor], suspicious: Tensor, share: Share
    ) -> Tensor | None:
        """Pseudo-labels (U, C, spatial...) that train network ``index`` (0 or 1) on the suspicious samples here.

        ``suspicious`` are their positions in the whole batch, for all of which views are drawn.
        """
        if len(suspicious) == 0:
            return None
        options = self.options
        source = index if options.pseudo_label_source == "own" else 1 - index
        everywhere = options.view_samples == "all"
        viewed = torch.arange(share.total, device=image.device) if everywhere else suspicious
        drawn = self.random_views.draw(options.views * len(viewed))[share.holds(viewed).repeat(options.views)]
        viewed, suspicious = share.local(viewed), share.local(suspicious)
        if len(viewed) == 0:
            if options.view_statistics == "batch" and is_synchronised(self.networks[source]):
                raise InputError(
                    'view_statistics="batch" with synchronised batch normalisation found a process without suspicious '
                    'samples; expected view_samples="all", which has some in all of them'
                )
            return None
        views = (options.views, len(viewed))
        turned = drawn.apply(image[viewed].repeat(options.views, *[1] * (image.ndim - 1)))
        if options.view_statistics == "batch":  # the views move the running statistics, as in the released code
            predicted = self.forward(source + 1, turned)
        else:
            predicted = self.predict(source + 1, turned, batch_size=len(image))
        if options.view_inverse == "logits":
            average = drawn.invert(predicted).masked_fill_(~drawn.visible(predicted), 0.0)
            average = average.unflatten(0, views).softmax(dim=2).mean(dim=0)
        else:
            average = average_views(
                drawn.invert(predicted.softmax(dim=1)).unflatten(0, views),
                drawn.visible(predicted).unflatten(0, views),
                logits[source][viewed].softmax(dim=1),
            )
        average = average[suspicious] if everywhere else average
        return sharpen(average, options.temperature, options.sharpening)
