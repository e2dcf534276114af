"""The folder that a MONAI Label server is started with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from aide_monai.errors import InputError
from aide_monai.utils.files import new_folder, write_text
from aide_monai.workflows.bundle import model_settings, read_config
from aide_monai.workflows.bundle_library import LEFT_BEHIND

if TYPE_CHECKING:
    from torch import nn

_MAIN = '"""Started by MONAI Label."""\n\nfrom aide_monai.label_app.app import AIDELabelApp  # noqa: F401\n'
_LEFT_BEHIND = (*LEFT_BEHIND, "*.pt", "*.ts", "model.json")
_REFUSED = ("deepedit", "deepgrow", "detection", "classification")  # MONAI Label takes such names for other tasks


def create_app(folder: str | Path, bundle: str | Path, *, weights: str | Path | None = None) -> bool:
    """Write an app that serves a copy of a bundle; training in MONAI Label rewrites the copy's weights.

    Args:
        folder: new folder; a bundle is added to an app that was created before.
        bundle: folder of the bundle.
        weights: file of trained weights, ``models/model.pt`` of a run folder; by default the bundle's own, or, when it
            has none, those of untrained networks.

    Returns:
        Whether the weights are trained.

    Raises:
        InputError: if the bundle is none, its name is one that MONAI Label takes for another task, the app has a bundle
            of that name, ``folder`` holds something else, or the weights are not those of the bundle's network or were
            trained with other settings than its configs have. Then nothing is left behind.
    """
    folder, bundle = Path(folder), Path(bundle)
    config = bundle / "configs" / "train.json"
    name = bundle.resolve().name
    if not config.is_file():
        raise InputError(f"{bundle}: no such bundle; expected a folder with configs/train.json")
    if any(part in name for part in _REFUSED):
        raise InputError(f'{bundle}: found "{name}"; expected a name without {", ".join(_REFUSED)}: rename the bundle')
    main = folder / "main.py"
    if folder.exists() and any(folder.iterdir()) and not (main.is_file() and main.read_text() == _MAIN):
        raise InputError(f"{folder} is not empty; expected a new folder, or an app that aide label-app has made")
    target = folder / "model" / name
    if target.exists():
        raise InputError(f"{target} exists already; remove it, or choose another folder for the app")

    own = bundle / "models" / "model.pt"
    if weights is not None and not Path(weights).is_file():
        raise InputError(f"{weights}: no such file; expected the weights of a training, models/model.pt of a run")
    from aide_monai.handlers import load_weights  # only an app that can be made waits for PyTorch
    from aide_monai.handlers.checkpoint import save_atomically
    from aide_monai.handlers.settings import copy_settings, require_settings

    source = weights or (own if own.is_file() else None)
    network = initial_network(bundle)
    if source is not None:
        require_settings(source, model_settings(bundle))
        load_weights(network, source)
    write_text(main, _MAIN)
    with new_folder(target) as copy:
        shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns(*_LEFT_BEHIND), dirs_exist_ok=True)
        save_atomically(network.state_dict(), copy / "models" / "model.pt")
        if source is not None:
            copy_settings(source, copy / "models" / "model.pt")
    return source is not None


def initial_network(bundle: str | Path) -> nn.Module:
    """The deployed network of a bundle as its training would start with it."""
    return read_config(bundle, "train").get_parsed_content("network_def")
