"""Engine base that trains two networks side by side on one stream of batches."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import Trainer
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.optim import Optimizer

from aide_monai.engines.prepare_batch import Augmentation, Batch, Perturbation, augmented, perturbed, prepare_two_labels
from aide_monai.engines.weight_average import WeightAverage
from aide_monai.errors import InputError
from aide_monai.handlers.finite import FiniteLosses
from aide_monai.inferers import AutocastInferer, Predictor, place
from aide_monai.networks.global_batch_norm import is_synchronised
from aide_monai.utils import distributed


class TwoNetworkTrainer(Trainer):
    """Trains two networks with an optimiser each; subclasses say what the two losses are.

    The pattern is that of MONAI's ``AdversarialTrainer``: networks, optimisers and scalers live in ``engine.state``
    and are part of ``engine.state_dict()``.

    Started as several processes (see ``aide_monai.utils.distributed``), each has its share of every batch; gradients
    are added up before the optimisers step, and after an epoch running statistics are averaged.

    With ``average``, moving averages of the weights predict in the networks' place: ``predict`` uses them, and when an
    epoch ends they are put into the networks, so that handlers see, score and save them. The next epoch goes on with
    the weights of the optimisers.

    A loss that is NaN or infinite stops the run (``FiniteLosses``).

    Args:
        device: where training runs.
        max_epochs: number of epochs Q.
        train_data_loader: yields batches that ``prepare_batch`` understands.
        network_1: first network, (B, M, spatial...) to logits (B, C, spatial...).
        optimizer_1: its optimiser.
        network_2: second network; start it from another seed.
        optimizer_2: its optimiser.
        augment: optional callable ``(image, [label, ...]) -> (image, [label, ...])`` on the batch, on the device.
        perturb: optional callable ``image -> image``, after it: what the networks train on. Views are made of the image
            without it.
        prepare_batch: as ``prepare_two_labels``.
        amp: "off", "bf16" or "fp16" autocast.
        channels_last: use the channels-last memory layout.
        compile: train through ``torch.compile``; a dictionary holds its arguments. It pays on GPUs; on CPUs the
            kernels that are used without it were measured to be as fast, and compiling takes minutes.
        inferer_1: how network 1 is called, by default an ``AutocastInferer`` of ``amp`` and ``channels_last``.
        inferer_2: how network 2 is called, likewise.
        average: decay of the moving average of the weights, 0..1 without 1; 0 keeps none.
        decollate: as in MONAI; off by default because nothing here needs single samples.
        train_handlers: handlers with ``attach``.
        optim_set_to_none: as in MONAI.
        kwargs: further arguments of MONAI's ``Trainer`` (epoch_length, postprocessing, key_metric, ...).

    Raises:
        ValueError: if both networks are the same object, or ``amp`` is unknown.
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
        augment: Augmentation | None = None,
        perturb: Perturbation | None = None,
        prepare_batch: Callable = prepare_two_labels,
        amp: str = "off",
        channels_last: bool = False,
        compile: bool | dict[str, Any] = False,
        inferer_1: Inferer | None = None,
        inferer_2: Inferer | None = None,
        average: float = 0.0,
        decollate: bool = False,
        train_handlers: Sequence | None = None,
        optim_set_to_none: bool = True,
        **kwargs: Any,
    ) -> None:
        if network_1 is network_2:
            raise ValueError("network_1 and network_2 are the same object; expected two networks from two seeds")
        inferer = AutocastInferer(amp, channels_last=channels_last)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            prepare_batch=prepare_batch,
            decollate=decollate,
            **kwargs,
        )
        self.augment, self.perturb = augment, perturb
        self.optim_set_to_none = optim_set_to_none
        self._nothing: tuple[Any, ...] | None = None  # a batch without samples
        self._no_logits: tuple[Tensor, Tensor]
        self.inferers = (inferer_1 or inferer, inferer_2 or inferer)
        scaled = amp == "fp16" and self.state.device.type == "cuda"
        self.state.network_1 = place(network_1, self.state.device, channels_last=channels_last)
        self.state.network_2 = place(network_2, self.state.device, channels_last=channels_last)
        self.predictors = tuple(Predictor(n, i) for n, i in zip(self.networks, self.inferers, strict=True))
        self._trained = [_compiled(network, compile) for network in self.networks]
        self.state.optimizer_1, self.state.optimizer_2 = optimizer_1, optimizer_2
        self.state.scaler_1, self.state.scaler_2 = (torch.amp.GradScaler("cuda", enabled=scaled) for _ in range(2))
        self._state_dict_user_keys.extend(
            ["network_1", "network_2", "optimizer_1", "optimizer_2", "scaler_1", "scaler_2"]
        )
        self._average: WeightAverage | None = None
        self._view_predictors = self.predictors
        if average > 0:
            self._keep_average(average)
        self.add_event_handler(Events.STARTED, self._begin_as_one)
        FiniteLosses().attach(self)
        self.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch_as_one)
        # Handlers come last: they may look at the networks when they are attached.
        if train_handlers is not None:
            self._register_handlers(train_handlers)

    def _keep_average(self, decay: float) -> None:
        self._average = WeightAverage(self.networks, decay)
        self.state.average_1, self.state.average_2 = self._average.averages
        self._state_dict_user_keys.extend(["average_1", "average_2"])
        pairs = zip(self._average.averages, self.inferers, strict=True)
        self._view_predictors = tuple(Predictor(network, inferer) for network, inferer in pairs)
        self.add_event_handler(Events.EPOCH_STARTED, self._take_averages_out)

    def state_dict(self) -> OrderedDict[str, Any]:
        """State of the engine as tensors and numbers, so that a checkpoint loads with ``weights_only=True``.

        Ignite would put networks and optimisers into it as objects.
        """
        state = super().state_dict()
        return OrderedDict(
            (key, value.state_dict() if hasattr(value, "state_dict") else value) for key, value in state.items()
        )

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; ``max_epochs`` stays that of this run."""
        restored = {**state_dict, "max_epochs": self.state.max_epochs}
        for key in self._state_dict_user_keys:
            value = getattr(self.state, key)
            if hasattr(value, "load_state_dict"):
                value.load_state_dict(restored[key])
                restored[key] = value
        super().load_state_dict(restored)

    def run(self) -> None:  # type: ignore[override]
        """Train up to ``max_epochs``; a resumed run that is already there stays as it is."""
        if self.state.epoch < self.state.max_epochs:
            super().run()

    @property
    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Both networks, in order."""
        return self.state.network_1, self.state.network_2

    @property
    def generators(self) -> dict[str, torch.Generator]:
        """The random generators that training draws from, by name; their states belong into a checkpoint."""
        loader = self.data_loader
        batches = getattr(loader, "batch_sampler", None) or loader
        found = {
            "augmentation": getattr(self.augment, "generator", None),
            "perturbation": getattr(self.perturb, "generator", None),
            "loader": getattr(loader, "generator", None),
            "sampler": getattr(getattr(batches, "sampler", None), "generator", None),
        }
        return {name: generator for name, generator in found.items() if generator is not None}

    def forward(self, index: int, image: Tensor) -> Tensor:
        """Logits (B, C, spatial...) float32 of network ``index`` (1 or 2) for ``image`` (B, M, spatial...)."""
        return self.inferers[index - 1](image, self._trained[index - 1]).float()

    def predict(self, index: int, image: Tensor, *, batch_size: int | None = None) -> Tensor:
        """As ``forward`` during an epoch, in evaluation mode and without gradient, of the present weights or averages.

        See ``Predictor``.

        Args:
            index: of the network, 1 or 2.
            image: (B, M, spatial...).
            batch_size: images at a time, which bounds the memory; by default all. Predictions do not depend on it.
        """
        predictor = self._view_predictors[index - 1]
        predictor.refresh()
        return torch.cat([predictor(part) for part in image.split(batch_size or len(image))])

    def seen(self, image: Tensor) -> Tensor:
        """What the networks are trained on of an augmented image (B, M, spatial...), of the same shape."""
        return perturbed(self.perturb, image)

    def forward_and_losses(
        self, image: Tensor, labels: tuple[Tensor, Tensor]
    ) -> tuple[tuple[Tensor, Tensor], Sequence[Tensor], dict[str, Any]]:
        """Logits of both networks, their scalar losses, and what else the output has.

        Subclasses whose networks see several images of each sample, or mixed ones, do this in their own way; for the
        others ``compute_losses`` is enough.

        Args:
            image: (B, M, spatial...) float, augmented.
            labels: of both networks, (B, 1, spatial...) integers.
        """
        seen = self.seen(image)
        logits = (self.forward(1, seen), self.forward(2, seen)) if len(image) else self._no_logits
        self._no_logits = (logits[0][:0].detach(), logits[1][:0].detach())
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        *losses, extra = self.compute_losses(image, logits, labels)
        return logits, losses, extra

    def compute_losses(
        self, image: Tensor, logits: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The scalar losses of both networks, and what else is worth logging; subclasses implement it.

        Args:
            image: (B, M, spatial...) float, augmented and not perturbed.
            logits: of both networks, (B, C, spatial...) float32.
            labels: current labels of both networks, (B, 1, spatial...) integers.

        Of several processes, each has a share of the batch, and its losses are parts that add up to those of the whole
        batch: divide by the number of samples in ``Share.of(len(image)).total``. A share may be empty.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement compute_losses")

    def _iteration(self, engine: Any, batchdata: Batch) -> Batch:
        if batchdata is None:
            raise ValueError("Must provide batch data for current iteration.")
        state = self.state
        image, label_1, label_2, high_quality = self._prepare(batchdata)
        if self.augment is not None:
            image, (label_1, label_2) = augmented(self.augment, image, [label_1, label_2])
        for network in self.networks:
            network.train()
        logits, losses, extra = self.forward_and_losses(image, (label_1, label_2))
        loss_1, loss_2 = distributed.total(torch.stack([loss.detach() for loss in losses]))
        state.output = {
            Keys.LOSS: (loss_1 + loss_2) / 2,
            "loss_1": loss_1,
            "loss_2": loss_2,
            "logits_1": logits[0].detach(),
            "logits_2": logits[1].detach(),
            "label_1": label_1,
            "label_2": label_2,
            "high_quality": high_quality,
            **extra,
        }
        self.fire_event(IterationEvents.LOSS_COMPLETED)

        self._step(losses)
        if self._average is not None:
            self._average.update(state.iteration)
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return state.output

    def _prepare(self, batchdata: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """What ``prepare_batch`` returns; for an empty share of a short batch, the same without samples."""
        if batchdata:
            prepared = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
            self._nothing = tuple(None if part is None else part[:0] for part in prepared)
            return prepared
        if self._nothing is None or any(is_synchronised(network) for network in self.networks):
            raise InputError(
                f"a batch has fewer samples than the {distributed.world_size()} processes; expected at least one for "
                "each, in all batches of networks with synchronised batch normalisation and in the first one of others:"
                " raise batch_size, drop the last batch, or start fewer processes"
            )
        return self._nothing

    def _step(self, losses: Sequence[Tensor]) -> None:
        """Backward and one optimiser step for each network."""
        state = self.state
        finish = []
        for network, loss, optimizer, scaler in zip(
            self.networks,
            losses,
            (state.optimizer_1, state.optimizer_2),
            (state.scaler_1, state.scaler_2),
            strict=True,
        ):
            optimizer.zero_grad(set_to_none=self.optim_set_to_none)
            if loss.requires_grad:  # not that of an empty share
                scaler.scale(loss).backward()
            finish.append((distributed.sum_gradients(network), optimizer, scaler))
        # The gradients of network 1 travel while those of network 2 are computed.
        for wait_for_gradients, optimizer, scaler in finish:
            wait_for_gradients()
            scaler.step(optimizer)
            scaler.update()

    def _begin_as_one(self, engine: Any) -> None:
        """Every process starts from the weights of the main one."""
        for network in self._all_networks:
            distributed.copy_from_main(network)

    def _end_epoch_as_one(self, engine: Any) -> None:
        """What is predicted after an epoch must not depend on the process."""
        for network in self._all_networks:
            distributed.average_buffers(network)
        distributed.require_same_weights(*self._all_networks)
        if self._average is not None:
            self._average.swap()

    def _take_averages_out(self, engine: Any) -> None:
        """Go on with the weights of the optimisers; before the first epoch they are in the networks."""
        if self._average is not None and self.state.epoch > 1:
            self._average.swap()

    @property
    def _all_networks(self) -> list[nn.Module]:
        return [*self.networks, *([] if self._average is None else self._average.averages)]


def _compiled(network: nn.Module, how: bool | dict[str, Any]) -> Callable[..., Tensor]:
    return network if how is False else torch.compile(network, **({} if how is True else how))
