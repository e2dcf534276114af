"""One version of the package, one range of Python: every file that names them says the same."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path

import pytest
import yaml

import aide_monai

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
PYTHONS = ["3.11", "3.12", "3.13"]


def test_the_package_says_its_version_and_others_repeat_it() -> None:
    assert SETUP["metadata"]["version"] == "attr: aide_monai.__version__"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == aide_monai.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1].rstrip(",") == aide_monai.__version__


@pytest.mark.parametrize(
    "file",
    [*(ROOT / "bundles").glob("*/configs/metadata.json"), ROOT / "aide_monai/bundle_template/configs/metadata.json"],
    ids=lambda file: file.parts[-3],
)
def test_a_bundle_asks_for_this_version(file: Path) -> None:
    assert json.loads(file.read_text())["required_packages_version"]["aide-monai"] == aide_monai.__version__


def test_python_is_the_same_everywhere() -> None:
    first, last = PYTHONS[0], PYTHONS[-1]
    after = f"3.{int(last.split('.')[1]) + 1}"
    assert SETUP["options"]["python_requires"] == f">={first},<{after}"
    assert re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"]) == PYTHONS
    assert SETUP["mypy"]["python_version"] == first
    assert f'target-version = "py{first.replace(".", "")}"' in (ROOT / "pyproject.toml").read_text()
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]
    assert [job["strategy"]["matrix"]["python"] for job in jobs.values() if "strategy" in job] == [PYTHONS]
    for page in ("README.md", "docs/get-started.md"):
        assert f"Python {', '.join(PYTHONS[:-1])} or {last}" in (ROOT / page).read_text()
    for lock in ("requirements.lock", "requirements-dev.lock"):
        assert f"for Python {first} to {last}" in (ROOT / lock).read_text().splitlines()[0]
