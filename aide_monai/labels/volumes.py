"""What a label store takes from the volumes of a data set: names, quality, labels one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from aide_monai.errors import InputError
from aide_monai.utils.mapped_tensor import current


class OnlyChannel(Mapping[str, Tensor]):
    """Labels (1, X, Y, Z) as (X, Y, Z), taken from their files one at a time."""

    def __init__(self, labels: Mapping[str, Any]) -> None:
        self.labels = labels

    def __getitem__(self, case: str) -> Tensor:
        return current(self.labels[case])[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)


def case_name(volume: Mapping[str, Any], number: int) -> str:
    """Identifier of a volume: its "case", or its number in the data set."""
    return str(volume.get("case", number))


def is_high_quality(volume: Mapping[str, Any]) -> bool:
    """Whether a volume's label is trusted; a label without "quality" is."""
    quality = volume.get("quality", "high")
    if quality not in ("high", "low"):
        raise InputError(f'case {volume.get("case")!r} has quality {quality!r}; expected "high" or "low"')
    return bool(quality == "high")
