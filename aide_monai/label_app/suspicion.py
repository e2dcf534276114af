"""How much an image's label, or the absence of one, is to be doubted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, SaveImaged
from torch import Tensor

from aide_monai.algorithm import unit_dice
from aide_monai.errors import InputError
from aide_monai.handlers import load_weights
from aide_monai.io.readers import LocationReader
from aide_monai.label_app.studies import findings_of
from aide_monai.transforms import AsClassIndicesd, AsStoredValuesd

HANDED_OUT_SECONDS = 600


@dataclass(frozen=True)
class ImageScore:
    """What both networks say about an image, all in 0..1.

    Attributes:
        disagreement: one minus the Dice of both networks' masks; 1 when neither finds anything, which says nothing.
        label_quality: Dice of the label and the mean network's mask; None without a label.
    """

    disagreement: float
    label_quality: float | None = None

    @property
    def suspicion(self) -> float:
        """Doubt in the label where there is one, else in what the networks would label."""
        return self.disagreement if self.label_quality is None else 1 - self.label_quality


class BundleScorer:
    """Scores images with the model that a bundle serves, by the transforms and inferer of its ``inference.json``.

    Args:
        bundle: folder of the bundle, with ``models/model.pt``.
        device: where the networks run.

    Raises:
        InputError: if the weights are missing, or not those of the bundle's network.
    """

    def __init__(self, bundle: str | Path, *, device: str = "cpu") -> None:
        configs = Path(bundle) / "configs"
        inference, train = ConfigParser(), ConfigParser()
        inference.read_config(configs / "inference.json")
        train.read_config(configs / "train.json")
        for key, value in {"bundle_root": str(bundle), "device": device}.items():
            inference[key] = value
        self.device = torch.device(device)
        self.network = inference.get_parsed_content("network_def").to(device).eval()
        load_weights(self.network, Path(bundle) / "models" / "model.pt")
        self.num_classes = len(train["labels"])
        self._preprocess = inference.get_parsed_content("preprocessing")
        self._inferer = inference.get_parsed_content("inferer")
        steps = inference.get_parsed_content("postprocessing").transforms
        self._postprocess = Compose([step for step in steps if not isinstance(step, (SaveImaged, AsStoredValuesd))])
        self._load_label = Compose(
            [
                LoadImaged("label", reader=LocationReader, image_only=True, ensure_channel_first=True),
                AsClassIndicesd("label", classes=train.get_parsed_content("classes")),
            ]
        )

    def __call__(self, image: str | Path, label: str | Path | None = None) -> ImageScore:
        """Score one image, and its label if it has one.

        Raises:
            InputError: if a file cannot be read, or image and label differ in shape.
        """
        try:
            data = self._preprocess({"image": str(image)})
            first, second, mean = (self._mask(data, name) for name in ("network_1", "network_2", ""))
            quality = None
            if label is not None:
                drawn = self._load_label({"label": str(label)})["label"].as_tensor()[0]
                if drawn.shape != mean.shape:
                    raise InputError(
                        f"{label}: shape {tuple(drawn.shape)}; expected that of its image, {tuple(mean.shape)}"
                    )
                quality = self._dice(mean, drawn)
        except RuntimeError as error:  # MONAI's wrapper around an error in a transform
            if isinstance(error.__cause__, InputError):
                raise error.__cause__ from error
            raise
        disagreement = 1 - self._dice(first, second) if bool(first.any() | second.any()) else 1.0
        return ImageScore(disagreement, quality)

    @torch.no_grad()
    def _mask(self, data: Mapping[Any, Any], network: str) -> Tensor:
        """Class indices (X, Y, Z) uint8 on the image's own grid."""
        image = data["image"]
        logits = self._inferer(image[None].to(self.device), self.network.get_submodule(network))
        item = {**data, "pred": MetaTensor(logits[0].cpu().as_subclass(Tensor), meta=image.meta)}
        return self._postprocess(item)["pred"].as_tensor()[0]

    def _dice(self, first: Tensor, second: Tensor) -> float:
        return float(unit_dice(first, second, num_classes=self.num_classes, unit="case"))


def most_suspicious(
    infos: Mapping[str, Mapping[str, Any]], *, strategy: str = "suspicious", now: float | None = None
) -> str | None:
    """The image to label next: the one that nobody has scored yet, or else the one with the highest suspicion.

    Images that were handed out to an annotator within the last ten minutes come last, so that two annotators do not
    work on one image.

    Args:
        infos: image to its info in the datastore, "aide" with "suspicion" in 0..1 if it was scored.
        strategy: name under which MONAI Label notes when an image was handed out.
        now: current time in seconds, for tests.

    Returns:
        The image, the first by name among equals; None if there is none.
    """
    now = time.time() if now is None else now

    def order(image: str) -> tuple[bool, float, str]:
        suspicion = findings_of(infos[image]).get("suspicion", 1.0)
        return now - _handed_out(infos[image], strategy) < HANDED_OUT_SECONDS, -suspicion, image

    return min(infos, key=order, default=None)


def changed(images: Sequence[str], infos: Mapping[str, Mapping[str, Any]], state: Mapping[str, str]) -> list[str]:
    """The images whose score is not of the present model and label.

    Args:
        images: the images.
        infos: image to its info in the datastore.
        state: image to the text that identifies model and label.
    """
    return [image for image in images if findings_of(infos[image]).get("scored") != state[image]]


def _handed_out(info: Mapping[str, Any], strategy: str) -> float:
    """When an image was handed out, in seconds; 0 where a client has put something else in its place."""
    strategies = info.get("strategy")
    entry = strategies.get(strategy) if isinstance(strategies, dict) else None
    seconds = entry.get("ts") if isinstance(entry, dict) else None
    return seconds if isinstance(seconds, (int, float)) else 0
