"""Which case is labelled, unlabelled, validated on or tested on, said by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aide_monai.data.datalist import Datalist
from aide_monai.data.split import hidden, patient_of
from aide_monai.errors import InputError
from aide_monai.utils.texts import names_text

ROLES = ("labeled", "unlabeled", "validation", "test")
_SPLITS = {"labeled": "training", "unlabeled": "training", "validation": "validation", "test": "test"}
_Record = dict[str, Any]

logger = logging.getLogger(__name__)


def with_roles(datalist: Datalist, roles: Mapping[str, Sequence[str]]) -> Datalist:
    """Give cases their roles by name; what split the datalist says plays no part.

    Args:
        datalist: cases, unchanged by the call.
        roles: role ("labeled", "unlabeled", "validation", "test") to names of cases, or of patients, which stand for
            all their cases. Without "unlabeled", all cases of patients without a role are unlabelled.

    Returns:
        A new datalist with the cases in the order of the roles. The label of an unlabelled case becomes its
        ``clean_label``. Cases without a role are left out; a log message counts them.

    Raises:
        InputError: one report of unknown roles and names, cases or patients in two roles, cases without the label that
            their role needs, and no labelled case.

    Examples:
        >>> from aide_monai import Datalist
        >>> from aide_monai.data import with_roles
        >>> records = [{"case": c, "image": f"/{c}.nii", "label": f"/{c}_l.nii", "quality": "high"} for c in "abc"]
        >>> cases = Datalist("livers", {0: "background", 1: "liver"}, {0: "MR"}, records)
        >>> named = with_roles(cases, {"labeled": ["b"], "test": ["a"]})
        >>> [(r["case"], r["split"], "label" in r) for r in named.records]
        [('b', 'training', True), ('c', 'training', False), ('a', 'test', True)]
    """
    problems = [f'role "{role}": unknown; the roles are {", ".join(ROLES)}' for role in roles if role not in ROLES]
    chosen: dict[str, list[_Record]] = {role: [] for role in ROLES}
    first: dict[str, str] = {}  # case to its role
    patients: dict[tuple[str, str], str] = {}
    for role in ROLES:
        for name in roles.get(role, ()):
            found = [r for r in datalist.records if name in (r["case"], r.get("patient"))]
            if not found:
                known = names_text(sorted({str(r.get("patient", r["case"])) for r in datalist.records}))
                problems.append(f'{role}: "{name}" is no case and no patient; found {known}')
            for record in found:
                case, patient = record["case"], patient_of(record)
                other = first.setdefault(case, role)
                taken = patients.setdefault(patient, role)
                if other != role:
                    problems.append(f'case "{case}": named as {other} and as {role}; a case has one role')
                elif taken != role:
                    problems.append(f'patient "{patient[1]}": has cases in {taken} and in {role}; expected one role')
                elif role != "unlabeled" and record.get("quality") != "high":
                    problems.append(f'{role}: case "{case}" has no label of quality high; expected one')
                elif record not in chosen[role]:
                    chosen[role].append(record)
    if not chosen["labeled"]:
        problems.append("labeled: no case to learn from; expected at least one")
    if problems:
        title = f"{datalist.name}: cases cannot have the roles that are named"
        raise InputError(title, problems=list(dict.fromkeys(problems)))
    if "unlabeled" not in roles:
        chosen["unlabeled"] = [record for record in datalist.records if patient_of(record) not in patients]
    records = [
        {**(hidden(record) if role == "unlabeled" else record), "split": _SPLITS[role]}
        for role in ROLES
        for record in chosen[role]
    ]
    if left_out := len(datalist.records) - len(records):
        logger.warning("roles of %s: %d cases are in no role and are left out", datalist.name, left_out)
    return replace(datalist, records=records)
