"""Runs a bundle's own configs through MONAI's ConfigWorkflow."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aide_monai.data.sources.layouts import LAYOUTS
from aide_monai.errors import InputError
from aide_monai.io.location import Location
from aide_monai.labels.manifest import labels_folder
from aide_monai.options import AMP, PROFILES
from aide_monai.utils.files import JsonObject, read_object
from aide_monai.utils.locks import lock_folder, locks_of_this_block
from aide_monai.utils.processes import Stopped, launched, stop_behind
from aide_monai.utils.texts import did_you_mean
from aide_monai.utils.validation import (
    require_choices,
    require_device_name,
    require_numbers,
    require_slice_size,
    require_texts,
)
from aide_monai.workflows.comparison.budget import RANGES
from aide_monai.workflows.literals import literal

if TYPE_CHECKING:
    from monai.bundle import ConfigParser, ConfigWorkflow

MANY_PROCESSES = "multi_gpu_train"
_PATHS = ("dataset_dir", "run_dir", "start_from", "output_dir", "ckpt_path", "cache_dir", "roots", "folders")
TEXTS = (*_PATHS, "layout", "source", "domains", "dicom_channels", "labels")
"""Ids of a config that say where data lie and what is in them: their values are never expressions."""

_OTHER_DATA = {"datalist", "dataset"}  # who gives one of these needs no folder

_RANGES = RANGES | {"val_interval": (1, math.inf)}


def run_bundle(
    bundle: str | Path,
    configs: Sequence[str],
    overrides: Mapping[str, Any] | None = None,
    *,
    literals: Mapping[str, Any] | None = None,
) -> ConfigWorkflow:
    """The same as ``python -m monai.bundle run`` with these configs, ``bundle_root`` and overrides.

    Started by torchrun as one of many processes, ``multi_gpu_train`` is added to a training's configs.

    Args:
        bundle: folder of the bundle.
        configs: names in its ``configs`` folder, later ones refine earlier ones.
        overrides: config id to value, for example ``{"train#trainer#max_epochs": 2}``; as everywhere in a bundle, texts
            may be expressions, ``$...``, but for those under ``TEXTS``.
        literals: the same for values of others than the user who runs the bundle, such as those of a request: texts are
            nothing but texts, see ``literal``.

    Returns:
        The finished workflow; ``parser.get_parsed_content(id)`` is what an id of the config has become.

    Raises:
        InputError: if the bundle or a config is missing, an override names no id of the config or has a value that
            no run can use, a folder that must exist does not, another training is at work in the run's folder, or the
            run itself meets bad input.
        Stopped: by a signal, with the epoch that a training can be continued after.

    Examples:
        >>> from aide_monai import run_bundle
        >>> run_bundle("bundles/hippocampus_ssl", ["train"], {"epochs": 40, "run_dir": "RUN"})  # doctest: +SKIP
    """
    root = Path(bundle)
    if launched() and "train" in configs and MANY_PROCESSES not in configs:
        configs = [*configs, MANY_PROCESSES]
    files = [root / "configs" / f"{name}.json" for name in configs]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: no such config; expected a bundle folder with configs/{file.name}")
    given = {"bundle_root": str(root), **(overrides or {}), **(literals or {})}
    content: JsonObject = {}
    for file in files:
        content |= read_object(file, advice="restore the config of the bundle")
    _require_known(given, content)
    for key, value in given.items():
        require_texts(f"--{key}", value)
    texts = {"bundle_root", *(literals or {}), *(key for key in given if id_parts(key)[0] in TEXTS)}
    values = {key: literal(value) if key in texts else value for key, value in given.items()}
    data = given.get("dataset_dir", content.get("dataset_dir"))
    if "dataset_dir" in given or (isinstance(data, str) and data[:1] not in "$@" and not _OTHER_DATA & {*given}):
        _require_data(Path(Location.parse(str(data)).path), data)
    if given.get("start_from") is not None:
        labels_folder(str(given["start_from"]))
    _require_numbers({key: value for key, value in given.items() if isinstance(value, int | float)})
    _require_words({key: value for key, value in given.items() if isinstance(value, str) and value[:1] not in "$@"})
    from monai.bundle import ConfigWorkflow  # only a run that can begin waits for it

    workflow = ConfigWorkflow([str(file) for file in files], logging_file=None, **values)
    _require_usable(workflow.parser, literals or {})
    _run(workflow)
    return workflow


def _run(workflow: ConfigWorkflow) -> None:
    """Run it to its end; what stops it becomes one sentence."""
    from aide_monai.utils import distributed

    try:
        with locks_of_this_block():
            workflow.initialize()
            workflow.run()
            workflow.finalize()
    except (Exception, Stopped) as error:
        distributed.finalize()  # the others learn at once that this process will not answer any more
        stop = stop_behind(error)
        if stop is not None:
            history = workflow.parser.ref_resolver.resolved_content.get("history_dir")
            stop.advice = stop.advice if history is None else _how_to_continue(Path(str(history)))
            raise stop from error
        mistake = input_error(error) or distributed.lost_process(error)
        if mistake is None:
            raise
        raise mistake from error


def _how_to_continue(history: Path) -> str:
    from aide_monai.handlers.checkpoint import saved_epoch

    epoch = saved_epoch(history / "checkpoint.pt")
    after = "before the first epoch of AIDE was finished" if epoch == 0 else f"after epoch {epoch}"
    return f"stopped {after}; continue with --resume"


def history_folder(run_dir: str | Path, bundle_root: str | Path, *, resume: bool = False) -> str:
    """Where a training keeps its labels, log and checkpoint: in ``run_dir``, but never in the bundle's own folder.

    A bundle may be trained again and again, as MONAI Label does. Each of these trainings gets a folder of its own,
    ``runs/001``, ``runs/002``, ..., while the weights go to the bundle's ``models``.

    The folder of the run is locked from now on, see ``lock_folder``: two trainings in it would overwrite each other.

    Args:
        run_dir: folder of the run; the bundle's own folder when none was given.
        bundle_root: folder of the bundle.
        resume: continue the last training instead of a new one.

    Returns:
        ``run_dir``, or the folder of the last training in the bundle that is to be resumed or has not begun to train
        AIDE, or the next number. Nothing but the folder of the run is created.

    Raises:
        InputError: if another process trains there, or nothing can be written there.
    """
    from aide_monai.utils import distributed

    return distributed.on_main(lambda: _history_folder(run_dir, bundle_root, resume))  # another may have begun already


def _history_folder(run_dir: str | Path, bundle_root: str | Path, resume: bool) -> str:
    lock_folder(run_dir)
    if Path(run_dir).resolve() != Path(bundle_root).resolve():
        return str(run_dir)
    new = new_run(bundle_root)
    last = new.with_name(f"{int(new.name) - 1:03d}")
    begun = (last / "labels").exists() and not resume
    return str(last if last.exists() and not begun else new)


def new_run(bundle_root: str | Path) -> Path:
    """The next of the folders ``runs/001``, ``runs/002``, ... of a bundle; it is not created."""
    runs = Path(bundle_root) / "runs"
    last = max((int(folder.name) for folder in runs.glob("*") if folder.name.isdecimal()), default=0)
    return runs / f"{last + 1:03d}"


def input_error(error: BaseException) -> InputError | None:
    """The user's mistake behind an error that MONAI's config parser has wrapped, if it was one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def parse_overrides(arguments: Sequence[str]) -> JsonObject:
    """Turn ``--key value`` into a dictionary; values are JSON where they can be, else text.

    Keys may be spelt with hyphens: ``--run-dir`` is ``--run_dir``.

    Raises:
        InputError: if an argument is not an option, or an option has no value.
    """
    overrides: JsonObject = {}
    rest = list(arguments)
    while rest:
        key = rest.pop(0)
        if not key.startswith("--"):
            raise InputError(f"unexpected argument {key!r}; expected options such as --dataset_dir DIR")
        key, separator, value = key[2:].partition("=")
        if not separator:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"option --{key} has no value; write --{key} VALUE")
            value = rest.pop(0)
        try:
            content = json.loads(value)
        except (ValueError, RecursionError):
            content = value
        overrides[key.replace("-", "_")] = content
    return overrides


def _require_usable(parser: ConfigParser, literals: Mapping[str, Any]) -> None:
    """Refuse plain values of a config that no run can use; expressions are left to the run."""

    def plain(key: str) -> JsonObject:
        value = literals.get(key, parser.get(key))
        expression = key not in literals and isinstance(value, str) and value.startswith(("$", "@"))
        return {} if value is None or expression else {key: value}

    values = {name: value for key in (*_RANGES, "slice_size", "device") for name, value in plain(key).items()}
    _require_numbers(values)
    if "slice_size" in values:
        require_slice_size("slice_size", values["slice_size"])
    if "device" in values:
        from aide_monai.inferers import require_device

        require_device(values["device"])


def _require_data(place: Path, given: Any) -> None:
    """Refuse a place without data."""
    if not place.exists():
        raise InputError(f"--dataset_dir {given}: no such folder; give the folder of the data set, or a datalist")
    if place.is_dir() and not any(place.iterdir()):
        raise InputError(f"--dataset_dir {given}: an empty folder; give the folder of the data set, or a datalist")


def _require_words(values: Mapping[str, str]) -> None:
    """Refuse words that no config knows."""
    known = {"profile": tuple(PROFILES), "amp": AMP}
    require_choices(values, {key: words for key, words in known.items() if key in values})
    if "device" in values:
        require_device_name(values["device"])


def _require_numbers(values: Mapping[str, Any]) -> None:
    require_numbers(values, {key: limits for key, limits in _RANGES.items() if key in values})


def id_parts(key: str) -> list[str]:
    """The parts of a config id, of which the first is its name at the top of the config."""
    return key.replace("::", "#").split("#")


def _require_known(given: Mapping[str, Any], known: JsonObject) -> None:
    """Refuse overrides of something that the configs do not have; a typing mistake would otherwise do nothing."""
    layout = LAYOUTS.get(str(given.get("layout", known.get("layout"))))
    for key in given:
        if layout and isinstance(known.get("source"), dict) and key in [f"source#{name}" for name in layout.options]:
            continue
        node: Any = known
        for part in id_parts(key):
            if isinstance(node, list) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            elif isinstance(node, dict) and (part in node or "_target_" in node):
                node = node.get(part)
            else:
                names = sorted(name for name in known if not isinstance(known[name], (dict, list)))
                advice = did_you_mean(f"--{key}", [f"--{name}" for name in known])
                found = f"the config has {', '.join(names)}, or an id such as train#trainer"
                raise InputError(f"unknown option --{key}; {advice or found}")


def read_config(bundle: str | Path, name: str) -> ConfigParser:
    """A config of a bundle, of which nothing has been run."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(Path(bundle) / "configs" / f"{name}.json")
    return parser


def model_settings(bundle: str | Path) -> JsonObject:
    """How the inference of a bundle brings images to the networks; nothing from bundles that do not say it."""
    config = read_config(bundle, "inference")
    return config.get_parsed_content("model_settings") if "model_settings" in config else {}
