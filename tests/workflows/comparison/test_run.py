"""``aide compare`` through its front door, on tiny phantoms: what it writes, resumes and refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aide_monai.cli.main import app, run
from aide_monai.errors import InputError
from aide_monai.handlers import RunCheckpoint
from aide_monai.networks import MeanNetwork
from aide_monai.workflows.comparison import job as methods
from aide_monai.workflows.comparison.config import GIVEN_LABELS
from aide_monai.workflows.comparison.experiment import Experiment
from aide_monai.workflows.comparison.job import Job
from aide_monai.workflows.comparison.report import _closures
from aide_monai.workflows.comparison.results import read_results
from aide_monai.workflows.comparison.run import list_jobs, run_comparison

BUDGET = {"epochs": 2, "steps_per_epoch": 2, "batch_size": 4, "features": [4, 4, 4, 8, 8, 4], "amp": "off"}
SSL = {
    "name": "Phantoms <one label>",
    "task": "ssl",
    "data": {"root": ".", "slice_size": [32, 32]},
    "split": {"test": 2},
    "settings": [{"labeled": 1, "unlabeled": 2}, {"labeled": 2, "unlabeled": 2}],
    "methods": {"labelled only": {}, "noisy labels": {}, "AIDE": {"views": 1}, "clean labels": {}},
    "seeds": [0],
    "budget": BUDGET,
}


def compare(config: dict[str, Any], folder: Path, data: Path, *arguments: str) -> int:
    file = folder / "experiment.json"
    file.write_text(json.dumps(config))
    command = ["compare", str(file), "--data", str(data), "--out", str(folder / "out"), "--jobs", "1", *arguments]
    return run(lambda: app(command, standalone_mode=False))


@pytest.fixture(scope="module")
def finished(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the results of the whole comparison."""
    folder = tmp_path_factory.mktemp("comparison")
    assert compare(SSL, folder, phantoms) == 0
    return folder / "out"


def test_it_leaves_tables_figures_and_one_page(finished: Path) -> None:
    rows = read_results(finished / "per_case.csv")
    assert {row["setting"] for row in rows} == {"1 labelled", "2 labelled"}
    held_out = {row["case"] for row in rows}
    assert len(held_out) == 2  # the same ones for every seed and setting
    for method, counts in {
        "labelled only": (1, 0),
        "noisy labels": (1, 2),
        "AIDE": (1, 2),
        "clean labels": (3, 0),
    }.items():
        found = {
            (r["train_hqa"], r["train_lqa"]) for r in rows if (r["setting"], r["method"]) == ("1 labelled", method)
        }
        assert found == {counts}
    summary = (finished / "summary.md").read_text()
    assert summary.startswith("| setting | train HQA | train LQA | method | PP | DSC (%) |")
    assert len([line for line in summary.splitlines() if line.startswith("| 1 labelled")]) == 2 * 4
    assert "| 1 labelled | noisy labels | no | DSC (%) | 2 | 1 |" in (finished / "tests.md").read_text()
    pictures = {path.name for path in (finished / "figures").glob("*.png")}
    assert pictures == {"scores.png", "annotation_efficiency.png", "memorisation.png", "label_quality.png"}
    assert (finished / "figures" / "2_labelled" / "label_correction.png").exists()


FAIR = {
    **SSL,
    "settings": SSL["settings"][:1],
    "methods": {
        "labelled only": {},
        "one network, noisy labels": {},
        "two networks, nothing corrected": {},
        "pseudo-label": {"start": 1, "interval": 1},
        "AIDE without views": {},
        "AIDE": {"views": 1},
        "clean labels": {},
        "one network, clean labels": {},
    },
    "budget": {**BUDGET, "networks": 2, "average": 0.9, "trusted_share": 0.5, "kept": "last"},
}


def test_with_a_fair_budget_all_methods_are_two_averaged_networks_but_those_that_say_otherwise(
    phantoms: Path, tmp_path: Path
) -> None:
    assert compare(FAIR, tmp_path, phantoms) == 0
    found: dict[str, set[str]] = {}
    for row in read_results(tmp_path / "out" / "per_case.csv"):
        found.setdefault(row["method"], set()).add(row["network"])
    assert {method for method, networks in found.items() if networks == {"single"}} == {
        "one network, noisy labels",
        "one network, clean labels",
    }
    assert all(networks in ({"single"}, {"mean", "network_1", "network_2"}) for networks in found.values())
    control = next(
        line for line in (tmp_path / "out" / "summary.md").read_text().splitlines() if "| two networks" in line
    )
    assert "(2 x 1)" in control
    assert "The methods differ in more" not in (tmp_path / "out" / "report.html").read_text()
    job = job_of(FAIR, phantoms, tmp_path / "out", "two networks, nothing corrected")
    assert isinstance(job.load_network(), MeanNetwork)


def test_rivals_of_today_stand_in_the_same_tables(phantoms: Path, tmp_path: Path) -> None:
    names = ["mean teacher", "cross pseudo supervision", "bidirectional copy-paste", "UniMatch"]
    names += ["generalised cross-entropy", "confident learning"]
    config = {**FAIR, "methods": {name: {} for name in ("labelled only", *names, "AIDE", "clean labels")}}
    assert compare(config, tmp_path, phantoms) == 0
    rows = read_results(tmp_path / "out" / "per_case.csv")
    for name in names:
        assert {row["network"] for row in rows if row["method"] == name} == {"mean", "network_1", "network_2"}
        assert {(row["train_hqa"], row["train_lqa"]) for row in rows if row["method"] == name} == {(1, 2)}
        assert isinstance(job_of(config, phantoms, tmp_path / "out", name).load_network(), MeanNetwork)
        assert f"| {name}" in (tmp_path / "out" / "summary.md").read_text()


def test_closures_are_measured_from_the_control_and_between_single_networks_beside_it() -> None:
    fair, once = (SimpleNamespace(experiment=Experiment.of(config)) for config in (FAIR, SSL))
    assert _closures(fair) == {
        "gap closure": ("two networks, nothing corrected", "clean labels"),
        "gap closure between single networks": ("one network, noisy labels", "one network, clean labels"),
    }
    assert _closures(once) == {"gap closure": ("noisy labels", "clean labels")}


def test_an_unfair_budget_is_told(finished: Path) -> None:
    assert "The methods differ in more than what they are named for" in (finished / "report.html").read_text()


def test_the_page_needs_nothing_outside_itself(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert "Phantoms &lt;one label&gt;" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count('src="data:image/png;base64,') == 4 + 2 * 6


def test_every_method_has_the_same_steps_and_cases_are_never_on_both_sides(finished: Path) -> None:
    for run_dir in finished.glob("*/seed_*"):
        ends = {log.read_text().splitlines()[-1].split(",")[:2] == ["2", "4"] for log in run_dir.glob("*/epochs.csv")}
        assert ends == {True}
        jobs = [json.loads(file.read_text())["specification"] for file in run_dir.glob("*/job.json")]
        assert len({json.dumps(job["budget"]) for job in jobs}) == 1
        assert len({json.dumps(job["task"]) for job in jobs}) == 1


def test_what_is_finished_stays_and_what_is_missing_is_said(
    finished: Path, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("model.pt")}
    again = run_comparison(Experiment.of(SSL), finished, data_dir=phantoms, workers=1)
    assert len(before) == len(again.jobs) == 8
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("model.pt")} == before
    assert compare({**SSL, "seeds": [0, 1]}, finished.parent, phantoms, "--report") == 0
    assert "8 of 16 jobs" in capsys.readouterr().out
    assert "Some jobs have not run yet" in (finished / "report.html").read_text()
    assert compare(SSL, tmp_path, phantoms, "--report") == 2
    assert "no job is finished yet" in capsys.readouterr().err


def test_domains_are_reported_as_soon_as_one_method_is_finished(phantoms: Path, tmp_path: Path) -> None:
    methods = ["source only", "target-supervised"]
    settings = [{"source": "A", "target": "B"}]
    domains = {"domains": {"A": ".", "B": "imagesTr/.."}}
    config = {**SSL, "task": "uda", "data": domains, "settings": settings, "methods": methods}
    for method, drawn in (("target-supervised", False), ("source only", True)):
        job_of(config, phantoms, tmp_path / "out", method).run()
        assert compare(config, tmp_path, phantoms, "--report") == 0
        assert (tmp_path / "out" / "figures" / "scores.png").exists()
        assert (tmp_path / "out" / "figures" / "transfer.png").exists() == drawn


def test_another_budget_in_the_same_folder_is_refused(
    finished: Path, phantoms: Path, capsys: pytest.CaptureFixture
) -> None:
    assert compare({**SSL, "budget": {**BUDGET, "batch_size": 2}}, finished.parent, phantoms) == 2
    assert re.search(r"holds a run with another budget; choose a new folder", capsys.readouterr().err.replace("\n", ""))


def test_options_that_are_newer_than_a_run_were_at_their_default(finished: Path, phantoms: Path) -> None:
    job = job_of(SSL, phantoms, finished, "AIDE")
    file = job.folder / "job.json"
    state = json.loads(file.read_text())
    whole = file.read_text()
    del state["specification"]["method"]["keep"], state["specification"]["budget"]["norm"]
    file.write_text(json.dumps(state))
    assert job.finished
    state["specification"]["method"]["views"] = 7
    file.write_text(json.dumps(state))
    with pytest.raises(InputError, match="a run with another method"):
        _ = job.finished
    file.write_text(whole)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "{}", '{"specification": {}, "seconds": "long"}'])
def test_a_damaged_state_of_a_job_is_named(phantoms: Path, tmp_path: Path, content: str) -> None:
    job = job_of(SSL, phantoms, tmp_path, "AIDE")
    job.folder.mkdir(parents=True)
    (job.folder / "job.json").write_text(content)
    with pytest.raises(InputError, match=r"AIDE/job\.json: .*; restore it, or remove .*AIDE to run this job again"):
        _ = job.finished


def noisy(setting: dict[str, Any], *, methods: Any = ("noisy labels", "clean labels"), **data: Any) -> dict[str, Any]:
    setting = {"name": "noisy", "rate": 1.0, "kinds": ["elastic"], "magnitude_mm": 20, **setting}
    return {**SSL, "task": "nll", "data": {**SSL["data"], **data}, "settings": [setting], "methods": list(methods)}


@pytest.mark.parametrize(
    ("setting", "data", "other"),
    [
        ({"rate": 0.5}, {}, "setting"),
        ({"kinds": ["resize"]}, {}, "setting"),
        ({"magnitude_mm": 5}, {}, "setting"),
        ({}, {"root": "imagesTr/.."}, "data"),
        ({}, {"axis": 0}, "task"),
    ],
)
def test_other_labels_or_data_in_the_same_folder_are_refused_and_the_labels_stay(
    phantoms: Path, tmp_path: Path, setting: dict[str, Any], data: dict[str, Any], other: str
) -> None:
    job_of(noisy({}), phantoms, tmp_path, "noisy labels")._save(finished=True, seconds=1)
    labels = {file: file.read_bytes() for file in tmp_path.glob(f"noisy/seed_0/{GIVEN_LABELS}/*.nii.gz")}
    assert labels
    with pytest.raises(InputError, match=rf"noisy_labels: holds a run with another {other}; choose a new folder"):
        job_of(noisy(setting, **data), phantoms, tmp_path, "clean labels")
    assert {file: file.read_bytes() for file in labels} == labels


def test_a_run_that_does_not_know_its_setting_and_data_is_continued(phantoms: Path, tmp_path: Path) -> None:
    job = job_of(noisy({}), phantoms, tmp_path, "noisy labels")
    job._save(finished=True, seconds=1)
    (job.folder / "per_case.csv").touch()
    file = job.folder / "job.json"
    state = json.loads(file.read_text())
    del state["specification"]["setting"], state["specification"]["data"]
    file.write_text(json.dumps(state))
    assert job_of(noisy({"magnitude_mm": 5}), phantoms, tmp_path, "noisy labels").finished


def test_results_may_move_to_another_machine_and_further_domains_may_come(phantoms: Path, tmp_path: Path) -> None:
    settings = [{"source": "A", "target": "B"}]
    domains = {"A": "imagesTr/..", "B": str(phantoms)}
    config = {**SSL, "task": "uda", "settings": settings, "methods": ["source only"]}
    job = job_of({**config, "data": {"domains": domains}}, phantoms, tmp_path, "source only")
    assert str(phantoms) not in json.dumps(job.specification)
    more = Experiment.of({**config, "data": {"domains": {**domains, "C": "elsewhere"}}})
    assert more.origin(more.settings[0]) == job.origin


def job_of(config: dict[str, Any], data: Path, folder: Path, method: str) -> Job:
    jobs = list_jobs(Experiment.of(config), folder, data_dir=data, device="cpu", split="test")
    return next(job for job in jobs if job.method.name == method)


@pytest.mark.parametrize(
    ("method", "networks"), [("AIDE", 1), ("co-teaching", 1), ("noisy labels", 1), ("noisy labels", 2)]
)
def test_an_interrupted_job_ends_with_the_same_weights(
    phantoms: Path, tmp_path: Path, method: str, networks: int
) -> None:
    methods = ["labelled only", "noisy labels", "co-teaching", "AIDE"]
    config = {**SSL, "methods": methods, "seeds": [0], "budget": {**BUDGET, "networks": networks}}
    weights = []
    for name, stop in (("whole", None), ("killed", 3)):
        job_of(config, phantoms, tmp_path / name, "labelled only").run()
        job = job_of(config, phantoms, tmp_path / name, method)
        steps = 0

        def kill(stop: int | None = stop) -> None:
            nonlocal steps
            steps += 1
            if steps == stop:
                raise KeyboardInterrupt

        if stop is not None:
            with pytest.raises(KeyboardInterrupt):
                job.run(on_step=kill)
            assert not job.finished
            assert job.epochs_done() == 1
            steps = -100
        job.run(on_step=kill)
        assert job.finished
        # two networks continue with the second epoch, one network starts again
        assert steps == {None: 4, 3: -98 if method != "noisy labels" or networks == 2 else -96}[stop]
        weights.append(torch.load(job.folder / "models" / "model.pt", weights_only=True))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_job_that_is_killed_after_its_last_checkpoint_can_be_finished(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(noisy({}, methods=["co-teaching"]), phantoms, tmp_path, "co-teaching")
    save = RunCheckpoint._save

    def killed(self: RunCheckpoint, engine: Any) -> None:
        save(self, engine)
        if engine.state.epoch == BUDGET["epochs"]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoint, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            job.run()
    assert not job.finished
    job.run()
    assert job.finished


@pytest.mark.parametrize(("method", "again"), [("co-teaching", 2), ("noisy labels", 4)])
def test_the_time_before_an_interruption_counts(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, again: int
) -> None:
    job = job_of(noisy({}, methods=[method]), phantoms, tmp_path, method)
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(methods, "time", SimpleNamespace(monotonic=lambda: 10.0 * steps))
    with pytest.raises(KeyboardInterrupt):
        job.run(on_step=step)
    job.run(on_step=step)
    assert steps == 3 + again
    assert job.seconds() == 10 * (2 + again)


def test_jobs_run_side_by_side_with_the_same_result(phantoms: Path, tmp_path: Path) -> None:
    methods = ["labelled only", "noisy labels"]
    config = {**SSL, "methods": methods, "settings": SSL["settings"][:1], "seeds": [0]}
    done: list[tuple[float, float]] = []
    both = run_comparison(
        Experiment.of(config),
        tmp_path / "both",
        data_dir=phantoms,
        workers=2,
        on_progress=lambda _, now, total: done.append((now, total)),
    )
    assert both.unfinished == 0
    assert done[-1][0] == done[-1][1] == 2 * 4
    threads = torch.get_num_threads()
    torch.set_num_threads(json.loads((both.jobs[0].folder / "job.json").read_text())["threads"])
    one = run_comparison(Experiment.of(config), tmp_path / "one", data_dir=phantoms, workers=1)
    torch.set_num_threads(threads)
    assert one.rows == both.rows


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert compare(noisy({}), tmp_path, phantoms, "--device", "cuda:99") == 2
    assert 'device is "cuda:99"; found' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_used_end_in_a_sentence(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert compare({**SSL, "data": {**SSL["data"], "intensities": 3}}, tmp_path, phantoms) == 2
    assert 'unknown key "intensities"' in capsys.readouterr().err.replace("\n", "")
    assert compare({**SSL, "split": {"test": 6}}, tmp_path, phantoms) == 2
    assert "test=6 of 6 cases; expected 1 to 5" in capsys.readouterr().err.replace("\n", "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("grid", [{"fit": "crop", "spacing": [8, 8]}, {"fit": "resize"}])
def test_networks_may_work_on_another_grid_than_the_files(phantoms: Path, tmp_path: Path, grid: dict[str, Any]) -> None:
    methods = ["labelled only", "noisy labels"]
    data = {"root": ".", "axis": 2, "slice_size": [16, 16], **grid}
    config = {**SSL, "data": data, "settings": SSL["settings"][:1], "methods": methods, "seeds": [0]}
    result = run_comparison(Experiment.of(config), tmp_path, data_dir=phantoms, workers=1)
    assert result.unfinished == 0
    noisy = result.jobs[1]
    assert noisy._training_volumes()[0]["image"].shape[1:3] == (16, 16)
    voxels = {row["tp"] + row["fn"] for row in result.rows if row["case"] == result.rows[0]["case"]}
    assert voxels == {int((noisy.task.test_volumes()[0]["label"] > 0).sum())}  # scored on the grid of the file


def test_validation_cases_are_scored_without_the_test_cases(phantoms: Path, tmp_path: Path) -> None:
    config = {
        **SSL,
        "split": {"test": 1, "validation": 1},
        "methods": ["labelled only"],
        "settings": SSL["settings"][:1],
    }
    experiment = Experiment.of(config)
    tuned = run_comparison(experiment, tmp_path, data_dir=phantoms, workers=1, split="validation")
    (job,) = tuned.jobs
    assert not (job.folder / "per_case.csv").exists()
    trained = (job.folder / "models" / "model.pt").stat()
    test = run_comparison(experiment, tmp_path, data_dir=phantoms, workers=1)  # scored, and not trained again
    assert (job.folder / "models" / "model.pt").stat() == trained
    assert {row["case"] for row in test.rows}.isdisjoint(row["case"] for row in tuned.rows)
    apart = run_comparison(experiment, tmp_path / "apart", data_dir=phantoms, workers=1)
    assert test.rows == apart.rows
    assert run_comparison(experiment, tmp_path, data_dir=phantoms, split="validation", train=False).rows == tuned.rows

    state = json.loads((job.folder / "job.json").read_text())  # as it was when scores of both had one name
    state["specification"]["split"] = "validation"
    (job.folder / "job.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match="holds a run with another split"):
        run_comparison(experiment, tmp_path, data_dir=phantoms, train=False)


@pytest.mark.parametrize(("hidden", "number"), [({"unlabeled": 2}, 2), ({"unlabeled": None}, 5), ({}, 5)])
def test_with_hidden_labels_as_test_nothing_else_is_scored(
    phantoms: Path, tmp_path: Path, hidden: dict[str, Any], number: int
) -> None:
    config = {**SSL, "split": {"transductive": True}, "settings": [{"labeled": 1, **hidden}]}
    records = job_of(config, phantoms, tmp_path, "AIDE").task.datalist.records
    training = {record["case"] for record in records if "clean_label" in record}
    assert len(training) == number
    assert {record["case"] for record in records if record["split"] == "test"} == {f"{c}_scored" for c in training}


def test_unlabelled_cases_need_somebody_to_label_them(phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no method that labels them"):
        job_of({**SSL, "methods": ["noisy labels", "AIDE"]}, phantoms, tmp_path, "AIDE")


@pytest.mark.parametrize("doubtful", [{}, {"label": "labelsTr/phantom_003.nii.gz", "quality": "low"}])
def test_the_bound_is_refused_where_true_labels_are_missing(
    phantoms: Path, tmp_path: Path, doubtful: dict[str, str]
) -> None:
    content = json.loads((phantoms / "dataset.json").read_text())
    names = {"name": content["name"], "labels": content["labels"], "modality": content["modality"]}
    files = [f"phantom_{number:03d}" for number in range(4)]
    records: list[dict[str, Any]] = [
        {"case": c, "image": f"imagesTr/{c}.nii.gz", "label": f"labelsTr/{c}.nii.gz", "quality": "high"} for c in files
    ]
    records[3] = {"case": files[3], "image": records[3]["image"], **doubtful}
    test = records.pop(0)
    (phantoms / "datalist.json").write_text(json.dumps({**names, "training": records, "test": [test]}))
    config = {**SSL, "data": {"root": "datalist.json", "slice_size": [32, 32]}, "split": {}}
    config |= {"settings": [{"labeled": 1, "unlabeled": None}]}
    message = r'"clean labels": 1 of 3 training cases have no true label .phantom_003.; expected one of each'
    try:
        with pytest.raises(InputError, match=message):
            job_of(config, phantoms, tmp_path / "out", "AIDE")
        job_of({**config, "methods": ["labelled only", "AIDE"]}, phantoms, tmp_path / "out", "AIDE")
    finally:
        (phantoms / "datalist.json").unlink()


def test_labels_that_were_removed_are_missed_in_a_sentence(phantoms: Path, tmp_path: Path) -> None:
    job = job_of(SSL, phantoms, tmp_path, "noisy labels")
    with pytest.raises(InputError, match=r"given_labels is missing.*remove that method's folder from .* made again"):
        job.run()


def test_corrupted_labels_are_what_all_methods_are_given(phantoms: Path, tmp_path: Path) -> None:
    """The method "noisy labels" once shared its folder with the labels, and removed them."""
    settings = [{"rate": 1.0, "magnitude_mm": 20}]
    methods = {"noisy labels": {}, "pseudo-label": {}, "AIDE": {"views": 1}, "clean labels": {}}
    assert compare({**SSL, "task": "nll", "settings": settings, "methods": methods}, tmp_path, phantoms) == 0
    rows = read_results(tmp_path / "out" / "per_case.csv")
    given = {row["method"]: (row["train_hqa"], row["train_lqa"]) for row in rows}
    everything = sum(given["clean labels"])
    assert everything > 2
    assert given == dict.fromkeys(methods, (0, everything)) | {"clean labels": (everything, 0)}
    labels = tmp_path / "out" / "100___corrupted" / "seed_0" / GIVEN_LABELS
    assert len(list(labels.glob("*.nii.gz"))) == everything
