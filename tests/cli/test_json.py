"""What programs read: JSON alone on the standard output; and ``aide info``, ``aide check`` of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aide_monai import __version__
from aide_monai.cli.main import app, run
from aide_monai.data.sources.phantom import write_phantoms


def aide(*arguments: object) -> int:
    """Exit code of the command, run in this process."""
    return run(lambda: app([str(a) for a in arguments], prog_name="aide", standalone_mode=False))


def read(capsys: pytest.CaptureFixture) -> dict:
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def phantoms(tmp_path: Path) -> Path:
    return write_phantoms(tmp_path / "data", cases=4, shape=(16, 16, 4))


def test_info(capsys: pytest.CaptureFixture) -> None:
    assert aide("info", "--json") == 0
    found = read(capsys)
    assert found["aide-monai"] == __version__
    assert {"python", "torch", "monai", "processor", "cores", "memory (GB)", "GPUs", "precision"} <= found.keys()
    assert aide("info") == 0
    assert f"{__version__}\n" in capsys.readouterr().out.splitlines(keepends=True)[0]


def test_check_of_a_folder(phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert aide("check", phantoms, "--json") == 0
    found = read(capsys)
    assert (found["errors"], found["report"]) == (0, str(tmp_path / "data_check"))
    assert (tmp_path / "data_check" / "report.md").is_file()
    (phantoms / "labelsTr" / "phantom_001.nii.gz").write_bytes(b"no gzip")
    (phantoms / "imagesTr" / "phantom_002.nii.gz").write_bytes(b"no gzip either")
    assert aide("check", phantoms, "--json") == 1
    found = read(capsys)
    assert {Path(problem["place"]).name for problem in found["problems"] if problem["severity"] == "error"} == {
        "phantom_001.nii.gz",
        "phantom_002.nii.gz",
    }


def test_check_of_a_layout_that_has_to_be_named(phantoms: Path, capsys: pytest.CaptureFixture) -> None:
    (phantoms / "dataset.json").unlink()
    for kind in ("images", "labels"):
        (phantoms / f"{kind}Tr").rename(phantoms / kind)
    assert aide("check", phantoms, "--layout", "folder", "--json") == 0
    assert read(capsys)["problems"] == []
    assert aide("check", phantoms, "--layout", "decathlon") == 2
    assert "dataset.json" in capsys.readouterr().err
    assert aide("check", phantoms, "--layout", "chaoss") == 2
    assert "layout is 'chaoss'; expected one of chaos, " in capsys.readouterr().err


def test_scores(phantoms: Path, capsys: pytest.CaptureFixture) -> None:
    labels = phantoms / "labelsTr"
    assert aide("evaluate", "--pred", labels, "--ref", labels, "--json") == 0
    found = read(capsys)
    assert {row["case"] for row in found["cases"]} == {f"phantom_{number:03d}" for number in range(4)}
    assert all(row["dsc"] == 1 and row["assd"] == 0 for row in found["cases"])


def test_demo_and_labels(phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    sizes = ["--epochs", "1", "--steps", "1", "--labeled", "1", "--unlabeled", "1", "--test", "1", "--json"]
    assert aide("demo", "--data", phantoms, *sizes, "--run-dir", tmp_path / "run") == 0
    found = read(capsys)
    assert {row["method"] for row in found["summary"]} == {
        "labelled only",
        "two networks, nothing corrected",
        "AIDE",
        "clean labels",
    }
    assert aide("labels", tmp_path / "run", "--json") == 0
    assert read(capsys)[0]["generation"] == 0
    assert aide("labels", tmp_path / "run", "--diff", 0, 0, "--json") == 0
    assert read(capsys) == []
    assert aide("labels", tmp_path / "run", "--rollback", 0, "--json") == 2
    assert "expected it with --list or --diff" in capsys.readouterr().err
