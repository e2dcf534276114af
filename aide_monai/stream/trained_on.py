"""What the volumes of a training were like, kept beside its weights: later volumes are brought to it, or it is told."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform, Orientation

from aide_monai.errors import InputError
from aide_monai.stream.volume_cache import VolumeCache
from aide_monai.utils.files import JsonObject, read_object
from aide_monai.utils.tensors import plain

KEY = "training_data"
"""Under this name the record lies among the settings beside the weights."""

SPACING_FACTOR = 2.0
INTENSITY_FACTOR = 10.0
_BELOW_ZERO = 0.05  # of the range; less is the ringing of an interpolation
_PERCENTILES = (0.5, 99.5)
_SAMPLE = 64  # voxels along an axis are enough for two percentiles
_THICK = 1.5  # slices that are so many times thicker than a pixel is wide have a clear direction
_OBLIQUE = 0.9  # cosine below which the direction of slices is nearest to an axis of the body by chance

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedOn:
    """What a network has seen, in the order of axes in which it saw it.

    Attributes:
        orientations: axis codes such as "RAS" to the number of volumes, the most common first; volumes whose files do
            not say their orientation do not count.
        through_plane: axis (0, 1 or 2) across the slices of most volumes; None where voxels are about cubes.
        spacing: smallest and largest spacing along each axis in mm.
        intensity: of each channel the smallest and largest 0.5th percentile, and those of the 99.5th.
        modality: DICOM's names of the modalities, such as "CT", sorted; empty when it is not known.

    Examples:
        >>> TrainedOn({"LPS": 9, "RAS": 1}, through_plane=2).target(np.diag([1.0, 1, 5, 1]), (64, 64, 20))
        'LPS'
    """

    orientations: Mapping[str, int] = field(default_factory=dict)
    through_plane: int | None = None
    spacing: Sequence[Sequence[float]] = ()
    intensity: Sequence[Sequence[float]] = ()
    modality: Sequence[str] = ()

    @classmethod
    def of(cls, volumes: Sequence[Mapping[str, Any]], *, modality: Mapping[int, str] | None = None) -> TrainedOn:
        """The record of preprocessed volumes.

        Args:
            volumes: as ``volume_transforms`` makes them, also in a ``VolumeCache``.
            modality: channel to its name in the datalist, which may say "CT" or "MR" where the files do not.
        """
        images = volumes.headers() if isinstance(volumes, VolumeCache) else [volume["image"] for volume in volumes]
        if not images:
            return cls()
        affines = [np.asarray(image.affine, dtype=float) for image in images]
        codes = Counter(
            _codes(affine) for image, affine in zip(images, affines, strict=True) if image.meta.get("oriented", True)
        )
        planes = Counter(through_plane(affine, image.shape[1:]) for image, affine in zip(images, affines, strict=True))
        steps = np.array([np.linalg.norm(affine[:3, :3], axis=0) for affine in affines])
        ranges = np.array([image.meta["intensity_range"] for image in images if "intensity_range" in image.meta])
        named = {image.meta.get("modality", "") for image in images} - {""}
        return cls(
            orientations=dict(sorted(codes.items(), key=lambda item: (-item[1], item[0]))),
            through_plane=planes.most_common(1)[0][0],
            spacing=_rounded(np.stack([steps.min(axis=0), steps.max(axis=0)], axis=1)),
            intensity=[
                _rounded([low.min(), low.max(), high.min(), high.max()])
                for low, high in (ranges[:, channel].T for channel in range(ranges.shape[1] if ranges.size else 0))
            ],
            modality=sorted(named) or _named(modality or {}),
        )

    @classmethod
    def beside(cls, weights: str | Path) -> TrainedOn | None:
        """The record beside a file of weights; None for weights of a version that kept none.

        Raises:
            InputError: if there is a record that cannot be read.
        """
        file = settings_file(weights)
        if not file.exists():
            return None
        prefix = f"{KEY}#"
        found = {
            key.removeprefix(prefix): value for key, value in read_settings(file).items() if key.startswith(prefix)
        }
        try:
            return cls(**found) if found else None
        except TypeError as error:
            raise InputError(f"{file}: found {error}; expected the settings of a training: restore the file") from error

    def as_settings(self) -> JsonObject:
        """As a part of a bundle's settings."""
        return {KEY: asdict(self)}

    def target(self, affine: Any, shape: Sequence[int]) -> str | None:
        """The axis codes to which a volume is turned; None when nothing is known.

        It depends on where the voxels lie in the patient alone, so that a scan comes to the same voxels in whatever
        order of axes a file stores it. That is the most common orientation of the training or, where volumes have
        slices that are clearly thicker than pixels, the most common one with slices in the same direction. An oblique
        stack, such as a short axis of the heart, keeps its slices where no training volume lay as it does.

        Args:
            affine: (4, 4) voxel index to mm, RAS.
            shape: (X, Y, Z).
        """
        codes = list(self.orientations)
        across = through_plane(affine, shape)
        if not codes or across is None or self.through_plane is None:
            return next(iter(codes), None)
        own = _codes(affine)[across]
        alike = [code for code in codes if _LINE[code[self.through_plane]] == _LINE[own]]
        if alike:
            return alike[0]
        column = np.asarray(affine, dtype=float)[:3, across]
        if np.abs(column).max() >= _OBLIQUE * np.linalg.norm(column):
            return codes[0]
        letters = list(codes[0])
        place = [_LINE[letter] for letter in letters].index(_LINE[own])
        letters[place], letters[self.through_plane] = letters[self.through_plane], "RAS"[_LINE[own]]
        return "".join(letters)

    def differences(self, image: Any) -> list[str]:
        """How an image (M, X, Y, Z) is unlike the training's in what turning cannot mend; empty when it is alike."""
        meta, found = image.meta, []
        if not meta.get("oriented", True):
            found.append("the file does not say its orientation, so it is taken as it is stored")
        elif not self.orientations:
            found.append("the training volumes did not say their orientation, so it is taken as it is stored")
        modality = meta.get("modality", "")
        if modality and self.modality and modality not in self.modality:
            found.append(f"modality {modality}; expected {' or '.join(self.modality)}")
        spacing = np.linalg.norm(np.asarray(image.affine, dtype=float)[:3, :3], axis=0)
        limits = np.array(self.spacing)
        wide = np.array(image.shape[1:]) > 1  # a single slice has no distance to the next
        if limits.size and np.any(
            wide & ((spacing * SPACING_FACTOR < limits[:, 0]) | (spacing > SPACING_FACTOR * limits[:, 1]))
        ):
            low, high = _text(limits[:, 0]), _text(limits[:, 1])
            expected = low if low == high else f"{low} to {high}"
            found.append(f"spacing {_text(spacing)} mm; expected about {expected} mm")
        for channel, ((low, high), known) in enumerate(
            zip(meta.get("intensity_range", ()), self.intensity, strict=False)
        ):
            if other_units(float(low), float(high), known):
                name = f" of channel {channel}" if len(self.intensity) > 1 else ""
                expected = f"about {known[0]:g} to {known[3]:g}"
                found.append(
                    f"intensities{name} from {low:g} to {high:g}; expected {expected}: are they in other units?"
                )
        return found


class IntensityRanged(MapTransform):
    """Notes the robust range of each channel, two percentiles of the file's own values, in an image's metadata.

    Args:
        keys: images (M, X, Y, Z), MetaTensors; the metadata get "intensity_range", (low, high) for each channel.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Note the ranges of the images of ``data``, which else stay as they are."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = plain(result[key])
            x, y, z = (-(-size // _SAMPLE) for size in image.shape[1:])
            sample = image[:, ::x, ::y, ::z].float().flatten(1).numpy()
            sample = np.where(np.isfinite(sample), sample, 0)  # what is not is refused by the normalisation
            low, high = np.percentile(sample, _PERCENTILES, axis=1)
            result[key].meta["intensity_range"] = np.stack([low, high], axis=1).tolist()
        return result


class TurnLikeTrainingd(MapTransform, InvertibleTransform):
    """Turns volumes to the orientation that the network was trained with, see ``TrainedOn.target``; exact, both ways.

    The record is read with every volume, for weights may be trained anew while a server uses them.

    Args:
        keys: volumes (M, X, Y, Z), MetaTensors.
        weights: file of the weights, beside which the record lies.
        image_key: what decides; the others lie on its grid.
    """

    def __init__(self, keys: KeysCollection, *, weights: str | Path, image_key: str = "image") -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.weights = weights
        self.image_key = image_key
        self._turns: dict[str, Orientation] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Turn the volumes of ``data``."""
        result = dict(data)
        image, known = result[self.image_key], TrainedOn.beside(self.weights)
        if known is None or not image.meta.get("oriented", True):
            return result
        target = known.target(image.affine, image.shape[1:])
        if target is not None:
            turn = self._turns.setdefault(target, Orientation(axcodes=target, labels=None))
            result |= {key: turn(result[key]) for key in self.key_iterator(result)}
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Turn volumes back that carry the record of having been turned."""
        result = dict(data)
        for key in self.key_iterator(result):
            done = result[key].applied_operations
            turn = next((turn for turn in self._turns.values() if done and done[-1]["id"] == id(turn)), None)
            if turn is not None:
                result[key] = turn.inverse(result[key])
        return result


class TellUnlikeTrainingd(MapTransform):
    """Tells in one line per volume how it is unlike the volumes that the network was trained on.

    Args:
        keys: images (M, X, Y, Z) with the spacing that the network sees; their metadata get "unlike_training", "" for
            an image that is alike.
        weights: file of the weights, beside which the record lies.
    """

    def __init__(self, keys: KeysCollection, *, weights: str | Path) -> None:
        super().__init__(keys)
        self.weights = weights
        self._told_once: set[str] = set()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Look at the images of ``data``, which else stay as they are."""
        result = dict(data)
        known = TrainedOn.beside(self.weights)
        for key in self.key_iterator(result):
            file = result[key].meta.get("filename_or_obj", key)
            if known is None:
                text = (
                    f"{self.weights}: trained by a version that kept nothing of its volumes, so orientation, spacing, "
                    "intensities and modality of these are not compared: look at the masks, or train again"
                )
            else:
                found = known.differences(result[key])
                text = f"{file} is unlike the training volumes, look at its mask: {'; '.join(found)}" if found else ""
            result[key].meta["unlike_training"] = text
            if text and text not in self._told_once:
                logger.warning("%s", text)
            if known is None:  # that concerns all volumes
                self._told_once.add(text)
        return result


def require_like_training(dataset: Sequence[Mapping[str, Any]]) -> None:
    """Refuse volumes that are unlike those of the training, before any is segmented.

    Args:
        dataset: items with "image" that ``TellUnlikeTrainingd`` has seen; each is loaded once.

    Raises:
        InputError: one report of all that are unlike.
    """
    enabled, logger.disabled = logger.disabled, True
    try:
        texts = [dataset[number]["image"].meta.get("unlike_training", "") for number in range(len(dataset))]
    finally:
        logger.disabled = enabled
    if found := [text for text in dict.fromkeys(texts) if text]:
        raise InputError("volumes that are unlike those of the training (without --strict it is told)", problems=found)


def through_plane(affine: Any, shape: Sequence[int]) -> int | None:
    """The axis across clearly thicker slices, or across the only slice; None where voxels are about cubes.

    Examples:
        >>> through_plane(np.diag([1.0, 5, 1, 1]), (64, 20, 64))
        1
    """
    single = [axis for axis, size in enumerate(shape) if int(size) == 1]
    if len(single) == 1:
        return single[0]
    spacing = np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0)
    *_, second, thickest = np.sort(spacing)
    return int(spacing.argmax()) if thickest >= _THICK * second else None


def other_units(low: float, high: float, known: Sequence[float]) -> bool:
    """Whether a range of intensities is in other units than the known ones, such as 0..255 and Hounsfield units.

    That is: only one of both goes below zero, or it is more than ten times wider or narrower.

    Args:
        low, high: the range.
        known: smallest and largest low end of the known ranges, smallest and largest high end.

    Examples:
        >>> other_units(0, 255, (-1010, -990, 300, 900)), other_units(-1024, 700, (-1010, -990, 300, 900))
        (True, False)
    """
    lowest, highest_low, smallest_high, highest = known
    narrow, wide = max(smallest_high - highest_low, 0.0), highest - lowest
    negative = low < -_BELOW_ZERO * (high - low)
    if negative != (lowest < -_BELOW_ZERO * wide) and negative != (highest_low < -_BELOW_ZERO * wide):
        return True
    return bool((high - low) * INTENSITY_FACTOR < narrow or high - low > INTENSITY_FACTOR * wide)


def settings_file(weights: str | Path) -> Path:
    """Where the settings of a file of weights are: ``model.json`` beside ``model.pt``."""
    return Path(weights).with_suffix(".json")


def read_settings(file: Path) -> JsonObject:
    """Settings by config id.

    Raises:
        InputError: if the file holds none.
    """
    what = "expected the settings that a training leaves beside its weights"
    return read_object(file, advice=f"{what}: restore it, or remove it to use the weights as they are")


_LINE = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}


def _codes(affine: Any) -> str:
    return "".join(nibabel.aff2axcodes(np.asarray(affine, dtype=float)))


def _text(spacing: Any) -> str:
    return " x ".join(f"{step:.3g}" for step in spacing)


def _named(modality: Mapping[int, str]) -> list[str]:
    words = {word.strip("(),").upper() for name in modality.values() for word in str(name).split()}
    return sorted(({"CT"} & words) | ({"MR"} if words & {"MR", "MRI"} else set()))


def _rounded(values: Any) -> list[Any]:
    return [
        [float(f"{value:.6g}") for value in row] if np.ndim(row) else float(f"{row:.6g}") for row in np.asarray(values)
    ]
