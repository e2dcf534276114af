"""What ``import aide_monai`` offers, and that everything written for users keeps to what packages name."""

import importlib
import json
import pkgutil
import pydoc
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import aide_monai
from aide_monai import moved

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "notebooks").glob("*.ipynb"))]
NAMED_MODULES = {"aide_monai.reports.figures", "aide_monai.workflows.labels"}
CONFIGS = sorted(ROOT.glob("bundles/*/configs/*.json")) + sorted(ROOT.glob("aide_monai/bundle_template/configs/*.json"))


def test_the_package_opens_without_torch():
    code = "import sys, aide_monai; print(sorted({'torch', 'monai', 'numpy'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_there_are_about_25_names_and_each_explains_itself():
    assert 20 <= len(aide_monai.__all__) <= 32
    for name in aide_monai.__all__:
        assert (getattr(aide_monai, name).__doc__ or "").strip(), name


def test_every_name_of_every_package_is_there():
    for found in pkgutil.walk_packages(aide_monai.__path__, "aide_monai."):
        if found.ispkg and found.name != "aide_monai.label_app":
            package = importlib.import_module(found.name)
            for name in getattr(package, "__all__", ()):
                is_module = isinstance(getattr(package, name), type(sys))
                assert is_module == (f"{found.name}.{name}" in NAMED_MODULES), f"{found.name}.{name}"


def deep_names(text: str) -> set[str]:
    """Imports and dotted names in a text that reach past what the packages name."""
    imports = r"from (aide_monai[\w.]*) import ([\w, ]+)"
    text = re.sub(imports, lambda m: " ".join(f"{m[1]}.{name.split()[0]}" for name in m[2].split(",")), text)
    return {name for name in re.findall(r"\baide_monai(?:\.\w+)+", text) if _is_deep(name)}


def _is_deep(name: str) -> bool:
    package, *rest = name.split(".")
    while rest and (ROOT / package.replace(".", "/") / rest[0]).is_dir():
        package, rest = f"{package}.{rest[0]}", rest[1:]
    if package == "aide_monai" and rest and (ROOT / "aide_monai" / f"{rest[0]}.py").is_file():
        return False  # a module of the top level is a wing of its own
    return bool(rest) and rest[0] not in importlib.import_module(package).__all__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_and_notebooks_use_only_what_packages_name(page):
    assert deep_names(page.read_text()) == set()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.parents[1].name}-{config.name}")
def test_bundles_use_only_what_packages_name(config):
    assert deep_names(json.dumps(json.loads(config.read_text()))) == set()


def test_a_name_too_deep_is_found():
    assert deep_names("from aide_monai.stream.slices import Slices") == {"aide_monai.stream.slices.Slices"}
    assert deep_names("aide_monai.stream.SliceDataset and aide_monai.inferers.hardware_amp") == set()


@pytest.mark.parametrize(("old", "new"), moved.MODULES.items())
def test_modules_of_version_0_1_are_found_with_a_warning(old, new):
    code = (
        f"import importlib, warnings; warnings.simplefilter('error', FutureWarning); importlib.import_module({old!r})"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr
    assert f"{old} is now {new}" in shown
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module = importlib.import_module(old)
    assert module is importlib.import_module(new)
    assert module.__spec__.name == new


def test_names_of_version_0_1_are_found_with_a_warning():
    import aide_monai.data
    from aide_monai.labels import LabelStore

    with pytest.warns(FutureWarning, match=r"aide_monai\.data\.LabelStore is now aide_monai\.labels\.LabelStore"):
        assert aide_monai.data.LabelStore is LabelStore
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        aide_monai.data.nothing  # noqa: B018


@pytest.mark.parametrize(("old", "new"), moved.NAMES.items())
def test_a_config_of_version_0_1_finds_what_it_names(old, new):
    with pytest.warns(FutureWarning, match=f"{re.escape(old)} is now {re.escape(new)}"):
        assert pydoc.locate(old) is pydoc.locate(new)
    assert callable(pydoc.locate(new))
