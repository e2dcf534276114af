"""A training that continues an earlier run: ``aide train --from RUN``, with more cases or better labels."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from aide_monai.errors import InputError
from aide_monai.handlers import load_weights
from aide_monai.handlers.settings import require_settings, trained_classes
from aide_monai.labels.manifest import has_labels, labels_folder
from aide_monai.stream.trained_on import TrainedOn
from aide_monai.utils import distributed
from aide_monai.utils.files import read_object, write_text
from aide_monai.workflows.comparison.config import GIVEN_LABELS

_RECORD = "continues.json"


def started_from(
    start: str | Path | None,
    run: str | Path,
    *,
    settings: Mapping[str, Any],
    channels: int | None = None,
    resume: bool = False,
) -> str | None:
    """The run that a training begins from; it is noted, so that a resume knows it without being told.

    Args:
        start: the earlier run, of ``aide train`` or ``aide run``; None: none, or, with ``resume``, the one that was
            noted.
        run: folder of the training.
        settings: a bundle's ``model_settings``.
        channels: number of channels of an image; None does not compare it.
        resume: whether the training continues itself.

    Returns:
        The absolute path of the earlier run, or None.

    Raises:
        InputError: if it is the training's own folder, is not the one that was noted, has no labels or weights, or had
            other classes, channels or settings.
    """
    return distributed.on_main(lambda: _started_from(start, Path(run), settings, channels, resume))


def _started_from(
    start: str | Path | None, run: Path, settings: Mapping[str, Any], channels: int | None, resume: bool
) -> str | None:
    record, begun = run / _RECORD, has_labels(run / "labels")
    noted = None
    if not begun and not resume:
        record.unlink(missing_ok=True)  # of a training that never began
    elif record.is_file():
        noted = str(read_object(record, advice="restore it, or begin in a new run folder")["from"])
    if start is None:
        return noted
    earlier = os.path.abspath(start)
    if os.path.realpath(earlier) == os.path.realpath(run):
        raise InputError(f"--from {start}: the run's own folder; choose a new run folder (--run-dir), or --resume")
    if begun and (noted is None or os.path.realpath(earlier) != os.path.realpath(noted)):
        found = "began from no other run" if noted is None else f"began from {noted}"
        raise InputError(f"--from {start}: this run {found}; resume it without --from")
    labels_folder(earlier)
    _require_like(weights_of(earlier), start, settings, channels)
    if not begun:
        write_text(record, json.dumps({"from": earlier}, indent=1) + "\n")
    return earlier


def _require_like(weights: Path, start: str | Path, settings: Mapping[str, Any], channels: int | None) -> None:
    """Refuse weights that were trained for another task."""
    classes = trained_classes(weights)
    asked = {int(index): str(name) for index, name in settings.get("labels", {}).items()}
    if classes and classes != asked:
        raise InputError(
            f"--from {start}: found the classes {_listed(asked)}; expected {_listed(classes)}, which it was trained "
            "with: train anew, without --from"
        )
    seen = TrainedOn.beside(weights)
    if seen is not None and seen.intensity and channels not in (None, len(seen.intensity)):
        raise InputError(
            f"--from {start}: found images of {channels} channels; expected {len(seen.intensity)}, which it was "
            "trained with: train anew, without --from"
        )
    require_settings(weights, settings)


def _listed(classes: Mapping[int, str]) -> str:
    return ", ".join(f"{index} {name}" for index, name in sorted(classes.items()))


def weights_of(run: str | Path) -> Path:
    """The weights of a finished run of ``aide train`` or ``aide run``.

    Raises:
        InputError: if there are none.
    """
    run = Path(os.path.abspath(run))
    places = (run / "models", run / "bundle" / "models", run.parents[1] / "models")  # the last: of BUNDLE/runs/001
    found = next((folder / "model.pt" for folder in places if (folder / "model.pt").is_file()), None)
    if found is None:
        raise InputError(f"{run}: no weights; expected models/model.pt, as a finished training leaves it")
    return found


def start_weights(network: nn.Module, start: str | None) -> nn.Module:
    """Give the networks of a training the weights of the run that it begins from, see ``started_from``.

    Args:
        network: both networks.
        start: folder of that run; None leaves the networks as they are.

    Returns:
        ``network``.

    Raises:
        InputError: if that run had other networks.
    """
    if start is not None:
        distributed.on_main(lambda: load_weights(network, weights_of(start)) and None)
        distributed.copy_from_main(network)
    return network


def labels_before(start: str | Path) -> dict[str, Path]:
    """The labels that the cases without one of an earlier run began with, by case, as files."""
    run = labels_folder(start).parent
    folders = (run / "standardized", run.parent / GIVEN_LABELS)
    files = [file for folder in folders for file in (folder / "pseudo_labels").glob("*.nii.gz")]
    return {file.name.removesuffix(".nii.gz"): file for file in files}
