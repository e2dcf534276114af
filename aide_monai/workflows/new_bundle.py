"""Bundles from one template: they differ in their parameters, and in nothing else."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aide_monai.data.case import Case
from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError
from aide_monai.io.location import Location
from aide_monai.utils.files import JsonObject, new_folder, read_object, write_text
from aide_monai.workflows.literals import literal

TEMPLATE = Path(__file__).parents[1] / "bundle_template"
PARAMETERS = (
    "layout",
    "folders",
    "source",
    "domains",
    "roots",
    "labeled",
    "unlabeled",
    "test",
    "seed",
    "labels",
    "classes",
    "dicom_channels",
    "slice_axis",
    "slice_size",
    "volume_options",
    "epochs",
    "steps_per_epoch",
    "batch_size",
    "learning_rate",
    "val_interval",
    "augmentation_angle",
    "augmentation_zoom",
    "augmentation_intensity",
    "augmentation_mix",
    "network_class",
    "network_args",
    "profile",
    "options",
)
"""Top-level ids of the configs in which bundles may differ."""

METADATA = (
    "version",
    "changelog",
    "name",
    "task",
    "description",
    "data_source",
    "data_type",
    "image_classes",
    "label_classes",
    "pred_classes",
    "network_data_format",
)
"""Keys of metadata.json in which bundles may differ."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_REFUSED = ("deepedit", "deepgrow", "detection", "classification")  # MONAI Label takes such names for other tasks


def write_bundle(
    folder: str | Path, parameters: Mapping[str, Any], *, metadata: Mapping[str, Any], texts: Mapping[str, str]
) -> Path:
    """Write a bundle from the template.

    Args:
        folder: new folder; its name is the bundle's.
        parameters: values for some of ``PARAMETERS``; the template's are used for the others.
        metadata: values for some of ``METADATA``, and "modality" and "channels" (channel to name) of the images and
            "classes" (class index to name) of the labels.
        texts: "title", "tags", "model", "data", "performance", "references" and "data_license" of the pages in docs/.

    Raises:
        InputError: if the folder exists, its name is none for a bundle, or a parameter is unknown.
    """
    folder = Path(folder)
    if not _NAME.fullmatch(folder.name) or any(part in folder.name.lower() for part in _REFUSED):
        raise InputError(
            f'"{folder.name}" cannot be the name of a bundle; expected letters, digits and _, and none of '
            f"{', '.join(_REFUSED)}"
        )
    if folder.exists():
        raise InputError(f"{folder} exists already; choose another name, or remove it")
    unknown = sorted({*parameters} - {*PARAMETERS}) + sorted(
        {*metadata} - {*METADATA, "modality", "channels", "classes"}
    )
    if unknown:
        raise InputError(f'"{unknown[0]}" is no parameter of a bundle; expected some of {", ".join(PARAMETERS)}')
    texts = {"authors": "AIDE-MONAI developers", "folder": shlex.quote(str(folder)), **texts}
    with new_folder(folder) as unfinished:
        shutil.copytree(TEMPLATE, unfinished, dirs_exist_ok=True)
        for page in (*unfinished.glob("docs/*"), *unfinished.glob("models/*.md")):
            write_text(page, _filled(page.read_text(), texts))
        _write_configs(unfinished, parameters, metadata)
    return folder


def refresh_bundle(folder: str | Path) -> None:
    """Bring the configs of a bundle up to date with the template; its parameters, metadata and pages stay."""
    configs = Path(folder) / "configs"
    metadata = _content(configs / "metadata.json")
    known: JsonObject = {}
    for name in ("inference", "evaluate", "train"):
        known |= _content(configs / f"{name}.json")
    parameters = {key: known[key] for key in PARAMETERS if key in known}
    kept = {key: metadata[key] for key in METADATA if key in metadata}
    _write_configs(Path(folder), parameters, kept)


def differences(folder: str | Path) -> list[str]:
    """Where the configs of a bundle differ from the template in more than their parameters, one line each."""
    found = []
    configs = Path(folder) / "configs"
    for path in sorted(TEMPLATE.glob("configs/*")):
        own = configs / path.name
        if not own.is_file():
            found.append(f"{own}: missing")
        elif path.suffix != ".json":
            found += [] if own.read_text() == path.read_text() else [f"{own}: another text"]
        else:
            mine, template = _content(own), _content(path)
            free = METADATA if path.name == "metadata.json" else PARAMETERS
            if list(mine) != list(template):
                found.append(f"{own}: other keys, or another order: {sorted({*mine} ^ {*template})}")
            found += [
                f"{own}: {key} differs" for key in mine if key not in free and mine[key] != template.get(key, None)
            ]
    return found


def new_bundle(folder: str | Path, datalist: str | Path, *, roots: list[str] | None = None) -> Path:
    """A bundle for a data set of one's own.

    Args:
        folder: new folder of the bundle.
        datalist: its datalist; labelled training cases are trusted, unlabelled ones are used by AIDE, test cases judge.
        roots: folders of the files, unless they lie beside the datalist.

    Raises:
        InputError: as ``write_bundle``, or if the datalist cannot be used.

    Examples:
        >>> from aide_monai import find_datalist, new_bundle, write_phantoms
        >>> find_datalist(write_phantoms("phantoms", cases=2, shape=(32, 32, 4))).save("phantoms/datalist.json")
        >>> sorted(path.name for path in new_bundle("my_bundle", "phantoms/datalist.json").iterdir())
        ['LICENSE', 'configs', 'docs', 'models']
    """
    cases = Datalist.load(datalist, roots=roots or ())
    if not cases.cases:
        raise InputError(f"{datalist}: the datalist has no cases; expected at least one")
    from aide_monai.stream import slice_geometry  # only who has a datalist waits for PyTorch

    axis, size = slice_geometry(cases.records, multiple=32)
    labels = {str(index): _caption(name) for index, name in sorted(cases.labels.items())}
    modality = {str(channel): _caption(name) for channel, name in sorted(cases.modality.items())}
    structures = ", ".join(name for index, name in labels.items() if index != "0")
    network = _content(TEMPLATE / "configs" / "train.json")["network_args"]
    parameters = {
        "roots": literal([os.path.abspath(root) for root in roots or ()]),
        "labeled": None,
        "unlabeled": None,
        "labels": literal({str(index): name for index, name in sorted(cases.labels.items())}),
        "classes": {str(stored): index for stored, index in cases.stored_classes.items()},
        "dicom_channels": literal(_dicom_channels(cases.cases)),
        "slice_axis": axis,
        "slice_size": list(size),
        "volume_options": {"resample_labels": cases.resample_labels},
        "network_args": {**network, "in_channels": len(modality)},
    }
    metadata = {
        "version": "0.1.0",
        "changelog": {"0.1.0": "first version"},
        "name": Path(folder).name,
        "task": f"Segmentation of {structures}",
        "description": f"Two 2D U-Nets trained by cross-model self-correction (AIDE) to segment {structures}.",
        "data_source": _caption(cases.name),
        "data_type": "as in the datalist",
        "image_classes": f"{len(modality)} channels: {', '.join(modality.values())}",
        "label_classes": ", ".join(f"{index} {label}" for index, label in labels.items()),
        "pred_classes": f"{len(labels)} channels, softmax",
        "modality": modality["0"],
        "channels": modality,
        "classes": labels,
    }
    texts = _texts(structures, cases.name)
    return write_bundle(folder, parameters, metadata=metadata, texts=texts)


def _texts(structures: str, data: str) -> dict[str, str]:
    """Of the page of a bundle whose networks find some structures, by place."""
    return {
        "title": f"{structures[:1].upper()}{structures[1:]} from few labels",
        "tags": f"Segmentation, {structures}, noisy labels, label correction",
        "model": _MODEL,
        "data": f"{data}. `dataset_dir` is the datalist, or a folder that has it as `datalist.json`.",
        "performance": "Not measured yet: `evaluate.json` writes a table per case to `eval/` of the run folder.",
        "references": "None yet.",
        "data_license": "Whoever trains on data keeps to their licence.",
    }


def _caption(name: str) -> str:
    """A name for ``metadata.json``, which MONAI reads as a config and MONAI Label as it is: in quotes if need be."""
    return f'"{name}"' if name.startswith(("$", "@", "%")) else name


def _dicom_channels(cases: Iterable[Case]) -> list[str]:
    """What selects each channel in a folder of DICOM files, if that is the same in all cases."""
    found = {tuple(Location.parse(path) for path in case.images) for case in cases}
    selections = {tuple(place.part for place in places) for places in found}
    same = len(selections) == 1 and all(
        place.part and os.path.isdir(place.path) for places in found for place in places
    )
    return list(*selections) if same else []


_MODEL = (
    "Two 2D U-Nets on slices, trained with AIDE: a network trained on the labelled cases labels all others, and two\n"
    "fresh networks learn from these noisy labels while they filter and correct them for each other. The deployed\n"
    "network (`MeanNetwork`) is the mean of both; one checkpoint, `model.pt`, holds both."
)


def _content(path: Path) -> JsonObject:
    return read_object(path, advice="restore the config of the bundle")


def _write_configs(folder: Path, parameters: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    template = _content(TEMPLATE / "configs" / "train.json")
    values = {**parameters, "volume_options": {**template["volume_options"], **parameters.get("volume_options", {})}}
    for path in sorted((TEMPLATE / "configs").glob("*")):
        own = folder / "configs" / path.name
        if path.suffix != ".json":
            write_text(own, path.read_text())
            continue
        content = _content(path)
        if path.name == "metadata.json":
            content |= {key: value for key, value in metadata.items() if key in METADATA}
            if "channels" in metadata:
                content["network_data_format"] = _data_format(content["network_data_format"], metadata)
        else:
            content |= {key: value for key, value in values.items() if key in content}
        write_text(own, json.dumps(content, indent=4, ensure_ascii=False) + "\n")


def _data_format(template: Mapping[str, Any], metadata: Mapping[str, Any]) -> JsonObject:
    image, pred = dict(template["inputs"]["image"]), dict(template["outputs"]["pred"])
    image |= {
        "modality": metadata["modality"],
        "num_channels": len(metadata["channels"]),
        "channel_def": dict(metadata["channels"]),
    }
    pred |= {"num_channels": len(metadata["classes"]), "channel_def": dict(metadata["classes"])}
    return {"inputs": {"image": image}, "outputs": {"pred": pred}}


def _filled(page: str, texts: Mapping[str, str]) -> str:
    """The page with ``{name}`` replaced; other braces, such as those of code, stay."""
    return re.sub(r"\{(\w+)\}", lambda match: texts.get(match[1], match[0]), page)
