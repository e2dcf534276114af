"""The check of a whole data set: report, outliers, pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from aide_monai import Case
from aide_monai.cli.main import app, run
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources import find_datalist
from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.errors import InputError
from aide_monai.workflows import check
from aide_monai.workflows.check import check_data, outlier_cases
from tests.io.dicom.dicom_files import write_series


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    folder = write_phantoms(tmp_path / "data", cases=6, shape=(24, 24, 6), spacing_mm=(8, 8, 20))
    find_datalist(folder).save(tmp_path / "list" / "datalist.json")
    return tmp_path / "list" / "datalist.json"


def test_outliers_by_hand() -> None:
    values = {"a": 10.0, "b": 11.0, "c": 9.0, "d": 10.5, "e": 9.5, "f": 16.0}
    # median 10.25, deviations 0.25 0.75 1.25 0.25 0.75 5.75, their median 0.75: 5.75 / (1.4826 * 0.75) = 5.2
    assert outlier_cases(values) == ["f"]
    assert outlier_cases(values | {"f": 12.0}) == []
    assert outlier_cases({"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "e": 9.0}) == []
    assert outlier_cases({"a": 1.0, "b": 1.1, "c": 0.9, "d": 900.0}) == []


def test_a_sound_data_set(datalist: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "contact_sheet_07.png").write_bytes(b"of an earlier check")
    report = check_data(datalist, out, roots=[tmp_path])
    assert report.errors == 0
    assert sorted(path.name for path in report.figures) == ["contact_sheet_01.png", "histograms.png"]
    assert not (out / "contact_sheet_07.png").exists()
    width, height = Image.open(out / "contact_sheet_01.png").size
    assert width > 1000
    assert height > 300  # 12 panels in two rows
    assert "6 cases, 0 errors" in (out / "report.md").read_text()


def test_one_spacing_is_one_value_however_oblique_the_volumes_are(datalist: Path, tmp_path: Path) -> None:
    """Each rotation gives the spacing another last digit, for which no histogram has bins."""
    for number, record in enumerate(Datalist.load(datalist, roots=[tmp_path]).records):
        angle = 0.01 * (number + 1)
        turn = np.eye(4)
        turn[:2, :2] = 0.7 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for key in ("image", "label"):
            volume = nibabel.load(record[key])
            turned = nibabel.Nifti1Image(np.asarray(volume.dataobj), None)
            turned.set_qform(turn, code=1)
            turned.set_sform(None, code=0)
            nibabel.save(turned, record[key])
    report = check_data(datalist, tmp_path / "out", roots=[tmp_path])
    assert report.errors == 0
    assert not any("spacing" in problem.found for problem in report.problems)
    assert (tmp_path / "out" / "report.md").is_file()


def test_a_case_far_from_the_others_is_a_warning(datalist: Path, tmp_path: Path) -> None:
    record = Datalist.load(datalist, roots=[tmp_path]).records[2]
    image = nibabel.load(record["image"])
    nibabel.save(nibabel.Nifti1Image(image.get_fdata() * 50, image.affine), record["image"])
    found = [
        problem
        for problem in check_data(datalist, tmp_path / "out", roots=[tmp_path]).problems
        if problem.case == record["case"]
    ]
    assert any("intensity, median" in problem.found for problem in found)
    assert {problem.severity for problem in found} == {"warning"}


def test_of_many_cases_some_are_drawn_and_those_with_warnings(
    datalist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "SPREAD", 3)
    monkeypatch.setattr(check, "NAMED", 1)
    drawn: list[str] = []
    monkeypatch.setattr(
        check.figures, "contact_sheet", lambda panels, path, title: drawn.extend([title, *(p.title for p in panels)])
    )
    cases = Datalist.load(datalist, roots=[tmp_path]).cases
    for number in (2, 3, 5):
        image = nibabel.load(cases[number].image)
        nibabel.save(nibabel.Nifti1Image(image.get_fdata() * 50, image.affine), cases[number].image)
    assert {problem.case for problem in check_data(datalist, tmp_path / "out", roots=[tmp_path]).problems} >= {
        cases[3].name
    }
    title, *panels = drawn
    assert title == "4 of 6 cases: the largest label, and a cut across the slices"
    assert [panel.partition("\n")[0] for panel in panels[::2]] == [cases[number].name for number in (0, 2, 3, 4)]
    assert "4 of them are drawn" in (tmp_path / "out" / "report.md").read_text()


def test_broken_cases_are_reported_and_the_others_drawn(datalist: Path, tmp_path: Path) -> None:
    first, second, *_ = Datalist.load(datalist, roots=[tmp_path]).records
    Path(first["image"]).write_bytes(b"no volume")
    labels = nibabel.load(second["label"])
    nibabel.save(nibabel.Nifti1Image(labels.get_fdata()[:-1], labels.affine), second["label"])
    report = check_data(datalist, tmp_path / "out", roots=[tmp_path])
    assert report.errors == 2
    assert (tmp_path / "out" / "contact_sheet_01.png").exists()
    text = (tmp_path / "out" / "report.md").read_text()
    assert "2 errors" in text
    assert f"| error | {first['case']} |" in text


def test_a_broken_file_is_named_whatever_its_folder_is_called(tmp_path: Path) -> None:
    folder = write_phantoms(tmp_path / "Study 1: MR", cases=2, shape=(24, 24, 6), spacing_mm=(8, 8, 20))
    scan = write_series(folder / "series", np.arange(24 * 24 * 6, dtype="u2").reshape(24, 24, 6))
    broken = scan.files[2]
    broken.write_bytes(broken.read_bytes()[:-100])
    datalist = find_datalist(folder)
    datalist.cases.append(Case(name="scan", image=str(scan.folder)))
    datalist.save(folder / "datalist.json")
    run(lambda: app(["check", str(folder / "datalist.json"), "--out", str(tmp_path / "out")], standalone_mode=False))
    text = re.sub(r"\\(.)", r"\1", (tmp_path / "out" / "report.md").read_text())
    (row,) = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| error")]
    advice = "the file is truncated: replace it"
    assert row == ["error", "scan", str(broken), "1052 bytes of pixels", "1152", advice]


def test_names_are_shown_as_they_are(datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(datalist.read_text())
    content["name"] = "<i>ours</i> *1*"
    datalist.write_text(json.dumps(content))
    record = Datalist.load(datalist, roots=[tmp_path]).records[0]
    Path(record["image"]).write_bytes(b"no volume")
    check = ["check", str(datalist), "--root", str(tmp_path / "data"), "--out", str(tmp_path / "[red]out[/red]")]
    assert run(lambda: app(check, standalone_mode=False)) in (0, 1)
    assert (tmp_path / "[red]out[/red]" / "report.md").read_text().startswith("# \\<i>ours\\</i> \\*1\\*\n")
    assert "[red]out[/red]" in capsys.readouterr().out


def test_the_command(datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def command(*arguments: str) -> int:
        try:
            return run(lambda: app([*arguments], standalone_mode=True))
        except SystemExit as stop:
            return int(stop.code or 0)

    assert command("check", str(datalist)) == 2
    assert "name its folder as a root" in capsys.readouterr().err
    root = ("--root", str(tmp_path / "data"))
    assert command("check", str(datalist), *root) == 0
    assert "0 errors" in capsys.readouterr().out
    assert (datalist.parent / "check" / "report.md").exists()
    Path(Datalist.load(datalist, roots=[tmp_path]).records[0]["label"]).unlink()
    assert command("check", str(datalist), *root, "--out", str(tmp_path / "out")) == 1
    assert "no such file" in capsys.readouterr().out
    assert command("check", str(tmp_path / "absent.json")) == 2


def test_out_must_be_a_folder(datalist: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="found a file; expected a folder"):
        check_data(datalist, tmp_path / "file", roots=[tmp_path])


def test_voxels_without_a_verdict_are_counted(datalist: Path, tmp_path: Path) -> None:
    data = Datalist.load(datalist, roots=[tmp_path])
    for number, case in enumerate(data.cases[:2], start=1):
        image = nibabel.load(case.label)
        label = np.asarray(image.dataobj).astype(np.uint8)
        label[: 6 * number] = 7  # a quarter, then a half
        nibabel.save(nibabel.Nifti1Image(label, image.affine), case.label)
    data.ignore = 7
    report = check_data(data, tmp_path / "out")
    assert report.errors == 0
    assert (
        "2 labels have voxels without a verdict, 25.0 % to 50.0 % of a label"
        in (tmp_path / "out" / "report.md").read_text()
    )
