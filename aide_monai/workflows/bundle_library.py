"""The bundles that come with the package, one for each data set that it knows."""

from __future__ import annotations

import shutil
from pathlib import Path

import aide_monai
from aide_monai.errors import InputError
from aide_monai.utils.files import new_folder, read_object
from aide_monai.utils.locks import LOCK
from aide_monai.utils.texts import did_you_mean

LEFT_BEHIND = ("runs", "eval", "predictions", "__pycache__", LOCK)
"""What a run leaves in a bundle, beside its weights."""


def library() -> Path:
    """The folder of the bundles: in an installed package beside its modules, in the repository beside the package."""
    package = Path(aide_monai.__file__).parent
    installed = package / "bundle_library"
    return installed if installed.is_dir() else package.parent / "bundles"


def list_bundles() -> dict[str, str]:
    """Name and task of every bundle.

    Examples:
        >>> from aide_monai.workflows.bundle_library import list_bundles
        >>> "hippocampus_ssl" in list_bundles()
        True
    """
    found = sorted(path.parents[1] for path in library().glob("*/configs/metadata.json"))
    metadata = {folder.name: read_object(folder / "configs" / "metadata.json", advice="restore it") for folder in found}
    return {name: str(content.get("task", "")) for name, content in metadata.items()}


def copy_bundle(name: str, folder: str | Path) -> Path:
    """Copy a bundle, to train it and to change it.

    Args:
        name: one of ``list_bundles``.
        folder: new folder.

    Returns:
        ``folder``, which appears when all is written.

    Raises:
        InputError: if there is no such bundle, or the folder exists.
    """
    known = list_bundles()
    if name not in known:
        advice = did_you_mean(name, known) or f"expected one of {', '.join(known)}"
        raise InputError(f"no such bundle {name}; {advice}")
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists already; choose another name, or remove it")
    with new_folder(folder) as unfinished:
        left_out = shutil.ignore_patterns(*LEFT_BEHIND, "experiments")
        shutil.copytree(library() / name, unfinished, ignore=left_out, dirs_exist_ok=True)
    return folder
