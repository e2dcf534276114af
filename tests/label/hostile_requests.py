"""Run by MONAI Label's Python: requests to the app's classes, every field of each with texts that would be code.

``python -m tests.label.hostile_requests APP STUDIES`` prints as JSON what was refused, with its sentence, and the rest.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aide_monai.errors import InputError


def texts(marker: Path) -> list[Any]:
    """What would write the marker, or read another file, if it were evaluated."""
    write = f"$__import__('pathlib').Path('{marker}').touch()"
    values: list[Any] = [write, "@run", f"%{marker.parent}/trap.json", f"%{marker.parent}/trap.json::a", "x#1"]
    target = {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "args": str(marker)}}
    return [*values, [write], {"a": write}, target, [target]]


def main(app_dir: Path, studies: Path) -> None:
    os.environ["MONAI_LABEL_SESSIONS"] = "false"
    from monailabel.interfaces.exception import MONAILabelException

    from aide_monai.label_app.app import AIDELabelApp

    app = AIDELabelApp(str(app_dir), str(studies), {})
    marker = studies.parent / "marker"
    (model,) = app.bundles
    image = app.datastore().list_images()[0]
    file = str(studies / f"{image}.nii.gz")
    store, infer, trainer = app.datastore(), app._infers[model], app._trainers[model]
    scoring, suspicious = app._scoring_methods["suspicion"], app._strategies["suspicious"]
    calls: dict[str, tuple[Callable[[dict[str, Any]], Any], dict[str, Any]]] = {
        "infer": (app.infer, {"model": model, "image": image}),
        "infer task": (infer, {"model": model, "image": file}),
        "train": (app.train, {"model": model, "max_epochs": 1}),
        "train task": (lambda request: trainer(request, store), {"model": model, "max_epochs": 1}),
        "scoring": (lambda request: scoring(request, store), {"method": "suspicion"}),
        "activelearning": (lambda request: suspicious(request, store), {"strategy": "suspicious"}),
        "batch": (app.batch_infer, {"model": model, "images": "all"}),
        "image": (lambda r: store.add_image(r["id"], file, r["info"]), {"id": "new", "info": {}}),
        "label": (lambda r: store.save_label(image, file, r["tag"], r["info"]), {"tag": "final", "info": {}}),
        "info": (lambda r: store.update_image_info(image, r["info"]), {"info": {}}),
    }
    fields = {
        "infer": ("image", "device", "logging", "label_tag", "result_extension", "result_dtype", "model_filename"),
        "train": ("max_epochs", "val_split", "config", "device", "gpus", "multi_gpu"),
        "scoring": ("device", "gpus", "logging"),
        "activelearning": ("strategy", "review", "client_id"),
        "batch": ("images", "device", "label_tag", "max_workers", "max_batch_size", "gpus", "multi_gpu"),
        "image": ("id", "info"),
        "label": ("tag", "info"),
        "info": ("info",),
    }
    refused, passed = [], []
    for name, (call, request) in calls.items():
        for key, text in itertools.product(fields[name.split()[0]], texts(marker)):
            if name == "infer task" and key == "image":
                continue  # the app has chosen the file
            where = f"{name}: {key} = {ascii(text)[:40]}"
            try:
                call({**request, key: text})
                passed.append(where)
            except (InputError, MONAILabelException) as error:
                refused.append(f"{where}: {getattr(error, 'msg', None) or error}")
    asked = {
        "unknown": texts(marker),
        "bundle_path": str(studies),
        "run_id": texts(marker)[0],
        "displayable_configs": 1,
    }
    infer({**calls["infer task"][1], **asked, "device": "cpu"})
    scoring({"method": "suspicion", "device": "cpu", **asked}, store)  # also reads the infos that were let in
    suspicious({"strategy": "suspicious", **asked}, store)
    app.batch_infer({"model": model, "images": "all", "device": "cpu", "label_tag": "draft", **asked})
    print(json.dumps({"refused": refused, "passed": passed, "tags": store.status()["label_tags"]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
