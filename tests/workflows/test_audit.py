"""``aide audit``: from a data set and anybody's predictions to a report; everything that is wrong in one report."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from aide_monai.cli.main import app, run
from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.workflows.audit import AuditSettings, audit_data

WRONG = "phantom_004"


def aide(*arguments: object) -> int:
    """Exit code of the command, run in this process."""
    return run(lambda: app([str(a) for a in arguments], prog_name="aide", standalone_mode=False))


def load(file: Path) -> np.ndarray:
    return np.asarray(nibabel.load(file).dataobj)


def save(file: Path, voxels: np.ndarray, like: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, nibabel.load(like).affine), file)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Phantoms of which one label lacks a class, and masks of a model that has drawn all well."""
    place = tmp_path_factory.mktemp("audit")
    data = write_phantoms(place / "data", cases=10, shape=(32, 32, 8))
    for file in (data / "labelsTr").iterdir():
        name = file.name.replace(".nii.gz", "_pred.nii.gz")
        save(place / "masks" / name, load(file).astype(np.uint8), file)
    file = data / "labelsTr" / f"{WRONG}.nii.gz"
    label = load(file)
    save(file, np.where(label == label.max(), 0, label), file)
    return data, place / "masks"


@pytest.fixture
def data(stock: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(stock[0], tmp_path / "data"))


@pytest.fixture
def masks(stock: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(stock[1], tmp_path / "masks"))


def test_from_a_folder_to_a_report(data: Path, masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    before = {file: file.read_bytes() for file in data.rglob("*.nii.gz")}
    assert aide("audit", data, "--predictions", masks, "--out", out) == 0
    told = capsys.readouterr().out
    assert re.search(rf"^ *{WRONG} +missing structure +[01]\.\d\d", told, re.MULTILINE)
    assert str(out / "report.html") in told.replace("\n", "")
    assert {file: file.read_bytes() for file in data.rglob("*.nii.gz")} == before
    rows = list(csv.DictReader((out / "cases.csv").open()))
    assert (rows[0]["case"], rows[0]["suspicion"], len(rows)) == (WRONG, "missing structure", 10)
    regions = list(csv.DictReader((out / "regions.csv").open()))
    assert regions[0]["case"] == WRONG
    audit = json.loads((out / "audit.json").read_text())
    assert audit["cases"][0]["proposal"] == f"proposals/{WRONG}.nii.gz"
    assert audit["cases"][0]["label"] == str(data / "labelsTr" / f"{WRONG}.nii.gz")
    region = audit["cases"][0]["regions"][0]
    affine = nibabel.load(data / "labelsTr" / f"{WRONG}.nii.gz").affine
    assert region["place_mm"] == pytest.approx((affine @ [*region["centre"], 1])[:3])
    proposal = load(out / "proposals" / f"{WRONG}.nii.gz")
    truth = load(masks / f"{WRONG}_pred.nii.gz")
    assert np.count_nonzero(proposal != truth) < 0.05 * np.count_nonzero(truth)
    page = (out / "report.html").read_text()
    assert page.count('class="case"') == 10
    assert WRONG in page
    assert not re.search(r'(src|href)="(?!data:)|url\((?!data:)|https?://', page)


def test_every_form_of_predictions_says_the_same(data: Path, masks: Path, tmp_path: Path) -> None:
    names = {file.name.removesuffix("_pred.nii.gz"): file for file in masks.iterdir()}
    classes = range(1 + max(int(load(file).max()) for file in names.values()))
    for case, file in names.items():
        mask = load(file)
        shares = np.stack([ndimage.gaussian_filter((mask == k).astype(np.float32), 0.7) for k in classes])
        save(tmp_path / "monai" / case / f"{case}_seg.nii.gz", np.moveaxis(shares, 0, -1), file)
        save(tmp_path / "nnunet" / f"{case}.nii.gz", mask, file)
        np.savez(tmp_path / "nnunet" / f"{case}.npz", probabilities=shares.transpose(0, 3, 2, 1))
        for k in classes[1:]:
            save(tmp_path / "parts" / case / f"organ_{k}.nii.gz", (mask == k).astype(np.uint8), file)
        save(tmp_path / "renamed" / f"{case}.nii.gz", np.where(mask > 0, mask + 40, 0).astype(np.uint8), file)
    mapped = {f"organ_{k}": str(k) for k in classes[1:]}, {str(k + 40): str(k) for k in classes[1:]}
    found = [
        audit_data(data, [folder], tmp_path / f"out_{number}", AuditSettings(classes=names_of)).ranking
        for number, (folder, names_of) in enumerate(
            [
                (masks, None),
                (tmp_path / "monai", None),
                (tmp_path / "nnunet", None),
                (tmp_path / "parts", mapped[0]),
                (tmp_path / "renamed", mapped[1]),
            ]
        )
    ]
    scores = [[(v.case, round(v.score, 4), v.kind) for v in ranking.cases] for ranking in found]
    assert scores[0] == scores[1] == scores[2] == scores[3] == scores[4]
    several = audit_data(data, [masks, tmp_path / "monai"], tmp_path / "several").ranking
    assert several.cases[0].case == WRONG


def test_a_datalist_of_other_values_with_patients(data: Path, masks: Path, tmp_path: Path) -> None:
    """Proposals are written with the values of the labels, and the page knows patients."""
    content = json.loads((data / "dataset.json").read_text())
    values = [int(value) for value in content["labels"]]
    for file in (data / "labelsTr").iterdir():
        save(file, (60 * load(file)).astype(np.uint8), file)
    records = [
        {"case": Path(entry["image"]).name.split(".")[0], **entry, "quality": "low", "patient": f"p{number // 2}"}
        for number, entry in enumerate(content["training"])
    ]
    known = {key: content[key] for key in ("name", "labels", "modality")}
    classes = {str(60 * value): value for value in values}
    (data / "datalist.json").write_text(json.dumps({**known, "classes": classes, "training": records}))
    result = audit_data(data, [masks], tmp_path / "out")
    assert result.ranking.cases[0].case == WRONG
    assert set(np.unique(load(tmp_path / "out" / "proposals" / f"{WRONG}.nii.gz"))) == {60 * value for value in values}
    assert "<option>p2</option>" in (tmp_path / "out" / "report.html").read_text()


def as_datalist(data: Path, change: dict[str, object], records: dict[str, dict[str, object]]) -> None:
    """The phantoms as a datalist, with further keys of the whole and of single cases."""
    content = json.loads((data / "dataset.json").read_text())
    names = [Path(entry["image"]).name.split(".")[0] for entry in content["training"]]
    cases = [
        {"case": name, **entry, "quality": "low", **records.get(name, {})}
        for name, entry in zip(names, content["training"], strict=True)
    ]
    known = {key: content[key] for key in ("name", "labels", "modality")}
    (data / "datalist.json").write_text(json.dumps({**known, **change, "training": cases}))


def test_voxels_without_a_verdict_are_not_judged_and_stay(data: Path, masks: Path, tmp_path: Path) -> None:
    for file in (data / "labelsTr").iterdir():
        label = load(file).astype(np.uint8)
        label[:, :, :4] = 9
        save(file, label, file)
    as_datalist(data, {"ignore": 9}, {})
    result = audit_data(data, [masks], tmp_path / "out")
    assert result.ranking.cases[0].case == WRONG
    assert all(region.box[2][0] >= 4 for verdict in result.ranking.cases for region, _ in verdict.regions)
    proposal = load(tmp_path / "out" / "proposals" / f"{WRONG}.nii.gz")
    assert (proposal[:, :, :4] == 9).all()
    assert not (proposal[:, :, 4:] == 9).any()
    assert "label 255" not in (tmp_path / "out" / "report.html").read_text()


def test_structures_that_nobody_looked_for_are_not_missing(data: Path, masks: Path, tmp_path: Path) -> None:
    """The model knows two structures; one case has the first alone drawn, and says so or does not."""
    half = "phantom_002"
    for file in [*masks.iterdir(), *(data / "labelsTr").iterdir()]:
        voxels = load(file).astype(np.uint8)
        voxels[16:][voxels[16:] > 0] = 0 if file.name == f"{half}.nii.gz" else 2
        save(file, voxels, file)
    labels = {"0": "background", "1": "organ", "2": "lesion"}
    as_datalist(data, {"labels": labels}, {})
    told = {one.case: one for one in audit_data(data, [masks], tmp_path / "all").ranking.cases}
    assert {region.label for region, _ in told[half].regions} == {2}
    as_datalist(data, {"labels": labels}, {half: {"annotated": ["organ"]}})
    ranking = audit_data(data, [masks], tmp_path / "some").ranking
    told = {one.case: one for one in ranking.cases}
    assert ranking.cases[0].case == WRONG
    assert told[half].regions == ()
    assert told[half].score < 0.5
    assert not (tmp_path / "some" / "proposals" / f"{half}.nii.gz").exists()


def test_names_are_text(data: Path, masks: Path, tmp_path: Path) -> None:
    content = json.loads((data / "dataset.json").read_text())
    content["name"] = "<b>&</b>"
    content["labels"] = {value: f"<i>{name}</i>" if value != "0" else name for value, name in content["labels"].items()}
    (data / "dataset.json").write_text(json.dumps(content))
    page = audit_data(data, [masks], tmp_path / "out").folder / "report.html"
    assert "<b>" not in page.read_text()
    assert "<i>" not in page.read_text()


def test_everything_that_is_wrong_is_told_at_once(
    data: Path, masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(masks.iterdir())
    files[0].write_bytes(b"no mask")
    save(files[1], np.zeros((3, 3, 3), np.uint8), files[2])
    save(files[3], np.full(load(files[3]).shape, 9, np.uint8), files[3])
    logits = np.random.default_rng(0).normal(0, 5, (*load(files[5]).shape, 1 + int(load(files[5]).max())))
    save(files[5], logits.astype(np.float32), files[5])
    (data / "labelsTr" / "phantom_006.nii.gz").write_bytes(b"no label")
    assert aide("audit", data, "--predictions", masks, "--out", tmp_path / "out") == 2
    told = " ".join(capsys.readouterr().err.split())
    for part in (
        f"{files[0].name}: found a header that cannot be read",
        f"{files[1].name}: found shape 3 x 3 x 3; expected shape 32 x 32 x 8",
        f"{files[3].name}: found the values 9; expected some of 0",
        "apply softmax if these are logits",
        "phantom_006.nii.gz: found a header that cannot be read",
        "5 problems",
    ):
        assert part in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("DATA", "no predictions to judge by"),
        ("DATA --predictions nowhere", "nowhere: found no such folder"),
        ("DATA --predictions EMPTY", "found no predictions; expected CASE.nii.gz"),
        ("nowhere --predictions MASKS", "nowhere: found no such folder"),
        ("DATA --predictions MASKS --map 5", "--map is '5'; expected pairs"),
        ("DATA --predictions MASKS --map 5=spine", "--map 5=spine: no such class; expected one of 0 background, 1"),
        ("DATA --predictions MASKS --expected 2", "expected is 2.0; expected a value in 0.001..0.9"),
        ("DATA --predictions MASKS --out MASKS", "masks is not an empty folder; choose a new one for the audit"),
    ],
)
def test_what_cannot_be_done_is_told(
    typed: str, message: str, data: Path, masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    known = {"DATA": data, "MASKS": masks, "EMPTY": tmp_path / "empty"}
    arguments = [known.get(word, word) for word in typed.split()]
    assert aide("audit", *arguments, *([] if "--out" in typed else ["--out", tmp_path / "out"])) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_missing_partners_and_other_grids(
    data: Path, masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(masks.iterdir())
    mask, affine = load(files[0]), nibabel.load(files[0]).affine.copy()
    affine[:3, 2] /= 2
    affine[:3, 3] -= affine[:3, 2] / 2
    nibabel.save(nibabel.Nifti1Image(np.repeat(mask, 2, axis=2), affine), files[0])
    assert aide("audit", data, "--predictions", masks, "--out", tmp_path / "out") == 2
    assert "resample it (--resample)" in " ".join(capsys.readouterr().err.split())
    assert aide("audit", data, "--predictions", masks, "--out", tmp_path / "out", "--resample", "--json") == 0
    assert json.loads(capsys.readouterr().out)["cases"][0]["case"] == WRONG
    files[1].unlink()
    files[2].unlink()
    assert aide("audit", data, "--predictions", masks, "--out", tmp_path / "other") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert 'no prediction for case "phantom_001"' in told
    assert 'no prediction for case "phantom_002"' in told
