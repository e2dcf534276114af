"""A seeded test set for sources whose paper only says how many cases were held out at random."""

from __future__ import annotations

import logging
from dataclasses import replace

from aide_monai.data.datalist import Datalist
from aide_monai.data.split import patient_of, split_cases
from aide_monai.errors import InputError

logger = logging.getLogger(__name__)


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
            f"{datalist.name}: test={test} of {cases} cases; expected 1 to {cases - 1}, so that both sides have cases"
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
