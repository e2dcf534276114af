"""Who is learned from, whose labels are corrected, who judges: decided by whole patients."""

from __future__ import annotations

from typing import Any

import pytest

from aide_monai.data.case import Case
from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError
from aide_monai.workflows import plan_roles


def case(name: str, quality: str | None = "high", **values: Any) -> Case:
    label = None if quality is None else f"/{name}_label.nii"
    return Case(name=name, image=f"/{name}.nii", label=label, quality=quality, **values)


def data(*cases: Case) -> Datalist:
    return Datalist("livers", {0: "background", 1: "liver"}, {0: "MR"}, list(cases))


def numbers(datalist: Datalist, **asked: Any) -> dict[str, int]:
    return {role: len(names) for role, names in plan_roles(datalist, **asked).roles.items() if names}


LABELLED = [case(f"l{n}") for n in range(8)]
OTHERS = [case(f"u{n}", None) for n in range(5)]


def test_a_quarter_of_the_patients_judges_and_two_at_least() -> None:
    assert numbers(data(*LABELLED, *OTHERS)) == {"labeled": 6, "unlabeled": 5, "test": 2}
    assert numbers(data(*LABELLED[:4], *OTHERS)) == {"labeled": 2, "unlabeled": 5, "test": 2}
    assert numbers(data(*LABELLED[:2], *OTHERS)) == {
        "labeled": 1,
        "unlabeled": 5,
        "test": 1,
    }  # one is left to learn from
    assert numbers(data(*LABELLED, *OTHERS), test=5) == {"labeled": 3, "unlabeled": 5, "test": 5}


def test_the_drawing_depends_on_the_seed_and_not_on_the_order() -> None:
    plans = [
        plan_roles(data(*order), seed=seed) for order in (LABELLED + OTHERS, OTHERS + LABELLED[::-1]) for seed in (1, 2)
    ]
    held_out = [set(plan.roles["test"]) for plan in plans]
    assert held_out[0] == held_out[2]
    assert held_out[1] == held_out[3] != held_out[0]
    assert all(plan.drawn for plan in plans)


def test_cases_that_the_data_set_holds_out_judge() -> None:
    plan = plan_roles(data(*LABELLED, *OTHERS, case("t", split="test"), case("v", split="validation")))
    assert (plan.roles["test"], plan.roles["validation"], plan.drawn) == (["t"], ["v"], False)
    assert len(plan.roles["labeled"]) == 8


def test_no_patient_is_on_both_sides() -> None:
    shared = [case("p_a", patient="p"), case("p_b", None, patient="p"), case("q_a", patient="q")]
    plan = plan_roles(data(*shared, case("q_b", "low", patient="q"), *OTHERS), test=1)
    (judge,) = plan.roles["test"]
    other = {"p_a": ("q_b", "p_b"), "q_a": ("p_b", "q_b")}[judge]
    assert plan.left_out == [other[1]]
    assert other[0] in plan.roles["unlabeled"] + plan.roles["doubtful"]


@pytest.mark.parametrize("seed", range(4))
def test_a_patient_of_the_validation_never_judges(seed: int) -> None:
    seen = [case("v_a", patient="v", split="validation"), case("v_b", patient="v")]
    plan = plan_roles(data(*LABELLED[:2], *OTHERS, *seen), test=1, seed=seed)
    assert (plan.roles["validation"], plan.left_out) == (["v_a"], ["v_b"])
    assert plan.roles["test"][0] in ("l0", "l1")


def test_labels_can_be_called_doubtful_by_name_or_patient() -> None:
    plan = plan_roles(
        data(*LABELLED, case("site2_1"), case("x", patient="site2_2"), case("y", "low")), doubtful="site2_*"
    )
    assert plan.roles["doubtful"] == ["site2_1", "x", "y"]
    assert not set(plan.roles["test"]) & {"site2_1", "x", "y"}
    with pytest.raises(InputError, match=r'--doubtful "site3_\*": found no labelled case of this name'):
        plan_roles(data(*LABELLED), doubtful="site3_*")


def test_all_trusted_labels_may_judge_where_others_are_doubtful() -> None:
    assert numbers(data(*LABELLED[:1], case("d", "low"))) == {"doubtful": 1, "test": 1}


def test_labels_can_be_hidden() -> None:
    plan = plan_roles(data(*LABELLED, *OTHERS), labeled=2, unlabeled=7, test=3)
    assert {role: len(names) for role, names in plan.roles.items() if names} == {
        "labeled": 2,
        "unlabeled": 7,
        "test": 3,
    }
    assert {f"u{n}" for n in range(5)} <= set(plan.roles["unlabeled"])  # those that never had a label come first
    assert len(plan.left_out) == 1
    assert [plan.table().lines[-1][i] for i in (0, 2)] == ["left out", "1"]


@pytest.mark.parametrize(
    ("cases", "asked", "message"),
    [
        (
            LABELLED,
            {},
            r'livers: all 6 training labels are trusted.*nothing to correct.*--doubtful "site2_\*".*--labeled 3',
        ),
        (LABELLED[:1] + OTHERS, {}, "found 1 patients with trusted labels; expected at least two"),
        (OTHERS, {}, "found 0 patients with trusted labels; expected at least two"),
        (LABELLED + OTHERS, {"test": 8}, "8 patients to judge by: found 8 with trusted labels; expected 1 to 7"),
        (LABELLED + OTHERS, {"test": 0}, "0 patients to judge by"),
        (LABELLED, {"labeled": 9}, "--labeled is 9; expected 0 to 6"),
        (LABELLED, {"labeled": 3, "unlabeled": 4}, "--unlabeled is 4; expected 0 to 3"),
        (
            LABELLED[:1] + OTHERS + [case("d", "low")],
            {},
            "5 cases have no label and none has a trusted one to learn from",
        ),
    ],
)
def test_what_cannot_be_planned_is_told_with_what_can_be_done(
    cases: list[Case], asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan_roles(data(*cases), **asked)
