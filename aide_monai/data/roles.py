"""Which case is labelled, doubtful, unlabelled, validated on or tested on, said by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from aide_monai.data.case import Case, Split
from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError
from aide_monai.utils.texts import names_text

_SPLITS: dict[str, Split] = {
    "labeled": "training",
    "doubtful": "training",
    "unlabeled": "training",
    "validation": "validation",
    "test": "test",
}
ROLES = tuple(_SPLITS)

logger = logging.getLogger(__name__)


def with_roles(datalist: Datalist, roles: Mapping[str, Sequence[str]]) -> Datalist:
    """Give cases their roles by name; what split the datalist says plays no part.

    Args:
        datalist: cases, unchanged by the call.
        roles: role ("labeled", "doubtful", "unlabeled", "validation", "test") to names of cases, or of patients, which
            stand for all their cases. A label is doubtful there whatever the datalist says of it. Without "unlabeled",
            all cases of patients without a role are unlabelled.

    Returns:
        A new datalist with the cases in the order of the roles. The label of an unlabelled case becomes its
        ``clean_label``. Cases without a role are left out; a log message counts them.

    Raises:
        InputError: one report of unknown roles and names, cases in two roles, patients in training and held out, cases
            without the label that their role needs, and no label to learn from.

    Examples:
        >>> from aide_monai import Case, Datalist
        >>> from aide_monai.data import with_roles
        >>> cases = [Case(name=c, image=f"/{c}.nii", label=f"/{c}_l.nii", quality="high") for c in "abc"]
        >>> datalist = Datalist("livers", {0: "background", 1: "liver"}, {0: "MR"}, cases)
        >>> named = with_roles(datalist, {"labeled": ["b"], "test": ["a"]})
        >>> [(case.name, case.split, case.trusted) for case in named.cases]
        [('b', 'training', True), ('c', 'training', False), ('a', 'test', True)]
    """
    problems = [f'role "{role}": unknown; the roles are {", ".join(ROLES)}' for role in roles if role not in ROLES]
    chosen: dict[str, list[Case]] = {role: [] for role in ROLES}
    first: dict[str, str] = {}  # case to its role
    patients: dict[tuple[str, str], str] = {}
    for role in ROLES:
        for name in roles.get(role, ()):
            found = [case for case in datalist.cases if name in (case.name, case.patient)]
            if not found:
                known = names_text(sorted({case.patient or case.name for case in datalist.cases}))
                problems.append(f'{role}: "{name}" is no case and no patient; found {known}')
            for case in found:
                other = first.setdefault(case.name, role)
                taken = patients.setdefault(case.group, role)
                if other != role:
                    problems.append(f'case "{case.name}": named as {other} and as {role}; a case has one role')
                elif _SPLITS[taken] != _SPLITS[role]:
                    problems.append(f'patient "{case.group[1]}": has cases in {taken} and in {role}; expected one role')
                elif role == "doubtful" and case.label is None:
                    problems.append(f'doubtful: case "{case.name}" has no label; expected one')
                elif role not in ("doubtful", "unlabeled") and not case.trusted:
                    problems.append(f'{role}: case "{case.name}" has no label of quality high; expected one')
                elif case not in chosen[role]:
                    chosen[role].append(case)
    if not chosen["labeled"] and not chosen["doubtful"]:
        problems.append("labeled: no case to learn from; expected at least one, or doubtful ones")
    if problems:
        title = f"{datalist.name}: cases cannot have the roles that are named"
        raise InputError(title, problems=list(dict.fromkeys(problems)))
    if "unlabeled" not in roles:
        chosen["unlabeled"] = [case for case in datalist.cases if case.group not in patients]
    as_role = {"unlabeled": Case.hidden, "doubtful": lambda case: replace(case, quality="low")}
    cases = [replace(as_role.get(role, replace)(case), split=_SPLITS[role]) for role in ROLES for case in chosen[role]]
    if left_out := len(datalist.cases) - len(cases):
        logger.warning("roles of %s: %d cases are in no role and are left out", datalist.name, left_out)
    return replace(datalist, cases=cases)
