"""Label volumes as clean class indices."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Hashable, Mapping
from numbers import Integral
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from aide_monai.errors import InputError
from aide_monai.ignored import IGNORED, MOST_PARTIAL, PARTIAL, partial_background
from aide_monai.transforms.intensity import file_name, with_metadata_of
from aide_monai.utils.stored_values import VALUES, stored_values
from aide_monai.utils.tensors import memory_order

_INDICES = f"0..{PARTIAL - 1}, or {IGNORED} for voxels without a verdict"

logger = logging.getLogger(__name__)


def _is_index(value: int) -> bool:
    return 0 <= value < PARTIAL or value == IGNORED


class AsClassIndicesd(MapTransform):
    """Turns stored label values into uint8 class indices and refuses anything else by name.

    Where the data have "annotated", the stored values of the structures that were looked for, background becomes the
    partial background of ``aide_monai.ignored``, and the key is used up.

    Values such as 2.9999, which some files give back for integers, are rounded. The metadata of a label get
    "stored_values", the stored value of each class index, for the way back.

    Args:
        keys: labels to convert, (1, X, Y, Z).
        classes: stored value to class index, for example ``{1: 1, 2: 1}`` to merge two structures; 0 stays the
            background, and ``IGNORED`` (255) is the index of voxels without a verdict. None keeps the stored values.
        image_key: when given, the label must have this image's spatial shape.
        allow_missing_keys: skip missing keys.

    Raises:
        InputError: if ``classes`` maps to an index outside 0..191 and 255; if a label has more than one channel or
            another shape than its image, is not a number, is not an integer within 0.001, or has a value outside
            ``classes`` (0..191 and 255 without them).
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        classes: Mapping[Any, int] | None = None,
        image_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        for stored, index in (classes or {}).items():
            if (
                isinstance(index, bool)
                or not isinstance(index, Integral)
                or not re.fullmatch("-?[0-9]{1,9}", str(stored))
            ):
                raise InputError(f"classes has {{{stored!r}: {index!r}}}; expected whole numbers, such as {{1: 1}}")
        # JSON has string keys only
        self.classes = None if classes is None else {0: 0, **{int(k): int(v) for k, v in classes.items()}}
        self.image_key = image_key
        wrong = [index for index in (self.classes or {}).values() if not _is_index(index)]
        if wrong:
            raise InputError(f"classes maps to class index {wrong[0]}; expected {_INDICES}")
        writable = all(0 <= value <= 65535 for value in self.classes or ())
        values = stored_values(self.classes) if writable else None
        self._values = None if values is None else values.tolist()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert the labels of ``data``."""
        result = dict(data)
        for key in self.key_iterator(result):
            label = result[key]
            self._check_shape(label, key, result)
            value = torch.as_tensor(label).as_subclass(torch.Tensor)
            indices = self._indices(value, file_name(label, key))
            result[key] = with_metadata_of(label, self._partial(indices, result, file_name(label, key)))
            if self._values is not None and isinstance(result[key], MetaTensor):
                result[key].meta[VALUES] = self._values
        result.pop("annotated", None)
        return result

    def _partial(self, index: torch.Tensor, data: Mapping[Hashable, Any], name: str) -> torch.Tensor:
        """Class indices with partial background, where "annotated" leaves classes out."""
        if "annotated" not in data:
            return index
        if self.classes is None:
            raise InputError(f"{name}: has annotated structures; expected classes, which tell what others there are")
        classes = self.classes
        structures = {i for i in classes.values() if 0 < i < PARTIAL}
        drawn, others = ({i for v, i in classes.items() if (v in data["annotated"]) == said} for said in (True, False))
        found = sorted({int(i) for i in index.unique()} & structures - drawn)
        if found:
            stored = [value for value, i in classes.items() if i == found[0]]
            raise InputError(f"{name}: found label value {stored[0]}, whose structure is not among those annotated")
        if len(structures) > MOST_PARTIAL:
            raise InputError(f"{name}: {len(structures)} classes; expected at most {MOST_PARTIAL} with annotated ones")
        value = partial_background(structures - others, max(structures) + 1)  # of merged values all must be there
        return torch.where(index == 0, value, index).to(torch.uint8)

    def _check_shape(self, label: Any, key: Hashable, data: Mapping[Hashable, Any]) -> None:
        if label.shape[0] != 1:
            raise InputError(f"{file_name(label, key)}: found {label.shape[0]} channels; expected one label channel")
        if self.image_key is not None and label.shape[1:] != data[self.image_key].shape[1:]:
            raise InputError(
                f"{file_name(label, key)}: label has shape {tuple(label.shape[1:])}, its image "
                f"{tuple(data[self.image_key].shape[1:])}; expected one grid: resample the label onto the image"
            )

    def _indices(self, value: torch.Tensor, name: str) -> torch.Tensor:
        if value.dtype == torch.uint8 and self.classes is not None:
            return self._indices_of_bytes(value, self.classes, name)
        rounded = value.round() if value.is_floating_point() else value
        if value.is_floating_point() and not bool((torch.isfinite(value) & ((value - rounded).abs() <= 1e-3)).all()):
            wrong = value[~((value - rounded).abs() <= 1e-3)][0]
            raise InputError(f"{name}: label value {float(wrong):g} is not an integer; expected class indices")
        found = [int(v) for v in rounded.unique().tolist()]
        self._require_known(found, name)
        if self.classes is None:
            if set(found) == {0, IGNORED}:
                logger.warning("%s: found 0 and 255 alone, and 255 is no class but voxels without a verdict", name)
            return rounded.to(torch.uint8, copy=True)
        # negative values count from the end of the table
        table = torch.zeros(2 * max(map(abs, self.classes)) + 1, dtype=torch.uint8)
        for stored, index in self.classes.items():
            table[stored] = index
        return table[rounded.long()]

    def _indices_of_bytes(self, value: torch.Tensor, classes: Mapping[int, int], name: str) -> torch.Tensor:
        """The same for uint8: translating bytes is many times faster than indexing, and most labels are bytes."""
        known = {stored: index for stored, index in classes.items() if 0 <= stored <= 255}
        axes = memory_order(value)
        stored_bytes = value.permute(axes).numpy().tobytes()
        self._require_known(sorted(set(stored_bytes.translate(None, delete=bytes(known)))), name)
        indices = bytearray(stored_bytes.translate(bytes(known.get(stored, 0) for stored in range(256))))
        in_memory = torch.frombuffer(indices, dtype=torch.uint8).view([value.shape[axis] for axis in axes])
        return in_memory.permute([axes.index(axis) for axis in range(value.ndim)])

    def _require_known(self, found: list[int], name: str) -> None:
        unknown = [v for v in found if not (_is_index(v) if self.classes is None else v in self.classes)]
        if unknown:
            expected = _INDICES
            if self.classes is not None:
                known = ", ".join(map(str, sorted(self.classes)))
                example = json.dumps({str(unknown[0]): 1})
                expected = (
                    f"{known} as in classes (what the labels hold, and its class; of a bundle --classes '{example}')"
                )
            raise InputError(f"{name}: found label value {unknown[0]}; expected {expected}")


class AsStoredValuesd(MapTransform):
    """Turns class indices of predictions back into the values in which the data set stores its labels.

    Args:
        keys: predictions (1, X, Y, Z), class indices; they become uint8, or uint16 where a value needs it.
        classes: as in ``AsClassIndicesd``; None keeps the indices.

    Raises:
        InputError: if ``classes`` has a stored value outside 0..65535, which label files do not hold.
    """

    def __init__(self, keys: KeysCollection, *, classes: Mapping[Any, int] | None = None) -> None:
        super().__init__(keys)
        self.values = stored_values(classes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert the predictions of ``data``."""
        result = dict(data)
        for key in self.key_iterator(result):
            index = torch.as_tensor(result[key]).as_subclass(torch.Tensor).cpu()
            value = index.to(torch.uint8) if self.values is None else self.values[index.long()]
            result[key] = with_metadata_of(result[key], value)
        return result
