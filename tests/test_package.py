"""The wheel and the source distribution: what is in them, and that they work away from the repository."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import BytesParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("aide_monai", "bundles", "setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
_BUILD = "import sys; from setuptools import build_meta as build; print(getattr(build, sys.argv[1])(sys.argv[2]))"


def tracked() -> set[str]:
    """Files of the bundles that belong to the repository."""
    listed = subprocess.run(["git", "ls-files", "bundles"], cwd=ROOT, capture_output=True, text=True, check=False)
    found = set(listed.stdout.split())
    if listed.returncode or not found:
        pytest.skip("no clone of the repository: git does not know its files")
    return found


def build(source: Path, what: str, out: Path) -> Path:
    """Build in a folder of sources, without a network."""
    command = [sys.executable, "-c", _BUILD, what, str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    unwanted = shutil.ignore_patterns("__pycache__", "runs", "eval", "predictions")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, source / name)
    return build(source, "build_sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of the source distribution, so that nothing that it lacks can be in it."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    return build(next(unpacked.iterdir()), "build_wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return folder


def aide(installed: Path, folder: Path, *arguments: object) -> str:
    """What the command of the wheel prints in a folder away from the repository."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "aide_monai.cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_in_the_wheel(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {Path(name).parts[0] for name in names} == {"aide_monai"}
    assert {"aide_monai/py.typed", "aide_monai/data/__init__.pyi", "aide_monai/cli/main.py"} <= names
    assert "aide_monai/bundle_template/configs/train.json" in names
    bundles = {name.replace("aide_monai/bundle_library/", "bundles/") for name in names if "bundle_library/" in name}
    assert bundles == tracked()


def test_what_is_in_the_source_distribution(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "setup.cfg", "pyproject.toml", "LICENSE", "README.md"} <= names
    assert not [name for name in names if name.startswith(("tests", "docs", "notebooks", "benchmarks", "findings"))]
    assert tracked() <= names


def test_an_index_would_take_them(wheel: Path, sdist: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_what_the_wheel_says_of_itself(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    said = BytesParser().parsebytes(archive.read(name))
    assert said["Author"] == "AIDE-MONAI developers"
    assert said["License"] == "Apache-2.0"
    assert "segmentation" in said["Keywords"]
    assert "Typing :: Typed" in said.get_all("Classifier")


def test_what_a_plain_install_asks_for() -> None:
    """The lock of the package alone has what setup.cfg names, and nothing that only tests or an extra need."""
    asked = requirements("install_requires")
    assert [line for line in asked if ">=" not in line] == []  # lower bounds were tried, see CONTRIBUTING.md
    locks = [locked(ROOT / name) for name in ("requirements.lock", "requirements-dev.lock")]
    assert {spelt(line) for line in asked} <= locks[0]
    assert not locks[0] & locks[1]
    assert not {"itk", "pytest", "ruff"} & locks[0]
    assert {"itk", "pytest", "ruff"} <= locks[1]


def test_all_that_is_imported_is_declared() -> None:
    """Also in functions, which an import of every module would not reach."""
    declared = {spelt(line) for line in requirements("install_requires")}
    label = declared | {spelt(line) for line in requirements("label")} | {"monailabel"}
    owners = packages_distributions()
    undeclared = []
    for file in (ROOT / "aide_monai").rglob("*.py"):
        known = label if "label_app" in file.parts else declared
        for name in imported(file.read_text()) - sys.stdlib_module_names - {"aide_monai"}:
            if not {spelt(owner) for owner in owners.get(name, [name])} & known:
                undeclared.append(f"{file.relative_to(ROOT)}: {name}")
    assert not undeclared


def imported(source: str) -> set[str]:
    """The packages that a module imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in names}


def requirements(key: str) -> list[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    section = "options" if key == "install_requires" else "options.extras_require"
    return [line for line in setup[section][key].splitlines() if line]


def locked(file: Path) -> set[str]:
    return {spelt(line) for line in file.read_text().splitlines() if "==" in line}


def spelt(requirement: str) -> str:
    """The name in a requirement, as indexes compare names."""
    return re.sub("[-_.]+", "-", re.split("[<>=]", requirement)[0]).lower()


def test_bundles_without_a_clone(installed: Path, tmp_path: Path) -> None:
    known = json.loads(aide(installed, tmp_path, "bundle", "list", "--json"))
    assert known.keys() == {folder.name for folder in (ROOT / "bundles").iterdir() if (folder / "configs").is_dir()}
    assert all(known.values())
    aide(installed, tmp_path, "bundle", "copy", "hippocampus_ssl", "mine")
    copied = tmp_path / "mine" / "configs" / "train.json"
    assert copied.read_bytes() == (ROOT / "bundles" / "hippocampus_ssl" / "configs" / "train.json").read_bytes()


def test_the_demo_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    code = "import aide_monai; print(aide_monai.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert Path(shown.stdout.strip()).is_relative_to(installed)
    sizes = ["--unlabeled", 1, "--test", 1, "--epochs", 1, "--steps", 1]
    aide(installed, tmp_path, "demo", *sizes, "--run-dir", "run")
    assert (tmp_path / "run" / "summary.md").is_file()
