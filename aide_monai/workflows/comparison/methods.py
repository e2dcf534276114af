"""The methods of a comparison: the standard ones, their controls, and what a config says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from aide_monai.errors import InputError
from aide_monai.options import CO_TEACHING_RANGES, COMPONENTS, PSEUDO_LABEL_RANGES, RANGES, AIDEOptions
from aide_monai.utils.validation import require_choices, require_numbers
from aide_monai.workflows.comparison.budget import TrainingSettings
from aide_monai.workflows.comparison.config import GIVEN_LABELS, Named, naming, require_own_folders

if TYPE_CHECKING:
    from aide_monai.engines.rivals import Rival

RIVALS = (
    "mean_teacher",
    "cross_pseudo",
    "copy_paste",
    "unimatch",
    "generalised_cross_entropy",
    "confident_learning",
)
"""The keys of ``engines.RIVALS``, known without loading PyTorch."""
ENGINES = ("labelled", "noisy", "pseudo_label", "co_teaching", *RIVALS, "aide", "clean")
TWO_NETWORKS = ("co_teaching", *RIVALS, "aide")
"""Engines that train two networks whatever the budget says."""
# What one optimiser step of an engine costs, in steps of plain training of one network; AIDE's two networks each see
# four views of half the batch besides. Only progress bars need to know.
STEP_COST = {
    "labelled": 1.0,
    "noisy": 1.0,
    "pseudo_label": 1.0,
    "co_teaching": 2.0,
    "mean_teacher": 2.3,
    "cross_pseudo": 2.0,
    "copy_paste": 2.3,
    "unimatch": 4.9,
    "generalised_cross_entropy": 2.0,
    "confident_learning": 2.0,
    "aide": 3.5,
    "clean": 1.0,
}
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
    "mean teacher": "mean_teacher",
    "cross pseudo supervision": "cross_pseudo",
    "bidirectional copy-paste": "copy_paste",
    "UniMatch": "unimatch",
    "generalised cross-entropy": "generalised_cross_entropy",
    "confident learning": "confident_learning",
    "AIDE without views": "aide",
    "AIDE": "aide",
    "clean labels": "clean",
    "target-supervised": "clean",
    "one network, clean labels": "clean",
    "one network, target-supervised": "clean",
}
# What their names say; a config may add to it.
Options: TypeAlias = dict[str, Any]
"""What a method's training takes beyond the budget, by name."""

_NAMED_OPTIONS: dict[str, Options] = {
    "one network, noisy labels": {"raw": True},
    "one network, clean labels": {"raw": True},
    "one network, target-supervised": {"raw": True},
    WITHOUT_VIEWS: {"consistency_weight": 0.0},
}
CONTROL = "two networks, nothing corrected"
# Of a budget that gives all methods the same, see ``TrainingSettings.fair``.
_CONTROLS = (*_NAMED_OPTIONS, CONTROL)
# AIDE's options where a config is silent, by task. In domain adaptation the trusted cases are of the other domain: a
# share of every batch for them would teach the wrong one.
_AIDE_OPTIONS: dict[str, Options] = {"ssl": {}, "uda": {"trusted_share": 0.0}, "nll": {"random_errors": True}}
_SHARES = {"trusted_share": RANGES["trusted_share"]}
_OF_THE_BUDGET = ("trusted_share", "average")


@dataclass(frozen=True, kw_only=True)
class Method(Named):
    """One way of training.

    Attributes:
        name: what tables call it.
        engine: one of ``ENGINES``.
        options: of the engine, all of them.
    """

    engine: str
    options: Options

    @property
    def raw(self) -> bool:
        """Whether it trains one network as if the budget said nothing of networks, averages and shares."""
        return bool(self.options.get("raw"))


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
    require_own_folders("method", methods, taken=[GIVEN_LABELS])
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
    return [name for name, engine in STANDARD_METHODS.items() if name not in left_out and engine not in RIVALS]


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
    with naming(f'method "{name}"'):
        if task == "nll" and engine in RIVALS and _rival(engine).trusted:
            raise InputError(f"{engine} learns from trusted labels, and the task nll has none; leave it out")
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


def _rival(engine: str) -> Rival:
    from aide_monai.engines import RIVALS

    return RIVALS[engine]


def _rivals_options(engine: str, options: Options, epochs: int) -> Options:
    if engine in RIVALS:
        from aide_monai.engines import rival_options

        shares = {"trusted_share": options.pop("trusted_share", 0.5 if _rival(engine).trusted else 0.0)}
        require_numbers(shares, _SHARES)
        return rival_options(engine, epochs, options) | shares
    # One network has to learn for longer before its predictions are better than the labels.
    schedule = {"start": max(1, epochs // 2), "interval": max(1, epochs // 5)}
    uniform = {"trusted_share": 0.0}
    of_all: dict[str, Options] = {
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
    require_numbers(chosen, _SHARES if "trusted_share" in defaults else {})
    if engine == "pseudo_label":
        require_numbers(chosen, PSEUDO_LABEL_RANGES)
        require_choices(chosen, {"largest_component": COMPONENTS})
    elif engine == "co_teaching":
        require_numbers(chosen, CO_TEACHING_RANGES)
    if not isinstance(chosen.get("raw", False), bool):
        raise InputError(f"raw is {chosen['raw']!r}; expected true or false")
    return chosen
