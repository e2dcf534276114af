"""The command line: what it prints for mistakes, and that its two verbs do their job."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from aide_monai.cli.main import app, run
from aide_monai.data.sources.phantom import write_phantoms
from tests.io.deadly_decoders import deadly_decoders

BUNDLE = Path(__file__).parents[2] / "bundles" / "hippocampus_ssl"


def aide(*arguments) -> int:
    """Exit code of the command, run in this process."""
    try:
        return run(lambda: app([str(a) for a in arguments], standalone_mode=False))
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.fixture
def phantoms(tmp_path) -> Path:
    return write_phantoms(tmp_path / "data", cases=6, shape=(32, 32, 6), spacing_mm=(6, 6, 20))


def damage(folder: Path, kind: str, change, name: str = "phantom_000.nii.gz") -> None:
    """Rewrite the voxels of one file."""
    path = folder / kind / name
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(change(image.get_fdata()), image.affine), path)


def one_line(capsys) -> str:
    """What went to standard error, which is no traceback."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert text.startswith("Error: ")
    return text


def with_nan(voxels):
    voxels[3, 3, 3] = np.nan
    return voxels.astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("imagesTr", with_nan, r"phantom_000.*NaN"),
        ("labelsTr", lambda v: (v * 0.5).astype(np.float32), r"phantom_000.*0\.5"),
        ("labelsTr", lambda v: v[:-1].astype(np.uint8), r"phantom_000.*31 x 32 x 6"),
        ("labelsTr", lambda v: (v * 7).astype(np.uint8), r"phantom_000.*7"),
    ],
    ids=["NaN voxel", "label not an integer", "shapes differ", "unknown label"],
)
def test_damaged_files_are_named(phantoms, tmp_path, capsys, kind, change, message):
    damage(phantoms, kind, change)
    assert aide("demo", "--data", phantoms, "--unlabeled", 2, "--run-dir", tmp_path / "run") == 2
    assert_matches(message, one_line(capsys))


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text, re.DOTALL), text


def test_an_unreadable_file_is_named(phantoms, tmp_path, capsys):
    (phantoms / "imagesTr" / "phantom_001.nii.gz").write_bytes(b"not gzip")
    assert aide("demo", "--data", phantoms, "--unlabeled", 2, "--run-dir", tmp_path / "run") == 2
    assert "phantom_001.nii.gz" in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labeled", "0"], "--labeled is 0; expected at least 1"),
        (["--labeled", "5", "--unlabeled", "9"], "--labeled is 5; expected 0 to 4"),
        (["--test", "6"], "6 patients to judge by"),
        (["--epochs", "0"], "epochs"),
        (["--device", "cuda:99"], "GPUs that PyTorch can use; expected one of cpu"),
    ],
)
def test_impossible_wishes_are_refused(phantoms, tmp_path, capsys, arguments, message):
    arguments = ["--unlabeled", "2", *arguments]
    assert aide("demo", "--data", phantoms, *arguments, "--run-dir", tmp_path / "run") == 2
    assert message in one_line(capsys)


def test_empty_missing_and_strange_folders(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        assert aide("demo", "--data", tmp_path / folder, "--run-dir", tmp_path / "run") == 2
        assert folder in one_line(capsys)


def test_images_without_labels_where_they_are_needed(phantoms, tmp_path, capsys):
    content = json.loads((phantoms / "dataset.json").read_text())
    content["training"] = []
    content["test"] = [f"./imagesTr/{path.name}" for path in (phantoms / "imagesTr").iterdir()]
    content |= {"numTraining": 0, "numTest": len(content["test"])}
    (phantoms / "dataset.json").write_text(json.dumps(content))
    assert aide("demo", "--data", phantoms, "--run-dir", tmp_path / "run") == 2
    assert "label" in one_line(capsys)


def test_a_used_run_folder_is_refused_before_anything_happens(phantoms, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    assert aide("demo", "--data", phantoms, "--run-dir", tmp_path / "run") == 2
    assert "holds files of something else" in one_line(capsys)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_unknown_options_end_with_code_2():
    result = subprocess.run(
        [sys.executable, "-m", "aide_monai.cli", "demo", "--labelled", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == ("Error: no such option --labelled; did you mean --labeled? (see aide demo --help)\n")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset_dri", "x"], "unknown option --dataset_dri; did you mean --dataset_dir?"),
        (["--val-intervall", "1"], "unknown option --val_intervall; did you mean --val_interval?"),
        (["--xyz", "1"], "unknown option --xyz; the config has amp, "),
        (["--val_interval"], "has no value"),
        (["--epochs"], "requires an argument"),
        (["--epochs", "many"], "invalid value for '--epochs'"),
        (["stray"], "unexpected argument"),
        (["--dataset_dir", "nowhere"], "no such folder"),
        (["--config", "trian"], "no such config"),
    ],
)
def test_train_names_wrong_options(tmp_path, capsys, arguments, message):
    assert aide("train", BUNDLE, "--run_dir", tmp_path / "run", *arguments) == 2
    assert message in one_line(capsys)


def test_train_reports_a_mistake_inside_the_config_in_one_sentence(phantoms, tmp_path, capsys):
    damage(phantoms, "imagesTr", with_nan)
    code = aide("train", BUNDLE, "--dataset_dir", phantoms, "--run_dir", tmp_path / "run", "--unlabeled", 2)
    assert code == 2
    assert_matches(r"phantom_000.*NaN", one_line(capsys))


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Predictions and references of two cases; one prediction is half of its reference."""
    for name, ends in (("pred", (4, 6)), ("ref", (6, 6))):
        (tmp_path / name).mkdir()
        for case, end in zip("ab", ends, strict=True):
            labels = np.zeros((9, 7, 5), dtype=np.uint8)
            labels[2:end, 2:5, 1:4] = 1
            nibabel.save(nibabel.Nifti1Image(labels, np.diag([1.0, 1, 3, 1])), tmp_path / name / f"{case}.nii.gz")
    return tmp_path / "pred", tmp_path / "ref"


def test_evaluate_prints_the_summary_and_writes_the_tables(folders, tmp_path, capsys):
    pred, ref = folders
    out = tmp_path / "out"
    assert aide("evaluate", "--pred", pred, "--ref", ref, "--labels", "1=liver", "--keep-largest", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "liver" in printed
    assert "83.3" in printed  # the mean of 2/3 and 1
    assert (out / "worst_cases.png").exists()
    table = out / "per_case.csv"
    assert aide("evaluate", "--compare", table, f"{table}:pred", "--out", tmp_path / "comparison") == 0
    assert "| liver | DSC (%) | 2 | 83.3 | 83.3 | 0.0 |" in (tmp_path / "comparison" / "comparison.md").read_text()
    table.write_text(table.read_text().replace(",a,", ",p_1,").replace(",b,", ",p_2,"))
    compared = ("evaluate", "--compare", table, table, "--out", tmp_path / "one", "--patients")
    assert aide(*compared, "(p)_.") == 0
    assert "| liver | DSC (%) | 1 |" in (tmp_path / "one" / "comparison.md").read_text()
    assert aide(*compared, "x") == 2
    assert '--patients "x": no group; put the part that names the patient in ( )' in capsys.readouterr().err


@pytest.mark.parametrize(("tolerance", "within"), [("0", 34), ("1.5", 43), ("2", 52)])
def test_evaluate_asks_for_the_tolerance_of_the_nsd(folders, capsys, tolerance, within):
    """Of a's 52 border voxels, 18 + 34, 17 + 17 lie on the other border, 1 + 8 are 1 mm away and 9 are 2 mm away."""
    assert aide("evaluate", "--pred", folders[0], "--ref", folders[1], "--tolerance", tolerance, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["nsd"] for row in told["cases"]] == [pytest.approx(within / 52), 1.0]
    assert told["summary"][0]["nsd_mean"] == pytest.approx(50 * (within / 52 + 1))
    assert {row["tolerance_mm"] for row in told["cases"]} == {float(tolerance)}


def test_evaluate_does_not_compare_scores_of_two_tolerances(folders, tmp_path, capsys):
    for tolerance in ("1", "2"):
        scored = ("evaluate", "--pred", folders[0], "--ref", folders[1], "--out", tmp_path / tolerance)
        assert aide(*scored, *(() if tolerance == "2" else ("--tolerance", tolerance))) == 0
    capsys.readouterr()
    tables = [tmp_path / tolerance / "per_case.csv" for tolerance in ("1", "2")]
    assert aide("evaluate", "--compare", *tables) == 2
    assert_matches("within 1 mm.*within 2 mm.*expected one tolerance", one_line(capsys))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to score; expected --pred DIR and --ref DIR, or --compare"),
        (["--pred", "PRED"], "nothing to score"),
        (["--pred", "PRED", "--ref", "REF", "--compare", "a.csv", "b.csv"], "one job at a time"),
        (["--pred", "PRED", "--ref", "absent"], "absent: found no such folder"),
        (["--pred", "PRED", "--ref", "REF", "--labels", "liver"], "--labels is 'liver'; expected values from 1"),
        (["--pred", "PRED", "--ref", "REF", "--labels", "1=a,1=b"], "--labels is"),
        (["--pred", "PRED", "--ref", "REF", "--labels", "1=a\x07"], r"--labels is '1=a.x07'; expected values from 1"),
        (["--pred", "PRED", "--ref", "REF", "--spacing", "1,nan,1"], "--spacing is '1,nan,1'; expected three positive"),
        (["--pred", "PRED", "--ref", "REF", "--spacing", "1,2"], "--spacing is '1,2'; expected three positive numbers"),
        (["--pred", "PRED", "--ref", "REF", "--tolerance", "-1"], "tolerance_mm is -1.0; expected a distance in mm"),
        (["--pred", "PRED", "--ref", "REF", "--tolerance", "nan"], "tolerance_mm is nan; expected a distance in mm"),
        (["--compare", "a.csv", "b.csv"], "a.csv: no such file"),
    ],
)
def test_evaluate_names_what_is_wrong(folders, capsys, arguments, message):
    names = {"PRED": str(folders[0]), "REF": str(folders[1])}
    assert aide("evaluate", *(names.get(argument, argument) for argument in arguments)) == 2
    assert_matches(message, one_line(capsys))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"0": "background", "1" * 5000: "liver"},
            r"found the number .1111.*; expected names of whole numbers below 100000",
        ),
        ({str(value): f"structure {value}" for value in range(300)}, "found 300 names; expected at most 192"),
    ],
)
@pytest.mark.parametrize("file", ["dataset.json", "datalist.json"])
def test_labels_that_no_run_can_use_are_refused_by_every_door(phantoms, tmp_path, capsys, file, labels, message):
    content = json.loads((phantoms / "dataset.json").read_text()) | {"labels": labels}
    if file == "datalist.json":
        assert aide("prepare", "decathlon", phantoms, "--out", phantoms / file) == 0
        content = json.loads((phantoms / file).read_text()) | {"labels": labels}
    capsys.readouterr()
    (phantoms / file).write_text(json.dumps(content))
    doors = {
        "train": (BUNDLE, "--dataset_dir", phantoms, "--run_dir", tmp_path / "run", "--unlabeled", 2),
        "demo": ("--data", phantoms, "--run-dir", tmp_path / "run"),
    }
    if file == "datalist.json":
        doors["check"] = (phantoms / file,)
        doors["new-bundle"] = (tmp_path / "bundle", "--datalist", phantoms / file)
    else:
        doors["prepare"] = ("decathlon", phantoms, "--out", tmp_path / "datalist.json")
    for door, arguments in doors.items():
        assert aide(door, *arguments) == 2, door
        text = one_line(capsys)
        assert_matches(message, text)
        assert len(text) < 1500, door
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "bundle").exists()


def test_an_axis_of_no_voxels_is_refused_by_every_door(phantoms, tmp_path, capsys):
    assert aide("prepare", "decathlon", phantoms, "--out", phantoms / "datalist.json") == 0
    empty = nibabel.Nifti1Image(np.zeros((32, 32, 6), np.uint8), np.eye(4))
    empty.header["dim"][3] = 0
    for kind in ("imagesTr", "labelsTr"):
        (phantoms / kind / "phantom_000.nii.gz").write_bytes(gzip.compress(empty.header.binaryblock + bytes(4)))
    capsys.readouterr()
    aide("check", phantoms / "datalist.json", "--out", tmp_path / "check")
    assert "no voxels (shape 32 x 32 x 0)" in capsys.readouterr().out
    doors = {
        "train": (BUNDLE, "--dataset_dir", phantoms, "--run_dir", tmp_path / "run", "--unlabeled", 2),
        "demo": ("--data", phantoms, "--run-dir", tmp_path / "run"),
        "prepare": ("decathlon", phantoms, "--out", tmp_path / "datalist.json"),
        "evaluate": ("--pred", phantoms / "labelsTr", "--ref", phantoms / "labelsTr"),
    }
    for door, arguments in doors.items():
        assert aide(door, *arguments) == 2, door
        assert_matches(r"phantom_000.*no voxels \(shape 32 x 32 x 0\)", one_line(capsys))


def test_a_training_names_all_files_at_which_decoders_die(phantoms, tmp_path, capsys, monkeypatch):
    """The check does not see them here, so that the first reading of the training has to."""
    for kind in ("images", "labels"):
        (phantoms / f"{kind}Tr").rename(tmp_path / kind)
        for file in (tmp_path / kind).iterdir():
            file.rename(file.with_name(file.name.replace("phantom", "deadly")))
    with deadly_decoders(monkeypatch, "IMAGE"):
        arguments = ("--dataset_dir", tmp_path, "--run_dir", tmp_path / "run", "--labeled", 5, "--unlabeled", 0)
        assert aide("train", BUNDLE, *arguments) == 2
    lines = capsys.readouterr().err.partition("Error: ")[2].splitlines()
    assert lines[0] == "volumes that cannot be read: 5 problems"
    assert len(lines) == 6
    assert all(
        re.search(r"/deadly_00\d\.nii\.gz: found a file at which its decoder died \(SIGSEGV\);", line)
        for line in lines[1:]
    )
    assert not list((tmp_path / "run").rglob("*.pt"))


@pytest.mark.parametrize("value", ["1" * 5000, "٣"])
def test_label_values_of_evaluate(folders, capsys, value):
    assert aide("evaluate", "--pred", folders[0], "--ref", folders[1], "--labels", f"{value}=liver") == 2
    assert_matches("--labels is .* expected values from 1", one_line(capsys))
