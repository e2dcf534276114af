"""What is typed: names that do not exist, spellings, help and version, and the sub-commands of ``aide prepare``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aide_monai import __version__
from aide_monai.cli.main import app, run
from aide_monai.data.sources.layouts import LAYOUTS
from aide_monai.data.sources.phantom import write_phantoms


def aide(*arguments: object) -> int:
    """Exit code of the command, run in this process."""
    return run(lambda: app([str(a) for a in arguments], prog_name="aide", standalone_mode=False))


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("demo --labelled 1", "no such option --labelled; did you mean --labeled? (see aide demo --help)"),
        ("demo --run_dri x", "no such option --run-dri; did you mean --run-dir? (see aide demo --help)"),
        ("evalaute", "no such command evalaute; did you mean evaluate? (see aide --help)"),
        ("prepare chaoss x", "no such command chaoss; did you mean chaos? (see aide prepare --help)"),
        (
            "prepare chaos x --zones --out y",
            "no such option --zones; it is an option of aide prepare nci-isbi (see aide prepare chaos --help)",
        ),
        (
            "prepare --out y folder x",
            "no such option --out; it is an option of aide prepare folder, aide prepare decathlon, aide prepare nnunet "
            "and others (see aide prepare --help)",
        ),
        ("prepare folder x", "missing option '--out' (see aide prepare folder --help)"),
        ("check", "missing argument 'data' (see aide check --help)"),
        ("evaluate --pred", "option '--pred' requires an argument"),
    ],
)
def test_what_was_meant(typed: str, told: str, capsys: pytest.CaptureFixture) -> None:
    assert aide(*typed.split()) == 2
    assert " ".join(capsys.readouterr().err.split()) == f"Error: {told}"


@pytest.mark.parametrize("group", [[], ["prepare"]])
def test_a_name_like_no_other_is_told_with_all_that_there_are(group: list[str], capsys: pytest.CaptureFixture) -> None:
    assert aide(*group, "xyz") == 2
    assert "no such command xyz; expected one of " in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture) -> None:
    assert aide("--version") == 0
    assert capsys.readouterr().out == f"aide-monai {__version__}\n"


@pytest.mark.parametrize("path", ["", "demo", "prepare", "prepare qubiq", "train", "labels", "new-bundle"])
def test_help_has_a_short_name_everywhere(path: str, capsys: pytest.CaptureFixture) -> None:
    assert aide(*path.split(), "-h") == 0
    short = capsys.readouterr().out
    assert aide(*path.split(), "--help") == 0
    assert capsys.readouterr().out == short
    assert f"Usage: {'aide ' + path}".rstrip() in short


def test_every_layout_is_a_sub_command_with_its_own_options(capsys: pytest.CaptureFixture) -> None:
    names = {"times_s": "times", "merge_zones": "zones"}
    every = {names.get(option, option) for layout in LAYOUTS.values() for option in layout.options}
    for name, layout in LAYOUTS.items():
        assert aide("prepare", name, "--help") == 0
        shown = set(re.findall(r"--([a-z-]+)", capsys.readouterr().out))
        own = {names.get(option, option).replace("_", "-") for option in layout.options}
        assert shown & {option.replace("_", "-") for option in every} == own, name
        assert {"out", "labeled", "unlabeled", "test", "fold", "seed"} <= shown


def test_both_spellings_of_an_option(tmp_path: Path) -> None:
    data = write_phantoms(tmp_path / "data", cases=3, shape=(16, 16, 4))
    (data / "imagesTr").rename(data / "images")
    (data / "labelsTr").rename(data / "labels")
    for option in ("--label-names", "--label_names"):
        assert aide("prepare", "folder", data, option, "1=ball,2=rod", "--out", tmp_path / f"{option}.json") == 0
    first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("--label-names", "--label_names"))
    assert first == second
    assert first["labels"]["1"] == "ball"


def test_domains_are_prepared_by_name(tmp_path: Path) -> None:
    for number, site in enumerate(("a", "b")):
        data = write_phantoms(tmp_path / "sites" / site, cases=2, shape=(16, 16, 4), seed=number)
        (data / "dataset.json").unlink()
        for kind in ("images", "labels"):
            (data / f"{kind}Tr").rename(data / kind)
            for file in (data / kind).iterdir():
                file.rename(file.with_name(f"{site}_{file.name}"))
    out = tmp_path / "datalist.json"
    command = ("prepare", "domains", tmp_path / "sites", "--domains", "Aachen=a,b", "--held-out", "b", "--out", out)
    assert aide(*command) == 0
    content = json.loads(out.read_text())
    assert {record["domain"] for record in content["training"]} == {"Aachen"}
    assert {record["domain"] for record in content["test"]} == {"b"}


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("aide pre", {"predict", "prepare"}),
        ("aide train --epo", {"--epochs"}),
        ("aide prepare nci", {"nci-isbi"}),
    ],
)
def test_a_shell_completes_verbs_and_options(typed: str, offered: set[str]) -> None:
    """Asked as the script asks that ``aide --install-completion`` puts into the shell."""
    asked = {"_AIDE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    command = [str(Path(sys.executable).with_name("aide"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **asked})
    assert set(done.stdout.split()) == offered
