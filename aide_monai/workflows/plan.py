"""What to do with a data set: who is learned from, whose labels are corrected, who judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from aide_monai.data.case import Case
from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError
from aide_monai.reports.table import Table

_SHARE_HELD_OUT = 0.25
_WHY = {
    "labeled": "labels that are trusted: learned from, never changed",
    "doubtful": "labels that may be wrong: learned from with care, and corrected",
    "unlabeled": "no label: a network of the trusted ones gives the first, which is then corrected",
    "validation": "held out by the data set: not used",
    "test": "held out, with trusted labels: judge all methods, seen by none",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The roles of the cases of a data set.

    Attributes:
        roles: role to names of cases, see ``with_roles``; all roles, some of them empty.
        left_out: cases in no role: those of patients that judge without a trusted label, and those not asked for.
        drawn: whether the cases that judge were drawn here, and not by the data set.
    """

    roles: Mapping[str, Sequence[str]]
    left_out: Sequence[str]
    drawn: bool

    def table(self) -> Table:
        """Role, number of cases, and what becomes of them."""
        rows = [[role, _WHY[role], str(len(names))] for role, names in self.roles.items() if names]
        if self.left_out:
            rows.append(
                [
                    "left out",
                    "not asked for, or of patients that judge and without a trusted label",
                    str(len(self.left_out)),
                ]
            )
        return Table(["role", "what becomes of them", "cases"], rows, 2)


def plan_roles(
    datalist: Datalist,
    *,
    doubtful: str | None = None,
    labeled: int | None = None,
    unlabeled: int | None = None,
    test: int | None = None,
    seed: int = 0,
) -> Plan:
    """Decide who is learned from, whose labels are corrected and who judges, by whole patients.

    Cases that the data set holds out judge. Where it holds out none, a quarter of the patients with trusted labels is
    drawn, at least two where that leaves one to learn from.

    Args:
        datalist: the cases.
        doubtful: pattern of names (``*`` stands for anything) of cases or patients whose labels may be wrong, besides
            those of quality low.
        labeled: trusted training cases that keep their label, drawn; the label of the others is hidden, to try how few
            are enough. None: all.
        unlabeled: cases without a label that are used, drawn, those that never had one first. None: all.
        test: number of patients that judge; None: see above.
        seed: seed of the drawing.

    Raises:
        InputError: there is nothing to correct, nobody to learn from, or nobody to judge; says what can be done.

    Examples:
        >>> from aide_monai import Case, Datalist
        >>> from aide_monai.workflows import plan_roles
        >>> cases = [Case(name=c, image=f"/{c}.nii", label=f"/{c}_l.nii", quality="high") for c in "abcd"]
        >>> cases.append(Case(name="e", image="/e.nii"))
        >>> data = Datalist("livers", {0: "background", 1: "liver"}, {0: "MR"}, cases)
        >>> {role: len(names) for role, names in plan_roles(data).roles.items()}
        {'labeled': 2, 'doubtful': 0, 'unlabeled': 1, 'validation': 0, 'test': 2}
    """
    matched = {case.name for case in datalist.cases if doubtful is not None and _matches(case, doubtful)}
    if doubtful is not None and not any(case.label for case in datalist.cases if case.name in matched):
        raise InputError(f'--doubtful "{doubtful}": found no labelled case of this name; expected at least one')
    trusted = [case for case in datalist.cases if case.trusted and case.name not in matched]
    validated = {case.group for case in datalist.cases if case.split == "validation"}
    held_out = {case.group for case in trusted if case.split == "test"}
    drawn = test is not None or not held_out
    if drawn:
        free = [case for case in trusted if case.group not in validated]
        corrected = any(case.doubtful or (case.label and case.name in matched) for case in datalist.cases)
        held_out = _draw(free, test, seed=seed, spare=corrected)
    away = held_out | validated
    training = [case for case in datalist.cases if case.group not in away and (drawn or case.split != "test")]
    learned = [case for case in training if case.trusted and case.name not in matched]
    kept = _asked(learned, labeled, "--labeled", seed=seed)
    names, kept_names = ({case.name for case in cases} for cases in (learned, kept))
    without = [case for case in training if case.label is None]
    given_up = [case for case in learned if case.name not in kept_names]
    hidden = _asked([*_shuffled(without, seed), *_shuffled(given_up, seed)], unlabeled, "--unlabeled")
    roles = {
        "labeled": kept,
        "doubtful": [case for case in training if case.label is not None and case.name not in names],
        "unlabeled": hidden,
        "validation": [case for case in datalist.cases if case.split == "validation" and case.trusted],
        "test": [case for case in trusted if case.group in held_out],
    }
    named = {role: [case.name for case in cases] for role, cases in roles.items()}
    used = {name for names in named.values() for name in names}
    plan = Plan(roles=named, left_out=[case.name for case in datalist.cases if case.name not in used], drawn=drawn)
    _require_work(datalist, plan)
    return plan


def _matches(case: Case, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (case.name, case.patient) if name is not None)


def _asked(cases: Sequence[Case], number: int | None, option: str, *, seed: int | None = None) -> list[Case]:
    """As many of the cases as are asked for, the first ones, or, with a seed, drawn ones; None: all."""
    if number is None:
        return list(cases)
    if not 0 <= number <= len(cases):
        raise InputError(f"{option} is {number}; expected 0 to {len(cases)}, as many as can be trained on")
    return (list(cases) if seed is None else _shuffled(cases, seed))[:number]


def _shuffled(cases: Sequence[Case], seed: int) -> list[Case]:
    order = sorted(cases, key=lambda case: case.name)
    return [order[i] for i in np.random.default_rng(seed).permutation(len(order))]


def _draw(cases: Sequence[Case], number: int | None, *, seed: int, spare: bool) -> set[tuple[str, str]]:
    """Patients that judge, of those with trusted labels."""
    patients = list(dict.fromkeys(case.group for case in _shuffled(cases, seed)))
    most = len(patients) if spare else len(patients) - 1
    if number is None:
        number = min(max(2, round(_SHARE_HELD_OUT * len(patients))), most)
    if not 1 <= number <= most:
        raise InputError(
            f"{number} patients to judge by: found {len(patients)} with trusted labels; expected 1 to {most}"
            if most > 0
            else f"found {len(patients)} patients with trusted labels; expected at least two, to learn from one and to "
            "judge by the other: label another one, or name fewer as doubtful"
        )
    return set(patients[-number:])


def _require_work(datalist: Datalist, plan: Plan) -> None:
    numbers = {role: len(names) for role, names in plan.roles.items()}
    if not numbers["doubtful"] and not numbers["unlabeled"]:
        raise InputError(
            f"{datalist.name}: all {numbers['labeled']} training labels are trusted, and no case is without one: there "
            'is nothing to correct. Name labels that may be wrong (--doubtful "site2_*"), add images without a label, '
            "or hide labels to try how few are enough (--labeled 3)"
        )
    if numbers["unlabeled"] and not numbers["labeled"]:
        raise InputError(
            f"{datalist.name}: {numbers['unlabeled']} cases have no label and none has a trusted one to learn from; "
            "expected at least one: hold out fewer patients (--test), or label one"
        )
