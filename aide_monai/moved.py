"""Bundles of version 0.1 name modules that have moved since: version 0.2 finds them, with a warning."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

MODULES = {
    "aide_monai.data.volumes": "aide_monai.stream.preprocessing",
    "aide_monai.data.volume_cache": "aide_monai.stream.volume_cache",
    "aide_monai.distributed": "aide_monai.utils.distributed",
    "aide_monai.workflows.save": "aide_monai.io.writers",
    "aide_monai.workflows.standardize": "aide_monai.workflows.pseudo_labels",
}
NAMES = {
    "aide_monai.data.LabelStore": "aide_monai.labels.LabelStore",
    "aide_monai.data.SliceDataset": "aide_monai.stream.SliceDataset",
    "aide_monai.data.slice_loader": "aide_monai.stream.slice_loader",
    "aide_monai.workflows.prepare.image_records": "aide_monai.data.image_records",
    "aide_monai.workflows.pseudo_labels.standardize": "aide_monai.workflows.standardize_datalist",
}


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module by the name that it had."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec for the old names alone."""
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in MODULES else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """The module itself, where it is now."""
        _tell(spec.name, MODULES[spec.name])
        module = importlib.import_module(MODULES[spec.name])
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already; Python has just given it the spec of its old name."""
        module.__spec__ = self._spec


def moved_name(package: str, name: str) -> object:
    """What a package named before.

    Raises:
        AttributeError: if it never named it.
    """
    new = NAMES.get(f"{package}.{name}")
    if new is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    _tell(f"{package}.{name}", new)
    home, _, name = new.rpartition(".")
    return getattr(importlib.import_module(home), name)


def _tell(old: str, new: str) -> None:
    warnings.warn(
        f"{old} is now {new}; `aide new-bundle DIR --refresh` brings a bundle's configs up to date, "
        "and version 0.3 will not know the old name",
        FutureWarning,
        stacklevel=2,
    )


def install() -> None:
    """Let Python find the old names."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
