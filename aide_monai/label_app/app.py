"""The app that a MONAI Label server runs; ``aide label-app`` makes a folder for it."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import requests
import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.utils.others.generic import device_map

from aide_monai import __version__
from aide_monai.errors import InputError
from aide_monai.io.folder import voxel_files
from aide_monai.label_app.guard import Guard
from aide_monai.label_app.requests import Info, TaskRequest, is_part, require_name
from aide_monai.label_app.studies import FINAL
from aide_monai.label_app.tasks import AIDEInferTask, AIDETrainTask, SuspicionScoring, Suspicious, asked_for
from aide_monai.label_app.trainings import last_training, remove_scratch
from aide_monai.utils.processes import PARENT, end_with_parent, stop_at_signals
from aide_monai.utils.texts import tell_unused

logger = logging.getLogger(__name__)


class AIDELabelApp(MONAILabelApp):
    """Serves bundles of AIDE-MONAI: inference, training on all images, suspicion of labels.

    Args:
        app_dir: folder of the app, with the bundles in ``model/``.
        studies: folder of the images, or the address of a DICOMweb server.
        conf: "models" names the bundles to serve, separated by commas; all by default. "token_file" is a file with what
            every request has to bring; "hosts" and "origins" are for ``Guard``, separated by commas.
    """

    uploads: ClassVar[tempfile.TemporaryDirectory[str] | None] = None
    """Folder of the images that clients have sent with their requests, in the process of the server."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        folders = sorted(path.parents[1] for path in Path(app_dir).glob("model/*/configs/train.json"))
        wanted = _listed(conf, "models")
        self.token = _token(conf)
        self.bundles = {folder.name: str(folder) for folder in folders if not wanted or folder.name in wanted}
        logger.info("bundles: %s", ", ".join(self.bundles) or "none")
        for bundle in self.bundles.values():
            remove_scratch(bundle)
        if end_with_parent():  # a task that the server has started, in a process of its own
            stop_at_signals()
        else:
            os.environ[PARENT] = str(os.getpid())
            self._tell_what_became_of_trainings()
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name=f"AIDE-MONAI {__version__}",
            description="Learns from labelled and unlabelled images, and asks for the labels that help most",
            version=__version__,
        )

    def _tell_what_became_of_trainings(self) -> None:
        for name, bundle in self.bundles.items():
            last = last_training(bundle)
            if last is not None and last["state"] == "ended early":
                logger.warning(
                    "%s: the training of %s (runs/%s) has ended early, after epoch %d, with the server that had "
                    "started it or by a signal; the model of before is served: train again",
                    *(name, last["started"], last["run"], last["epochs"]),
                )

    def init_infers(self) -> dict[str, Any]:
        """Inference by the bundle's own config."""
        return {name: AIDEInferTask(bundle, self.conf) for name, bundle in self.bundles.items()}

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

    def init_datastore(self) -> Datastore:
        """A folder of images takes plain names alone; other stores are left to MONAI Label."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return PlainNames(
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def infer(self, request: TaskRequest, datastore: Datastore | None = None) -> Any:
        """The mask of an image of the datastore, or of one that was sent with the request."""
        datastore = datastore or self.datastore()
        image = request.get("image")
        if image not in datastore.list_images() and not self._is_sent(image):
            raise InputError(f"image is {ascii(image)[:80]}; expected the name of an image of the datastore")
        own = {"model": request.get("model"), "image": image}
        return super().infer({**asked_for("infer", request), **own}, datastore)

    def infer_wsi(self, request: TaskRequest, datastore: Datastore | None = None) -> Any:
        """There are no whole-slide images here."""
        raise InputError("this app has no models for whole-slide images; expected POST /infer/NAME")

    def batch_infer(self, request: TaskRequest, datastore: Datastore | None = None) -> Any:
        """The masks of many images, on one GPU unless there are several."""
        asked = asked_for("batch/infer", request)
        several = asked.get("multi_gpu", True) and torch.cuda.device_count() > 1
        return super().batch_infer({**asked, "model": request.get("model"), "multi_gpu": several}, datastore)

    def on_init_complete(self) -> None:
        """In the process of the server alone: guard it, and give what clients send a folder of its own."""
        from monailabel.app import app as server

        AIDELabelApp.uploads = tempfile.TemporaryDirectory(prefix="aide-label-")  # is removed with the process
        tempfile.tempdir = AIDELabelApp.uploads.name
        datastore = self.datastore()
        if isinstance(datastore, PlainNames):
            datastore.tell_unlisted()
        _guard(server, token=self.token, hosts=_listed(self.conf, "hosts"), origins=_listed(self.conf, "origins"))
        super().on_init_complete()

    def _is_sent(self, image: Any) -> bool:
        """Whether an image is a file that MONAI Label has made of a request or a session."""
        if not isinstance(image, str) or not Path(image).is_absolute():
            return False
        folders = [self.uploads.name] if self.uploads else []
        folders += [] if self._sessions is None else [self._sessions.store_path]
        return any(Path(image).resolve().is_relative_to(Path(folder).resolve()) for folder in folders)

    def _local_request(self, url: str, params: Any, action: str) -> Any:
        """A request of a background task to its own server, which wants the token of it too."""
        address = f"http://127.0.0.1:{settings.MONAI_LABEL_SERVER_PORT}{url}"
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            answer = requests.post(address, json=params or {}, headers=headers, timeout=60)
            answer.raise_for_status()
        except requests.RequestException as error:  # what has asked for it is done, and stays so
            logger.error("%s was not started: %s", action, error)
            return None
        return answer.json()


class PlainNames(LocalDatastore):
    """A folder of images whose clients cannot name a file elsewhere, or one that is no image.

    Files whose names no client could ask for (in no encoding that is known, of several lines) are told and passed over:
    MONAI Label would write them into a list of the images that it cannot read again.
    """

    def _list_files(self, path: str, patterns: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = super()._list_files(path, patterns)
        strange = [name for name in found if not is_part(name)]
        tell_unused(path, {os.path.join(path, name): "a name that cannot be asked for" for name in strange})
        return {name: file for name, file in found.items() if name not in strange}

    def _add_non_existing_labels(self, tag: str) -> int:
        return super()._add_non_existing_labels(tag) if is_part(tag) else 0

    def add_image(self, image_id: str, image_filename: str, image_info: Info) -> str:
        """Store an image."""
        self._require_plain("image", image_id or self._to_id(Path(image_filename).name)[0], image_filename, image_info)
        return super().add_image(image_id, image_filename, image_info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: Info) -> str:
        """Store a label of an image."""
        self._require_plain("tag", label_tag, label_filename, label_info)
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def update_image_info(self, image_id: str, info: Info) -> None:
        """Note something of an image."""
        _require_info(info)
        super().update_image_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: Info) -> None:
        """Note something of a label."""
        _require_info(info)
        super().update_label_info(label_id, label_tag, info)

    def tell_unlisted(self) -> None:
        """Name the files that are neither an image nor a label of the datastore in a line of the log."""
        listed = [Path(self.get_image_uri(image)) for image in self.list_images()]
        known = f"MONAI_LABEL_DATASTORE_FILE_EXT is {json.dumps([*self._extensions])}"
        folders = {
            Path(self._datastore.image_path()): f"not in the datastore: {known}",
            Path(self._datastore.label_path(FINAL)): f"no label of an image of the datastore: {known}",
        }
        listed += [Path(self.get_label_uri(image, FINAL)) for image in self.get_labeled_images()]
        used = {*listed, *voxel_files(listed), Path(self._datastore.label_path(None))}
        for folder, reason in folders.items():
            there = [path for path in sorted(folder.iterdir()) if is_part(path.name) and not path.name.startswith(".")]
            tell_unused(folder, {str(path): reason for path in there if path not in used})

    def _require_plain(self, what: str, name: str, file: str, info: Info) -> None:
        require_name(what, str(getattr(name, "value", name)))  # MONAI Label has the tags that it knows as an enum
        known = [pattern.replace("*", "") for pattern in self._extensions]
        if not file.endswith(tuple(known)):
            raise InputError(f"found a file {Path(file).suffix!a}; expected one of {', '.join(known)}")
        _require_info(info)


def _require_info(info: Any) -> None:
    if not isinstance(info, dict) or not isinstance(info.get("strategy", {}), dict):
        raise InputError('found something else as the info; expected an object, such as {"user": "me"}')


def _listed(conf: dict[str, str], key: str) -> list[str]:
    return [name.strip() for name in conf.get(key, "").split(",") if name.strip()]


def _token(conf: dict[str, str]) -> str | None:
    """The token in ``token_file``, which, unlike one on the command line, not all users of the machine can read."""
    if "token_file" not in conf:
        return None
    try:
        token = Path(conf["token_file"]).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise InputError(
            f"token_file {conf['token_file']}: cannot be read ({error}); expected a line of ASCII"
        ) from error
    if not token:
        raise InputError(f"token_file {conf['token_file']}: found nothing; expected a line with the token")
    return token


def _guard(server: FastAPI, *, token: str | None, hosts: list[str], origins: list[str]) -> None:
    """Put ``Guard`` before the server, and answer mistakes in one sentence."""

    def refused(_: Request, error: Exception) -> JSONResponse:
        missing = isinstance(error, (ImageNotFoundException, LabelNotFoundException))
        return JSONResponse({"detail": getattr(error, "msg", None) or str(error)}, status_code=404 if missing else 400)

    allowed = [*origins, *map(str, settings.MONAI_LABEL_CORS_ORIGINS)]
    server.middleware_stack = None  # is built again, with these, by the first request
    server.add_middleware(Guard, token=token, hosts=hosts, origins=allowed, devices=tuple(device_map()))
    for kind in (InputError, MONAILabelException, json.JSONDecodeError):
        server.add_exception_handler(kind, refused)
