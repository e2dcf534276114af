"""The rivals of AIDE that train two networks and take nothing but their options, by the names that configs use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from aide_monai.engines import confident_learning, copy_paste, cross_pseudo, mean_teacher, unimatch
from aide_monai.engines.side_by_side import SideBySideTrainer
from aide_monai.engines.two_network import TwoNetworkTrainer
from aide_monai.errors import InputError
from aide_monai.losses import GeneralisedCrossEntropyLoss
from aide_monai.utils.validation import require_numbers

Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A rival and its options.

    Attributes:
        engine: builds it from the arguments of ``TwoNetworkTrainer`` and the options.
        options: defaults by name, from the number of epochs.
        check: raises an ``InputError`` for options that it does not take.
        trusted: whether it learns the labels of trusted cases alone, so that there must be some.
        seeded: whether it draws random numbers of its own and takes a ``seed``.
    """

    engine: Callable[..., TwoNetworkTrainer]
    options: Callable[[int], dict[str, Any]]
    check: Callable[[Mapping[str, Any]], None]
    trusted: bool = True
    seeded: bool = True


def _generalised_cross_entropy(*args: Any, q: float, **kwargs: Any) -> TwoNetworkTrainer:
    return SideBySideTrainer(*args, loss_function=GeneralisedCrossEntropyLoss(q=q), **kwargs)


RIVALS: dict[str, Rival] = {
    "mean_teacher": Rival(
        engine=mean_teacher.MeanTeacherTrainer,
        options=lambda epochs: {"weight": 10.0, "noise": 0.15, "ramp_epochs": max(1, round(0.4 * epochs))},
        check=mean_teacher.check,
    ),
    "cross_pseudo": Rival(
        engine=cross_pseudo.CrossPseudoTrainer,
        options=lambda epochs: {"weight": 1.5},
        check=cross_pseudo.check,
        seeded=False,
    ),
    "copy_paste": Rival(
        engine=copy_paste.CopyPasteTrainer,
        options=lambda epochs: {
            "weight": 0.5,
            "pretrain_epochs": epochs // 4,
            "size": 2 / 3,
            "largest_component": "class",
        },
        check=copy_paste.check,
    ),
    "unimatch": Rival(
        engine=unimatch.UniMatchTrainer,
        options=lambda epochs: {
            "threshold": 0.95,
            "feature_weight": 0.5,
            "view_weight": 0.5,
            "dropout": 0.5,
            "box_probability": 0.5,
            "size": 0.5,
        },
        check=unimatch.check,
    ),
    "generalised_cross_entropy": Rival(
        engine=_generalised_cross_entropy,
        options=lambda epochs: {"q": 0.7},
        check=lambda options: require_numbers(options, {"q": (1e-3, 1.0)}),
        trusted=False,
        seeded=False,
    ),
    "confident_learning": Rival(
        engine=confident_learning.ConfidentLearningTrainer,
        options=lambda epochs: {"fit_epochs": max(1, epochs // 3), "prune": "noise_rate"},
        check=confident_learning.check,
        trusted=False,
        seeded=False,
    ),
}
"""By the names of configs; each is described at its engine."""


def rival_options(name: str, epochs: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a rival, those that are not given at their defaults for so many epochs.

    Raises:
        InputError: if there is no such rival or option, or a value is out of range.

    Examples:
        >>> rival_options("copy_paste", 20, {"weight": 1.0})["pretrain_epochs"]
        5
    """
    if name not in RIVALS:
        raise InputError(f"found no rival {name!r}; expected one of {', '.join(RIVALS)}")
    defaults = RIVALS[name].options(epochs)
    unknown = options.keys() - defaults.keys()
    if unknown:
        raise InputError(f'unknown option "{min(unknown)}" of {name}; the options are {", ".join(defaults)}')
    chosen = {**defaults, **options}
    RIVALS[name].check(chosen)
    return chosen


def rival(name: str, epochs: int, *, seed: int = 0, **options: Any) -> Callable[..., TwoNetworkTrainer]:
    """Builds the engine of a rival from the arguments of ``TwoNetworkTrainer``.

    Args:
        name: one of ``RIVALS``.
        epochs: of the training, to which schedules are fitted that no option says.
        seed: of what the rival draws itself.
        options: of the rival.

    Raises:
        InputError: as ``rival_options``.

    Examples:
        >>> rival("mean_teacher", 10, weight=1.0).keywords
        {'weight': 1.0, 'noise': 0.15, 'ramp_epochs': 4, 'seed': 0}
    """
    chosen = rival_options(name, epochs, options)
    return partial(RIVALS[name].engine, **chosen, **({"seed": seed} if RIVALS[name].seeded else {}))
