"""Every task becomes one of noisy labels: who is trusted, who is held out, and what the labels are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from aide_monai.data.datalist import Datalist
from aide_monai.data.sources import find_datalist
from aide_monai.errors import InputError
from aide_monai.workflows.comparison.hold_out import HoldOut, domain_pairs
from aide_monai.workflows.comparison.tasks import (
    Task,
    domain_adaptation,
    qubiq_truth,
    rated_by,
    semi_supervised,
    with_hidden_as_test,
    with_label_noise,
    write_label_noise,
)


def datalist(cases: int, *, name: str = "x", unlabelled: int = 0, patients: int | None = None) -> Datalist:
    records = [
        {
            "case": f"c{k}",
            "patient": f"p{k % (patients or cases)}",
            "image": f"/d/{name}{k}.nii",
            "label": f"/d/l{k}.nii",
            "quality": "high",
            "split": "training",
        }
        for k in range(cases)
    ]
    records += [{"case": f"u{k}", "image": f"/d/u{k}.nii", "split": "training"} for k in range(unlabelled)]
    return Datalist(name, {0: "background", 1: "organ"}, {0: "MR"}, records)


def cases(data: Datalist, split: str) -> set[str]:
    return {record["case"] for record in data.split(split)}


def test_patients_are_held_out_whole_and_unlabelled_cases_stay() -> None:
    held = HoldOut(test=4, validation=2, seed=3).apply(datalist(12, unlabelled=3, patients=6))
    patients = {s: {r.get("patient") for r in held.split(s)} for s in ("training", "validation", "test")}
    assert (len(held.split("test")), len(held.split("validation"))) == (4, 2)
    assert (len(patients["test"]), len(patients["validation"])) == (2, 1)
    assert not patients["test"] & patients["training"]
    assert not patients["validation"] & (patients["training"] | patients["test"])
    assert {"u0", "u1", "u2"} <= cases(held, "training")
    assert HoldOut(test=4, seed=3).apply(datalist(12, unlabelled=3, patients=6)).split("test") == held.split("test")


def test_folds_hold_out_every_case_once() -> None:
    split = HoldOut(folds=3)
    parts = [cases(split.apply(datalist(7), fold=fold), "test") for fold in (1, 2, 3)]
    assert sorted(len(part) for part in parts) == [2, 2, 3]
    assert set.union(*parts) == {f"c{k}" for k in range(7)}


def test_a_data_set_without_a_test_set_is_refused() -> None:
    with pytest.raises(InputError, match=r"no case is held out for the test; set split.test"):
        HoldOut().apply(datalist(4))


def test_the_held_out_cases_are_the_same_for_every_seed() -> None:
    held = HoldOut(test=4).apply(datalist(12))
    first, second = (semi_supervised(held, labeled=2, unlabeled=None, seed=seed) for seed in (0, 1))
    assert cases(first, "test") == cases(second, "test")
    labelled = [{r["case"] for r in data.split("training") if "label" in r} for data in (first, second)]
    assert [len(found) for found in labelled] == [2, 2]
    assert labelled[0] != labelled[1]
    assert all("clean_label" in r for r in first.split("training") if "label" not in r)


def test_with_too_few_cases_the_hidden_labels_are_scored_themselves() -> None:
    held = HoldOut(transductive=True).apply(datalist(2, patients=1))
    task = with_hidden_as_test(semi_supervised(held, labeled=1, unlabeled=1, seed=0))
    (hidden,) = [r for r in task.split("training") if "label" not in r]
    (scored,) = task.split("test")
    assert scored["case"] == f"{hidden['case']}_scored"
    assert (scored["image"], scored["label"]) == (hidden["image"], hidden["clean_label"])
    assert scored["patient"] == "p0"
    assert "label" not in hidden


def test_pairs_of_domains() -> None:
    assert domain_pairs("AB") == [("A", "B"), ("B", "A")]
    assert len(domain_pairs("ABCD")) == 12


def test_source_cases_are_trusted_and_target_cases_lose_their_label() -> None:
    split = HoldOut(test=2)
    domains = {"A": split.apply(datalist(5)), "B": split.apply(datalist(6, unlabelled=2))}
    task = domain_adaptation(domains, source="A", target="B")
    training = task.split("training")
    source = [r for r in training if r["domain"] == "A"]
    target = [r for r in training if r["domain"] == "B"]
    assert {r["case"] for r in source} == {f"A_{case}" for case in cases(domains["A"], "training")}
    assert all(r["quality"] == "high" and "label" in r for r in source)
    assert len(target) == 6
    assert all("label" not in r and "quality" not in r for r in target)
    assert sum("clean_label" in r for r in target) == 4  # those without a label have none to hide
    assert cases(task, "test") == {f"B_{case}" for case in cases(domains["B"], "test")}
    assert task.name == "A to B"


def test_doubtful_labels_of_the_target_are_judged_by_the_experts() -> None:
    domains = {"A": HoldOut(test=2).apply(datalist(5)), "B": HoldOut(test=2).apply(datalist(5))}
    doubtful = [
        replace(case, quality="low", clean_label=f"/expert/{case.name}.nii") if case.split == "training" else case
        for case in domains["B"].cases
    ]
    domains["B"] = replace(domains["B"], cases=doubtful)
    task = domain_adaptation(domains, source="A", target="B")
    hidden = [case for case in task.of_split("training") if case.domain == "B"]
    assert len(hidden) == 3
    assert all((case.clean_label or "").startswith("/expert/") and case.label is None for case in hidden)


def test_noise_on_doubtful_labels_is_judged_by_the_experts_and_other_files_stay(phantoms: Path, tmp_path: Path) -> None:
    """Labels that are doubtful already, as copies of the true ones in another folder, are no place for noise."""
    held = HoldOut(test=2).apply(find_datalist(phantoms))
    experts = {case.name: str(case.label) for case in held.of_split("training")}
    (tmp_path / "doubtful").mkdir()
    for name, label in experts.items():
        (tmp_path / "doubtful" / f"{name}.nii.gz").write_bytes(Path(label).read_bytes())
    held.cases = [
        replace(case, clean_label=case.label, label=str(tmp_path / "doubtful" / f"{case.name}.nii.gz"))
        if case.name in experts
        else case
        for case in held.cases
    ]
    before = {file: file.read_bytes() for file in (tmp_path / "doubtful").iterdir()}
    data = with_label_noise(held, tmp_path / "noise", rate=0.5, seed=0)
    write_label_noise(data, tmp_path / "noise", kinds=["elastic"], magnitude_mm=6.0, seed=0)
    assert {case.name: case.clean_label for case in data.of_split("training")} == experts
    assert len(list((tmp_path / "noise").iterdir())) == 2
    assert {file: file.read_bytes() for file in before} == before


def test_domains_may_hold_out_numbers_of_their_own_and_validation_cases_can_be_a_source() -> None:
    split = HoldOut(test={"A": 4, "B": 2}, validation={"A": 2, "B": 1})
    domains = {name: split.of_domain(name).apply(datalist(12)) for name in "AB"}
    assert [(len(d.split("test")), len(d.split("validation"))) for d in domains.values()] == [(4, 2), (2, 1)]
    task = domain_adaptation(domains, source="A", target="B")
    source = {r["case"] for r in task.records if r["domain"] == "A"}
    assert source == {f"A_{case}" for case in cases(domains["A"], "training") | cases(domains["A"], "validation")}
    assert (len(task.split("test")), len(task.split("validation"))) == (2, 1)
    assert HoldOut(test=4).of_domain("B") == HoldOut(test=4)


def test_domains_must_fit() -> None:
    domains = {"A": datalist(3), "B": datalist(3)}
    with pytest.raises(InputError, match="expected two of the domains A, B"):
        domain_adaptation(domains, source="A", target="C")
    with pytest.raises(InputError, match="expected two of the domains"):
        domain_adaptation(domains, source="A", target="A")
    domains["B"].labels[2] = "other"
    with pytest.raises(InputError, match="expected the same structures"):
        domain_adaptation(domains, source="A", target="B")


def test_labels_of_one_rater_or_of_all() -> None:
    held = HoldOut(test=1).apply(datalist(3))
    masks = {f"c{k}": {1: f"/m/{k}_1.nii", 2: f"/m/{k}_2.nii"} for k in range(3)}
    del masks[min(cases(held, "training"))][2]
    first = rated_by(held, masks, rater=1)
    assert [r["quality"] for r in first.split("training")] == ["low", "low"]
    assert all(r["label"].startswith("/m/") and r["clean_label"].startswith("/d/") for r in first.split("training"))
    assert first.split("test") == held.split("test")
    assert len(rated_by(held, masks, rater=2).split("training")) == 1
    every = rated_by(held, masks, rater="all").split("training")
    assert len({r["case"] for r in every}) == len(every) == 3
    assert len({r["patient"] for r in every}) == 2
    with pytest.raises(InputError, match="rater 9: expected one of 1, 2, or all"):
        rated_by(held, masks, rater=9)


def test_the_stated_share_of_labels_is_corrupted_and_the_lower_rate_is_part_of_the_higher(
    phantoms: Path, tmp_path: Path
) -> None:
    held = HoldOut(test=2).apply(find_datalist(phantoms))

    def noisy(rate: float, name: str, seed: int = 0) -> dict[str, np.ndarray]:
        options = {"kinds": ["boundary", "elastic"], "magnitude_mm": 6.0}
        data = with_label_noise(held, tmp_path / name, rate=rate, seed=seed)
        write_label_noise(data, tmp_path / name, seed=seed, **options)
        assert all(r["quality"] == "low" and r["clean_label"] for r in data.split("training"))
        assert data.split("test") == held.split("test")
        changed = [r for r in data.split("training") if r["label"] != r["clean_label"]]
        for r in changed:
            assert np.array_equal(nibabel.load(r["label"]).affine, nibabel.load(r["clean_label"]).affine)
        return {r["case"]: np.asarray(nibabel.load(r["label"]).dataobj) for r in changed}

    half, most = noisy(0.5, "half"), noisy(0.75, "most")
    assert (len(half), len(most)) == (2, 3)
    assert all(np.array_equal(most[case], label) for case, label in half.items())
    assert noisy(0.0, "none") == {}
    other = noisy(0.75, "other", seed=1)
    assert any(case not in other or not np.array_equal(other[case], label) for case, label in most.items())
    with pytest.raises(InputError, match=r"noise rate is 1.5; expected a share"):
        noisy(1.5, "wrong")


def test_a_task_reads_what_it_is_not_told(phantoms: Path) -> None:
    task = Task.of(find_datalist(phantoms))
    assert (task.axis, task.slice_size) == (2, (32, 32))
    assert task.labels == {0: "background", 1: "organ"}
    volumes = task.training_volumes(task.datalist.cases[:2])
    assert volumes[0]["image"].shape == (1, 32, 32, 6)
    merged = Task.of(find_datalist(phantoms), classes={1: 1, 7: 1})
    assert merged.labels == {0: "background", 1: "organ + label 7"}


def test_real_raters(aide_data: Path, tmp_path: Path) -> None:
    truth, masks = qubiq_truth(aide_data / "qubiq", tmp_path, task="brain-growth", subtask=1)
    assert (len(truth.split("training")), len(truth.split("test"))) == (34, 5)
    assert {len(files) for files in masks.values()} == {7}
    assert HoldOut().apply(truth).split("test") == truth.split("test")
