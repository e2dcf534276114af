"""Configs of experiments: what they say by default, and what is wrong with them in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aide_monai.errors import InputError
from aide_monai.workflows.comparison.config import cases_of
from aide_monai.workflows.comparison.experiment import Experiment

BUNDLES = Path(__file__).parents[3] / "bundles"
MINIMAL: dict[str, Any] = {
    "name": "x",
    "task": "ssl",
    "data": {"root": "."},
    "settings": [{"labeled": 2}],
    "budget": {"epochs": 10, "steps_per_epoch": 4},
}


def test_defaults() -> None:
    experiment = Experiment.of(MINIMAL)
    assert [method.name for method in experiment.methods] == [
        "labelled only",
        "noisy labels",
        "pseudo-label",
        "co-teaching",
        "AIDE",
        "clean labels",
    ]
    options = {method.engine: method.options for method in experiment.methods}
    assert options["noisy"] == {"raw": False, "trusted_share": 0.0}
    assert options["pseudo_label"] == {
        "start": 5,
        "interval": 2,
        "largest_component": "none",
        "trusted_share": 0.0,
    }
    assert options["co_teaching"] == {"max_forget_rate": 0.5, "warmup_epochs": 4, "trusted_share": 0.0}
    assert (options["aide"]["warmup_epochs"], options["aide"]["filter_strata"]) == (4, "foreground")
    assert (options["aide"]["correction_start"], options["aide"]["update_interval"]) == (3, 1)
    assert experiment.seeds == (0,)
    assert experiment.settings[0].name == "2 labelled"


RIVALS = {
    "mean teacher": {"weight": 10.0, "noise": 0.15, "ramp_epochs": 4, "trusted_share": 0.5},
    "cross pseudo supervision": {"weight": 1.5, "trusted_share": 0.5},
    "bidirectional copy-paste": {
        "weight": 0.5,
        "pretrain_epochs": 2,
        "size": 2 / 3,
        "largest_component": "class",
        "trusted_share": 0.5,
    },
    "UniMatch": {
        "threshold": 0.95,
        "feature_weight": 0.5,
        "view_weight": 0.5,
        "dropout": 0.5,
        "box_probability": 0.5,
        "size": 0.5,
        "trusted_share": 0.5,
    },
    "generalised cross-entropy": {"q": 0.7, "trusted_share": 0.0},
    "confident learning": {"fit_epochs": 3, "prune": "noise_rate", "trusted_share": 0.0},
}


def test_rivals_of_today_have_names_and_options_that_fit_the_epochs() -> None:
    methods = Experiment.of({**MINIMAL, "methods": [*RIVALS]}).methods
    assert {method.name: method.options for method in methods} == RIVALS
    changed = Experiment.of(
        {**MINIMAL, "budget": FAIR_BUDGET, "methods": {"fit": {"engine": "copy_paste", "size": 0.5}}}
    )
    assert changed.methods[0].options == RIVALS["bidirectional copy-paste"] | {"size": 0.5, "trusted_share": 0.25}


@pytest.mark.parametrize("name", RIVALS)
def test_without_trusted_labels_only_those_that_bear_noise_can_be_trained(name: str) -> None:
    noise = {**MINIMAL, "task": "nll", "settings": [{"rate": 0.5}], "methods": [name]}
    if RIVALS[name]["trusted_share"]:
        with pytest.raises(
            InputError, match=f'method "{name}": .* learns from trusted labels, and the task nll has none'
        ):
            Experiment.of(noise)
    else:
        assert Experiment.of(noise).methods[0].name == name


FAIR_BUDGET = {**MINIMAL["budget"], "networks": 2, "average": 0.98, "trusted_share": 0.25, "kept": "last"}


def test_a_fair_budget_is_that_of_all_methods_and_brings_its_controls() -> None:
    experiment = Experiment.of({**MINIMAL, "budget": FAIR_BUDGET})
    options = {method.name: method.options for method in experiment.methods}
    assert experiment.budget.fair
    assert list(options) == [
        "labelled only",
        "one network, noisy labels",
        "two networks, nothing corrected",
        "pseudo-label",
        "co-teaching",
        "AIDE without views",
        "AIDE",
        "clean labels",
        "one network, clean labels",
    ]
    shares = {name: of.get("trusted_share") for name, of in options.items()}
    assert {name for name, share in shares.items() if share == 0.25} == {
        *("two networks, nothing corrected", "pseudo-label", "co-teaching", "AIDE without views", "AIDE")
    }
    assert shares["one network, noisy labels"] == 0
    assert options["AIDE"]["average"] == 0.98
    assert not Experiment.of(MINIMAL).budget.fair
    assert not Experiment.of({**MINIMAL, "budget": {**FAIR_BUDGET, "kept": "best"}}).budget.fair


def test_the_control_without_views_is_the_tested_method_in_all_else() -> None:
    methods = {"AIDE": {"update_ratio": 1.0}, "AIDE without views": {}}
    tested, control = Experiment.of({**MINIMAL, "methods": methods}).methods
    assert control.options == tested.options | {"consistency_weight": 0.0}
    methods = {"slow": {"engine": "aide", "update_interval": 7}, **methods}
    found = Experiment.of({**MINIMAL, "methods": methods, "tested": "slow"}).methods
    assert found[2].options == found[0].options | {"consistency_weight": 0.0}


@pytest.mark.parametrize(
    ("methods", "tested", "expected"),
    [
        ({"slow": {"engine": "aide"}, "AIDE": {}}, {}, "AIDE"),
        ({"AIDE without views": {}, "slow": {"engine": "aide"}}, {}, "slow"),
        ({"slow": {"engine": "aide"}, "AIDE": {}}, {"tested": "slow"}, "slow"),
        ({"noisy labels": {}, "co-teaching": {}}, {"tested": "co-teaching"}, "co-teaching"),
        ({"noisy labels": {}}, {}, None),
    ],
)
def test_which_method_is_tested(methods: dict[str, Any], tested: dict[str, str], expected: str | None) -> None:
    assert Experiment.of({**MINIMAL, "methods": methods, **tested}).tested == expected


def test_noisy_labels_are_corrected_late_unless_the_config_says_otherwise() -> None:
    noisy = {**MINIMAL, "task": "nll", "settings": [{"rate": 0.3}]}
    changed = {"AIDE": {}, "early": {"engine": "aide", "correction_start": 2}}
    starts = [method.options["correction_start"] for method in Experiment.of({**noisy, "methods": changed}).methods]
    assert starts == [7, 2]


def test_adaptation_has_no_share_for_the_trusted_cases_unless_the_config_says_otherwise() -> None:
    content = {**MINIMAL, "task": "uda", "data": {"domains": {"A": "a", "B": "b"}}}
    del content["settings"]
    changed = {"AIDE": {}, "half": {"engine": "aide", "trusted_share": 0.5}}
    shares = [method.options["trusted_share"] for method in Experiment.of({**content, "methods": changed}).methods]
    assert shares == [0.0, 0.5]
    assert Experiment.of({**MINIMAL, "methods": ["AIDE"]}).methods[0].options["trusted_share"] == 0.5


def test_adaptation_takes_all_ordered_pairs() -> None:
    content = {**MINIMAL, "task": "uda", "data": {"domains": {"A": "a", "B": "b", "C": "c"}}}
    del content["settings"]
    names = [setting.name for setting in Experiment.of(content).settings]
    assert names == ["A to B", "A to C", "B to A", "B to C", "C to A", "C to B"]


NAMED = {"labeled": ["p1", "p2"], "test": ["p3"]}


def test_cases_are_named_for_all_settings_or_one_and_by_seed() -> None:
    own = {"labeled": {"0": ["p1"], "1": ["p5"], "7": ["p6"]}}
    settings = [{"cases": {"labeled": ["p1", "p2"]}}, {"cases": own}]
    experiment = Experiment.of({**MINIMAL, "cases": {"test": ["p3"]}, "settings": settings, "seeds": [0, 1]})
    assert [setting.name for setting in experiment.settings] == ["2 labelled", "1 labelled"]
    drawn = [cases_of(experiment.settings[1].values, seed) for seed in (0, 1)]
    assert drawn == [{"test": ["p3"], "labeled": ["p1"]}, {"test": ["p3"], "labeled": ["p5"]}]
    assert experiment.origin(experiment.settings[0]) == experiment.origin(experiment.settings[1])


def test_noise_and_raters_have_names() -> None:
    settings = [{"rate": 0.3}, {"rater": 4}, {"rater": "all"}, {"rate": 0.3, "kinds": ["resize"], "name": "resized"}]
    experiment = Experiment.of({**MINIMAL, "task": "nll", "settings": settings})
    assert [s.name for s in experiment.settings] == ["30 % corrupted", "rater 4", "all raters", "resized"]
    assert experiment.settings[0].folder == "30___corrupted"


def test_the_benchmark_has_the_split_of_the_literature(aide_data: Path, tmp_path: Path) -> None:
    experiment = Experiment.load(BUNDLES / "cardiac_uda" / "experiments" / "acdc_benchmark.json")
    split = json.loads((aide_data / "acdc100" / "split.json").read_text())
    assert experiment.budget.fair
    for setting, labelled in zip(experiment.settings, ("labelled_3", "labelled_7"), strict=True):
        for seed in range(7):
            task = experiment.make_task(setting, seed=seed, fold=None, data_dir=aide_data, folder=tmp_path)
            found: dict[str, set[str]] = {}
            for record in task.datalist.records:
                role = "labelled" if "label" in record and record["split"] == "training" else record["split"]
                found.setdefault(role, set()).add(record["patient"])
            assert len(found["labelled"]) == len(split[labelled])
            assert (found["labelled"] == set(split[labelled])) == (seed < 3)
            assert found["training"] == set(split["training"]) - found["labelled"]
            assert (found["validation"], found["test"]) == (set(split["validation"]), set(split["test"]))
            assert len(task.datalist.records) == 200


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_both_formats_are_read(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"experiment.{suffix}"
    file.write_text(json.dumps(MINIMAL))  # JSON is YAML
    assert Experiment.load(file) == Experiment.of(MINIMAL)


@pytest.mark.parametrize("file", sorted(BUNDLES.glob("*/experiments/*.json")), ids=lambda path: path.stem)
def test_the_bundles_experiments_can_be_read(file: Path) -> None:
    experiment = Experiment.load(file)
    assert len(experiment.settings) >= 1


@pytest.mark.parametrize(
    "data",
    [{"classes": {"1": 1, "4": 2}}, {"classes": {1: 1}}, {"classes": {"4": 3}, "merge": True}, {"slice_size": None}],
)
def test_classes_and_slices_that_can_be_trained_with_are_read(data: dict[str, Any]) -> None:
    assert Experiment.of({**MINIMAL, "data": {"root": ".", **data}}).data == {"root": ".", **data}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "xyz"}, "\"task\" is 'xyz'; expected one of ssl, uda, nll"),
        ({"data": {}}, '"data" needs "root"'),
        ({"colour": 1}, 'unknown key "colour"; the keys are name, task'),
        ({"seeds": [-1]}, '"seeds" is'),
        ({"seeds": []}, '"seeds" is'),
        ({"settings": []}, '"settings" is'),
        ({"settings": [{"labelled": 1}]}, 'unknown key "labelled"; the keys are labeled, unlabeled'),
        ({"settings": [{"unlabeled": 1}]}, "lacks the key 'labeled'"),
        (
            {"settings": [{"labeled": 1}, {"labeled": 1, "unlabeled": 3}]},
            'setting "1 labelled": its folder 1_labelled is taken',
        ),
        ({"task": "nll", "settings": [{"rate": 0.1, "rater": 1}]}, 'expected "rater" .QUBIQ. or "rate"'),
        ({"methods": ["magic"]}, 'method "magic": found the engine None; expected one of labelled, noisy'),
        ({"methods": {"AIDE": {"profile": "best"}}}, "profile is 'best'; expected one of improved"),
        ({"methods": {"AIDE": {"view": 3}}}, "unknown option 'view'"),
        ({"methods": {"co-teaching": {"start": 3}}}, 'unknown option "start"; the options are max_forget_rate'),
        ({"methods": {}}, '"methods" is {}; expected a list of names'),
        (
            {"settings": [{"cases": {"labelled": ["a"]}}]},
            '"cases": unknown key "labelled"; the keys are labeled, doubtful, unl',
        ),
        ({"settings": [{"cases": {"test": ["a"]}}]}, 'with "cases", expected names of "labeled" ones and no numbers'),
        ({"cases": NAMED}, 'with "cases", expected names of "labeled" ones and no numbers of cases'),
        ({"cases": NAMED, "settings": [{}], "split": {"test": 2}}, 'found "split" and "cases"; expected one of them'),
        ({"cases": {"labeled": "p1"}, "settings": [{}]}, "\"labeled\" is 'p1'; expected a list of names, or such"),
        ({"cases": {"labeled": [1]}, "settings": [{}]}, '"labeled" is .1.; expected a list of names'),
        ({"cases": {"labeled": {"1": ["p"]}}, "settings": [{}]}, '"labeled" has no list for the seed 0; expected one'),
        ({"cases": NAMED, "task": "nll", "settings": [{"rate": 0.1}]}, '"cases" is for the task ssl; expected none'),
        ({"methods": ["AIDE"], "tested": "aide"}, '"tested" is .aide.; expected one of the methods AIDE'),
        ({"methods": ["two networks, nothing corrected"]}, 'corrected": "budget" says "networks": 1; expected 2'),
        (
            {"budget": FAIR_BUDGET, "methods": {"AIDE": {"trusted_share": 0.5}}},
            'method "AIDE": trusted_share is 0.5, and in "budget" it is 0.25, for all methods; expected it in one',
        ),
        ({"methods": {"noisy labels": {"raw": 1}}}, 'method "noisy labels": raw is 1; expected true or false'),
        ({"methods": 3}, '"methods" is 3; expected a list of names'),
        ({"methods": [["AIDE"]]}, '"methods" is .*; expected a list of names'),
        ({"methods": {"AIDE": "improved"}}, "method \"AIDE\" has 'improved'; expected its options"),
        ({"data": {"root": 3}}, '"data": "root" is 3; expected a folder'),
        ({"task": "uda", "data": {"domains": "a"}}, '"data": "domains" is .a.; expected an object with a folder for'),
        ({"seeds": [True]}, '"seeds" is .True.; expected a list of whole numbers'),
        ({"split": {"folds": 1}}, '"split": folds is 1; expected a value in 2..inf'),
        ({"settings": [{"labeled": "2"}]}, "\"settings\": labeled is '2'; expected a value in 1..inf"),
        ({"settings": [{"labeled": 2, "unlabeled": 1.5}]}, '"settings": unlabeled is 1.5; expected a whole number'),
        ({"task": "nll", "settings": [{"rate": None}]}, '"settings": rate is None; expected a value in 0..1'),
        ({"task": "nll", "settings": [{"rater": 0}]}, '"settings": rater is 0; expected the number of one'),
        (
            {"task": "nll", "settings": [{"rate": 0.1, "kinds": "elastic"}]},
            "\"settings\": label noise 'elastic': .*, in a list",
        ),
        (
            {"task": "nll", "settings": [{"rate": 0.1, "magnitude_mm": 0}]},
            "magnitude_mm is 0; expected a value above 0",
        ),
        (
            {"methods": {"AIDE": {}, "a b": {"engine": "aide"}, "a_b": {"engine": "aide"}}},
            'method "a b": its folder a_b',
        ),
        ({"methods": {"given labels": {"engine": "noisy"}}}, "its folder given_labels is taken; choose another name"),
        ({"methods": {"": {"engine": "noisy"}}}, 'method "": its folder would have this name; choose one with letters'),
        ({"methods": {".": {"engine": "noisy"}}}, 'method ".": its folder would have this name'),
        ({"settings": [{"labeled": 2, "name": ".."}]}, 'setting "..": its folder would have this name'),
        ({"budget": {"epochs": 3}}, '"budget": .*steps_per_epoch'),
        ({"budget": {"epochs": 3, "steps_per_epoch": 2, "seed": 1}}, 'the seeds stand under "seeds"'),
        ({"data": {"root": ".", "layout": "prostate"}}, "the layout is 'prostate'; expected one of chaos, nci-isbi"),
        ({"data": {"root": ".", "source": {"organs": []}}}, '"source" holds options of a "layout"'),
        ({"data": {"root": ".", "layout": "chaos", "source": {"x": 1}}}, '"source": unknown key "x"; the keys are mod'),
        ({"split": {"test": "3"}}, '"test" is .3.; expected a whole number$'),
        ({"split": {"test": {"A": 3}}}, '"test" is .*; expected a whole number$'),
        (
            {"task": "uda", "data": {"domains": {"A": "a", "B": "b"}}, "settings": None, "split": {"test": {"A": 3}}},
            '"test" is .*; expected a whole number, or one for each of the domains A, B',
        ),
        ({"split": {"test": True}}, '"test" is True; expected a whole number$'),
        ({"split": {"test": 3, "seed": "a"}}, "\"split\": seed is 'a'; expected a value in 0..inf"),
        ({"split": {"test": 3, "seed": -1}}, '"split": seed is -1; expected a value in 0..inf'),
        ({"split": {"test": 3, "seed": 1.5}}, '"split": seed is 1.5; expected a whole number'),
        ({"split": {"transductive": "no"}}, "\"split\": transductive is 'no'; expected true or false"),
        ({"name": "a\x07"}, r"the config: name: found 'a.x07'; expected text without control characters"),
        ({"methods": {"\ud800": {}}}, r"the config: methods: found '.ud800'; expected text without control"),
        ({"data": {"root": ".", "spacing": float("nan")}}, '"data": spacing is nan; expected two positive numbers'),
        ({"data": {"root": ".", "spacing": [1]}}, r'"data": spacing is \[1\]; expected two positive numbers'),
        ({"data": {"root": ".", "orientation": 7}}, '"data": orientation is 7; expected a letter for each'),
        ({"data": {"root": ".", "classes": {"1": True}}}, '"classes" is .*; expected an object'),
        ({"data": {"root": ".", "classes": 1}}, '"classes" is 1; expected an object of stored values'),
        ({"data": {"root": ".", "classes": "m"}}, "\"classes\" is 'm'; expected an object"),
        ({"data": {"root": ".", "classes": [1]}}, r'"classes" is \[1\]; expected an object'),
        ({"data": {"root": ".", "classes": {"a": 1}}}, '"classes" is .*; expected an object'),
        ({"data": {"root": ".", "classes": {"1": "x"}}}, '"classes" is .*; expected an object'),
        ({"data": {"root": ".", "classes": {"1": 2}}}, '"classes" is .*, indices without gaps'),
        ({"data": {"root": ".", "classes": {"1": -1}}}, '"classes" is .*, indices without gaps'),
        ({"data": {"root": ".", "slice_size": 5}}, '"slice_size" is 5; expected two whole numbers, rows and columns'),
        ({"data": {"root": ".", "slice_size": "z"}}, "\"slice_size\" is 'z'; expected two whole numbers"),
        ({"data": {"root": ".", "slice_size": [1]}}, r'"slice_size" is \[1\]; expected two whole numbers'),
        ({"data": {"root": ".", "slice_size": [16.5, 16]}}, '"slice_size" is .*; expected two whole numbers'),
        ({"task": "uda", "data": {"domains": {"A": 1}}}, '"domains" is .*; expected an object with a folder for each'),
        ({"settings": [{"labeled": 1.0}]}, '"settings": labeled is 1.0; expected a whole number, without a decimal'),
        ({"methods": {"AIDE": {"profile": ["x"]}}}, r"profile is \['x'\]; expected one of improved"),
        ({"methods": {"UniMatch": {"views": 2}}}, 'method "UniMatch": unknown option "views" of unimatch; the options'),
        ({"split": {"tests": 3}}, '"split": unknown key "tests"; the keys are test, folds'),
    ],
)
def test_mistakes_are_told_in_a_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Experiment.of({**MINIMAL, **change})


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    with pytest.raises(InputError, match="no such file"):
        Experiment.load(file)
    file.write_text("{")
    with pytest.raises(InputError, match=r"x.json: not readable as JSON"):
        Experiment.load(file)
    file.write_text("[]")
    with pytest.raises(InputError, match=r"x.json: the config is \[\]; expected an object"):
        Experiment.load(file)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("epochs", "ten", "a value in 1..inf"),
        ("epochs", 0, "a value in 1..inf"),
        ("epochs", True, "a value in 1..inf"),
        ("steps_per_epoch", 1.5, "a whole number"),
        ("epochs", 2.0, "a whole number, without a decimal point"),
        ("batch_size", None, "a value in 1..inf"),
        ("learning_rate", 0, "a value above 0"),
        ("learning_rate", -0.1, "a value above 0"),
        ("features", [16, 32], "6 whole numbers"),
        ("features", [16, 16, 32, 64, 128, 0], "6 whole numbers"),
        ("features", "16", "6 whole numbers"),
        ("norm", "group", "one of batch, instance"),
        ("augmentation_angle", 181, "a value in 0..180"),
        ("augmentation_zoom", 0.8, "a value in 1..10"),
        ("augmentation_zoom", "big", "a value in 1..10"),
        ("augmentation_mix", 1.5, "a value in 0..1"),
        ("augmentation_mix", -1, "a value in 0..1"),
        ("augmentation_intensity", [1], "a value in 0..1"),
        ("amp", "bf32", "one of off, bf16, fp16"),
        ("networks", 3, "a value in 1..2"),
        ("average", 1, "a value in 0..0.9999"),
        ("trusted_share", -1, "a value in 0..1"),
        ("kept", "first", "one of last, best"),
    ],
)
def test_a_budget_that_cannot_be_trained_with_is_refused_when_it_is_read(key: str, value: Any, expected: str) -> None:
    message = rf'"budget": {key} is .*; expected {expected}'
    with pytest.raises(InputError, match=message):
        Experiment.of({**MINIMAL, "budget": {**MINIMAL["budget"], key: value}})


@pytest.mark.parametrize(
    ("method", "option", "value", "expected"),
    [
        ("AIDE", "keep", "half", "a value in 0..1"),
        ("AIDE", "views", 2.5, "a whole number"),
        ("AIDE", "temperature", 0, "a value above 0"),
        ("AIDE", "largest_component", "yes", "one of none, class, foreground"),
        ("AIDE", "rank_high_quality", "yes", "true or false"),
        ("pseudo-label", "start", 0, "a value in 1..inf"),
        ("pseudo-label", "interval", None, "a value in 1..inf"),
        ("pseudo-label", "largest_component", True, "one of none, class, foreground"),
        ("noisy labels", "trusted_share", 2, "a value in 0..1"),
        ("co-teaching", "trusted_share", -0.5, "a value in 0..1"),
        ("co-teaching", "max_forget_rate", 1, "a value in 0..0.9999"),
        ("co-teaching", "warmup_epochs", -1, "a value in 0..inf"),
        ("mean teacher", "noise", -1, "a value in 0..inf"),
        ("mean teacher", "trusted_share", 2, "a value in 0..1"),
        ("cross pseudo supervision", "weight", "big", "a value in 0..inf"),
        ("bidirectional copy-paste", "largest_component", True, "one of none, class, foreground"),
        ("UniMatch", "threshold", 2, "a value in 0..1"),
        ("generalised cross-entropy", "q", 0, "a value in 0.001..1"),
        ("confident learning", "prune", "all", "one of class, noise_rate, both"),
    ],
)
def test_options_of_a_method_are_checked_when_they_are_read(
    method: str, option: str, value: Any, expected: str
) -> None:
    with pytest.raises(InputError, match=rf'method "{method}": {option} is .*; expected {expected}'):
        Experiment.of({**MINIMAL, "methods": {method: {option: value}}})
