"""The bundle through its front doors: ``aide train`` and ``python -m monai.bundle run``, on tiny phantoms."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from aide_monai.cli.main import app, run
from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.engines import RIVALS, AIDEOptions, AIDETrainer
from aide_monai.errors import InputError
from aide_monai.reports.tables import read_csv
from aide_monai.workflows.bundle import history_folder, parse_overrides, run_bundle

BUNDLE = Path(__file__).parents[1] / "bundles" / "hippocampus_ssl"
TINY = {
    "labeled": 1,
    "unlabeled": 2,
    "slice_size": [32, 32],
    "network_args#features": [4, 4, 4, 8, 8, 4],
    "device": "cpu",
}
TINY_TRAINING = {**TINY, "epochs": 2, "steps_per_epoch": 2, "batch_size": 4}
TINY_MODEL = {key: TINY[key] for key in ("slice_size", "network_args#features", "device")}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("data"), cases=5, shape=(32, 30, 6), spacing_mm=(6, 6, 20))


@pytest.fixture(scope="module")
def trained(phantoms, tmp_path_factory) -> Path:
    """Run folder of a finished ``aide train``."""
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    run_bundle(BUNDLE, ["train"], {**TINY_TRAINING, "dataset_dir": str(phantoms), "run_dir": str(run_dir)})
    return run_dir


def monai_bundle_run(config: str, **overrides) -> str:
    """Output of ``python -m monai.bundle run`` as a user would type it."""
    arguments = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, *as_options(overrides)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    result = subprocess.run(arguments, capture_output=True, text=True, check=False, env={**os.environ, **threads})
    assert result.returncode == 0, result.stderr
    return result.stdout


def as_options(values: dict[str, object]) -> list[str]:
    """Overrides as a user types them."""
    pairs = ((f"--{key}", value if isinstance(value, str) else json.dumps(value)) for key, value in values.items())
    return [text for pair in pairs for text in pair]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "models" / "model.pt", weights_only=True)


def same(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_aide_train_and_monai_bundle_run_are_the_same_run(phantoms, trained, tmp_path):
    overrides = {**TINY_TRAINING, "dataset_dir": str(phantoms), "run_dir": str(tmp_path)}
    monai_bundle_run(str(BUNDLE / "configs" / "train.json"), **overrides)
    assert same(trained, tmp_path)
    assert (trained / "epochs.csv").read_text() == (tmp_path / "epochs.csv").read_text()


def test_a_run_folder_is_used_once_unless_resumed(phantoms, trained, capsys):
    arguments = [str(BUNDLE), "--dataset_dir", str(phantoms), "--run_dir", str(trained)]
    for key, value in TINY_TRAINING.items():
        arguments += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    before = weights(trained)
    assert run(lambda: app(["train", *arguments], standalone_mode=False)) == 2
    assert "already holds the labels of a run" in capsys.readouterr().err
    assert run(lambda: app(["train", *arguments, "--resume"], standalone_mode=False)) == 0
    assert all(torch.equal(before[key], value) for key, value in weights(trained).items())


def test_inference_writes_masks_on_each_original_grid(phantoms, trained, tmp_path):
    monai_bundle_run(
        str(BUNDLE / "configs" / "inference.json"),
        **TINY_MODEL,
        dataset_dir=str(phantoms / "imagesTr"),
        run_dir=str(trained),
        output_dir=str(tmp_path),
    )
    written = sorted(tmp_path.glob("*.nii.gz"))
    assert [path.name for path in written] == [f"phantom_{k:03d}_seg.nii.gz" for k in range(5)]
    for path in written:
        mask = nibabel.load(path)
        image = nibabel.load(phantoms / "imagesTr" / path.name.replace("_seg", ""))
        assert mask.shape == image.shape
        assert np.allclose(mask.affine, image.affine)
        assert mask.get_data_dtype() == np.uint8
        assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1}


def test_an_image_of_other_channels_is_refused_before_the_first_mask(phantoms, trained, tmp_path, capsys):
    image = nibabel.load(phantoms / "imagesTr" / "phantom_000.nii.gz")
    voxels = np.asarray(image.dataobj)
    nibabel.save(image, tmp_path / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.stack([voxels, voxels], axis=-1), image.affine), tmp_path / "b.nii.gz")
    overrides = {**TINY_MODEL, "dataset_dir": str(tmp_path), "run_dir": str(trained)}
    arguments = ["predict", str(BUNDLE), "--output_dir", str(tmp_path / "masks"), *as_options(overrides)]
    assert run(lambda: app(arguments, standalone_mode=False)) == 2
    error = capsys.readouterr().err
    assert "b.nii.gz: found 2 channels; expected 1 as the network has" in error
    assert "Traceback" not in error
    assert not (tmp_path / "masks").exists()


def test_evaluation_reports_the_mean_and_each_network(phantoms, trained, capfd):
    overrides = {**TINY, "dataset_dir": str(phantoms), "run_dir": str(trained)}
    run_bundle(BUNDLE, ["evaluate"], overrides)
    table = capfd.readouterr().out
    rows = read_csv(trained / "eval" / "per_case.csv")
    assert [row["network"] for row in rows] == ["mean"] * 2 + ["network_1"] * 2 + ["network_2"] * 2
    for name in ("mean", "network_1", "network_2"):
        assert f"| AIDE {name} |" in table


def test_other_volume_options_reach_every_step(phantoms, trained, tmp_path):
    """A window, pixels of 4 mm and slices cut to 32 x 32 instead of each slice's own statistics and padding."""
    options = {"intensity": "window", "window": [0, 300], "spacing": [4, 4], "fit": "crop"}
    options = {f"volume_options#{key}": value for key, value in options.items()}
    run_dir = {"dataset_dir": str(phantoms), "run_dir": str(tmp_path)}
    arguments = ["train", str(BUNDLE)]
    for key, value in {**TINY_TRAINING, **run_dir, **options}.items():
        arguments += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    assert run(lambda: app(arguments, standalone_mode=False)) == 0
    assert not same(trained, tmp_path)

    resumed = run_bundle(BUNDLE, ["train"], {**TINY_TRAINING, **run_dir, **options, "resume": True}).parser
    evaluated = run_bundle(BUNDLE, ["evaluate"], {**TINY, **run_dir, **options}).parser
    images = {**run_dir, "dataset_dir": str(phantoms / "imagesTr")}
    segmented = run_bundle(BUNDLE, ["inference"], {**TINY_MODEL, **images, **options}).parser
    seen = [resumed.get_parsed_content(key) for key in ("train#dataset", "pretrain#volumes")]
    seen += [parser.get_parsed_content("dataset") for parser in (evaluated, segmented)]
    for volume in (volume for volumes in seen for volume in volumes):
        assert volume["image"].shape == (1, 32, 32, 6)
        assert volume["image"].pixdim[:2].tolist() == [4, 4]
        assert volume["image"].min() >= 0
        assert volume["image"].max() <= 1
        assert volume["image"].mean() > 0.1  # zero mean otherwise
    for path in sorted((tmp_path / "predictions").iterdir()):
        image = nibabel.load(phantoms / "imagesTr" / path.name.replace("_seg", ""))
        assert nibabel.load(path).shape == image.shape
        assert np.allclose(nibabel.load(path).affine, image.affine)
    scores = read_csv(tmp_path / "eval" / "per_case.csv")
    reference = nibabel.load(phantoms / "labelsTr" / f"{scores[0]['case']}.nii.gz")
    assert scores[0]["tp"] + scores[0]["fn"] == np.count_nonzero(reference.dataobj)


@pytest.mark.parametrize("config", ["inference", "evaluate"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"volume_options#fit": "resize"}, 'volume_options#fit "resize"; expected "pad", .* --volume_options#fit pad'),
        ({"slice_size": [48, 64]}, r"slice_size \[48, 64\]; expected \[32, 32\], .* --slice_size '\[32,32\]'"),
    ],
)
def test_other_input_than_that_of_the_training_is_refused(config, override, message, phantoms, trained, tmp_path):
    folder = phantoms / "imagesTr" if config == "inference" else phantoms
    tiny = TINY_MODEL if config == "inference" else TINY
    overrides = {**tiny, "dataset_dir": str(folder), "run_dir": str(trained), "output_dir": str(tmp_path / "out")}
    with pytest.raises(InputError, match=rf"model\.pt: found {message}"):
        run_bundle(BUNDLE, [config], {**overrides, **override})
    assert not (tmp_path / "out").exists()


def test_a_training_that_is_refused_leaves_the_settings_of_the_weights(phantoms, trained):
    before = (trained / "models" / "model.json").read_text()
    overrides = {**TINY_TRAINING, "dataset_dir": str(phantoms), "run_dir": str(trained)}
    with pytest.raises(InputError, match="already holds the labels of a run"):
        run_bundle(BUNDLE, ["train"], {**overrides, "volume_options#fit": "resize"})
    assert (trained / "models" / "model.json").read_text() == before


def test_stronger_augmentation_reaches_both_trainings(phantoms, trained, tmp_path):
    """A zoom, changed intensities and pasted boxes, each alone, change the weights of the pretraining and of AIDE."""
    options = [{"augmentation_zoom": 1.25}, {"augmentation_intensity": 1.0}, {"augmentation_mix": 1.0}]
    for number, option in enumerate(options):
        run_dir = tmp_path / str(number)
        result = run_bundle(
            BUNDLE, ["train"], {**TINY_TRAINING, "dataset_dir": str(phantoms), "run_dir": str(run_dir), **option}
        )
        perturb = result.parser.get_parsed_content("train#trainer").perturb
        assert (perturb is None) == ("augmentation_intensity" not in option)
        assert not same(trained, run_dir)
        pretrained = [next(run.glob("**/pretrained/model.pt")) for run in (trained, run_dir)]
        assert pretrained[0].read_bytes() != pretrained[1].read_bytes()
    assert not any(same(tmp_path / str(a), tmp_path / str(b)) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_the_profiles_by_both_doors(phantoms, trained, tmp_path):
    overrides = {**TINY_TRAINING, "dataset_dir": str(phantoms), "profile": "paper"}
    result = run_bundle(BUNDLE, ["train"], {**overrides, "run_dir": str(tmp_path / "aide")})
    assert result.parser.get_parsed_content("options") == AIDEOptions.for_epochs(2, "paper")
    trainer = result.parser.get_parsed_content("train#trainer")
    assert trainer.options is result.parser.get_parsed_content("options")
    assert "average_1" not in vars(trainer.state)  # the paper keeps no averages
    assert not same(trained, tmp_path / "aide")
    monai_bundle_run(str(BUNDLE / "configs" / "train.json"), **overrides, run_dir=str(tmp_path / "monai"))
    assert same(tmp_path / "aide", tmp_path / "monai")
    changed = {**overrides, "profile": "improved", "options#keep": 0.25, "run_dir": str(tmp_path / "changed")}
    result = run_bundle(BUNDLE, ["train"], changed)
    assert result.parser.get_parsed_content("options") == AIDEOptions.for_epochs(2, keep=0.25)
    assert result.parser.get_parsed_content("train#trainer").state.average_1 is not None


@pytest.mark.parametrize("rival", RIVALS)
def test_rivals_are_trained_by_the_same_bundle(rival, phantoms, tmp_path):
    overrides = {**TINY_TRAINING, "dataset_dir": str(phantoms), "rival": rival, "run_dir": str(tmp_path / "aide")}
    result = run_bundle(BUNDLE, ["train", "rival"], overrides)
    trainer = result.parser.get_parsed_content("train#trainer")
    assert type(trainer) is not AIDETrainer
    assert trainer.state.iteration == 4
    assert trainer.state.average_1 is not None
    rows = list(csv.DictReader((tmp_path / "aide" / "epochs.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert "corrected" not in rows[0]  # labels stay as given
    changed = {**overrides, "resume": True, "epochs": 2, "run_dir": str(tmp_path / "aide")}
    assert run_bundle(BUNDLE, ["train", "rival"], changed).parser.get_parsed_content("train#trainer").state.epoch == 2


def test_a_rival_by_both_doors_with_options_of_its_own(phantoms, tmp_path):
    overrides = {**TINY_TRAINING, "dataset_dir": str(phantoms), "rival": "copy_paste", "engine#weight": 1.0}
    result = run_bundle(BUNDLE, ["train", "rival"], {**overrides, "run_dir": str(tmp_path / "aide")})
    assert result.parser.get_parsed_content("train#trainer").weight == 1.0
    files = str([str(BUNDLE / "configs" / f"{name}.json") for name in ("train", "rival")])
    monai_bundle_run(files, **overrides, run_dir=str(tmp_path / "monai"))
    assert same(tmp_path / "aide", tmp_path / "monai")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("rival", "aide", "found no rival 'aide'; expected one of mean_teacher, cross_pseudo"),
        ("engine#wait", "1", 'unknown option "wait" of mean_teacher; the options are weight, noise'),
        ("engine#noise", "-1", "noise is -1; expected a value in 0..inf"),
    ],
)
def test_rivals_that_there_are_not_are_refused_before_anything_is_trained(
    option, value, message, phantoms, tmp_path, capsys
):
    arguments = ["train", str(BUNDLE), "--config", "train,rival", "--dataset_dir", str(phantoms)]
    arguments += ["--run_dir", str(tmp_path / "run"), "--labeled", "1", "--unlabeled", "2", f"--{option}", value]
    assert run(lambda: app(arguments, standalone_mode=False)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "pretrained").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("volume_options#intensity", "window", 'intensity="window" needs a window; give its two ends'),
        ("augmentation_zoom", "0.8", "augmentation_zoom is 0.8; expected a value in 1..10"),
        ("augmentation_intensity", "-1", "augmentation_intensity is -1; expected a value in 0..1"),
        ("augmentation_mix", "2", "augmentation_mix is 2; expected a value in 0..1"),
        ("batch_size", "0", "batch_size is 0; expected a value in 1..inf"),
        ("steps_per_epoch", "1.5", "invalid value for '--steps-per-epoch'"),
        ("epochs", "zwei", "invalid value for '--epochs'"),
        ("val_interval", "1.5", "val_interval is 1.5; expected a whole number"),
        ("val_interval", "zwei", "val_interval is 'zwei'; expected a value in 1..inf"),
        ("learning_rate", "-1", "learning_rate is -1.0; expected a value above 0"),
        ("slice_size", "64", "slice_size is 64; expected two whole numbers"),
        ("slice_size", "[64, 0]", "slice_size is [64, 0]; expected two whole numbers"),
        ("network_arg#features", "[4]", "unknown option --network_arg#features; did you mean --network_args?"),
        ("volume_options#spacing", "NaN", "spacing is nan; expected two positive numbers"),
        ("volume_options#spacing", "1.5", "spacing is 1.5; expected two positive numbers"),
        ("volume_options#orientation", "7", "orientation is 7; expected a letter for each of three axes"),
        ("classes", '{"1": true}', "classes has {'1': True}; expected whole numbers"),
        (
            "labels",
            '{"0": "background", "1": "a\\u0007"}',
            "--labels: 1: found 'a\\x07'; expected text without control",
        ),
        ("device", "cuda:99", 'device is "cuda:99"; found'),
    ],
)
def test_values_out_of_range_are_refused_in_one_sentence(option, value, message, phantoms, tmp_path, capsys):
    arguments = ["train", str(BUNDLE), "--dataset_dir", str(phantoms), "--run_dir", str(tmp_path)]
    arguments += ["--labeled", "1", "--unlabeled", "2", f"--{option}", value]
    assert run(lambda: app(arguments, standalone_mode=False)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("configs", ["train", "train,multi_gpu_train"])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("profile", "best", "profile is 'best'; expected one of improved"),
        ("options#updat_ratio", "0.2", "unknown option 'updat_ratio'; expected one of"),
        ("options#update_ratio", "2", "update_ratio is 2; expected a value in 0..1"),
        ("options#unit", "slices", "unit is 'slices'; expected one of case"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(configs, option, value, message, phantoms, tmp_path):
    overrides = {**TINY_TRAINING, "dataset_dir": str(phantoms), "run_dir": str(tmp_path / "run")}
    with pytest.raises(InputError, match=message):
        run_bundle(BUNDLE, configs.split(","), {**overrides, **parse_overrides([f"--{option}", value])})
    assert not (tmp_path / "run").exists()


def test_a_folder_is_a_folder_whatever_its_name(phantoms, trained, tmp_path):
    """Names that MONAI would evaluate, look up, or read in another way."""
    marker = tmp_path / "marker"
    odd = tmp_path / "odd" / f"$open('{str(marker).replace('/', '?')}', 'w') @run_dir#1 %x"
    shutil.copytree(phantoms, odd / "data")
    shutil.copytree(trained, odd / "run")
    marks = {"dataset_dir": str(odd / "data"), "run_dir": str(odd / "run")}
    start = Path.cwd()
    os.chdir(odd.parent)
    try:
        relative = {key: str(Path(value).relative_to(odd.parent)) for key, value in marks.items()}
        assert relative["run_dir"].startswith("$")
        arguments = ["train", str(BUNDLE), "--config", "evaluate", *as_options({**TINY, **relative})]
        assert run(lambda: app(arguments, standalone_mode=False)) == 0
    finally:
        os.chdir(start)
    assert len(read_csv(odd / "run" / "eval" / "per_case.csv")) == 6
    out = {"output_dir": str(odd / "masks"), "dataset_dir": str(odd / "data" / "imagesTr"), "run_dir": marks["run_dir"]}
    assert run(lambda: app(["predict", str(BUNDLE), *as_options({**TINY_MODEL, **out})], standalone_mode=False)) == 0
    assert len(list((odd / "masks").rglob("*.nii.gz"))) == 5
    assert [path.name for path in odd.parent.iterdir()] == [odd.name]


def test_literals_reach_a_bundle_as_they_are(phantoms, tmp_path, monkeypatch):
    write = f"$open('{tmp_path / 'marker'}', 'w').close()"
    texts = [write, "@run", f"%{tmp_path / 'x.json'}", "%run", "scan#1", "$import os"]
    keys = ("layout", "folders", "source", "domains", "labeled", "unlabeled", "test", "roots")
    literals = {key: {"name": [text]} if key == "source" else text for key, text in zip(keys, texts * 2, strict=False)}
    literals |= {"roots": texts, "dataset_dir": str(phantoms), "run_dir": str(tmp_path / write.replace("/", "?"))}
    found = {}

    def prepare(root, **arguments):
        found.update(arguments, dataset_dir=root)
        raise InputError("far enough")

    monkeypatch.setattr("aide_monai.workflows.prepare_datalist", prepare, raising=False)
    with pytest.raises(InputError, match="far enough"):
        run_bundle(BUNDLE, ["train"], TINY_MODEL, literals=literals)
    assert found == {key: value for key, value in literals.items() if key != "run_dir"} | {"seed": 0}
    for key, message in (("device", "expected cpu"), ("slice_size", "expected two whole numbers")):
        for value in (write, [write], "@run"):
            with pytest.raises(InputError, match=message):
                run_bundle(BUNDLE, ["train"], {"dataset_dir": str(phantoms)}, literals={key: value})
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_are_named(phantoms, tmp_path):
    with pytest.raises(InputError, match=r"model\.pt: there are no weights here; train the model first"):
        run_bundle(BUNDLE, ["evaluate"], {**TINY, "dataset_dir": str(phantoms), "run_dir": str(tmp_path)})


def test_overrides_are_json_where_they_can_be():
    assert parse_overrides(["--epochs", "3", "--run_dir", "a b", '--classes={"1": 1}', "--resume", "true"]) == {
        "epochs": 3,
        "run_dir": "a b",
        "classes": {"1": 1},
        "resume": True,
    }


def test_each_training_inside_the_bundle_has_a_history_of_its_own(tmp_path):
    bundle = tmp_path / "bundle"
    assert history_folder(tmp_path / "run", bundle) == str(tmp_path / "run")
    first = bundle / "runs" / "001"
    assert history_folder(bundle, bundle) == str(first)
    (first / "standardized").mkdir(parents=True)
    assert history_folder(bundle, bundle) == str(first)  # AIDE has not begun there
    (first / "labels").mkdir()
    assert history_folder(bundle, bundle) == str(bundle / "runs" / "002")
    assert history_folder(bundle, bundle, resume=True) == str(first)


def test_the_best_weights_are_those_of_the_best_validation(phantoms, tmp_path):
    validation = {"image": str(phantoms / "imagesTr/phantom_004.nii.gz")}
    validation["label"] = validation["image"].replace("imagesTr", "labelsTr")
    overrides = {**TINY_TRAINING, "dataset_dir": str(phantoms), "run_dir": str(tmp_path)}
    run_bundle(BUNDLE, ["train"], {**overrides, "validate#dataset#data": [validation]})
    with (tmp_path / "epochs.csv").open(newline="") as file:
        scores = [float(row["dsc_validation"]) for row in csv.DictReader(file)]
    assert len(scores) == 2
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["best"] == (max(scores), 1 + scores.index(max(scores)))
