"""What makes MONAI Label run beside newer libraries."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pydicom.uid

from aide_monai.label_app.compatibility import STORAGE_CLASSES, LabelCompatibility, activate, install


def test_the_module_that_pydicom_dropped_has_the_storage_classes():
    finder = LabelCompatibility()
    spec = finder.find_spec(STORAGE_CLASSES)
    assert isinstance(spec, ModuleSpec)
    module = ModuleType(STORAGE_CLASSES)
    finder.exec_module(module)
    assert module.SegmentationStorage == pydicom.uid.SegmentationStorage == "1.2.840.10008.5.1.4.1.1.66.4"


def test_everything_else_is_left_to_python():
    assert LabelCompatibility().find_spec("json") is None
    assert LabelCompatibility().find_spec("torchvision") is None


def test_it_steps_in_once(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    activate()
    activate()
    assert sum(isinstance(finder, LabelCompatibility) for finder in sys.meta_path) == 1


def test_operators_are_declared_only_where_they_are_missing(monkeypatch):
    import torch

    extension = ModuleType("torchvision.extension")
    monkeypatch.setitem(sys.modules, "torchvision.extension", extension)
    extension._has_ops = lambda: True
    LabelCompatibility().find_spec("torchvision._meta_registrations")
    assert not hasattr(torch.ops.torchvision, "nms")
    extension._has_ops = lambda: False
    LabelCompatibility().find_spec("torchvision._meta_registrations")
    assert "Tensor dets" in str(torch.ops.torchvision.nms.default._schema)


def test_an_installed_hook_is_active_from_the_start(tmp_path):
    hook = install(tmp_path)
    assert hook.suffix == ".pth"
    assert hook.read_text().count("\n") == 1
    code = (
        f"import site; site.addsitedir({str(tmp_path)!r}); import {STORAGE_CLASSES} as uids; print(uids.CTImageStorage)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == pydicom.uid.CTImageStorage
