"""AIDE with the arguments of MONAI's ``SupervisedTrainer``, for a pipeline that is there already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from ignite.engine import Events
from monai.handlers import from_engine
from monai.inferers import Inferer
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.optim import Optimizer

from aide_monai.engines.aide import AIDETrainer
from aide_monai.errors import InputError
from aide_monai.handlers.disagreement import Disagreement
from aide_monai.handlers.label_correction import GlobalLabelCorrection
from aide_monai.inferers import AutocastInferer
from aide_monai.losses import PerSampleLoss
from aide_monai.networks.seeding import reinitialised
from aide_monai.options import AIDEOptions
from aide_monai.stream.training_set import TrainingSet


class AIDESupervisedTrainer(AIDETrainer):
    """Takes the place of MONAI's ``SupervisedTrainer``; ``AIDECacheDataset`` takes that of its ``CacheDataset``.

    ``network`` becomes network 1, so that whatever else holds it (an evaluator, a ``CheckpointSaver``) goes on with a
    trained network; ``network_2`` is the other one. Everything that reads the engine finds what it found before:
    ``state.output`` with "image", "label", "pred" (of ``network``) and "loss", decollated and postprocessed.

    The engine itself attaches ``GlobalLabelCorrection``, which predicts the volumes only when labels are due for
    correction, and ``Disagreement``, before the handlers that it is given. The second optimiser has at every step the
    hyper-parameters that a scheduler gives ``optimizer``.

    Args:
        device: as in ``SupervisedTrainer``, as all that have no other description.
        max_epochs: see above.
        train_data_loader: see above; of an ``AIDECacheDataset``, or another ``TrainingSet`` with a label store.
        network: see above; (B, M, spatial...) to logits (B, C, spatial...), C at least 2.
        optimizer: see above; its twin of the same kind trains the second network.
        loss_function: see above; it is called for each sample by itself, because samples are ranked by it.
        inferer: see above.
        key_train_metric: see above.
        train_handlers: see above.
        amp: see above; or "bf16" or "fp16". True is fp16 on a GPU, and nothing on a CPU, as in MONAI.
        decollate: see above.
        options: of the algorithm; by default ``AIDEOptions.for_epochs(max_epochs)``.
        seed: of the second network and the random views.
        network_2: a network of the same architecture. By default a copy of ``network`` whose layers are initialised
            anew by their ``reset_parameters``; give one when ``network`` is pretrained.
        prediction_batch_size: windows of a volume per forward pass, where labels are corrected.
        kwargs: further arguments of ``TwoNetworkTrainer`` and MONAI's ``Trainer``: epoch_length, postprocessing, ...

    Raises:
        InputError: if the loader reads another data set, ``optimizer`` has other parameters than those of ``network``,
            or the second network would be the same as the first.

    Examples:
        >>> import torch
        >>> from monai.data import DataLoader
        >>> from monai.losses import DiceCELoss
        >>> from monai.networks.nets import UNet
        >>> from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
        >>> from aide_monai import AIDECacheDataset, AIDESupervisedTrainer, find_datalist, write_phantoms
        >>> records = find_datalist(write_phantoms("phantoms", cases=2, shape=(16, 16, 8))).records
        >>> load = Compose([LoadImaged(["image", "label"]), EnsureChannelFirstd(["image", "label"])])
        >>> network = UNet(3, 1, 2, channels=(4, 8), strides=(2,))
        >>> trainer = AIDESupervisedTrainer(
        ...     "cpu", 1, DataLoader(AIDECacheDataset(records, load, progress=False), batch_size=2),
        ...     network, torch.optim.Adam(network.parameters()), DiceCELoss(to_onehot_y=True, softmax=True),
        ... )
        >>> trainer.run()
        >>> trainer.state.iteration
        1
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Iterable,
        network: nn.Module,
        optimizer: Optimizer,
        loss_function: Callable[[Tensor, Tensor], Tensor],
        *,
        inferer: Inferer | None = None,
        key_train_metric: dict[str, Any] | None = None,
        train_handlers: Sequence[Any] | None = None,
        amp: bool | str = False,
        decollate: bool = True,
        options: AIDEOptions | None = None,
        seed: int = 0,
        network_2: nn.Module | None = None,
        prediction_batch_size: int = 4,
        **kwargs: Any,
    ) -> None:
        dataset = getattr(train_data_loader, "dataset", None)
        if not isinstance(dataset, TrainingSet) or dataset.store is None:
            raise InputError(
                f"train_data_loader reads {type(dataset).__name__}, whose labels cannot be corrected; expected a "
                "DataLoader of an AIDECacheDataset, or of another TrainingSet with a label store"
            )
        options = options or AIDEOptions.for_epochs(max_epochs)
        network_2 = reinitialised(network, seed + 1) if network_2 is None else network_2
        optimizer_2 = _twin(optimizer, network, network_2)
        if isinstance(amp, bool):
            amp = "fp16" if amp and torch.device(device).type == "cuda" else "off"
        own = None if inferer is None else AutocastInferer(amp, inferer=inferer)
        correction = GlobalLabelCorrection(
            dataset, options=options, batch_size=prediction_batch_size, every_epoch=False
        )
        super().__init__(
            device,
            max_epochs,
            train_data_loader,
            network,
            optimizer,
            network_2,
            optimizer_2,
            options=options,
            seed=seed,
            loss_function=PerSampleLoss(loss_function),
            amp=amp,
            inferer_1=own,
            inferer_2=own,
            key_metric=key_train_metric,
            decollate=decollate,
            train_handlers=[
                correction,
                Disagreement(output_transform=_both_logits),
                *(train_handlers or ()),
            ],
            **kwargs,
        )
        self.add_event_handler(Events.ITERATION_STARTED, self._follow_schedule)

    # What handlers of a SupervisedTrainer may ask for.
    @property
    def network(self) -> nn.Module:
        """The network that was given, network 1."""
        return self.state.network_1

    @property
    def network_2(self) -> nn.Module:
        """The network beside it."""
        return self.state.network_2

    @property
    def optimizer(self) -> Optimizer:
        """The optimiser that was given, that of ``network``."""
        return self.state.optimizer_1

    def compute_losses(
        self, image: Tensor, logits: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """As ``AIDETrainer``, and what a ``SupervisedTrainer`` has in its output."""
        loss_1, loss_2, extra = super().compute_losses(image, logits, labels)
        return loss_1, loss_2, {**extra, Keys.IMAGE: image, Keys.LABEL: labels[0], Keys.PRED: logits[0].detach()}

    def _follow_schedule(self, engine: Any) -> None:
        """Schedulers know the first optimiser only."""
        groups = zip(self.state.optimizer_1.param_groups, self.state.optimizer_2.param_groups, strict=True)
        for group, twin in groups:
            twin.update({key: value for key, value in group.items() if key != "params"})


def _both_logits(output: Any) -> list[Tensor]:
    """(B, C, spatial...) of both networks from decollated output, or from that of a whole batch."""
    return [torch.stack(list(logits)) for logits in from_engine(["logits_1", "logits_2"])(output)]


def _twin(optimizer: Optimizer, network: nn.Module, network_2: nn.Module) -> Optimizer:
    """An optimiser of the same kind and hyper-parameters for the same parameters of another network."""
    first, second = list(network.parameters()), list(network_2.parameters())
    if [p.shape for p in first] != [p.shape for p in second]:
        raise InputError(
            "network_2 has other parameters than network; expected the same architecture (AIDETrainer takes two "
            "different networks, each with its optimiser)"
        )
    twins = {id(parameter): twin for parameter, twin in zip(first, second, strict=True)}
    if any(id(parameter) not in twins for group in optimizer.param_groups for parameter in group["params"]):
        raise InputError("optimizer has parameters that are not those of network; expected an optimiser of network")
    twin = deepcopy(optimizer, twins)
    twin.state.clear()
    return twin
