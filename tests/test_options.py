"""The defaults of the specification, and what is refused."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from aide_monai.errors import InputError
from aide_monai.options import _CHOICES, PROFILES, AIDEOptions

DEFAULTS = {
    "trusted_share": 0.5,
    "keep": 0.5,
    "filter_strata": "foreground",
    "supervised_floor": 1.0,
    "consistency_weight": 1.0,
    "confidence": "none",
    "temperature": 0.5,
    "sharpening": "power",
    "pseudo_label_source": "own",
    "views": 4,
    "max_angle": 60.0,
    "flip_probability": 0.5,
    "flip_axis": 0,
    "view_samples": "suspicious",
    "view_statistics": "running",
    "view_inverse": "probabilities",
    "average": 0.99,
    "warmup_epochs": 20,
    "unit": "case",
    "correction_source": "mean",
    "update_ratio": 0.25,
    "update_interval": 10,
    "correction_start": 1,
    "correction_dice": 0.0,
    "correction_foreground": 0.1,
    "trusted_drop": 0.05,
    "ranking_reference": "own",
    "rank_high_quality": False,
    "fill_ignored": False,
    "largest_component": "none",
}


# what Algorithm 1 prints, where it is not the default
PAPER = {
    "trusted_share": 0.0,
    "trusted_drop": 1.0,
    "filter_strata": "none",
    "supervised_floor": 0.0,
    "average": 0.0,
    "correction_source": "other",
}


def test_the_defaults_are_the_profile_that_the_results_are_of() -> None:
    assert asdict(AIDEOptions()) == DEFAULTS
    assert AIDEOptions.from_profile("improved") == AIDEOptions.from_profile() == AIDEOptions()


def test_the_profile_paper_is_the_specification() -> None:
    assert asdict(AIDEOptions.from_profile("paper")) == DEFAULTS | PAPER


def test_what_was_tuned_belongs_to_improved_alone() -> None:
    tuned = {"update_ratio": 1.0, "correction_start": 2}
    chosen = AIDEOptions.for_epochs(20, tuned=tuned, keep=0.25)
    assert (chosen.update_ratio, chosen.correction_start, chosen.keep) == (1.0, 2, 0.25)
    assert AIDEOptions.for_epochs(20, "paper", tuned=tuned) == AIDEOptions.for_epochs(20, "paper")
    assert AIDEOptions.for_epochs(20, tuned=tuned, update_ratio=0.5).update_ratio == 0.5
    with pytest.raises(InputError, match="unknown option 'ratio'"):
        AIDEOptions.for_epochs(20, tuned={"ratio": 1})


def test_the_profile_of_the_released_run() -> None:
    changed = {
        key: value
        for key, value in asdict(AIDEOptions.from_profile("original")).items()
        if value != (DEFAULTS | PAPER)[key]
    }
    assert changed == {
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
    }


def test_a_profile_can_be_changed() -> None:
    assert AIDEOptions.from_profile("original", temperature=0.5).temperature == 0.5
    with pytest.raises(InputError, match="profile is 'published'; expected one of improved, paper, original"):
        AIDEOptions.from_profile("published")
    with pytest.raises(InputError, match="unknown option 'temprature'; expected one of trusted_share, keep"):
        AIDEOptions.from_profile("paper", temprature=1)


@pytest.mark.parametrize(
    "option",
    [
        "filter_strata",
        "confidence",
        "sharpening",
        "pseudo_label_source",
        "view_samples",
        "view_statistics",
        "view_inverse",
        "unit",
        "correction_source",
        "ranking_reference",
    ],
)
def test_refuses_unknown_choices_and_lists_the_good_ones(option: str) -> None:
    with pytest.raises(
        ValueError, match=rf"{option} is 'nonsense'; expected one of .*{getattr(AIDEOptions(), option)}"
    ):
        AIDEOptions(**{option: "nonsense"})


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("keep", -0.1, "0..1"),
        ("keep", 1.1, "0..1"),
        ("keep", float("nan"), "0..1"),
        ("trusted_share", 1.5, "0..1"),
        ("average", 1.0, "0..0.9999"),
        ("consistency_weight", -1, "0..inf"),
        ("views", 0, "1..inf"),
        ("max_angle", 181, "0..180"),
        ("flip_probability", 1.5, "0..1"),
        ("warmup_epochs", -1, "0..inf"),
        ("update_ratio", 2, "0..1"),
        ("update_interval", 0, "1..inf"),
        ("correction_start", 0, "1..inf"),
        ("correction_dice", 1.5, "0..1"),
        ("temperature", 0, "above 0"),
        ("temperature", -1, "above 0"),
        ("flip_axis", 2, "0 or 1"),
        ("flip_axis", -1, "0 or 1"),
    ],
)
def test_refuses_values_out_of_range(option: str, value: float, expected: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} is {value}; expected .*{expected}"):
        AIDEOptions(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [("keep", 0.0), ("keep", 1.0), ("warmup_epochs", 0), ("max_angle", 0), ("max_angle", 180), ("update_ratio", 0)],
)
def test_accepts_the_ends_of_a_range(option: str, value: float) -> None:
    assert getattr(AIDEOptions(**{option: value}), option) == value


@pytest.mark.parametrize("profile", ["best", ["paper"]])
def test_an_unknown_profile_is_refused(profile: Any) -> None:
    with pytest.raises(InputError, match=r"profile is .*; expected one of improved, paper, original"):
        AIDEOptions.from_profile(profile)


def test_options_are_keywords_and_cannot_change() -> None:
    with pytest.raises(TypeError):
        AIDEOptions(0.5)
    with pytest.raises(FrozenInstanceError):
        AIDEOptions().keep = 0.9


BUNDLE = Path(__file__).parents[1] / "bundles" / "hippocampus_ssl" / "configs" / "train.json"
OTHER_VALUES = {
    name: {
        str: next((choice for choice in _CHOICES.get(name, ()) if choice != value), ""),
        bool: not value,
        int: 1 - value if name == "flip_axis" else 7,
        float: 0.125,
    }[type(value)]
    for name, value in DEFAULTS.items()
}


@pytest.mark.parametrize(
    ("epochs", "warmup", "interval", "start"), [(1, 1, 1, 1), (4, 2, 1, 2), (10, 4, 1, 3), (600, 240, 60, 180)]
)
def test_a_schedule_fits_the_length_of_the_training(epochs: int, warmup: int, interval: int, start: int) -> None:
    expected = {"warmup_epochs": warmup, "update_interval": interval, "correction_start": start}
    assert AIDEOptions.for_epochs(epochs) == AIDEOptions.from_profile("improved", **expected)
    changed = AIDEOptions.for_epochs(epochs, "paper", update_interval=7, keep=0.25)
    assert changed == AIDEOptions.from_profile("paper", **expected | {"update_interval": 7, "keep": 0.25})


def options_of_the_bundle(**overrides: Any) -> AIDEOptions:
    """What ``aide train --KEY VALUE`` trains with."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLE))
    parser.update(overrides)
    return parser.get_parsed_content("options")


@pytest.mark.parametrize("profile", list(PROFILES))
def test_a_bundle_takes_a_profile_and_changes_what_its_recipe_says(profile: str) -> None:
    recipe = json.loads(BUNDLE.read_text())
    assert set(recipe["options"]) == {"_target_", "epochs", "profile"}
    assert options_of_the_bundle(profile=profile) == AIDEOptions.for_epochs(recipe["epochs"], profile)


@pytest.mark.parametrize("option", list(DEFAULTS))
def test_every_option_can_be_given_to_a_bundle(option: str) -> None:
    value = OTHER_VALUES[option]
    assert value != DEFAULTS[option]
    assert getattr(options_of_the_bundle(**{f"options#{option}": value}), option) == value
