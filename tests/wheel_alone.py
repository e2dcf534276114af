"""Installs the wheel with what it declares, and nothing else, in a new environment, and tries it in an empty folder.

``make test-wheel``: minutes, so it is no part of ``make test``. An import of something that setup.cfg does not name
fails here, and so does a file that the wheel lacks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
# All but what the environment of the MONAI Label server imports.
IMPORT_ALL = """
import importlib, pkgutil, aide_monai
names = [found.name for found in pkgutil.walk_packages(aide_monai.__path__, "aide_monai.")]
names = [name for name in names if "label_app" not in name and not name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names), "modules imported from", aide_monai.__path__[0])
"""
DEMO = "demo --unlabeled 1 --test 1 --epochs 1 --steps 1 --run-dir run"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        python, aide = folder / "venv/bin/python", folder / "venv/bin/aide"
        sources = folder / "sources"  # of what is committed, so that the build leaves nothing here
        sources.mkdir()
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", sources], input=archive, check=True)
        call(folder, python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, sources)
        (wheel,) = folder.glob("*.whl")
        call(folder, python, "-m", "pip", "install", "--quiet", "-c", ROOT / "requirements.lock", wheel)
        empty = folder / "empty"
        empty.mkdir()
        call(empty, python, "-m", "pip", "check")
        call(empty, python, "-c", IMPORT_ALL)
        call(empty, aide, "--version")
        call(empty, aide, *DEMO.split())
        assert (empty / "run" / "summary.md").is_file()


def call(folder: Path, *command: object) -> None:
    """In an environment that does not name this repository's modules."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run([str(part) for part in command], cwd=folder, env=kept, check=True)


if __name__ == "__main__":
    sys.exit(main())
