"""Values of requests to the label server: typed, checked, and nothing else passed on."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aide_monai.errors import InputError
from aide_monai.label_app.requests import checked, require_name
from aide_monai.workflows.literals import literal

TASKS = ("train", "infer", "batch/infer", "scoring", "activelearning")
GOOD = {
    "train": {"max_epochs": 5, "val_split": 0.25, "profile": "paper", "device": "cuda:1", "gpus": "0,1"},
    "infer": {"save_label": True, "label_tag": "original", "result_extension": ".nii.gz", "logging": "INFO"},
    "batch/infer": {"images": "unlabeled", "max_workers": 1, "max_batch_size": 0, "multi_gpu": True, "gpus": "all"},
    "scoring": {"device": "cpu"},
    "activelearning": {"strategy": "suspicious", "review": True, "client_id": "me"},
}
TEXTS = st.text() | st.text(st.sampled_from("$@%#:/.\\\n\0 abc")) | st.sampled_from(["$1", "@run", "%a.json", "../x"])
VALUES = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from(sorted({key for values in GOOD.values() for key in values} | {"bundle_path", "image", "run_id"}))


@pytest.mark.parametrize("task", TASKS)
def test_what_a_client_may_say_is_passed_on(task):
    more = {"bundle_path": "/", "run_id": "x", "model": "y", "image": "z", "method": 1}
    assert checked(task, {**GOOD[task], **more}) == GOOD[task]
    assert checked(task, {}) == checked(task, dict.fromkeys(GOOD[task])) == {}


def test_a_choice_that_was_not_made_is_the_first_one():
    request = {"device": ["cpu", "cuda"], "profile": ["improved", "paper", "original"], "max_epochs": 3}
    assert checked("train", request) == {"device": "cpu", "profile": "improved", "max_epochs": 3}
    assert checked("train", {"device": "NVIDIA: 0"}, devices=["NVIDIA: 0"]) == {"device": "NVIDIA: 0"}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(task=st.sampled_from(TASKS), request=st.dictionaries(KEYS, VALUES, max_size=4))
def test_no_value_means_anything_to_a_config(task, request):
    try:
        known = checked(task, request)
    except InputError:
        return
    for value in known.values():
        assert literal(value) == value
        assert not isinstance(value, (dict, list))
        assert "/" not in str(value)


@pytest.mark.parametrize(
    ("task", "request_", "message"),
    [
        ("train", {"max_epochs": "abc"}, "max_epochs is 'abc'; expected a whole number in 1..100000"),
        ("train", {"max_epochs": True}, "max_epochs is True; expected a whole number"),
        ("train", {"max_epochs": 0}, "max_epochs is 0; expected"),
        ("train", {"val_split": 1}, "val_split is 1; expected a share from 0 up to but not including 1"),
        ("train", {"val_split": float("nan")}, "val_split is nan; expected a share"),
        ("train", {"profile": "best"}, "profile is 'best'; expected one of improved, paper, original"),
        ("scoring", {"device": "$1"}, r"device is '\$1'; expected cpu, cuda or cuda:N"),
        ("infer", {"device": {"a": 1}}, "device is {'a': 1}; expected cpu"),
        ("infer", {"label_tag": "../x"}, "label_tag is '../x'; expected a plain name"),
        ("infer", {"result_extension": "/x.nii"}, "result_extension is '/x.nii'; expected one of .nii.gz"),
        ("batch/infer", {"images": "some", "max_workers": -1}, "images is 'some'; .*; max_workers is -1; "),
        ("activelearning", {"review": 1}, "review is 1; expected true or false"),
        ("train", ["max_epochs"], r"found \['max_epochs'\]; expected an object"),
        ("train", {"profile": "x" * 5000}, r"profile is 'x{75} \.\.\.; expected"),
    ],
)
def test_wrong_values_are_refused_in_one_sentence(task, request_, message):
    with pytest.raises(InputError, match=message):
        checked(task, request_)


@pytest.mark.parametrize("name", ["phantom_001", "scan 2 (left)", "Müller-3.1", "1.2.840.10008", "a=b", "_x"])
def test_plain_names(name):
    require_name("image", name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "a\\b", "/x", ".hidden", "a\nb", "a\0b", "$x", "%x", "\ud800", "x" * 201, "a.", 7],
)
def test_names_that_could_lead_elsewhere(name):
    with pytest.raises(InputError, match=r"image is .*; expected a plain name"):
        require_name("image", name)
