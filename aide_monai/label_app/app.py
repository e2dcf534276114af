"""The app that a MONAI Label server runs; ``aide label-app`` makes a folder for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.tasks.infer.bundle import BundleInferTask

from aide_monai import __version__
from aide_monai.label_app.tasks import AIDETrainTask, SuspicionScoring, Suspicious

logger = logging.getLogger(__name__)


class AIDELabelApp(MONAILabelApp):
    """Serves bundles of AIDE-MONAI: inference, training on all images, suspicion of labels.

    Args:
        app_dir: folder of the app, with the bundles in ``model/``.
        studies: folder of the images, or the address of a DICOMweb server.
        conf: "models" names the bundles to serve, separated by commas; all by default.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        folders = sorted(path.parents[1] for path in Path(app_dir).glob("model/*/configs/train.json"))
        wanted = [name.strip() for name in conf.get("models", "").split(",") if name.strip()]
        self.bundles = {folder.name: str(folder) for folder in folders if not wanted or folder.name in wanted}
        logger.info("bundles: %s", ", ".join(self.bundles) or "none")
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name=f"AIDE-MONAI {__version__}",
            description="Learns from labelled and unlabelled images, and asks for the labels that help most",
            version=__version__,
        )

    def init_infers(self) -> dict[str, Any]:
        """Inference by the bundle's own config."""
        return {name: BundleInferTask(bundle, self.conf) for name, bundle in self.bundles.items()}

    def init_trainers(self) -> dict[str, Any]:
        """Training with AIDE."""
        return {name: AIDETrainTask(bundle, self.conf) for name, bundle in self.bundles.items()}

    def init_strategies(self) -> dict[str, Any]:
        """Strategies for the next image to label."""
        return {"suspicious": Suspicious(), "random": Random(), "first": First()}

    def init_scoring_methods(self) -> dict[str, Any]:
        """Suspicion, by the first bundle: an image has one score."""
        first = next(iter(self.bundles.values()), None)
        return {"suspicion": SuspicionScoring(first)} if first else {}
