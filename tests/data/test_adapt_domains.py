"""A labelled source domain and an unlabelled target domain."""

from __future__ import annotations

import pytest

from aide_monai.data.datalist import Datalist
from aide_monai.data.split import adapt_domains
from aide_monai.errors import InputError


def record(case: str, domain: str, split: str = "training", *, label: bool = True) -> dict[str, str]:
    labelled = {"label": f"/data/{case}_label.nii.gz", "quality": "high"} if label else {}
    return {"case": case, "image": f"/data/{case}.nii.gz", "domain": domain, "split": split, **labelled}


@pytest.fixture
def datalist() -> Datalist:
    records = [
        record("a1", "A"),
        record("a2", "A", "test"),
        record("a3", "A", label=False),
        record("b1", "B"),
        record("b2", "B", label=False),
        record("b3", "B", "test"),
        record("c1", "C"),
    ]
    return Datalist("set", {0: "background", 1: "organ"}, {0: "MR"}, records)


def test_the_source_keeps_its_labels_and_the_target_is_judged(datalist):
    adapted = adapt_domains(datalist, ["A", "B"])
    assert {r["case"]: (r["split"], "label" in r, "clean_label" in r) for r in adapted.records} == {
        "a1": ("training", True, False),
        "b1": ("training", False, True),
        "b2": ("training", False, False),
        "b3": ("test", True, False),
    }
    assert "quality" not in adapted.records[1]
    assert adapted.records[1]["clean_label"] == "/data/b1_label.nii.gz"
    assert adapted.name == "set, A to B"
    assert "label" in datalist.records[3]  # unchanged


def test_the_other_way_round(datalist):
    assert [r["case"] for r in adapt_domains(datalist, ["B", "A"]).records] == ["a1", "a2", "a3", "b1"]


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        (["A", "A"], r"domains are \['A', 'A'\]; expected source and target, two of A, B, C"),
        (["A"], "expected source and target"),
        (["A", "D"], "expected source and target"),
        (["A", "C"], 'domain "C" has no labelled test case'),
    ],
)
def test_domains_that_cannot_be_used_are_named(datalist, domains, message):
    with pytest.raises(InputError, match=message):
        adapt_domains(datalist, domains)


def test_a_source_without_labels_or_a_target_without_images_is_refused(datalist):
    datalist.cases = [case for case in datalist.cases if case.name not in ("a1", "b1", "b2")]
    with pytest.raises(InputError, match='domain "A" has no labelled training case'):
        adapt_domains(datalist, ["A", "B"])
    with pytest.raises(InputError, match='domain "B" has no training case'):
        adapt_domains(datalist, ["C", "B"])
