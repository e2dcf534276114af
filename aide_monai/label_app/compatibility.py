"""Lets MONAI Label 0.8.5 run beside the torch, torchvision and pydicom that MONAI 1.6 wants.

``python -m aide_monai.label_app.compatibility`` installs it into the environment of that Python; ``make label-env``
does so. From then on each interpreter of the environment loads it at its start, which costs nothing until one of the
two packages is imported.
"""

from __future__ import annotations

import importlib.machinery
import sys
import sysconfig
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

STORAGE_CLASSES = "pydicom._storage_sopclass_uids"
_HOOK = "aide_monai_label.pth"
_MODULE = "aide_monai.label_app.compatibility"  # in a main program __name__ is another
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # an operator lives as long as the library that defined it


class LabelCompatibility(MetaPathFinder, Loader):
    """Steps in when one of these is imported, and leaves everything else alone.

    - ``torchvision``: its wheel for CUDA does not load its compiled operators beside a torch for the CPU, and then
      fails on their missing declarations. MONAI Label needs none of them, so they are declared, not defined.
    - ``pydicom._storage_sopclass_uids``: pydicom 3 dropped this module, which pydicom-seg still asks for the UIDs that
      ``pydicom.uid`` has.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec for the module that is missing; None, for Python to go on looking, for all others."""
        if fullname == "torchvision._meta_registrations":
            _declare_operators()
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == STORAGE_CLASSES else None

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module that pydicom 3 dropped."""
        import pydicom.uid

        names = [name for name in dir(pydicom.uid) if name.endswith("Storage")]
        module.__dict__.update({name: getattr(pydicom.uid, name) for name in names})


def _declare_operators() -> None:
    import torch

    if not sys.modules["torchvision.extension"]._has_ops():
        _libraries.append(torch.library.Library("torchvision", "DEF"))
        for schema in _SCHEMAS:
            _libraries[-1].define(schema)


def activate() -> None:
    """Use ``LabelCompatibility`` in this interpreter."""
    if not any(isinstance(finder, LabelCompatibility) for finder in sys.meta_path):
        sys.meta_path.insert(0, LabelCompatibility())


def install(folder: str | Path | None = None) -> Path:
    """Let every interpreter of an environment ``activate`` at its start.

    Args:
        folder: its ``site-packages``; by default those of this interpreter.

    Returns:
        The file that was written.
    """
    hook = Path(folder or sysconfig.get_paths()["purelib"]) / _HOOK
    hook.write_text(f"import {_MODULE}; {_MODULE}.activate()\n")
    return hook


if __name__ == "__main__":
    print(install())
