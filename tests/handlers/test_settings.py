"""Settings beside weights: others are refused, weights without them are not."""

from __future__ import annotations

import json

import pytest

from aide_monai.errors import InputError
from aide_monai.handlers.settings import copy_settings, require_settings, save_settings, settings_file

SETTINGS = {
    "slice_axis": 2,
    "slice_size": [48, 64],
    "volume_options": {"fit": "pad", "window": None, "resample_labels": False},
    "labels": {"0": "background", "1": "left kidney"},
}


@pytest.fixture
def weights(tmp_path):
    save_settings(tmp_path / "models" / "model.pt", SETTINGS)
    return tmp_path / "models" / "model.pt"


def test_settings_lie_beside_the_weights_by_their_ids(weights):
    assert settings_file(weights) == weights.parent / "model.json"
    assert json.loads(settings_file(weights).read_text()) == {
        "slice_axis": 2,
        "slice_size": [48, 64],
        "volume_options#fit": "pad",
        "volume_options#window": None,
        "labels#0": "background",
        "labels#1": "left kidney",
    }


def test_the_same_settings_are_accepted(weights):
    require_settings(weights, SETTINGS)
    require_settings(weights, {**SETTINGS, "slice_size": (48, 64)})
    require_settings(weights, {**SETTINGS, "volume_options": {**SETTINGS["volume_options"], "resample_labels": True}})
    require_settings(weights, {"slice_axis": 2, "of_a_later_version": 1})
    require_settings(weights.parent / "older.pt", {"slice_axis": 0})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"slice_axis": 0}, "found slice_axis 0; expected 2, which it was trained with: repeat --slice_axis 2, or"),
        ({"slice_size": [64, 64]}, "found slice_size [64, 64]; expected [48, 64], which it was trained with: repeat"),
        ({"slice_size": [64, 64]}, "--slice_size '[48,64]'"),
        ({"volume_options": {"fit": "crop"}}, 'found volume_options#fit "crop"; expected "pad", which'),
        ({"volume_options": {"fit": "crop"}}, "repeat --volume_options#fit pad, or write it into the bundle's configs"),
        ({"volume_options": {"window": [0, 9]}}, "repeat --volume_options#window null"),
        ({"labels": {"1": "liver"}}, "repeat --labels#1 'left kidney'"),
    ],
)
def test_others_are_refused_with_the_override_to_repeat(changed, message, weights):
    with pytest.raises(InputError) as error:
        require_settings(weights, {**SETTINGS, **changed})
    assert str(error.value).startswith(f"{weights}: found ")
    assert message in str(error.value)


@pytest.mark.parametrize("content", ["{", "3", ""])
def test_a_broken_record_is_named(content, weights):
    settings_file(weights).write_text(content)
    with pytest.raises(InputError, match=r"model\.json: .*; expected the settings .* or remove it"):
        require_settings(weights, SETTINGS)


def test_settings_go_with_their_weights(weights, tmp_path):
    copy_settings(weights, tmp_path / "served.pt")
    assert (tmp_path / "served.json").read_bytes() == settings_file(weights).read_bytes()
    copy_settings(tmp_path / "older.pt", tmp_path / "served.pt")
    assert not (tmp_path / "served.json").exists()
