"""The parts of a comparison's config, read and checked: data, hold-out, budget, settings. Methods are in ``methods``.

Each ``read_...`` takes what stands in the file and raises an ``InputError`` that names the key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from aide_monai.data.roles import ROLES
from aide_monai.data.sources.layouts import LAYOUTS
from aide_monai.errors import InputError
from aide_monai.utils.files import JsonObject
from aide_monai.utils.validation import ABOVE_0, require_numbers, require_slice_size
from aide_monai.workflows.comparison.budget import TrainingSettings
from aide_monai.workflows.comparison.hold_out import HoldOut, domain_pairs

TASKS = ("ssl", "uda", "nll")
# folder of a run for the labels that its methods are given
GIVEN_LABELS = "given_labels"
_SETTING_KEYS = {
    "ssl": ("labeled", "unlabeled", "cases"),
    "uda": ("source", "target"),
    "nll": ("rater", "rate", "kinds", "magnitude_mm"),
}
_SETTING_RANGES: dict[str, tuple[float, float]] = {
    "labeled": (1, math.inf),
    "unlabeled": (0, math.inf),
    "rate": (0.0, 1.0),
    "magnitude_mm": ABOVE_0,
}
DATA_KEYS = (
    "root",
    "domains",
    "layout",
    "source",
    "qubiq_task",
    "qubiq_subtask",
    "classes",
    "merge",
    "axis",
    "slice_size",
)
_PREPROCESSING = ("fit", "spacing", "orientation", "intensity", "percentiles", "window", "weights")
"""The further options of ``volume_transforms``."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """What has a name in the config and a folder in the results."""

    name: str

    @property
    def folder(self) -> str:
        """The name as a folder name."""
        return "".join(c if c.isalnum() or c in "-." else "_" for c in self.name)


@dataclass(frozen=True, kw_only=True)
class Setting(Named):
    """One task among several of an experiment.

    Attributes:
        name: what tables call it.
        values: the entries of the config.
    """

    values: JsonObject


def read_task(content: Any) -> str:
    """One of ``TASKS``."""
    if content not in TASKS:
        raise InputError(f'"task" is {content!r}; expected one of {", ".join(TASKS)}')
    return str(content)


def read_data(task: str, content: Any) -> JsonObject:
    """Where the cases are and how they are preprocessed."""
    place = "domains" if task == "uda" else "root"
    if not isinstance(content, dict) or place not in content:
        raise InputError(f'"data" needs "{place}" for the task {task}')
    folders = content[place]
    by_name = isinstance(folders, dict) and all(isinstance(folder, str) for folder in folders.values())
    if not (by_name if task == "uda" else isinstance(folders, str)):
        expected = "an object with a folder for each domain" if task == "uda" else "a folder"
        raise InputError(f'"data": "{place}" is {folders!r}; expected {expected}')
    require_keys('"data"', content, (*DATA_KEYS, *_PREPROCESSING))
    _require_classes(content.get("classes"), merge=bool(content.get("merge")))
    if content.get("slice_size") is not None:
        require_slice_size('"data": "slice_size"', content["slice_size"])
    layout, options = content.get("layout"), content.get("source", {})
    known = [name for name in LAYOUTS if len(LAYOUTS[name].folders) == 1]
    if layout is not None and layout not in known:
        raise InputError(f'"data": the layout is {layout!r}; expected one of {", ".join(known)}')
    if options and layout is None:
        raise InputError('"data": "source" holds options of a "layout"; name it too')
    require_keys('"source"', options, () if layout is None else LAYOUTS[layout].options)
    return content


def require_preprocessing(data: Mapping[str, Any]) -> None:
    """Refuse options of ``volume_transforms`` that it does not take."""
    from aide_monai.stream.preprocessing import volume_transforms

    with naming('"data"'):
        axis = 0 if data.get("axis") is None else data["axis"]
        volume_transforms(axis=axis, **{key: data[key] for key in _PREPROCESSING if key in data})


def _require_classes(content: Any, *, merge: bool) -> None:
    """Whole numbers; a network has an output for each index, so that none may be left out."""
    if content is None:
        return
    indices = content.values() if isinstance(content, dict) else [None]
    whole = all(type(index) is int for index in indices) and all(re.fullmatch("-?[0-9]{1,9}", str(k)) for k in content)
    if not whole or not (merge or {0, *indices} == set(range(1 + max(indices, default=0)))):
        raise InputError(
            f'"data": "classes" is {content!r}; expected an object of stored values and their class indices, such as '
            '{"1": 1, "4": 2}, indices without gaps'
        )


def read_split(content: Any, data: Mapping[str, Any]) -> HoldOut:
    """Which cases are held out."""
    split = _built(HoldOut, content, "split")
    with naming('"split"'):
        folds = {} if split.folds is None else {"folds": (2, math.inf)}
        require_numbers(vars(split), {"seed": (0, math.inf), **folds})
        if not isinstance(split.transductive, bool):
            raise InputError(f"transductive is {split.transductive!r}; expected true or false")
    domains = data.get("domains", {})
    for name, value in (("test", split.test), ("validation", split.validation)):
        by_domain = isinstance(value, Mapping) and domains and value.keys() == domains.keys()
        numbers = list(value.values()) if isinstance(value, Mapping) and by_domain else [value]
        if not all(number is None or type(number) is int for number in numbers):
            choice = f", or one for each of the domains {', '.join(domains)}" if domains else ""
            raise InputError(f'"split": "{name}" is {value!r}; expected a whole number{choice}')
    return split


def read_seeds(content: Any) -> tuple[int, ...]:
    """Each once, in their order."""
    if not isinstance(content, list) or not content or not all(type(seed) is int and seed >= 0 for seed in content):
        raise InputError(f'"seeds" is {content!r}; expected a list of whole numbers')
    return tuple(dict.fromkeys(content))


def read_budget(content: Any) -> TrainingSettings:
    """What all methods share, without seed and device, see ``precise`` for the precision."""
    if not isinstance(content, dict) or content.keys() & {"seed", "device"}:
        raise InputError('"budget" holds epochs, steps_per_epoch, ...; the seeds stand under "seeds"')
    values = dict(content)
    if isinstance(values.get("features"), list):
        values["features"] = tuple(values["features"])
    return _built(TrainingSettings, values, "budget")


def precise(budget: TrainingSettings, content: Mapping[str, Any]) -> TrainingSettings:
    """The budget with the precision that this processor has, where the entry of the config says none."""
    from aide_monai.inferers import hardware_amp

    return budget if "amp" in content else replace(budget, amp=hardware_amp())


def read_settings(
    task: str, content: Any, data: Mapping[str, Any], cases: Any = None, seeds: Sequence[int] = ()
) -> tuple[Setting, ...]:
    """The tasks among which methods are compared.

    Args:
        task: one of ``TASKS``.
        content: the entry of the config.
        data: where the cases are.
        cases: the names of cases by role that all settings share; they may have further ones.
        seeds: those of the experiment.
    """
    if cases is not None and task != "ssl":
        raise InputError(f'"cases" is for the task ssl; expected none for {task}: hold cases out by "split"')
    if task == "uda" and content is None:
        content = [{"source": source, "target": target} for source, target in domain_pairs(data["domains"])]
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        raise InputError(f'"settings" is {content!r}; expected a list of objects with {", ".join(_SETTING_KEYS[task])}')
    settings = []
    for entry in content:
        values = {key: value for key, value in entry.items() if key != "name"}
        require_keys('"settings"', values, _SETTING_KEYS[task])
        if cases is not None or "cases" in values:
            values = {"cases": _read_cases(cases, seeds) | _read_cases(values.pop("cases", None), seeds), **values}
            if len(values) > 1 or not {"labeled", "doubtful"} & values["cases"].keys():
                raise InputError('"settings": with "cases", expected names of "labeled" ones and no numbers of cases')
        _require_setting(values)
        settings.append(Setting(name=str(entry.get("name", _setting_name(task, values, data))), values=values))
    require_own_folders("setting", settings)
    return tuple(settings)


def _read_cases(content: Any, seeds: Sequence[int]) -> JsonObject:
    """Role to names, or to names by seed."""
    content = {} if content is None else content
    require_keys('"cases"', content, ROLES)
    for role, names in content.items():
        draws = names if isinstance(names, dict) else {str(seed): names for seed in seeds}
        if not all(isinstance(draw, list) and all(isinstance(n, str) for n in draw) for draw in draws.values()):
            raise InputError(f'"cases": "{role}" is {names!r}; expected a list of names, or such a list for each seed')
        if missing := [seed for seed in seeds if str(seed) not in draws]:
            raise InputError(f'"cases": "{role}" has no list for the seed {missing[0]}; expected one for each')
    return content


def cases_of(values: Mapping[str, Any], seed: int) -> dict[str, list[str]]:
    """Role to names of the cases of a setting, with one seed."""
    cases = values["cases"]
    return {role: names[str(seed)] if isinstance(names, dict) else names for role, names in cases.items()}


def labelled_number(values: Mapping[str, Any]) -> int:
    """Labelled cases of a setting, or patients where these are named."""
    if "cases" not in values:
        return int(values["labeled"])
    names = values["cases"].get("labeled", [])
    return len(next(iter(names.values())) if isinstance(names, dict) else names)


def _require_setting(values: Mapping[str, Any]) -> None:
    unset = ("unlabeled",) if values.get("unlabeled") is None else ()
    with naming('"settings"'):
        require_numbers(values, {k: v for k, v in _SETTING_RANGES.items() if k in values and k not in unset})
    rater = values.get("rater", "all")
    if rater != "all" and (type(rater) is not int or rater < 1):
        raise InputError(f'"settings": rater is {rater!r}; expected the number of one, from 1, or "all"')


def _setting_name(task: str, values: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    try:
        if task == "ssl":
            return f"{labelled_number(values)} labelled"
        if task == "uda":
            for name in (values["source"], values["target"]):
                if not isinstance(name, str) or name not in data["domains"]:
                    raise InputError(
                        f'"settings": the domain is {name!r}; expected one of {", ".join(data["domains"])}'
                    )
            return f"{values['source']} to {values['target']}"
    except KeyError as error:
        raise InputError(f'"settings": a setting of the task {task} lacks the key {error}') from error
    if ("rater" in values) == ("rate" in values):
        raise InputError(
            '"settings": expected "rater" (QUBIQ) or "rate" (synthetic noise) in a setting of the task nll'
        )
    if "rater" in values:
        return "all raters" if values["rater"] == "all" else f"rater {values['rater']}"
    return f"{100 * values['rate']:g} % corrupted"


def require_noise(settings: Sequence[Setting]) -> None:
    """Refuse kinds of label noise that there are not."""
    from aide_monai.transforms.label_noise import check_noise

    for setting in settings:
        noise = noise_options(setting.values)
        with naming('"settings"'):
            check_noise(noise["kinds"], noise["magnitude_mm"])


def noise_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a setting, with what it is silent about of the label noise."""
    from aide_monai.transforms.label_noise import NOISES

    return {"kinds": tuple(NOISES), "magnitude_mm": 3.0, **values}


def _built(kind: Any, content: Any, name: str) -> Any:
    known = fields(kind)
    required = [field.name for field in known if field.default is MISSING and field.default_factory is MISSING]
    require_keys(f'"{name}"', content, [field.name for field in known], required)
    with naming(f'"{name}"'):
        return kind(**content)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Says where in the config a value stands that is refused."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def require_own_folders(kind: str, entries: Sequence[Named], taken: Sequence[str] = ()) -> None:
    """Refuse names that have no folder name, or the same."""
    folders = [*taken, *(entry.folder for entry in entries)]
    for entry in entries:
        if not entry.folder.strip("."):
            raise InputError(f'{kind} "{entry.name}": its folder would have this name; choose one with letters')
        if folders.count(entry.folder) > 1:
            raise InputError(f'{kind} "{entry.name}": its folder {entry.folder} is taken; choose another name')


def require_keys(where: str, content: Any, known: Sequence[str], required: Sequence[str] = ()) -> None:
    """Refuse what is no object with these keys."""
    if not isinstance(content, dict):
        raise InputError(f"{where} is {content!r}; expected an object")
    unknown = [key for key in content if key not in known]
    if unknown:
        raise InputError(f'{where}: unknown key "{unknown[0]}"; the keys are {", ".join(known)}')
    missing = [key for key in required if key not in content]
    if missing:
        raise InputError(f'{where}: key "{missing[0]}" is missing')
