"""Texts from data, requests and paths are never code: whatever they hold, a config reads them back unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser

from aide_monai.workflows.literals import literal

SIGNS = st.text(st.sampled_from("$@%#:+'\"\\_.json import x0{}()\n") | st.characters())
KEYS = SIGNS | st.sampled_from(["_target_", "_disabled_", "_mode_", "a::b", "a#b", "+a", ""])
VALUES = st.recursive(
    SIGNS | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def harmless(folder: Path) -> list[object]:
    """What would write a file, or read one, if it were more than text."""
    marker = folder / "marker"
    write = f"$__import__('pathlib').Path('{marker}').touch()"
    (folder / "other.json").write_text('{"a": "from the file"}')
    texts = [write, f"${write}", "@other", "@run", "%other", f"%{folder / 'other.json'}::a", f"%{folder}/other.json#a"]
    texts += ["scan#1", "@#other", "@::other", "%##other", "$import os", "$@other", "__local_refs", "$@nothing"]
    target = {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "args": str(marker)}}
    return [*texts, texts, {"a": texts}, target, [target], {"a::b": write}, {"+a": write}]


def read_back(value: object) -> list[object]:
    """The value by every way on which a config may use it."""
    config = {
        "value": literal(value),
        "other": "another",
        "nested": {"list": [literal(value)], "map": {"value": literal(value)}},
        "reference": "@value",
        "twice": ["@reference"],
        "expression": "$[@value, @nested]",
        "argument": {"_target_": "builtins.dict", "value": literal(value), "by_reference": "@value"},
        "_meta_": {"name": literal(value)},
    }
    parser = ConfigParser(json.loads(json.dumps(config)))
    parser["late"] = literal(value)
    nested = parser.get_parsed_content("nested")
    argument = parser.get_parsed_content("argument")
    (twice,) = parser.get_parsed_content("twice")
    first, second = parser.get_parsed_content("expression")
    found = [parser.get_parsed_content(key) for key in ("value", "late", "reference", "_meta_::name")]
    found += [nested["list"][0], nested["map"]["value"], argument["value"], argument["by_reference"], twice]
    return [*found, first, second["list"][0]]


def test_what_would_be_code_stays_text(tmp_path):
    for value in harmless(tmp_path):
        assert all(found == value for found in read_back(value)), value
    assert not (tmp_path / "marker").exists()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
@example("a\ud800b")
@example({"_target_": None})
def test_every_value_is_read_back_unchanged(value):
    assert all(found == value for found in read_back(value))


def test_what_needs_no_change_has_none():
    plain = {"0": "background", "1": "left kidney", "2": ["a:b", 1.5, None, True]}
    assert literal(plain) == plain
    assert literal(Path("data/one")) == "data/one"
    with pytest.raises(TypeError, match="found set"):
        literal({1})
    with pytest.raises(TypeError, match="found set"):
        literal({"_target_": {1}})
