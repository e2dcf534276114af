"""Play annotation-poor on a labelled data set: keep few labels, hide the others, hold out a test set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError

Record = dict[str, Any]

logger = logging.getLogger(__name__)


def split_cases(
    datalist: Datalist, *, labeled: int, unlabeled: int | None = None, test: int | None = None, seed: int = 0
) -> Datalist:
    """Divide the training cases into labelled, unlabelled and test cases; the patients of these two sides differ.

    Only cases of quality "high" count as labelled. Validation and test cases that the datalist has already stay what
    they are and are not counted. Training cases of quality "low" stay too, except those of a patient held out here.

    - Labelled: drawn patient by patient. With one seed and a fixed ``test``, a smaller ``labeled`` is a subset of a
      larger one, and the test cases are the same, so that runs can be compared.
    - Unlabelled: cases that never had a label come first (they are of no other use); only when they are too few do
      labelled cases lose their label, which is kept as ``clean_label``.
    - Test: whole patients first; when the number asks for a part of a patient, the rest of that patient is left out.

    Args:
        datalist: cases, unchanged by the call.
        labeled: number of labelled training cases, at least 1.
        unlabeled: number of unlabelled training cases. None: when ``test`` is a number or the datalist has test cases
            already, all that remain; otherwise all that never had a label and whose patient is not a test patient.
        test: number of cases to hold out. None: when the datalist has test cases already, no further ones; otherwise
            every labelled case whose patient is not used for training.
        seed: seed of the drawing; it does not depend on the order of the records.

    Returns:
        A new datalist: labelled, low-quality, unlabelled, then validation and test cases. Cases that remain in no role
        are left out; a log message counts them.

    Raises:
        InputError: a number out of range, too few cases (tells how many there are), or a patient that the datalist
            has in training and in validation or test.
    """
    if labeled < 1:
        raise InputError(f"labeled={labeled}: no labelled case to learn from; ask for at least 1")
    for key, number in (("unlabeled", unlabeled), ("test", test)):
        if number is not None and number < 0:
            raise InputError(f"{key}={number}: expected 0 or more")
    kept = datalist.split("validation") + datalist.split("test")
    pool = datalist.split("training")
    _refuse_shared_patients(pool, kept)
    rest_is_test = test is None and not datalist.split("test")

    order = _shuffled(pool, np.random.default_rng(seed))
    high = [record for record in order if record.get("quality") == "high"]
    low = [record for record in pool if record.get("quality") == "low"]
    never_labelled = [record for record in order if "label" not in record]

    held_out = _take_whole_patients(high[::-1], test or 0)
    test_patients = _patients(held_out)
    training = [record for record in high if patient_of(record) not in test_patients][:labeled]
    trained = _patients(training + low)
    chosen = {record["case"] for record in training}
    spare = [record for record in high if record["case"] not in chosen]
    testable = _patients(spare) - trained

    def costs(record: Record) -> tuple[bool, bool]:
        """First whether a label is given up, then whether a patient is lost to the test."""
        return "label" in record, patient_of(record) in testable

    given_up = sorted(
        (record for record in never_labelled + spare if patient_of(record) not in test_patients), key=costs
    )
    if unlabeled is None and rest_is_test:
        given_up = [record for record in given_up if costs(record) == (False, False)]
    if len(held_out) < (test or 0) or len(training) < labeled or len(given_up) < (unlabeled or 0):
        raise InputError(
            f"labeled={labeled}, unlabeled={_asked(unlabeled)}, test={_asked(test)}: too few cases; found {len(high)} "
            f"labelled (quality high) and {len(never_labelled)} unlabelled training cases of "
            f"{len(_patients(high + never_labelled))} patients, and a patient cannot be on both sides; ask for less"
        )
    given_up = given_up[:unlabeled]
    if rest_is_test:
        held_out = [record for record in high if patient_of(record) not in trained | _patients(given_up)]
        test_patients = _patients(held_out)

    records = [{**record, "split": "training"} for record in training]
    records += [{**record, "split": "training"} for record in low if patient_of(record) not in test_patients]
    records += [hidden(record) for record in given_up]
    records += kept
    records += [{**record, "split": "test"} for record in held_out]
    left_out = len(datalist.records) - len(records)
    if left_out:
        logger.warning("split of %s: %d cases are in no role and are left out", datalist.name, left_out)
    return replace(datalist, records=[dict(record) for record in records])


def fold_cases(datalist: Datalist, *, fold: int, folds: int, seed: int = 0) -> Datalist:
    """Hold out one of several equal parts of the patients as the test set (cross-validation).

    Over all folds every labelled case of quality "high" is a test case once. Validation and test cases that the
    datalist has are drawn anew with the others; unlabelled and low-quality cases of test patients are left out.

    Args:
        datalist: cases, unchanged by the call.
        fold: which part, 1 to ``folds``.
        folds: number of parts, at least 2.
        seed: seed of the division, the same for all folds.

    Raises:
        InputError: a number out of range, or fewer patients than folds.
    """
    high = [record for record in datalist.records if record.get("quality") == "high"]
    order = list(dict.fromkeys(patient_of(record) for record in _shuffled(high, np.random.default_rng(seed))))
    if not (2 <= folds <= len(order) and 1 <= fold <= folds):
        raise InputError(
            f"fold {fold}/{folds}: expected a part from 1 to the number of parts, of 2 to {len(order)} parts, as there "
            f"are {len(order)} patients with labels of quality high"
        )
    held_out = set(order[fold - 1 :: folds])
    records = []
    for record in datalist.records:
        if patient_of(record) not in held_out:
            records.append({**record, "split": "training"})
        elif record.get("quality") == "high":
            records.append({**record, "split": "test"})
    return replace(datalist, records=records)


def patient_of(record: Record) -> tuple[str, str]:
    """What no two splits may share: the patient, or the case where no patient is named."""
    return ("patient", record["patient"]) if "patient" in record else ("case", record["case"])


def _patients(records: Iterable[Record]) -> set[tuple[str, str]]:
    return {patient_of(record) for record in records}


def _shuffled(records: list[Record], generator: np.random.Generator) -> list[Record]:
    """Patients in random order, and the cases of each patient, one after the other, in random order."""
    by_patient: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=lambda record: record["case"]):
        by_patient.setdefault(patient_of(record), []).append(record)
    patients = sorted(by_patient)
    return [
        by_patient[patients[index]][place]
        for index in generator.permutation(len(patients))
        for place in generator.permutation(len(by_patient[patients[index]]))
    ]


def _take_whole_patients(order: list[Record], number: int) -> list[Record]:
    """The first patients that fit into ``number`` cases, then a part of the next one when that is not enough."""
    by_patient: dict[tuple[str, str], list[Record]] = {}
    for record in order:
        by_patient.setdefault(patient_of(record), []).append(record)
    taken: list[Record] = []
    too_large: list[Record] = []
    for records in by_patient.values():
        if len(taken) + len(records) <= number:
            taken += records
        else:
            too_large += records
    return taken + too_large[: number - len(taken)]


def expert_label(record: Record) -> Any:
    """The label to judge by: ``clean_label`` where the label itself is doubtful."""
    return record.get("clean_label", record["label"])


def hidden(record: Record) -> Record:
    """The record as an unlabelled training case; what its labels are judged by stays as ``clean_label``."""
    bare = {key: value for key, value in record.items() if key not in ("label", "quality")}
    return {**bare, "split": "training", **({"clean_label": expert_label(record)} if "label" in record else {})}


def _refuse_shared_patients(pool: list[Record], kept: list[Record]) -> None:
    shared = sorted(name for _, name in _patients(pool) & _patients(kept))
    if shared:
        raise InputError(
            f"patients in training and in validation or test: {', '.join(shared[:10])}"
            f"{f' and {len(shared) - 10} more' if len(shared) > 10 else ''}; put all cases of a patient into one split"
        )


def _asked(number: int | None) -> str:
    return "the rest" if number is None else str(number)


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How cases become training and test cases; as the source has them when nothing is given.

    Attributes:
        labeled: training cases that keep their label, see ``split_cases``.
        unlabeled: training cases whose label is hidden.
        test: held-out cases; without ``labeled``, so many of each domain, and all others keep their labels.
        fold: (k, n): part k of n is held out, see ``fold_cases``.
        seed: seed of the drawing.
    """

    labeled: int | None = None
    unlabeled: int | None = None
    test: int | None = None
    fold: tuple[int, int] | None = None
    seed: int = 0

    def apply(self, datalist: Datalist) -> Datalist:
        """Split the cases.

        Raises:
            InputError: settings that do not go together, or too few cases.
        """
        if self.fold is not None:
            if self.test is not None:
                raise InputError("found fold and test; expected one of them, for both hold out cases")
            datalist = fold_cases(datalist, fold=self.fold[0], folds=self.fold[1], seed=self.seed)
        if self.labeled is not None:
            return split_cases(datalist, labeled=self.labeled, unlabeled=self.unlabeled, test=self.test, seed=self.seed)
        if self.unlabeled is not None:
            raise InputError("found unlabeled without labeled; expected the number of labelled cases too")
        return datalist if self.test is None else hold_out_labelled(datalist, test=self.test, seed=self.seed)


def hold_out(datalist: Datalist, *, test: int, seed: int) -> Datalist:
    """Draw test cases, by whole patients; the order of the cases stays.

    Cases that have been in a validation or test split become training cases before the drawing.

    Args:
        datalist: labelled cases of quality "high"; unchanged by the call.
        test: number of test cases, from 1 to one less than there are.
        seed: seed of the drawing; it does not depend on the order of the records.

    Raises:
        InputError: ``test`` is out of range, or does not fall on a border between patients.
    """
    cases = len(datalist.records)
    if not 1 <= test < cases:
        raise InputError(
            f"test={test} of {cases} cases",
            expected=f"1 to {cases - 1}, so that both sides have cases",
            place=datalist.name,
        )
    records = [{**record, "split": "training"} for record in datalist.records]
    pool = replace(datalist, records=records)
    drawn = split_cases(pool, labeled=cases - test, unlabeled=0, test=test, seed=seed)
    split = {record["case"]: record["split"] for record in drawn.records}
    return replace(datalist, records=[{**record, "split": split[record["case"]]} for record in records])


def hold_out_labelled(datalist: Datalist, *, test: int, seed: int) -> Datalist:
    """`hold_out` among the cases with labels of quality "high": of each domain, where all of them have one.

    Args:
        datalist: cases, unchanged by the call; those without such a label stay, or become, training cases, but those of
            test patients are left out.
        test: number of test cases, of each domain.
        seed: seed of the drawing.

    Raises:
        InputError: as `hold_out`.
    """
    labelled = replace(datalist, records=[record for record in datalist.records if record.get("quality") == "high"])
    draw = hold_out_per_domain if all("domain" in record for record in labelled.records) else hold_out
    split = {record["case"]: record["split"] for record in draw(labelled, test=test, seed=seed).records}
    held_out = {patient_of(record) for record in labelled.records if split[record["case"]] == "test"}
    records = [
        {**record, "split": split.get(record["case"], "training")}
        for record in datalist.records
        if record["case"] in split or patient_of(record) not in held_out
    ]
    if left_out := len(datalist.records) - len(records):
        logger.warning("%s: %d cases of test patients have no label to score and are left out", datalist.name, left_out)
    return replace(datalist, records=records)


def hold_out_per_domain(datalist: Datalist, *, test: int, seed: int) -> Datalist:
    """`hold_out` for each domain by itself; the order of the cases stays.

    Args:
        datalist: labelled cases with a "domain"; unchanged by the call.
        test: number of test cases of each domain.
        seed: seed of the drawing.

    Raises:
        InputError: as `hold_out`, naming the domain.
    """
    split: dict[str, str] = {}
    for domain in sorted({record["domain"] for record in datalist.records}):
        records = [record for record in datalist.records if record["domain"] == domain]
        part = replace(datalist, name=f"{datalist.name} {domain}", records=records)
        split |= {record["case"]: record["split"] for record in hold_out(part, test=test, seed=seed).records}
    return replace(datalist, records=[{**record, "split": split[record["case"]]} for record in datalist.records])


def adapt_domains(datalist: Datalist, domains: Sequence[str]) -> Datalist:
    """Keep the labels of the source domain, hide those of the target domain, and test on the target domain.

    Args:
        datalist: cases with a "domain", unchanged by the call.
        domains: (source, target); all six ordered pairs of three domains are six such values.

    Returns:
        Training cases of the source domain, training cases of the target domain whose label, if there is one, has
        become ``clean_label``, and the validation and test cases of the target domain. All others are left out.

    Raises:
        InputError: not two different domains, a domain without training cases, a source without labels, or a target
            without labelled test cases.
    """
    known = sorted({str(record["domain"]) for record in datalist.records if "domain" in record})
    if len(domains) != 2 or domains[0] == domains[1] or not set(domains) <= set(known):
        raise InputError(
            f"domains are {list(domains)}; expected source and target, two of {', '.join(known) or 'none'}"
        )
    source, target = domains
    records: list[dict[str, Any]] = []
    for record in datalist.records:
        training = record.get("split", "training") == "training"
        if record.get("domain") == source and training and "label" in record:
            records.append(record)
        elif record.get("domain") == target:
            records.append(hidden(record) if training else record)
    found = {domain: [r for r in records if r["domain"] == domain] for domain in domains}
    if not found[source]:
        raise InputError(f'domain "{source}" has no labelled training case; expected at least one to learn from')
    if not any(record.get("split", "training") == "training" for record in found[target]):
        raise InputError(f'domain "{target}" has no training case; expected images to adapt to')
    if not any(record.get("split") == "test" and "label" in record for record in found[target]):
        raise InputError(f'domain "{target}" has no labelled test case; hold some out, expected at least one')
    return replace(datalist, name=f"{datalist.name}, {source} to {target}", records=records)
