"""Roles by name: whose label is seen, and what is wrong with a list in one report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from aide_monai.data import with_roles
from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError


def datalist() -> Datalist:
    """Patients p0 to p4 with two phases each, and a case of nobody without a label."""
    records: list[dict[str, Any]] = [
        {"case": f"p{n}_{phase}", "patient": f"p{n}", "image": f"/p{n}_{phase}.nii", "label": f"/p{n}_{phase}_l.nii"}
        | {"quality": "high", "split": "training"}
        for n in range(5)
        for phase in "ab"
    ]
    records[0]["clean_label"] = "/expert.nii"
    records.append({"case": "u", "image": "/u.nii", "split": "training"})
    return Datalist("hearts", {0: "background", 1: "organ"}, {0: "MR"}, records)


def cases(data: Datalist, split: str, *, labelled: bool) -> list[str]:
    return [record["case"] for record in data.split(split) if ("label" in record) == labelled]


def test_patients_stand_for_all_their_cases_and_the_rest_is_unlabelled() -> None:
    named = with_roles(datalist(), {"labeled": ["p3"], "validation": ["p1_a"], "test": ["p2", "p4"]})
    assert cases(named, "training", labelled=True) == ["p3_a", "p3_b"]
    assert cases(named, "training", labelled=False) == ["p0_a", "p0_b", "u"]
    assert cases(named, "validation", labelled=True) == ["p1_a"]  # the other one of this patient is left out
    assert cases(named, "test", labelled=True) == ["p2_a", "p2_b", "p4_a", "p4_b"]
    judged = {r["case"]: r.get("clean_label") for r in named.split("training") if "label" not in r}
    assert judged == {"p0_a": "/expert.nii", "p0_b": "/p0_b_l.nii", "u": None}


def test_unlabelled_cases_can_be_named_too() -> None:
    named = with_roles(datalist(), {"labeled": ["p3_a", "p3"], "unlabeled": ["u", "p0_b"], "test": ["p2"]})
    assert cases(named, "training", labelled=True) == ["p3_a", "p3_b"]
    assert cases(named, "training", labelled=False) == ["u", "p0_b"]


def test_a_label_that_is_named_doubtful_is() -> None:
    named = with_roles(datalist(), {"labeled": ["p3_a"], "doubtful": ["p3_b", "p0_a"], "unlabeled": [], "test": ["p2"]})
    assert [(case.name, case.quality) for case in named.of_split("training")] == [
        ("p3_a", "high"),
        ("p3_b", "low"),
        ("p0_a", "low"),
    ]
    assert {case.clean_label for case in named.of_split("training")} == {None, "/expert.nii"}
    with pytest.raises(InputError, match='doubtful: case "u" has no label; expected one'):
        with_roles(datalist(), {"doubtful": ["u", "p1"]})
    assert with_roles(datalist(), {"doubtful": ["p1"], "unlabeled": []}).cases[0].doubtful


@pytest.mark.parametrize(
    ("roles", "problems"),
    [
        ({"labeled": []}, ["labeled: no case to learn from"]),
        (
            {"labeled": ["p9", "p0"], "test": ["x", "p0_a", "p3_a"], "validation": ["p3_b", "u"]},
            [
                'labeled: "p9" is no case and no patient; found p0, p1, p2 and 3 more',
                'test: "x" is no case',
                'case "p0_a": named as labeled and as test; a case has one role',
                'patient "p3": has cases in validation and in test; expected one role',
                'validation: case "u" has no label of quality high',
            ],
        ),
        ({"labelled": ["p0"], "labeled": ["p1"]}, ['role "labelled": unknown; the roles are labeled, doubtful']),
    ],
)
def test_all_problems_are_in_one_report(roles: dict[str, Sequence[str]], problems: list[str]) -> None:
    with pytest.raises(InputError) as error:
        with_roles(datalist(), roles)
    assert [problem for problem in problems if problem not in str(error.value)] == []
