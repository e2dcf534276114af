"""The parts of a comparison's config, read and checked: data, hold-out, budget, methods and settings.

Each ``read_...`` takes what stands in the file and raises an ``InputError`` that names the key.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from aide_monai.data.sources.layouts import LAYOUTS
from aide_monai.engines import co_teaching, pseudo_label
from aide_monai.errors import InputError
from aide_monai.inferers import hardware_amp
from aide_monai.options import RANGES, AIDEOptions
from aide_monai.stream.preprocessing import volume_transforms
from aide_monai.transforms.label_noise import NOISES, check_noise
from aide_monai.utils.validation import ABOVE_0, require_choices, require_numbers, require_slice_size
from aide_monai.workflows.comparison.budget import TrainingSettings
from aide_monai.workflows.comparison.tasks import HoldOut, domain_pairs

TASKS = ("ssl", "uda", "nll")
ENGINES = ("labelled", "noisy", "pseudo_label", "co_teaching", "aide", "clean")
WITHOUT_VIEWS = "AIDE without views"
# name of a method to its engine, in the order of the tables
STANDARD_METHODS = {
    "labelled only": "labelled",
    "source only": "labelled",
    "noisy labels": "noisy",
    "one network, noisy labels": "noisy",
    "two networks, nothing corrected": "noisy",
    "pseudo-label": "pseudo_label",
    "co-teaching": "co_teaching",
    "AIDE without views": "aide",
    "AIDE": "aide",
    "clean labels": "clean",
    "target-supervised": "clean",
    "one network, clean labels": "clean",
    "one network, target-supervised": "clean",
}
# What their names say; a config may add to it.
_NAMED_OPTIONS: dict[str, dict[str, Any]] = {
    "one network, noisy labels": {"raw": True},
    "one network, clean labels": {"raw": True},
    "one network, target-supervised": {"raw": True},
    WITHOUT_VIEWS: {"consistency_weight": 0.0},
}
CONTROL = "two networks, nothing corrected"
# Of a budget that gives all methods the same, see ``TrainingSettings.fair``.
_CONTROLS = (*_NAMED_OPTIONS, CONTROL)
# folder of a run for the labels that its methods are given
GIVEN_LABELS = "given_labels"
_SETTING_KEYS = {
    "ssl": ("labeled", "unlabeled"),
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
_PREPROCESSING = tuple(
    key
    for key in inspect.signature(volume_transforms).parameters
    if key not in (*DATA_KEYS, "keys", "resample_labels", "fit_labels")
)
# AIDE's options where a config is silent, by task. In domain adaptation the trusted cases are of the other domain: a
# share of every batch for them would teach the wrong one.
_AIDE_OPTIONS: dict[str, dict[str, Any]] = {"ssl": {}, "uda": {"trusted_share": 0.0}, "nll": {"random_errors": True}}
_SHARES = {"trusted_share": RANGES["trusted_share"]}
_OF_THE_BUDGET = ("trusted_share", "average")
_RIVALS_RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "noisy": _SHARES,
    "pseudo_label": _SHARES | pseudo_label.SCHEDULE_RANGES,
    "co_teaching": _SHARES | co_teaching.SCHEDULE_RANGES,
}


@dataclass(frozen=True, kw_only=True)
class _Named:
    name: str

    @property
    def folder(self) -> str:
        """The name as a folder name."""
        return "".join(c if c.isalnum() or c in "-." else "_" for c in self.name)


@dataclass(frozen=True, kw_only=True)
class Method(_Named):
    """One way of training.

    Attributes:
        name: what tables call it.
        engine: one of ``ENGINES``.
        options: of the engine, all of them.
    """

    engine: str
    options: dict[str, Any]

    @property
    def raw(self) -> bool:
        """Whether it trains one network as if the budget said nothing of networks, averages and shares."""
        return bool(self.options.get("raw"))


@dataclass(frozen=True, kw_only=True)
class Setting(_Named):
    """One task among several of an experiment.

    Attributes:
        name: what tables call it.
        values: the entries of the config.
    """

    values: dict[str, Any]


def read_task(content: Any) -> str:
    """One of ``TASKS``."""
    if content not in TASKS:
        raise InputError(f'"task" is {content!r}; expected one of {", ".join(TASKS)}')
    return str(content)


def read_data(task: str, content: Any) -> dict[str, Any]:
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
    with _naming('"data"'):
        axis = 0 if content.get("axis") is None else content["axis"]
        volume_transforms(axis=axis, **{key: content[key] for key in _PREPROCESSING if key in content})
    layout, options = content.get("layout"), content.get("source", {})
    known = [name for name in LAYOUTS if len(LAYOUTS[name].folders) == 1]
    if layout is not None and layout not in known:
        raise InputError(f'"data": the layout is {layout!r}; expected one of {", ".join(known)}')
    if options and layout is None:
        raise InputError('"data": "source" holds options of a "layout"; name it too')
    require_keys('"source"', options, () if layout is None else LAYOUTS[layout].options)
    return content


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
    with _naming('"split"'):
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
    """What all methods share, without seed and device."""
    if not isinstance(content, dict) or content.keys() & {"seed", "device"}:
        raise InputError('"budget" holds epochs, steps_per_epoch, ...; the seeds stand under "seeds"')
    values = {"amp": hardware_amp(), **content}
    if isinstance(values.get("features"), list):
        values["features"] = tuple(values["features"])
    return _built(TrainingSettings, values, "budget")


def read_methods(
    task: str, content: Any, budget: TrainingSettings, tested: Any = None
) -> tuple[tuple[Method, ...], str | None]:
    """The methods, with all options, and the name of the one that is tested against the others.

    Args:
        task: one of ``TASKS``.
        content: the entry of the config; None: the standard methods of the task.
        budget: what they share.
        tested: the name in the config. None: "AIDE", or the first method of this engine, or none.
    """
    content = _default_methods(task, fair=budget.fair) if content is None else content
    if not isinstance(content, list | dict) or not content or not all(isinstance(name, str) for name in content):
        raise InputError(f'"methods" is {content!r}; expected a list of names, or names with options')
    named = dict.fromkeys(content) if isinstance(content, list) else content
    for name, options in named.items():
        if not isinstance(options, dict | None):
            raise InputError(f'method "{name}" has {options!r}; expected its options, {{}} for none')
    given = {name: _NAMED_OPTIONS.get(name, {}) | (options or {}) for name, options in named.items()}
    chosen = _tested(given, tested)
    if WITHOUT_VIEWS in given and chosen is not None and _engine(chosen, given[chosen]) == "aide":
        given[WITHOUT_VIEWS] = {**given[chosen], **given[WITHOUT_VIEWS]}  # it is the tested method but for its views
    methods = tuple(_method(task, name, options, budget) for name, options in given.items())
    _require_own_folders("method", methods, taken=[GIVEN_LABELS])
    return methods, chosen


def _tested(given: Mapping[str, Mapping[str, Any]], name: Any) -> str | None:
    if name is not None:
        if name not in given:
            raise InputError(f'"tested" is {name!r}; expected one of the methods {", ".join(given)}')
        return str(name)
    ours = [method for method, options in given.items() if _engine(method, options) == "aide"]
    return "AIDE" if "AIDE" in ours else next((method for method in ours if method != WITHOUT_VIEWS), None)


def _default_methods(task: str, *, fair: bool) -> list[str]:
    """The standard methods of a task, in the order of the tables; with a fair budget, its controls too."""
    absent = {
        "ssl": ("source only", "target-supervised", "one network, target-supervised"),
        "uda": ("labelled only", "clean labels", "one network, clean labels"),
        "nll": ("labelled only", "source only", "target-supervised", "one network, target-supervised"),
    }
    left_out = {*absent[task], *(["noisy labels"] if fair else _CONTROLS)}  # with two networks that is the control
    return [name for name in STANDARD_METHODS if name not in left_out]


def _engine(name: str, options: Mapping[str, Any]) -> Any:
    return options.get("engine", STANDARD_METHODS.get(name))


def _method(task: str, name: str, content: Mapping[str, Any], budget: TrainingSettings) -> Method:
    options, epochs, engine = dict(content), budget.epochs, _engine(name, content)
    options.pop("engine", None)
    if engine not in ENGINES:
        raise InputError(
            f'method "{name}": found the engine {engine!r}; expected one of {", ".join(ENGINES)}, or a method of the '
            f"names {', '.join(STANDARD_METHODS)}"
        )
    shared = {key: vars(budget)[key] for key in _OF_THE_BUDGET if vars(budget)[key] is not None}
    with _naming(f'method "{name}"'):
        if name == CONTROL and budget.networks == 1:
            raise InputError('"budget" says "networks": 1; expected 2')
        own = [key for key in shared if key in options and options[key] != shared[key]]
        if own:
            raise InputError(
                f'{own[0]} is {options[own[0]]!r}, and in "budget" it is {shared[own[0]]!r}, for all methods; expected '
                "it in one of both places"
            )
        if engine == "aide":
            chosen = asdict(AIDEOptions.for_epochs(epochs, **_AIDE_OPTIONS[task] | options | shared))
        else:
            chosen = _rivals_options(engine, options, epochs)
            if "trusted_share" in chosen and not chosen.get("raw"):
                chosen |= {key: value for key, value in shared.items() if key == "trusted_share"}
    return Method(name=name, engine=engine, options=chosen)


def _rivals_options(engine: str, options: dict[str, Any], epochs: int) -> dict[str, Any]:
    # One network has to learn for longer before its predictions are better than the labels.
    schedule = {"start": max(1, epochs // 2), "interval": max(1, epochs // 5)}
    uniform = {"trusted_share": 0.0}
    of_all: dict[str, dict[str, Any]] = {
        "labelled": {"raw": False},
        "noisy": {"raw": False} | uniform,
        "clean": {"raw": False},
        "pseudo_label": schedule | {"largest_component": "none"} | uniform,
        "co_teaching": {"max_forget_rate": 0.5, "warmup_epochs": max(1, round(0.4 * epochs))} | uniform,
    }
    defaults = of_all.get(engine, {})
    unknown = options.keys() - defaults.keys()
    if unknown:
        raise InputError(f'unknown option "{min(unknown)}"; the options are {", ".join(defaults) or "none"}')
    chosen = defaults | options
    require_numbers(chosen, _RIVALS_RANGES.get(engine, {}))
    require_choices(chosen, pseudo_label.CHOICES if engine == "pseudo_label" else {})
    if not isinstance(chosen.get("raw", False), bool):
        raise InputError(f"raw is {chosen['raw']!r}; expected true or false")
    return chosen


def read_settings(task: str, content: Any, data: Mapping[str, Any]) -> tuple[Setting, ...]:
    """The tasks among which methods are compared."""
    if task == "uda" and content is None:
        content = [{"source": source, "target": target} for source, target in domain_pairs(data["domains"])]
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        raise InputError(f'"settings" is {content!r}; expected a list of objects with {", ".join(_SETTING_KEYS[task])}')
    settings = []
    for entry in content:
        values = {key: value for key, value in entry.items() if key != "name"}
        require_keys('"settings"', values, _SETTING_KEYS[task])
        _require_setting(values)
        settings.append(Setting(name=str(entry.get("name", _setting_name(task, values, data))), values=values))
    _require_own_folders("setting", settings)
    return tuple(settings)


def _require_setting(values: Mapping[str, Any]) -> None:
    unset = ("unlabeled",) if values.get("unlabeled") is None else ()
    noise = noise_options(values)
    with _naming('"settings"'):
        require_numbers(values, {k: v for k, v in _SETTING_RANGES.items() if k in values and k not in unset})
        check_noise(noise["kinds"], noise["magnitude_mm"])
    rater = values.get("rater", "all")
    if rater != "all" and (type(rater) is not int or rater < 1):
        raise InputError(f'"settings": rater is {rater!r}; expected the number of one, from 1, or "all"')


def _setting_name(task: str, values: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    try:
        if task == "ssl":
            return f"{values['labeled']} labelled"
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


def noise_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a setting, with what it is silent about of the label noise."""
    return {"kinds": tuple(NOISES), "magnitude_mm": 3.0, **values}


def _built(kind: Any, content: Any, name: str) -> Any:
    known = fields(kind)
    required = [field.name for field in known if field.default is MISSING and field.default_factory is MISSING]
    require_keys(f'"{name}"', content, [field.name for field in known], required)
    with _naming(f'"{name}"'):
        return kind(**content)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Says where in the config a value stands that is refused."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _require_own_folders(kind: str, entries: Sequence[_Named], taken: Sequence[str] = ()) -> None:
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
