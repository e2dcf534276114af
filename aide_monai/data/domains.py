"""Unsupervised domain adaptation as a data set: a labelled source domain and an unlabelled target domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError


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
            records.append(_hidden(record) if training else record)
    found = {domain: [r for r in records if r["domain"] == domain] for domain in domains}
    if not found[source]:
        raise InputError(f'domain "{source}" has no labelled training case; expected at least one to learn from')
    if not any(record.get("split", "training") == "training" for record in found[target]):
        raise InputError(f'domain "{target}" has no training case; expected images to adapt to')
    if not any(record.get("split") == "test" and "label" in record for record in found[target]):
        raise InputError(f'domain "{target}" has no labelled test case; hold some out, expected at least one')
    return replace(datalist, name=f"{datalist.name}, {source} to {target}", records=records)


def _hidden(record: dict[str, Any]) -> dict[str, Any]:
    """The record without its label, which stays as ``clean_label``."""
    hidden = {key: value for key, value in record.items() if key not in ("label", "quality")}
    return hidden | ({"clean_label": record["label"]} if "label" in record and "clean_label" not in record else {})
