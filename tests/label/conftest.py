"""The environment of the MONAI Label server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.bundles.conftest import bundle_of, data_of  # noqa: F401 (fixtures)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def label_python() -> Path:
    """Interpreter of ``make label-env``: the environment variable AIDE_LABEL_PYTHON, else the one in .venv-label."""
    python = Path(os.environ.get("AIDE_LABEL_PYTHON", ROOT / ".venv-label" / "bin" / "python"))
    if not python.exists():
        assert "AIDE_LABEL_PYTHON" not in os.environ, f"AIDE_LABEL_PYTHON is {python}, which does not exist"
        pytest.skip("there is no environment with MONAI Label: run make label-env")
    return python


@pytest.fixture(scope="session")
def stock_app(label_python, tmp_path_factory) -> Path:
    """MONAI Label's own bundle app, as it is downloaded."""
    folder = tmp_path_factory.mktemp("apps")
    command = [str(label_python), "-m", "monailabel.main", "apps", "--download", "--name", "monaibundle"]
    subprocess.run([*command, "--output", str(folder)], check=True, capture_output=True)
    return folder / "monaibundle"
