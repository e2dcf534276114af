"""The three prostate domains: six ordered pairs by one parameter."""

from __future__ import annotations

from itertools import permutations

import pytest

from aide_monai.data.datalist import Datalist
from aide_monai.reports.tables import read_csv
from tests.bundles.doors import ROOT, TRAINING, aide, parsed
from tests.bundles.layouts import BUNDLES

NAME = "prostate_uda"
DOMAINS = ("Domain 1", "Domain 2", "Domain 3")


@pytest.mark.parametrize("pair", permutations(DOMAINS, 2), ids=" to ".join)
def test_each_ordered_pair_is_one_parameter(pair, data_of):
    source, target = pair
    for config in ("train", "evaluate"):
        parser = parsed(ROOT / NAME, config, dataset_dir=str(data_of(NAME)), domains=list(pair))
        datalist = parser.get_parsed_content("datalist")
        training = datalist.split("training")
        assert {record["domain"] for record in training if "label" in record} == {source}
        assert {record["domain"] for record in training if "label" not in record} == {target}
        assert {record["domain"] for record in datalist.split("test")} == {target}
        assert all("label" in record for record in datalist.split("test"))


@pytest.mark.parametrize("pair", [("Domain 3", "Domain 1"), ("Domain 2", "Domain 3")], ids=" to ".join)
def test_a_pair_is_trained_and_judged(pair, data_of, tmp_path):
    options = {
        "dataset_dir": str(data_of(NAME)),
        "run_dir": str(tmp_path),
        "domains": list(pair),
        **BUNDLES[NAME].model,
    }
    assert aide("train", ROOT / NAME, **TRAINING, **options) == 0
    cases = Datalist.load(tmp_path / "standardized" / "datalist.json", roots=[tmp_path, data_of(NAME)])
    adapted = {record["case"]: record for record in cases.split("training") if record["domain"] == pair[1]}
    assert {path.name.removesuffix(".nii.gz") for path in (tmp_path / "standardized" / "pseudo_labels").iterdir()} == {
        *adapted
    }
    assert all(record["quality"] == "low" for record in adapted.values())
    assert aide("train", ROOT / NAME, "--config", "evaluate", **options) == 0
    judged = {row["case"] for row in read_csv(tmp_path / "eval" / "per_case.csv")}
    assert judged == {record["case"] for record in cases.records if record["split"] == "test"}
    assert {record["domain"] for record in cases.split("test")} == {pair[1]}
