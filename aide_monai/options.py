"""Every open point of the paper as a named option with one default, and named sets of them (profiles)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from aide_monai.errors import InputError
from aide_monai.utils.validation import ABOVE_0, require_choices, require_numbers

AMP = ("off", "bf16", "fp16")
"""Precisions of a training."""
COMPONENTS = ("none", "class", "foreground")
"""What can be kept of a prediction before it becomes a label: all, or the largest component of each class, in the
"foreground" of the largest one of all classes together."""
ROTATE_FLIP_RANGES: dict[str, tuple[float, float]] = {
    "max_angle": (0.0, 180.0),
    "flip_probability": (0.0, 1.0),
    "max_zoom": (1.0, 10.0),
}
"""Smallest and largest value of what ``RandomRotateFlip`` draws from."""
PSEUDO_LABEL_RANGES: dict[str, tuple[float, float]] = {"start": (1, math.inf), "interval": (1, math.inf)}
CO_TEACHING_RANGES: dict[str, tuple[float, float]] = {"max_forget_rate": (0.0, 0.9999), "warmup_epochs": (0, math.inf)}

_CHOICES = {
    "filter_strata": ("none", "foreground"),
    "confidence": ("none", "entropy", "binary"),
    "sharpening": ("power", "softmax"),
    "pseudo_label_source": ("own", "other"),
    "view_samples": ("suspicious", "all"),
    "view_statistics": ("running", "batch"),
    "view_inverse": ("probabilities", "logits"),
    "correction_source": ("other", "mean"),
    "unit": ("case", "slice", "patch"),
    "ranking_reference": ("own", "released"),
    "largest_component": COMPONENTS,
}
_PAPER: dict[str, Any] = {
    "trusted_share": 0.0,
    "trusted_drop": 1.0,
    "filter_strata": "none",
    "supervised_floor": 0.0,
    "average": 0.0,
    "correction_source": "other",
}
PROFILES: dict[str, dict[str, Any]] = {
    "improved": {},
    "paper": _PAPER,
    "original": _PAPER
    | {
        "consistency_weight": 10.0,
        "confidence": "binary",
        "temperature": 1.0,
        "pseudo_label_source": "other",
        "view_samples": "all",
        "view_statistics": "batch",
        "view_inverse": "logits",
        "correction_foreground": 0.0,
        "ranking_reference": "released",
        "rank_high_quality": True,
        "largest_component": "class",
    },
}
"""What each profile has other than the defaults, which are ``improved``."""
RANGES: dict[str, tuple[float, float]] = {
    "trusted_share": (0.0, 1.0),
    "keep": (0.0, 1.0),
    "supervised_floor": (0.0, 1.0),
    "consistency_weight": (0.0, float("inf")),
    "temperature": ABOVE_0,
    "views": (1, float("inf")),
    "max_angle": (0.0, 180.0),
    "flip_probability": (0.0, 1.0),
    "average": (0.0, 0.9999),
    "warmup_epochs": (0, float("inf")),
    "update_ratio": (0.0, 1.0),
    "update_interval": (1, float("inf")),
    "correction_start": (1, float("inf")),
    "correction_dice": (0.0, 1.0),
    "correction_foreground": (0.0, 1.0),
    "trusted_drop": (0.0, 1.0),
}
"""Smallest and largest value of the options that are numbers, by name."""


@dataclass(frozen=True, kw_only=True)
class AIDEOptions:
    """Options of Algorithm 1. The defaults are the profile ``improved``, the one that the results are of.

    The profile ``paper`` is Algorithm 1 as printed, with its open points filled in. Where it is not what is printed
    (Fig. 5, by its lines):

    - 7 to 13: views are made of suspicious samples alone, the only ones whose consistency loss is used.
    - 10: the mean is sharpened by ``p^(1/T)``, the method that the text cites; the line prints ``exp(p/T)``, which
      ``sharpening="softmax"`` computes.
    - 22, 23: R is the share of the doubtful units. The lines rank all of D and then skip trusted ones, as
      ``rank_high_quality`` does. At least one unit is selected.
    - 24: labels are updated up to and with epoch q_w; the text says in epochs smaller than q_w.
    - 25, 26: a correction that would nearly empty a label is not made, see ``correction_foreground``; this matters only
      where networks collapse.
    - 27: DSC_train is computed after every epoch, with the labels that the epoch was trained on. The line stands within
      the update, so that it would be computed in epochs with one, with the new labels.

    The last five only reproduce the released run, quirks included: the profile ``original`` sets them, and nobody else
    needs them.

    Attributes:
        trusted_share: least share of every batch that is drawn from high-quality cases, where there are any; 0 draws
            from all cases alike, as is right where those are of another domain.
        keep: share of a batch that each network trusts; ``floor(keep * B)`` samples, at least one.
        filter_strata: samples of a batch are ranked all together ("none"), or those with and those without labelled
            "foreground" each among their own kind. The Dice loss of an empty slice is near 1 even where the prediction
            is right, so that otherwise empty slices are always suspicious.
        supervised_floor: least weight of the supervised loss of suspicious samples; 0 lets it vanish once lambda is 1.
        consistency_weight: w of the consistency loss. The paper prints 1; its published runs used 10.
        confidence: weight of each pixel of a pseudo-label: "none", "entropy" (``1 - H(p) / log C``) or "binary"
            (``1 - 4 p0 p1``, two classes).
        temperature: T of the sharpening; 1 changes nothing with "power".
        sharpening: "power" (``p^(1/T)``) or "softmax" (``exp(p/T)``, as Fig. 5 prints it), renormalised.
        pseudo_label_source: which network's pseudo-label trains a network: its "own" (Fig. 5) or the "other"'s.
        views: K augmented views of each suspicious sample.
        max_angle: views are rotated uniformly in +-``max_angle`` degrees.
        flip_probability: probability that a view is mirrored.
        flip_axis: spatial axis that is mirrored; axis 0 of a RAS volume is left-right.
        average: decay of a moving average of each network's weights, which predicts in its place: views, labels, and
            the model that is kept; 0 keeps none.
        warmup_epochs: q_w, epochs over which lambda rises to 1 and labels are corrected after every epoch.
        unit: what is ranked and corrected: a whole "case", a single "slice" (``SliceDataset``), or a "patch" of the
            grid that 3D patches lie on (``PatchDataset``).
        correction_source: what replaces a network's label: the prediction of the "other" one, or of the "mean" of both,
            which then ranks the labels of both too.
        update_ratio: R, share of the ranked units whose labels are replaced, rounded down, but at least one; 0 replaces
            none.
        update_interval: after the warm-up, labels are corrected every so many epochs.
        correction_start: first epoch after which labels may be corrected.
        correction_dice: labels are corrected only after epochs in which the mean Dice of both networks with the trusted
            labels, or with all where none are trusted, reaches this; 0 always corrects.
        correction_foreground: share of its given foreground voxels that a correction leaves a label at least; one that
            would leave less is not made, so that networks that find nothing do not empty the labels. 0 makes all, as
            the paper and the released code do.
        fill_ignored: whether voxels that nobody has labelled (``IGNORED``) take the predicted class, in all cases,
            whenever labels are corrected; they are then learnt from, and still rank nothing. By default they stay
            without a label.
        trusted_drop: corrections end, and the labels return to what they were before, when the mean Dice of both
            networks with the trusted labels falls by more than this below its best: networks that learn trusted labels
            in every batch and disagree with them have learned something else from the corrected ones. 1 never ends
            them. Only with a ``trusted_share``.
        largest_component: what predictions keep before ranking and writing: "none" keeps all, "class" the largest
            component of each class, "foreground" likewise within the largest component of all classes together, for
            structures that touch.
        view_samples: views are predicted of the "suspicious" samples, or of "all"; the result differs only where
            ``view_statistics`` lets the samples of a batch depend on each other.
        view_statistics: normalisation layers predict the views with their "running" statistics, which stay
            untouched, or with those of the "batch", which then move the running ones.
        view_inverse: what is rotated back: "probabilities" (masked mean over the views) or "logits" (zero-filled).
        ranking_reference: network i is ranked against the label it trains on ("own"), or network 1 against the
            given label and network 2 against network 1's label ("released": an index slip of the released code).
        rank_high_quality: high-quality units take part in the ranking and are then skipped, instead of left out.

    Raises:
        InputError: if an option is out of range or not one of its choices.

    Examples:
        >>> from aide_monai import AIDEOptions
        >>> AIDEOptions(warmup_epochs=5).keep
        0.5
        >>> AIDEOptions.from_profile("original").consistency_weight
        10.0
    """

    trusted_share: float = 0.5
    keep: float = 0.5
    filter_strata: str = "foreground"
    supervised_floor: float = 1.0
    consistency_weight: float = 1.0
    confidence: str = "none"
    temperature: float = 0.5
    sharpening: str = "power"
    pseudo_label_source: str = "own"
    views: int = 4
    max_angle: float = 60.0
    flip_probability: float = 0.5
    flip_axis: int = 0
    average: float = 0.99
    warmup_epochs: int = 20
    unit: str = "case"
    correction_source: str = "mean"
    update_ratio: float = 0.25
    update_interval: int = 10
    correction_start: int = 1
    correction_dice: float = 0.0
    correction_foreground: float = 0.1
    fill_ignored: bool = False
    trusted_drop: float = 0.05
    largest_component: str = "none"
    view_samples: str = "suspicious"
    view_statistics: str = "running"
    view_inverse: str = "probabilities"
    ranking_reference: str = "own"
    rank_high_quality: bool = False

    @classmethod
    def from_profile(cls, profile: str = "improved", **changes: Any) -> AIDEOptions:
        """The options of a profile, some of them changed.

        Args:
            profile: "improved", our variant and the default, see ``docs/results``; "paper", Algorithm 1 as printed; or
                "original", the authors' released CHAOS run with its quirks.
            changes: options that differ from the profile.

        Raises:
            InputError: for an unknown profile or option.
        """
        require_choices({"profile": profile}, {"profile": tuple(PROFILES)})
        unknown = sorted(changes.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise InputError(f"unknown option {unknown[0]!r}; expected one of {', '.join(f.name for f in fields(cls))}")
        return cls(**(PROFILES[profile] | changes))

    @classmethod
    def for_epochs(
        cls,
        epochs: int,
        profile: str = "improved",
        *,
        random_errors: bool = False,
        tuned: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> AIDEOptions:
        """The options of a profile, with a schedule that fits a training of so many epochs.

        Lambda rises over the first two fifths. Labels are corrected from three tenths of the epochs on: after every
        epoch until lambda has risen, then after every tenth part. Networks that have just begun predict worse than the
        labels are, see ``docs/results``. Labels with random errors, which average out in training, stay better than
        predictions for longer: they are corrected from two thirds on.

        Args:
            epochs: Q.
            profile: as in ``from_profile``.
            random_errors: doubtful labels are wrong at random, not as a network that made them is.
            tuned: options that differ from the profile "improved" on the data at hand; other profiles leave them out.
            changes: likewise.

        Raises:
            InputError: as ``from_profile``.
        """
        schedule = {
            "warmup_epochs": max(1, round(0.4 * epochs)),
            "update_interval": max(1, round(0.1 * epochs)),
            "correction_start": max(1, math.ceil(2 * epochs / 3 if random_errors else 3 * epochs / 10)),
        }
        of_profile = dict(tuned or {}) if profile == "improved" else {}
        return cls.from_profile(profile, **schedule | of_profile | changes)

    def __post_init__(self) -> None:
        require_choices(vars(self), _CHOICES)
        require_numbers(vars(self), RANGES)
        if self.flip_axis not in (0, 1):
            raise InputError(f"flip_axis is {self.flip_axis!r}; expected 0 or 1")
        for name in ("fill_ignored", "rank_high_quality"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is {getattr(self, name)!r}; expected true or false")
