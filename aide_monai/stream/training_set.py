"""What every stream offers to those who train on it: slices, patches, or the items of a MONAI pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from aide_monai.labels.store import LabelStore

Item = dict[str, Any]
"""One sample: "image" (M, spatial...) float, "label_1" and "label_2" (1, spatial...) or one "label", "high_quality"."""

Volume = dict[str, Any]
"""One case: "image" (M, spatial...), "label" (1, spatial...), "case" its name, "quality" "high" or "low"."""


@runtime_checkable
class TrainingSet(Protocol):
    """A map-style data set of samples, and the whole cases that they come from.

    ``SliceDataset``, ``PatchDataset`` and ``AIDECacheDataset`` are such streams; one of your own needs no base class.
    Samples train the networks. Cases are what is predicted, ranked and corrected after an epoch: a case is predicted in
    an *arrangement* of the stream's own (slices first, or as the volume lies), and its *units* are the parts that can
    be corrected one by one.

    Attributes:
        unit: what its units are: "slice", "patch", or "case" where there is none but the case.
        store: the current labels; None where labels are never corrected.
        cases: names, by number.
        high_quality: whether the label of a case is trusted, by number.

    Examples:
        >>> import torch
        >>> from aide_monai import SliceDataset
        >>> volume = {"image": torch.zeros(1, 8, 8, 3), "label": torch.zeros(1, 8, 8, 3, dtype=torch.uint8)}
        >>> stream: TrainingSet = SliceDataset([volume], axis=2)
        >>> stream.unit, len(stream), stream.arranged(0, volume["label"][0]).shape
        ('slice', 3, torch.Size([3, 8, 8]))
    """

    unit: str
    store: LabelStore | None
    cases: list[str]
    high_quality: list[bool]

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, index: int) -> Any:
        """A sample, see ``Item``, or a list of them."""

    @property
    def numbers(self) -> list[int]:
        """For every sample, the number of its case."""

    def labels(self, number: int) -> dict[str, Tensor]:
        """Current labels of case ``number`` by key, arranged: "label_1" and "label_2", or "label" without a store."""

    def predict(self, number: int, network: Callable[[Tensor], Tensor], batch_size: int) -> tuple[Tensor, int]:
        """Class indices uint8 of case ``number``, arranged, on the CPU, and the number of classes C.

        Args:
            number: of the case.
            network: (B, M, spatial...) to logits (B, C, spatial...).
            batch_size: samples per call.
        """

    def arranged(self, number: int, volume: Tensor) -> Tensor:
        """A volume (spatial...) of case ``number`` in the arrangement of ``predict``."""

    def confusion(self, number: int, prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
        """Confusion counts of each unit (units, C, C), prediction first, from arranged class indices."""

    def correction(self, number: int, prediction: Tensor, position: int | None) -> tuple[Tensor, Any]:
        """What ``LabelStore.replace`` takes as label and index.

        Args:
            number: of the case.
            prediction: arranged.
            position: of the unit; None for the whole case.
        """
