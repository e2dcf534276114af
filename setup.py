"""All that setup.cfg cannot say: the bundles travel in the wheel, as ``aide_monai/bundle_library``."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithBundles(build_py):
    """Puts the bundles beside the modules."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # which finds those of the repository
            library = Path(self.build_lib) / "aide_monai" / "bundle_library"
            unwanted = shutil.ignore_patterns("runs", "eval", "predictions", "__pycache__", "*.lock")
            shutil.copytree("bundles", library, ignore=unwanted, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithBundles})
