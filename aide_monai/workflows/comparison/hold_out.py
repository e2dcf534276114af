"""Which cases of a data set are held out, and which domains stand against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import permutations

from aide_monai.data.datalist import Datalist
from aide_monai.data.split import fold_cases, hold_out
from aide_monai.errors import InputError


@dataclass(frozen=True, kw_only=True)
class HoldOut:
    """Which cases are held out, by whole patients; the same ones for every seed and setting.

    Attributes:
        test: number of test cases; None leaves the split that the data set comes with. For domain adaptation also
            domain to number.
        folds: cross-validation in this many parts instead.
        validation: number of further cases that are not trained on either, to choose settings by; likewise.
        transductive: hold nothing out, and score the cases whose label is hidden themselves: for data with too few
            cases, to see that everything works. It says nothing about new cases.
        seed: seed of the drawing.
    """

    test: int | Mapping[str, int] | None = None
    folds: int | None = None
    validation: int | Mapping[str, int] = 0
    transductive: bool = False
    seed: int = 0

    def of_domain(self, domain: str) -> HoldOut:
        """What is held out of one domain."""
        test = self.test[domain] if isinstance(self.test, Mapping) else self.test
        validation = self.validation[domain] if isinstance(self.validation, Mapping) else self.validation
        return replace(self, test=test, validation=validation)

    def apply(self, datalist: Datalist, *, fold: int | None = None) -> Datalist:
        """Hold out test and validation cases; unlabelled cases stay training cases.

        Args:
            datalist: the cases.
            fold: which part of ``folds`` is the test set, from 1.

        Raises:
            InputError: too few cases.
        """
        if self.transductive:
            return replace(datalist, cases=[replace(case, split="training") for case in datalist.cases])
        labelled = replace(datalist, cases=[case for case in datalist.cases if case.trusted])
        unlabelled = [case for case in datalist.cases if not case.trusted]
        if fold is not None and self.folds is not None:
            labelled = fold_cases(labelled, fold=fold, folds=self.folds, seed=self.seed)
        elif isinstance(self.test, int):
            labelled = hold_out(labelled, test=self.test, seed=self.seed)
        if isinstance(self.validation, int) and self.validation:
            training = replace(labelled, cases=labelled.of_split("training"))
            drawn = hold_out(training, test=self.validation, seed=self.seed + 1)
            cases = [replace(case, split="validation") if case.split == "test" else case for case in drawn.cases]
            labelled = replace(labelled, cases=cases + labelled.of_split("test"))
        if not labelled.of_split("test"):
            raise InputError(f"{datalist.name}: no case is held out for the test; set split.test or split.folds")
        away = {case.group for case in labelled.cases if case.split != "training"}
        kept = [replace(case, split="training") for case in unlabelled if case.group not in away]
        return replace(datalist, cases=labelled.cases + kept)


def domain_pairs(domains: Iterable[str]) -> list[tuple[str, str]]:
    """UDA: all ordered pairs (source, target) of the domains."""
    return list(permutations(domains, 2))
