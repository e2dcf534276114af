"""Seeded test sets of sources."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aide_monai.data.case import Case
from aide_monai.data.datalist import Datalist
from aide_monai.data.split import hold_out, hold_out_labelled, hold_out_per_domain
from aide_monai.errors import InputError


def datalist_of(**domains: int) -> Datalist:
    records = [
        {"case": f"{domain}{k}", "image": "/i.nii", "label": "/l.nii", "quality": "high", "domain": domain}
        for domain, count in domains.items()
        for k in range(count)
    ]
    return Datalist("set", {0: "background", 1: "organ"}, {0: "MR"}, records, {0: 0, 2: 1})


def held(datalist: Datalist) -> list[str]:
    return [record["case"] for record in datalist.split("test")]


def test_golden_draw() -> None:
    """Written down once: a change of the drawing would silently change every experiment."""
    assert held(hold_out(datalist_of(a=8), test=3, seed=0)) == ["a0", "a1", "a7"]


def test_number_order_and_maps_are_kept() -> None:
    pool = datalist_of(a=8)
    drawn = hold_out(pool, test=3, seed=1)
    assert len(held(drawn)) == 3
    assert [record["case"] for record in drawn.records] == [record["case"] for record in pool.records]
    assert drawn.classes == {0: 0, 2: 1}
    assert not pool.split("test")
    assert hold_out(drawn, test=3, seed=1) == drawn  # earlier splits do not matter


def test_the_draw_does_not_depend_on_the_order() -> None:
    pool = datalist_of(a=8)
    turned = Datalist(pool.name, pool.labels, pool.modality, pool.records[::-1])
    assert sorted(held(hold_out(pool, test=3, seed=2))) == sorted(held(hold_out(turned, test=3, seed=2)))


def test_each_domain_gives_its_share() -> None:
    drawn = hold_out_per_domain(datalist_of(a=4, b=6), test=2, seed=0)
    assert sorted(case[0] for case in held(drawn)) == ["a", "a", "b", "b"]
    assert drawn.name == "set"
    assert held(drawn)[:2] == held(hold_out(datalist_of(a=4), test=2, seed=0))
    with pytest.raises(
        InputError, match="set a: found test=4 of 4 cases; expected 1 to 3, so that both sides have cases"
    ):
        hold_out_per_domain(datalist_of(a=4, b=6), test=4, seed=0)


def test_patients_are_not_cut() -> None:
    pool = datalist_of(a=4)
    pool.cases = [replace(case, patient="p" if case.name in ("a0", "a1") else "q") for case in pool.cases]
    for seed in range(5):
        assert held(hold_out(pool, test=2, seed=seed)) in (["a0", "a1"], ["a2", "a3"])
    with pytest.raises(InputError, match="a patient cannot be on both sides"):
        hold_out(pool, test=1, seed=0)


def test_nothing_of_a_test_patient_is_left_to_learn_from() -> None:
    pool = datalist_of(a=4)
    pool.cases = [replace(case, patient=case.name) for case in pool.cases]
    pool.cases += [Case(name=f"b{k}", image="/j.nii", patient=f"a{k}") for k in range(4)]
    drawn = hold_out_labelled(pool, test=1, seed=0)
    (tested,) = drawn.split("test")
    assert len(drawn.records) == 7
    assert tested["patient"] not in {record["patient"] for record in drawn.split("training")}
