"""The paper's three prostate domains: NCI-ISBI 2013 (Domains 1 and 2) and PROMISE12 without its duplicates (3)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from aide_monai.data.checks.duplicates import find_twins, leaks, record_signature
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.nci_isbi import nci_isbi_classes, nci_isbi_datalist
from aide_monai.data.sources.promise12 import promise12_datalist
from aide_monai.data.split import hold_out
from aide_monai.errors import InputError, Problem

PAPER_SPLIT = {"Domain 1": (30, 10), "Domain 2": (30, 10), "Domain 3": (27, 10)}
"""Training and test cases of each domain."""

prostate_classes = nci_isbi_classes
"""Stored label value -> class index, for ``AsClassIndicesd``: both zones of NCI-ISBI are prostate."""

logger = logging.getLogger(__name__)


def prostate_datalist(
    nci_root: str | Path, promise_root: str | Path, *, test: int | None = None, seed: int = 0
) -> Datalist:
    """Cases of the three domains, "domain" "Domain 1" to "Domain 3", all with labels of quality "high".

    PROMISE12's duplicates of Domain 2 are left out twice over: the cases 13 to 25, and every other case that shows the
    same as one of Domain 2 (see ``duplicates.signature``; a log message names them). All images are decoded for this.
    Any other scan in two domains, or in training and test, is an error. Labels need resampling onto their image and
    ``prostate_classes()``, see ``nci_isbi_datalist``.

    Args:
        nci_root: folder of NCI-ISBI 2013, see ``nci_isbi_datalist``.
        promise_root: folder of PROMISE12, see ``promise12_datalist``.
        test: None: the paper's split, 30/10, 30/10 and 27/10: the challenge's own for Domains 1 and 2; of Domain 3
            ten cases are drawn, for the paper does not name its ten. A number: as many are drawn from each domain.
        seed: seed of the drawing.

    Raises:
        InputError: one report of the problems of both data sets, or of all leaks; or ``test`` out of range.
    """
    problems: list[Problem] = []
    nci = _collected(problems, lambda: nci_isbi_datalist(nci_root, test=test, seed=seed))
    promise = _collected(problems, lambda: promise12_datalist(promise_root))
    if nci is None or promise is None:
        raise InputError(f"{nci_root} and {promise_root}: the domains cannot be used", problems=problems)
    signatures = {record["case"]: record_signature(record) for record in nci.records + promise.records}
    twins = find_twins(signatures)
    domain_2 = {record["case"] for record in nci.records if record["domain"] == "Domain 2"}
    dropped = set()
    for pair in twins:
        if pair.first in domain_2 and pair.second not in {record["case"] for record in nci.records}:
            logger.warning(
                "%s of PROMISE12 is left out: the same scan as %s (likeness %.4f)",
                pair.second,
                pair.first,
                pair.likeness,
            )
            dropped.add(pair.second)
    promise.records = [record for record in promise.records if record["case"] not in dropped]
    promise = hold_out(promise, test=PAPER_SPLIT["Domain 3"][1] if test is None else test, seed=seed)
    records = nci.records + promise.records
    left = [pair for pair in twins if pair.second not in dropped and pair.first not in dropped]
    if problems := leaks(records, left):
        raise InputError(f"{nci_root} and {promise_root}: the domains cannot be used together", problems=problems)
    if test is None:
        _compare_with_paper(records)
    return replace(nci, name="Prostate, three domains", records=records)


def _collected(problems: list[Problem], read: Callable[[], Datalist]) -> Datalist | None:
    try:
        return read()
    except InputError as error:
        problems += error.problems
        return None


def _compare_with_paper(records: list[dict[str, Any]]) -> None:
    found = Counter((record["domain"], record["split"]) for record in records)
    for domain, (training, test) in PAPER_SPLIT.items():
        cases = found[domain, "training"], found[domain, "test"]
        if cases != (training, test):
            logger.warning("%s: %d training and %d test cases; the paper has %d and %d", domain, *cases, training, test)
