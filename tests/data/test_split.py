"""Who is labelled, unlabelled and held out, and that no patient is on both sides."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aide_monai.data.checks.datalist import check_datalist
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources import find_datalist
from aide_monai.data.split import adapt_domains, fold_cases, split_cases
from aide_monai.errors import InputError

Record = dict[str, Any]


def labelled(case: str, **more: str) -> Record:
    return {"case": case, "image": f"/{case}.nii", "label": f"/{case}_label.nii", "quality": "high", **more}


def without_label(case: str, **more: str) -> Record:
    return {"case": case, "image": f"/{case}.nii", **more}


def datalist_of(*records: Record) -> Datalist:
    return Datalist("set", {0: "background", 1: "liver"}, {0: "MR"}, list(records))


def cases(records: list[Record]) -> list[str]:
    return [record["case"] for record in records]


def roles(datalist: Datalist) -> tuple[list[str], list[str], list[str]]:
    """Case ids of the high-quality, the unlabelled and the test cases."""
    training = datalist.split("training")
    return (
        cases([record for record in training if record.get("quality") == "high"]),
        cases([record for record in training if "label" not in record]),
        cases(datalist.split("test")),
    )


TEN = [labelled(f"c{index}") for index in range(10)]


def test_numbers_are_exact_and_labelled_cases_come_first() -> None:
    split = split_cases(datalist_of(*TEN), labeled=2, unlabeled=3, test=5)
    high, hidden, test = roles(split)
    assert (len(high), len(hidden), len(test)) == (2, 3, 5)
    assert len({*high, *hidden, *test}) == 10
    assert cases(split.split("training")) == high + hidden
    assert cases(split.records) == high + hidden + test


def test_a_label_that_is_given_up_becomes_the_clean_label() -> None:
    split = split_cases(datalist_of(labelled("a"), labelled("b")), labeled=1, unlabeled=1)
    kept, hidden = split.records
    assert kept == labelled(kept["case"], split="training")
    case = hidden["case"]
    assert hidden == without_label(case, clean_label=f"/{case}_label.nii", split="training")


def test_without_numbers_the_rest_is_for_the_test() -> None:
    high, hidden, test = roles(split_cases(datalist_of(*TEN, without_label("u")), labeled=2))
    assert (len(high), hidden, len(test)) == (2, ["u"], 8)
    high, hidden, test = roles(split_cases(datalist_of(*TEN), labeled=2, unlabeled=3))
    assert (len(high), len(hidden), len(test)) == (2, 3, 5)


def test_with_a_number_of_test_cases_the_rest_is_unlabelled() -> None:
    high, hidden, test = roles(split_cases(datalist_of(*TEN, without_label("u")), labeled=2, test=3))
    assert (len(high), len(hidden), len(test)) == (2, 6, 3)
    assert hidden[0] == "u"


def test_cases_that_never_had_a_label_are_used_first() -> None:
    pool = datalist_of(*TEN, without_label("u"), without_label("v"))
    assert set(roles(split_cases(pool, labeled=1, unlabeled=2))[1]) == {"u", "v"}
    split = split_cases(pool, labeled=1, unlabeled=3)
    assert set(roles(split)[1]) > {"u", "v"}
    assert sum("clean_label" in record for record in split.records) == 1


def test_test_and_validation_cases_stay_what_they_are() -> None:
    held_out = [labelled("t", split="test"), without_label("s", split="test"), labelled("v", split="validation")]
    split = split_cases(datalist_of(*held_out, *TEN), labeled=2, unlabeled=3)
    assert roles(split)[2] == ["t", "s"]
    assert cases(split.split("validation")) == ["v"]
    assert len(roles(split_cases(datalist_of(*held_out, *TEN), labeled=2))[1]) == 8
    assert len(roles(split_cases(datalist_of(*held_out, *TEN), labeled=2, test=4))[2]) == 6


def test_low_quality_cases_stay_except_those_of_test_patients() -> None:
    low = [{**labelled(f"low {name}", patient=name), "quality": "low"} for name in "pq"]
    pool = datalist_of(labelled("a", patient="p"), labelled("b", patient="q"), *low)
    split = split_cases(pool, labeled=1, test=1)
    (high,), _, _ = roles(split)
    kept = "p" if high == "a" else "q"
    assert cases(split.split("training")) == [high, f"low {kept}"]
    assert len(split_cases(pool, labeled=1).split("training")) == 3


def test_a_part_of_a_patient_can_be_tested_and_the_rest_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    pool = datalist_of(*(labelled(f"{patient}{frame}", patient=patient) for patient in "pqr" for frame in (1, 2)))
    with caplog.at_level(logging.WARNING):
        high, hidden, test = roles(split_cases(pool, labeled=1, test=3))
    assert (len(high), len(hidden), len(test)) == (1, 1, 3)
    assert high[0][0] == hidden[0][0]
    assert caplog.messages == ["split of set: 1 cases are in no role and are left out"]


def test_a_patient_that_fits_is_preferred_to_a_part_of_one() -> None:
    pool = datalist_of(labelled("a"), *(labelled(f"p{frame}", patient="p") for frame in (1, 2)))
    for seed in range(8):
        assert roles(split_cases(pool, labeled=2, test=1, seed=seed))[2] == ["a"]


def test_unlabelled_frames_of_labelled_patients_leave_a_test_set() -> None:
    frames = [without_label(f"{patient}{frame}", patient=patient) for patient in "pqrs" for frame in range(2, 9)]
    pool = datalist_of(*(labelled(f"{patient}1", patient=patient) for patient in "pqrs"), *frames)
    high, hidden, test = roles(split_cases(pool, labeled=1))
    assert (len(high), len(hidden), len(test)) == (1, 7, 3)
    assert {case[0] for case in hidden} == {high[0][0]}
    assert len(roles(split_cases(pool, labeled=1, unlabeled=10))[2]) == 2


def test_a_larger_number_of_labels_contains_the_smaller_and_keeps_the_test() -> None:
    splits = [roles(split_cases(datalist_of(*TEN), labeled=number, test=4, seed=5)) for number in (1, 3, 6)]
    assert splits[0][0] == splits[1][0][:1] == splits[2][0][:1]
    assert splits[1][0] == splits[2][0][:3]
    assert splits[0][2] == splits[1][2] == splits[2][2]


def test_the_seed_decides_and_the_order_of_the_records_does_not() -> None:
    one = roles(split_cases(datalist_of(*TEN), labeled=2, test=3, seed=1))
    assert one == roles(split_cases(datalist_of(*TEN[::-1]), labeled=2, test=3, seed=1))
    assert one != roles(split_cases(datalist_of(*TEN), labeled=2, test=3, seed=2))


def test_golden_split() -> None:
    """Written down once: a change of the drawing would silently change every experiment."""
    high, _, test = roles(split_cases(datalist_of(*TEN), labeled=2, test=3, seed=0))
    assert (high, test) == (["c4", "c6"], ["c1", "c8", "c0"])


def test_the_datalist_that_is_split_does_not_change() -> None:
    pool = datalist_of(*TEN, labelled("t", split="test"))
    before = list(pool.cases)
    split_cases(pool, labeled=2, unlabeled=8)
    assert pool.cases == before


@pytest.mark.parametrize("numbers", [{"labeled": 11}, {"labeled": 2, "unlabeled": 9}, {"labeled": 2, "test": 9}])
def test_too_few_cases(numbers: dict[str, int]) -> None:
    asked = f"labeled={numbers['labeled']}, unlabeled={numbers.get('unlabeled', 'the rest')}"
    with pytest.raises(
        InputError,
        match=rf"^{asked}, .*: too few cases; found 10 labelled \(quality high\) and 0 unlabelled training cases of "
        "10 patients",
    ):
        split_cases(datalist_of(*TEN), **numbers)


def test_one_patient_cannot_be_on_both_sides() -> None:
    pool = datalist_of(*(labelled(f"p{frame}", patient="p") for frame in range(4)))
    with pytest.raises(InputError, match=r"4 labelled .* of 1 patients, and a patient cannot be on both sides"):
        split_cases(pool, labeled=1, test=1)
    taken = datalist_of(labelled("a", patient="p"), labelled("b", patient="p", split="test"))
    with pytest.raises(InputError, match="patients in training and in validation or test: p; put all"):
        split_cases(taken, labeled=1)


def test_numbers_out_of_range() -> None:
    with pytest.raises(InputError, match="labeled=0: no labelled case to learn from; ask for at least 1"):
        split_cases(datalist_of(*TEN), labeled=0)
    with pytest.raises(InputError, match="unlabeled=-1: expected 0 or more"):
        split_cases(datalist_of(*TEN), labeled=1, unlabeled=-1)
    with pytest.raises(InputError, match="test=-2: expected 0 or more"):
        split_cases(datalist_of(*TEN), labeled=1, test=-2)


patients = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8)
number = st.none() | st.integers(0, 8)


@given(patients, st.integers(1, 6), number, number, st.integers(0, 20))
def test_whatever_is_asked_no_patient_leaks(
    sizes: list[tuple[int, int]], high: int, unlabeled: int | None, test: int | None, seed: int
) -> None:
    records = [labelled(f"{p} l{i}", patient=str(p)) for p, (count, _) in enumerate(sizes) for i in range(count)]
    records += [without_label(f"{p} u{i}", patient=str(p)) for p, (_, count) in enumerate(sizes) for i in range(count)]
    try:
        split = split_cases(datalist_of(*records), labeled=high, unlabeled=unlabeled, test=test, seed=seed)
    except InputError:
        return
    found = roles(split)
    assert len(found[0]) == high
    assert unlabeled in (None, len(found[1]))
    assert test in (None, len(found[2]))
    assert max(Counter(cases(split.records)).values()) == 1
    trained = {record["patient"] for record in split.split("training")}
    assert not trained & {record["patient"] for record in split.split("test")}
    assert all("label" in record for record in split.split("test"))
    if test is None:
        left_out = {record["case"]: record for record in records if record["case"] not in cases(split.records)}
        assert all(record["patient"] in trained for record in left_out.values() if "label" in record)


def test_real_frames_of_a_patient_stay_together(aide_data: Path) -> None:
    acdc = find_datalist(aide_data / "acdc")
    split = split_cases(acdc, labeled=3, unlabeled=20, test=20)
    assert [len(cases_of) for cases_of in roles(split)] == [3, 20, 20]
    assert [problem for problem in check_datalist(split, read_voxels=False) if problem.severity == "error"] == []
    mscmr = split_cases(find_datalist(aide_data / "mscmr_lge"), labeled=2)
    assert [len(cases_of) for cases_of in roles(mscmr)] == [2, 25, 10]


def test_folds_hold_out_every_patient_once() -> None:
    records = [
        {"case": f"c{k}{visit}", "image": f"/c{k}{visit}.nii", "label": f"/l{k}{visit}.nii", "quality": "high"}
        | {"patient": f"p{k}"}
        for k in range(5)
        for visit in "ab"
    ]
    datalist = Datalist("d", {0: "background", 1: "organ"}, {0: "MR"}, records)
    held_out = [[r["case"] for r in fold_cases(datalist, fold=k, folds=3).split("test")] for k in (1, 2, 3)]
    assert sorted(case for cases in held_out for case in cases) == sorted(record["case"] for record in records)
    assert all(len(cases) % 2 == 0 for cases in held_out)  # both visits of a patient
    for fold, folds in ((0, 3), (4, 3), (1, 1), (1, 6)):
        with pytest.raises(InputError, match=f"fold {fold}/{folds}: expected a part"):
            fold_cases(datalist, fold=fold, folds=folds)


def test_a_doubtful_label_that_is_hidden_is_judged_by_the_experts() -> None:
    records = [labelled(f"c{k}", clean_label=f"/{k}_expert.nii", split="training") for k in range(4)]
    datalist = Datalist("x", {0: "background", 1: "organ"}, {0: "MR"}, records)
    (hidden,) = [r for r in split_cases(datalist, labeled=1, unlabeled=1, seed=0).records if "label" not in r]
    assert hidden["clean_label"] == f"/{hidden['case'][1:]}_expert.nii"
    by_domain = [{**r, "domain": "AB"[n % 2], "split": "test" if n == 3 else "training"} for n, r in enumerate(records)]
    adapted = adapt_domains(Datalist("x", datalist.labels, datalist.modality, by_domain), ["A", "B"])
    assert [r["clean_label"] for r in adapted.records if "label" not in r] == ["/1_expert.nii"]
