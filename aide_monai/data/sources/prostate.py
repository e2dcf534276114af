"""The paper's three prostate domains: NCI-ISBI 2013 (Domains 1 and 2) and PROMISE12 without its duplicates (3)."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

from aide_monai.data.case import Case
from aide_monai.data.checks.datalist import collected, refuse
from aide_monai.data.checks.duplicates import find_twins, image_signature, leaks
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
    nci = collected(problems, lambda: nci_isbi_datalist(nci_root, test=test, seed=seed))
    promise = collected(problems, lambda: promise12_datalist(promise_root))
    if nci is None or promise is None:
        sound = [part for part in (nci, promise) if part is not None]
        refuse(f"{nci_root} and {promise_root}: the domains cannot be used", problems, *sound)
    signatures = {case.name: image_signature(case) for case in nci.cases + promise.cases}
    twins = find_twins(signatures)
    domain_2 = {case.name for case in nci.cases if case.domain == "Domain 2"}
    dropped = set()
    for pair in twins:
        if pair.first in domain_2 and pair.second not in {case.name for case in nci.cases}:
            logger.warning(
                "%s of PROMISE12 is left out: the same scan as %s (likeness %.4f)",
                pair.second,
                pair.first,
                pair.likeness,
            )
            dropped.add(pair.second)
    promise = replace(promise, cases=[case for case in promise.cases if case.name not in dropped])
    promise = hold_out(promise, test=PAPER_SPLIT["Domain 3"][1] if test is None else test, seed=seed)
    cases = nci.cases + promise.cases
    left = [pair for pair in twins if pair.second not in dropped and pair.first not in dropped]
    if problems := leaks(cases, left):
        raise InputError(f"{nci_root} and {promise_root}: the domains cannot be used together", problems=problems)
    if test is None:
        _compare_with_paper(cases)
    return replace(nci, name="Prostate, three domains", cases=cases)


def _compare_with_paper(cases: list[Case]) -> None:
    found = Counter((case.domain, case.split) for case in cases)
    for domain, (training, test) in PAPER_SPLIT.items():
        numbers = found[domain, "training"], found[domain, "test"]
        if numbers != (training, test):
            logger.warning(
                "%s: %d training and %d test cases; the paper has %d and %d", domain, *numbers, training, test
            )
