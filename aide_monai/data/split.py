"""Play annotation-poor on a labelled data set: keep few labels, hide the others, hold out a test set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aide_monai.data.case import Case, Split
from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError

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
    kept = datalist.of_split("validation") + datalist.of_split("test")
    pool = datalist.of_split("training")
    _refuse_shared_patients(pool, kept)
    rest_is_test = test is None and not datalist.of_split("test")

    order = _shuffled(pool, np.random.default_rng(seed))
    trusted = [case for case in order if case.trusted]
    doubtful = [case for case in pool if case.doubtful]
    never_labelled = [case for case in order if case.label is None]

    held_out = _take_whole_patients(trusted[::-1], test or 0)
    test_patients = _patients(held_out)
    training = [case for case in trusted if case.group not in test_patients][:labeled]
    trained = _patients(training + doubtful)
    chosen = {case.name for case in training}
    spare = [case for case in trusted if case.name not in chosen]
    testable = _patients(spare) - trained

    def costs(case: Case) -> tuple[bool, bool]:
        """First whether a label is given up, then whether a patient is lost to the test."""
        return case.label is not None, case.group in testable

    hidden = sorted((case for case in never_labelled + spare if case.group not in test_patients), key=costs)
    if unlabeled is None and rest_is_test:
        hidden = [case for case in hidden if costs(case) == (False, False)]
    if len(held_out) < (test or 0) or len(training) < labeled or len(hidden) < (unlabeled or 0):
        raise InputError(
            f"labeled={labeled}, unlabeled={_asked(unlabeled)}, test={_asked(test)}: too few cases; found "
            f"{len(trusted)} labelled (quality high) and {len(never_labelled)} unlabelled training cases of "
            f"{len(_patients(trusted + never_labelled))} patients, and a patient cannot be on both sides; ask for less"
        )
    hidden = hidden[:unlabeled]
    if rest_is_test:
        held_out = [case for case in trusted if case.group not in trained | _patients(hidden)]
        test_patients = _patients(held_out)

    cases = training + [case for case in doubtful if case.group not in test_patients]
    cases += [case.hidden() for case in hidden]
    cases += kept
    cases += [replace(case, split="test") for case in held_out]
    left_out = len(datalist.cases) - len(cases)
    if left_out:
        logger.warning("split of %s: %d cases are in no role and are left out", datalist.name, left_out)
    return replace(datalist, cases=cases)


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
    trusted = [case for case in datalist.cases if case.trusted]
    order = list(dict.fromkeys(case.group for case in _shuffled(trusted, np.random.default_rng(seed))))
    if not (2 <= folds <= len(order) and 1 <= fold <= folds):
        raise InputError(
            f"fold {fold}/{folds}: expected a part from 1 to the number of parts, of 2 to {len(order)} parts, as there "
            f"are {len(order)} patients with labels of quality high"
        )
    held_out = set(order[fold - 1 :: folds])
    cases: list[Case] = []
    for case in datalist.cases:
        if case.group not in held_out:
            cases.append(replace(case, split="training"))
        elif case.trusted:
            cases.append(replace(case, split="test"))
    return replace(datalist, cases=cases)


def _patients(cases: Iterable[Case]) -> set[tuple[str, str]]:
    return {case.group for case in cases}


def _shuffled(cases: list[Case], generator: np.random.Generator) -> list[Case]:
    """Patients in random order, and the cases of each patient, one after the other, in random order."""
    by_patient: dict[tuple[str, str], list[Case]] = {}
    for case in sorted(cases, key=lambda case: case.name):
        by_patient.setdefault(case.group, []).append(case)
    patients = sorted(by_patient)
    return [
        by_patient[patients[index]][place]
        for index in generator.permutation(len(patients))
        for place in generator.permutation(len(by_patient[patients[index]]))
    ]


def _take_whole_patients(order: list[Case], number: int) -> list[Case]:
    """The first patients that fit into ``number`` cases, then a part of the next one when that is not enough."""
    by_patient: dict[tuple[str, str], list[Case]] = {}
    for case in order:
        by_patient.setdefault(case.group, []).append(case)
    taken: list[Case] = []
    too_large: list[Case] = []
    for cases in by_patient.values():
        if len(taken) + len(cases) <= number:
            taken += cases
        else:
            too_large += cases
    return taken + too_large[: number - len(taken)]


def _refuse_shared_patients(pool: list[Case], kept: list[Case]) -> None:
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
    number = len(datalist.cases)
    if not 1 <= test < number:
        raise InputError(
            f"test={test} of {number} cases",
            expected=f"1 to {number - 1}, so that both sides have cases",
            place=datalist.name,
        )
    pool = replace(datalist, cases=[replace(case, split="training") for case in datalist.cases])
    drawn = split_cases(pool, labeled=number - test, unlabeled=0, test=test, seed=seed)
    split = {case.name: case.split for case in drawn.cases}
    return replace(datalist, cases=[replace(case, split=split[case.name]) for case in datalist.cases])


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
    labelled = replace(datalist, cases=[case for case in datalist.cases if case.trusted])
    draw = hold_out if any(case.domain is None for case in labelled.cases) else hold_out_per_domain
    split = {case.name: case.split for case in draw(labelled, test=test, seed=seed).cases}
    held_out = {case.group for case in labelled.cases if split[case.name] == "test"}
    cases = [
        replace(case, split=split.get(case.name, "training"))
        for case in datalist.cases
        if case.name in split or case.group not in held_out
    ]
    if left_out := len(datalist.cases) - len(cases):
        logger.warning("%s: %d cases of test patients have no label to score and are left out", datalist.name, left_out)
    return replace(datalist, cases=cases)


def hold_out_per_domain(datalist: Datalist, *, test: int, seed: int) -> Datalist:
    """`hold_out` for each domain by itself; the order of the cases stays.

    Args:
        datalist: labelled cases with a "domain"; unchanged by the call.
        test: number of test cases of each domain.
        seed: seed of the drawing.

    Raises:
        InputError: as `hold_out`, naming the domain.
    """
    split: dict[str, Split] = {}
    for domain in sorted({str(case.domain) for case in datalist.cases}):
        cases = [case for case in datalist.cases if case.domain == domain]
        part = replace(datalist, name=f"{datalist.name} {domain}", cases=cases)
        split |= {case.name: case.split for case in hold_out(part, test=test, seed=seed).cases}
    return replace(datalist, cases=[replace(case, split=split[case.name]) for case in datalist.cases])


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
    known = sorted({case.domain for case in datalist.cases if case.domain is not None})
    if len(domains) != 2 or domains[0] == domains[1] or not set(domains) <= set(known):
        raise InputError(
            f"domains are {list(domains)}; expected source and target, two of {', '.join(known) or 'none'}"
        )
    source, target = domains
    cases: list[Case] = []
    for case in datalist.cases:
        training = case.split == "training"
        if case.domain == source and training and case.label is not None:
            cases.append(case)
        elif case.domain == target:
            cases.append(case.hidden() if training else case)
    found = {domain: [case for case in cases if case.domain == domain] for domain in domains}
    if not found[source]:
        raise InputError(f'domain "{source}" has no labelled training case; expected at least one to learn from')
    if not any(case.split == "training" for case in found[target]):
        raise InputError(f'domain "{target}" has no training case; expected images to adapt to')
    if not any(case.split == "test" and case.label is not None for case in found[target]):
        raise InputError(f'domain "{target}" has no labelled test case; hold some out, expected at least one')
    return replace(datalist, name=f"{datalist.name}, {source} to {target}", cases=cases)
