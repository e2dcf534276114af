"""Cases of which only some structures are annotated go through every door, and what was never drawn is learnt."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from aide_monai.data.datalist import Datalist
from aide_monai.ignored import partial_background
from aide_monai.reports.tables import read_csv
from aide_monai.workflows.labels import open_history
from tests.bundles.doors import TRAINING, TWO_EPOCHS, aide, as_options, corrected_then_filled
from tests.bundles.layouts import UNET

AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


def write_case(folder: Path, name: str, structures: list[int]) -> None:
    """A bright disc is structure 1, a dark one is structure 2; the label has some of them."""
    random = np.random.default_rng(sum(map(ord, name)))
    image = random.normal(100, 5, (32, 32, 4)).astype(np.float32)
    label = np.zeros(image.shape, np.uint8)
    x, y = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    for structure, (a, b), shift in ((1, (10, 10), 60), (2, (21, 20), -60)):
        disc = (x - a - random.integers(-2, 3)) ** 2 + (y - b - random.integers(-2, 3)) ** 2 < 25
        image[disc] += shift
        if structure in structures:
            label[disc] = structure
    for kind, voxels in (("images", image), ("labels", label)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), folder / kind / f"{name}.nii.gz")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two livers, two spleens, the second of each doubtful, and one case with both to judge by."""
    folder = tmp_path_factory.mktemp("organs")
    cases = {"liver_1": [1], "liver_2": [1], "spleen_1": [2], "spleen_2": [2], "both": [1, 2]}
    for name, structures in cases.items():
        write_case(folder, name, structures)
    names = {0: "background", 1: "liver", 2: "spleen"}
    records = [
        {
            "case": name,
            "image": str(folder / "images" / f"{name}.nii.gz"),
            "label": str(folder / "labels" / f"{name}.nii.gz"),
            "quality": "low" if name.endswith("2") else "high",
            "split": "test" if name == "both" else "training",
            **({"annotated": [names[structures[0]]]} if len(structures) == 1 else {}),
        }
        for name, structures in cases.items()
    ]
    Datalist("organs", names, {0: "CT-like"}, records).save(folder / "datalist.json")
    return folder


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert aide("check", data / "datalist.json", "--out", data / "check") == 0
    folder = tmp_path_factory.mktemp("bundles") / "organs"
    assert aide("new-bundle", folder, "--datalist", data / "datalist.json") == 0
    return folder


OPTIONS = {**UNET, **TRAINING, **TWO_EPOCHS, "steps_per_epoch": 30, "learning_rate": 0.01, "slice_size": [32, 32]}


@pytest.fixture(scope="module")
def trained(data: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corrected_then_filled(bundle, data, tmp_path_factory.mktemp("runs") / "run", **OPTIONS)


def test_what_a_case_says_stays_and_what_it_leaves_open_is_filled(data: Path, trained: Path, tmp_path: Path) -> None:
    history = {}
    for generation in (0, 1, 2):
        assert aide("labels", trained, "--export", generation, tmp_path / str(generation)) == 0
        history[generation] = {
            file.name.removesuffix(".nii.gz"): np.asarray(nibabel.load(file).dataobj)
            for file in (tmp_path / str(generation) / "network_1").iterdir()
        }
    for name, label in history[0].items():
        drawn = np.asarray(nibabel.load(data / "labels" / f"{name}.nii.gz").dataobj)
        assert np.array_equal(label, drawn)
        own = 1 if name.startswith("liver") else 2
        assert set(np.unique(history[1][name])) <= {0, own}  # a correction says nothing of the other structure
        if name.endswith("1"):
            assert np.array_equal(history[2][name] == own, drawn == own)
    assert any((history[2][name] == (2 if name.startswith("liver") else 1)).any() for name in history[2])
    assert any(not np.array_equal(history[1][name], history[0][name]) for name in history[1])


def test_masks_have_both_structures_and_scores_those_that_are_known(
    data: Path, bundle: Path, trained: Path, tmp_path: Path
) -> None:
    model = {key: value for key, value in OPTIONS.items() if key in UNET or key == "slice_size"}
    words = ("predict", bundle, "--dataset-dir", data / "images", "--run-dir", trained)
    assert aide(*words, "--output-dir", tmp_path / "masks", *as_options(model)) == 0
    found = [np.asarray(nibabel.load(file).dataobj) for file in (tmp_path / "masks").glob("*.nii.gz")]
    assert len(found) == 5
    assert max(int(mask.max()) for mask in found) <= 2
    assert aide("train", bundle, "--config", "evaluate", "--dataset-dir", data, "--run-dir", trained, **model) == 0
    rows = read_csv(trained / "eval" / "per_case.csv")
    mean = {(row["case"], row["label_name"]): row["dsc"] for row in rows if row["network"] == "mean"}
    assert set(mean) == {("both", "liver"), ("both", "spleen")}
    assert min(mean.values()) > 0.4  # 0.9 and 0.7 here: both are found in one image, which no training case has drawn


def test_a_test_case_is_judged_by_what_it_has_annotated(
    data: Path, bundle: Path, trained: Path, tmp_path: Path
) -> None:
    content = json.loads((data / "datalist.json").read_text())
    content["test"].append({**content["training"].pop(2), "split": "test"})
    content |= {"numTraining": 3, "numTest": 2}
    for record in (*content["training"], *content["test"]):
        record |= {key: str(data / record[key]) for key in ("image", "label")}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    model = {key: value for key, value in OPTIONS.items() if key in UNET or key == "slice_size"}
    run = tmp_path / "run"
    (run / "models").mkdir(parents=True)
    for file in (trained / "models").iterdir():
        (run / "models" / file.name).write_bytes(file.read_bytes())
    words = ("train", bundle, "--config", "evaluate", "--dataset-dir", tmp_path / "datalist.json", "--run-dir", run)
    assert aide(*words, *as_options({"roots": [str(data)], **model})) == 0
    rows = read_csv(run / "eval" / "per_case.csv")
    expected = {("both", "liver"), ("both", "spleen"), ("spleen_1", "spleen")}
    assert {(row["case"], row["label_name"]) for row in rows} == expected


def test_a_label_with_a_structure_that_is_not_annotated_is_told(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    datalist = Datalist.load(data / "datalist.json")
    (judge,) = datalist.of_split("test")
    wrong = {**judge.record(), "annotated": ["liver"], "split": "training"}
    Datalist("organs", datalist.labels, {0: "CT-like"}, [wrong]).save(data / "wrong.json")
    assert aide("check", data / "wrong.json", "--out", tmp_path / "check") == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "found label values 2; expected the labels 0 background, 1 liver, 2 spleen, of which liver annotated" in told


def test_the_store_holds_what_was_looked_for(trained: Path) -> None:
    history = open_history(trained)
    assert history.read(0, 1, "liver_1").unique().tolist() == [1, partial_background([1], 3)]
    assert history.read(0, 1, "spleen_1").unique().tolist() == [2, partial_background([2], 3)]
