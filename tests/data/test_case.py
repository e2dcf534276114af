"""A case as a value: what it is in JSON, who vouches for its label, and what hiding the label keeps."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from aide_monai.data.case import Case

FULL: dict[str, Any] = {
    "case": "a",
    "image": ["/a_0.nii", "/a_1.nii"],
    "label": "/l.nii",
    "quality": "low",
    "split": "validation",
    "clean_label": "/expert.nii",
    "patient": "p",
    "rater": "2",
    "domain": "A",
    "annotated": ["liver"],
    "spacing": [1.5, 1.5, 8.0],
    "orientation": "RAS",
    "sha256": {"image": ["1", "2"], "label": "3"},
}


@pytest.mark.parametrize("record", [FULL, {"case": "b", "image": "/b.nii", "split": "training"}])
def test_a_record_is_the_same_after_the_way_through_a_case(record: dict[str, Any]) -> None:
    assert Case.of(record).record() == record


def test_every_field_is_in_the_full_record() -> None:
    assert len(FULL) == len(dataclasses.fields(Case))


def test_a_record_without_a_split_is_a_training_case() -> None:
    assert Case.of({"case": "b", "image": "/b.nii"}).split == "training"


def test_paths_and_patient() -> None:
    full, bare = Case.of(FULL), Case(name="b", image="/b.nii")
    assert (full.images, full.labels) == (("/a_0.nii", "/a_1.nii"), ("/l.nii", "/expert.nii"))
    assert (bare.images, bare.labels) == (("/b.nii",), ())
    assert (full.group, bare.group) == (("patient", "p"), ("case", "b"))


def test_who_vouches_for_the_label() -> None:
    trusted, doubtful = (Case(name="a", image="/a.nii", label="/l.nii", quality=q) for q in ("high", "low"))
    bare = Case(name="b", image="/b.nii")
    assert [(case.trusted, case.doubtful) for case in (trusted, doubtful, bare)] == [
        (True, False),
        (False, True),
        (False, False),
    ]


def test_hiding_keeps_the_label_of_the_expert() -> None:
    trusted = Case(name="a", image="/a.nii", label="/l.nii", quality="high", split="test").hidden()
    assert (trusted.label, trusted.quality, trusted.clean_label, trusted.split) == (None, None, "/l.nii", "training")
    doubtful = Case.of(FULL).hidden()
    assert (doubtful.label, doubtful.quality, doubtful.clean_label) == (None, None, "/expert.nii")
    assert Case(name="b", image="/b.nii").hidden() == Case(name="b", image="/b.nii")
