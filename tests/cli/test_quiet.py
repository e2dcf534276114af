"""``--quiet``: results and errors alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aide_monai.cli.main import app, run
from aide_monai.data.sources import write_phantoms
from aide_monai.utils.progress import is_quiet

ROOT = Path(__file__).parents[2]
PROGRESS = re.compile(r"\d %|epoch \d+/\d|left|Segment volumes|Labels, log and weights")


@pytest.fixture
def phantoms(tmp_path: Path) -> Path:
    return write_phantoms(tmp_path / "phantoms", cases=4, shape=(32, 32, 4))


def aide(*arguments: object) -> int:
    return run(lambda: app([str(a) for a in arguments], standalone_mode=False))


def test_a_demo_tells_its_results_alone(phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--labeled", 1, "--unlabeled", 1, "--test", 1, "--epochs", 1, "--steps", 1)
    for name, quiet in (("told", ()), ("quiet", ("--quiet",))):
        assert aide("demo", "--data", phantoms, *sizes, "--run-dir", tmp_path / name, *quiet) == 0
        told = capsys.readouterr().out
        assert "AIDE has a DSC of" in told
        assert "report.html" in told.replace("\n", "")
        assert bool(re.search("Segment volumes|%, 0:00", told)) == (not quiet)


def test_a_training_tells_no_epochs(phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--labeled", 1, "--unlabeled", 1, "--test", 1, "--epochs", 1, "--steps-per-epoch", 1)
    small = ("--slice_size", "[32,32]", "--network_args#features", "[4,4,4,4,4,4]")
    bundle = ROOT / "bundles" / "hippocampus_ssl"
    for name, quiet in (("told", ()), ("quiet", ("-q",))):
        arguments = (bundle, "--dataset-dir", phantoms, *sizes, *small, "--run-dir", tmp_path / name)
        assert aide("train", *arguments, *quiet) == 0
        assert bool(PROGRESS.search(capsys.readouterr().out)) == (not quiet)
        assert (tmp_path / name / "models" / "model.pt").is_file()


def test_an_error_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert aide("check", tmp_path / "nowhere", "--quiet") == 2
    assert "no such" in capsys.readouterr().err
    assert aide("check", tmp_path / "nowhere") == 2
    assert not is_quiet()  # of one command alone


@pytest.mark.parametrize(
    "verb", ["run", "demo", "compare", "train", "predict", "check", "evaluate", "prepare folder", "prepare chaos"]
)
def test_every_verb_with_progress_has_it(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    aide(*verb.split(), "--help")
    assert "--quiet" in capsys.readouterr().out
