"""MONAI Label's tasks, done by AIDE: training, scoring and the choice of the next image."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.utils.others.generic import device_map, file_checksum, name_to_device

from aide_monai.errors import InputError
from aide_monai.handlers.settings import copy_settings
from aide_monai.io.nifti import PLACE, NiftiPlace, write_nifti
from aide_monai.label_app.requests import Info, TaskRequest, checked
from aide_monai.label_app.studies import FINAL, Datastore, broken_images, datastore_cases, findings_of, remember
from aide_monai.label_app.suspicion import BundleScorer, changed, most_suspicious
from aide_monai.label_app.trainings import last_training, recorded
from aide_monai.options import PROFILES
from aide_monai.utils.locks import locked
from aide_monai.utils.stored_values import stored_values
from aide_monai.workflows.bundle import new_run, run_bundle

logger = logging.getLogger(__name__)


def asked_for(task: str, request: TaskRequest) -> TaskRequest:
    """The values of a request that a task knows, see ``checked``.

    Raises:
        MONAILabelException: where one of them is none for its key.
    """
    try:
        return checked(task, request, devices=device_map())
    except InputError as error:
        raise MONAILabelException(MONAILabelError.INVALID_INPUT, str(error)) from error


class AIDEInferTask(BundleInferTask):
    """Inference by the bundle's own config, of which a request changes nothing but the device.

    NIfTI masks say in their header what that of their image says. MONAI Label writes them by ITK, which knows neither a
    header without codes nor one with two affines nor its unit.
    """

    def __init__(self, path: str, conf: dict[str, str]) -> None:
        super().__init__(path, conf)
        values = stored_values(self.bundle_config.get_parsed_content("classes")) if self.is_valid() else None
        if values is not None:  # masks hold them, so that is what names stand for
            labels: dict[str, int] = getattr(self, "labels", {})
            self.labels = {name: int(values[index]) for name, index in labels.items()}

    def __call__(self, request: TaskRequest, callbacks: Any = None) -> Any:
        """Segment ``request["image"]``, a file that the app has chosen."""
        asked = asked_for("infer", request)
        asked |= {key: request[key] for key in ("image", "model", "description") if key in request}
        return super().__call__(asked, callbacks)

    def writer(self, data: dict[str, Any], extension: str | None = None, dtype: Any = None) -> tuple[Any, Any]:
        """The file of the mask, and what goes with it."""
        file, result = super().writer(data, extension, dtype)
        meta = getattr(data.get("image"), "meta", {})
        place = NiftiPlace.of(meta.get(PLACE, {}))
        if place is not None and str(file).endswith((".nii", ".nii.gz")):
            written: Any = nibabel.load(file)
            write_nifti(file, np.asanyarray(written.dataobj), meta["original_affine"], place)
        return file, result


class AIDETrainTask(BundleTrainTask):
    """Trains the bundle with the labelled and the unlabelled images of the datastore.

    The whole of ``aide train``: a network learns from the labelled images and labels the others, then two networks
    learn from all and correct those labels. What the request may say: ``max_epochs``, ``val_split`` (0 by default,
    because few labels are better trained on), ``device``, and ``profile``, AIDE's options, by default the bundle's.
    """

    def config(self) -> Info:
        """Options that a client can show."""
        stock = super().config()
        epochs, profile = self.bundle_config.get("epochs"), self.bundle_config.get("profile")
        profiles = sorted(PROFILES, key=lambda name: name != profile)  # clients show the first one as chosen
        return {"device": stock["device"], "max_epochs": epochs, "val_split": 0.0, "profile": profiles}

    def stats(self) -> Info:
        """What became of the last training, also of one that ended with an earlier server, see ``last_training``."""
        last = last_training(self.bundle_path)
        return {} if last is None else {"last_training": last}

    def __call__(self, request: TaskRequest, datastore: Datastore) -> Info:
        """Train on the datastore as it is now; only a finished training replaces the bundle's ``models/model.pt``.

        The bundle is locked meanwhile: of two trainings, the one that began first would end up being served.
        """
        bundle = Path(self.bundle_path)
        asked = asked_for("train", request)
        try:
            with locked(bundle):
                return self._train(bundle, asked, datastore)
        except InputError as error:
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, str(error)) from error

    def _train(self, bundle: Path, asked: TaskRequest, datastore: Datastore) -> Info:
        datalist, problems = datastore_cases(
            datastore,
            labels=self.bundle_config.get_parsed_content("labels"),
            classes=self.bundle_config.get_parsed_content("classes"),
            channels=self.bundle_config["network_args"]["in_channels"],
            validation=asked.get("val_split", 0.0),
        )
        remember(datastore, broken_images(datastore, problems))
        for problem in problems:
            logger.warning("left out: %s", problem)
        run = new_run(bundle)  # what an earlier training has left was made of other labels
        datalist.save(run / "datastore.json")
        values = {
            "run_dir": str(run),
            "dataset_dir": str(run / "datastore.json"),
            "layout": None,
            "domains": None,
            "roots": sorted({str(Path(case.images[0]).parent) for case in datalist.cases}),
            "labeled": None,
            "unlabeled": None,
            "test": None,
            "epochs": asked.get("max_epochs", self.bundle_config["epochs"]),
            "device": name_to_device(asked.get("device")),
            "profile": asked.get("profile", self.bundle_config["profile"]),
        }
        with recorded(run):
            run_bundle(bundle, ["train"], literals=values)
            weights = bundle / "models" / "model.pt"
            copy_settings(run / "models" / "model.pt", weights)
            os.replace(run / "models" / "model.pt", weights)
        labelled = sum(case.label is not None for case in datalist.cases)
        return {"labelled": labelled, "unlabelled": len(datalist.cases) - labelled, "left_out": len(problems)}


class SuspicionScoring(ScoringMethod):
    """Scores how much each image's label is to be doubted, and stores it in the datastore's info of the image.

    Under ``aide`` of ``GET /datastore/image/info``: "suspicion", "disagreement" of the two networks, "label_quality"
    (Dice of the label and the prediction, where there is a label), all in 0..1, and "problem" where a file is broken.
    Images whose model and label have not changed since are not scored again.

    Args:
        bundle: folder of the bundle.
    """

    def __init__(self, bundle: str | Path) -> None:
        super().__init__("Disagreement of the two networks; Dice of label and prediction")
        self.bundle = Path(bundle)

    def __call__(self, request: TaskRequest, datastore: Datastore) -> Info:
        """Score all images that need it; image to suspicion."""
        device = name_to_device(asked_for("scoring", request).get("device"))
        model = file_checksum(str(self.bundle / "models" / "model.pt"))
        labelled = set(datastore.get_labeled_images())
        images = list(datastore.list_images())
        infos = {image: datastore.get_image_info(image) for image in images}
        state = {
            image: f"{model} {datastore.get_label_info(image, FINAL).get('ts') if image in labelled else None}"
            for image in images
        }
        scorer, findings = None, {}
        for image in changed(images, infos, state):
            scorer = scorer or BundleScorer(self.bundle, device=device)
            found: Info = {"scored": state[image], "suspicion": None, "disagreement": None}
            found |= {"label_quality": None, "problem": None}
            label = datastore.get_label_uri(image, FINAL) if image in labelled else None
            try:
                score = scorer(datastore.get_image_uri(image), label)
                found |= {"suspicion": score.suspicion, "disagreement": score.disagreement}
                found["label_quality"] = score.label_quality
            except InputError as error:
                found |= {"problem": str(error), "suspicion": 0.0}  # nobody can label it
            findings[image] = found
        remember(datastore, findings)
        return {image: found["suspicion"] for image, found in findings.items()}


class Suspicious(Strategy):
    """Serves the image whose annotation would help most: the most suspicious one.

    With ``{"review": true}`` in the request it serves the labelled image whose label is doubted most, instead of one
    without a label.
    """

    def __init__(self) -> None:
        super().__init__("The image whose annotation would help most")

    def __call__(self, request: TaskRequest, datastore: Datastore) -> Info | None:
        """The next image, with its suspicion if it was scored."""
        datastore.refresh()  # scores were written by another process
        asked = asked_for("activelearning", request)
        review = asked.get("review", False)
        images = datastore.get_labeled_images() if review else datastore.get_unlabeled_images()
        infos = {image: datastore.get_image_info(image) for image in images}
        image = most_suspicious(infos, strategy=asked.get("strategy", "suspicious"))
        if image is None:
            return None
        return {"id": image, "suspicion": findings_of(infos[image]).get("suspicion")}
