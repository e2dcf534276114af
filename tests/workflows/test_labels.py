"""The labels of a run: listed, compared, exported to where they were drawn, rolled back without a loss."""

from __future__ import annotations

import errno
import json
import os
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from rich.console import Console

from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.engines import AIDEOptions
from aide_monai.errors import InputError
from aide_monai.labels import LabelStore
from aide_monai.labels.history import LabelHistory
from aide_monai.reports.label_tables import diff_table
from aide_monai.stream.preprocessing import load_volumes, volume_transforms
from aide_monai.workflows.comparison.budget import TrainingSettings
from aide_monai.workflows.comparison.training import train_aide
from aide_monai.workflows.labels import diff, export, list_generations, open_history, rollback
from tests.holder import held_by_another

SHAPE = (18, 14, 4)
CASES = ("phantom_000", "phantom_001", "phantom_002", "phantom_003")
OBLIQUE = np.array([[0.0, 9.5, 0.5, -40.0], [-9.0, 0.0, 0.2, 60.0], [0.3, 0.4, -25.0, 7.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantoms of 18 x 14 x 4 voxels, whose axes are turned, flipped and oblique."""
    folder = write_phantoms(tmp_path_factory.mktemp("data"), cases=4, shape=SHAPE, spacing_mm=(9, 9, 25))
    for path in folder.glob("*Tr/*.nii.gz"):
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), OBLIQUE), path)
    return folder


def given(data: Path, case: str) -> nibabel.Nifti1Image:
    return nibabel.load(data / "labelsTr" / f"{case}.nii.gz")


@pytest.fixture(scope="module")
def volumes(data: Path) -> list[dict[str, Any]]:
    """As the bundles load them: padded to slices of 32 x 16."""
    records = [
        {
            "case": case,
            "quality": "low" if number else "high",
            "image": str(data / "imagesTr" / f"{case}.nii.gz"),
            "label": str(data / "labelsTr" / f"{case}.nii.gz"),
        }
        for number, case in enumerate(CASES)
    ]
    return load_volumes(records, volume_transforms(axis=2, slice_size=(32, 16)))


@pytest.fixture
def run(volumes: list[dict[str, Any]], tmp_path: Path) -> Path:
    """A run folder with two corrections: one case in epoch 1, two slices of another and a case again in epoch 3."""
    store = LabelStore.from_volumes(volumes, folder=tmp_path / "run" / "labels")
    ones = torch.ones_like(store.label(1, CASES[1]))
    store.replace(1, CASES[1], ones, epoch=1, dice_before=0.25)
    store.commit(1)
    store.replace(1, CASES[1], 2 * ones, epoch=3, dice_before=0.5)
    for position in (0, 3):
        label = ones[..., position].clone()
        label[0] = 0
        store.replace(2, CASES[2], label, epoch=3, dice_before=0.2 * position, index=(2, position))
    store.commit(3)
    return tmp_path / "run"


def foreground(data: Path, case: str) -> int:
    return int(np.count_nonzero(given(data, case).dataobj))


def test_every_generation_is_listed(run: Path, data: Path) -> None:
    rows = list_generations(run)
    records = LabelHistory.load(run / "labels").records
    assert [row["change"] for row in rows] == ["as given", "corrected", "corrected"]
    assert [row["epoch"] for row in rows] == [0, 1, 3]
    assert [row["cases"] for row in rows] == [4, 1, 2]
    size = 32 * 16 * 4
    in_slices = sum(record.voxels_changed for record in records if record.slice is not None)
    assert [row["voxels"] for row in rows] == [0, size - foreground(data, CASES[1]), size + in_slices]
    assert [row["dice_before"] for row in rows[:2]] == [None, 0.25]
    assert rows[2]["dice_before"] == pytest.approx((0.5 + 0.0 + 0.6) / 3)


def test_a_change_of_both_networks_is_told_once(volumes: list[dict[str, Any]], data: Path, tmp_path: Path) -> None:
    store = LabelStore.from_volumes(volumes, folder=tmp_path / "run" / "labels")
    ones = torch.ones_like(store.label(1, CASES[1]))
    store.replace(1, CASES[1], ones, epoch=1, dice_before=0.5)
    store.replace(2, CASES[1], ones, epoch=1, dice_before=0.5)
    store.replace(1, CASES[2], ones, epoch=1, dice_before=0.5)
    store.replace(2, CASES[2], 2 * ones, epoch=1, dice_before=0.5)
    store.commit(1)
    rows = diff(tmp_path / "run", 0, 1)
    assert sorted((row["case"], row["networks"]) for row in rows) == [
        (CASES[1], [1, 2]),
        (CASES[2], [1]),
        (CASES[2], [2]),
    ]
    told = diff_table(rows, 0, 1).notes
    assert told[0].startswith("4 labels of 2 cases differ, ")


def test_two_generations_are_compared(run: Path, data: Path) -> None:
    size, before = 32 * 16 * 4, foreground(data, CASES[1])
    assert diff(run, 0, 1) == [
        {
            "case": CASES[1],
            "networks": [1],
            "foreground_first": before,
            "foreground_second": size,
            "voxels": size - before,
            "dice": pytest.approx(2 * before / (before + size)),
        }
    ]
    backwards = diff(run, 1, 0)
    assert [(row["foreground_first"], row["foreground_second"]) for row in backwards] == [(size, before)]
    both = diff(run, 0, 2)
    assert [(row["case"], row["networks"]) for row in both] == [(CASES[1], [1]), (CASES[2], [2])]
    assert both[0]["dice"] == 0  # class 1 is gone, class 2 is new
    assert diff(run, 1, 1) == []
    long = [{**row, "case": f"a[very]_long_name_of_patient_{n}"} for n, row in enumerate(both)]
    out = StringIO()
    Console(file=out, width=60, markup=False).print(diff_table(long, 0, 2).rich("run[a]"))
    assert all(text in out.getvalue() for text in ("run[a]", *(row["case"] for row in long)))


def test_labels_written_again_without_a_change_do_not_differ(run: Path, volumes: list[dict[str, Any]]) -> None:
    store = LabelStore.from_volumes(volumes, folder=run / "labels", resume=True)
    store.replace(1, CASES[3], store.label(1, CASES[3]).clone(), epoch=5, dice_before=1.0)
    assert store.commit(5) == 3
    assert diff(run, 2, 3) == []


@pytest.mark.parametrize("network", [1, 2])
def test_the_labels_as_given_come_back_bit_by_bit(run: Path, data: Path, tmp_path: Path, network: int) -> None:
    result = export(run, 0, folder=tmp_path / "new" / "labels")
    assert (result.files, result.resampled, result.cropped) == (8, (), ())
    written = sorted(path.name for path in (tmp_path / "new" / "labels" / f"network_{network}").iterdir())
    assert written == [f"{case}.nii.gz" for case in CASES]
    for case in CASES:
        back, original = nibabel.load(tmp_path / f"new/labels/network_{network}/{case}.nii.gz"), given(data, case)
        assert np.array_equal(np.asanyarray(back.dataobj), np.asanyarray(original.dataobj))
        assert np.array_equal(back.affine, original.affine)
        assert back.shape == SHAPE
        assert back.get_data_dtype() == np.uint8
        assert back.header["scl_slope"] in (1, np.nan) or np.isnan(back.header["scl_slope"])
        assert (back.dataobj.slope, back.dataobj.inter) == (1, 0)


def test_any_generation_is_exported_without_the_padding(run: Path, data: Path, tmp_path: Path) -> None:
    export(run, 1, folder=tmp_path / "one")
    export(run, 2, folder=tmp_path / "two")

    def voxels(name: str) -> np.ndarray:
        return np.asanyarray(nibabel.load(tmp_path / f"{name}.nii.gz").dataobj)

    assert np.array_equal(voxels(f"one/network_1/{CASES[1]}"), np.ones(SHAPE))
    assert np.array_equal(voxels(f"two/network_1/{CASES[1]}"), np.full(SHAPE, 2))
    expected = np.asanyarray(given(data, CASES[2]).dataobj).copy()
    expected[..., [0, 3]] = 1  # the row that was left out lies in the padding
    assert np.array_equal(voxels(f"two/network_2/{CASES[2]}"), expected)
    assert np.array_equal(voxels(f"two/network_1/{CASES[2]}"), given(data, CASES[2]).dataobj)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "run", "two"]


def test_what_training_did_not_see_is_told(volumes: list[dict[str, Any]], data: Path, tmp_path: Path) -> None:
    from monai.transforms import CenterSpatialCropd, Spacingd

    whole = [{key: volume[key] for key in ("case", "quality", "label")} for volume in volumes]
    whole[1] = CenterSpatialCropd("label", (10, 10, 4))(whole[1])
    whole[2] = Spacingd("label", (5, 5, 25), mode="nearest")(whole[2])
    whole[2]["label"] = whole[2]["label"].to(torch.uint8)
    LabelStore.from_volumes(whole, folder=tmp_path / "labels")
    result = export(tmp_path, 0, folder=tmp_path / "out")
    assert result.cropped == (CASES[1],)
    assert result.resampled == (CASES[2],)
    back = np.asanyarray(nibabel.load(tmp_path / "out" / "network_1" / f"{CASES[1]}.nii.gz").dataobj)
    expected = np.zeros(SHAPE)
    expected[4:14, 2:12] = np.asanyarray(given(data, CASES[1]).dataobj)[4:14, 2:12]
    assert np.array_equal(back, expected)


def test_a_rollback_loses_nothing(run: Path) -> None:
    before = LabelHistory.load(run / "labels")
    assert rollback(run, 0) == 3
    after = LabelHistory.load(run / "labels")
    assert after.generations[:3] == before.generations
    assert diff(run, 0, 3) == []
    assert [(row["case"], row["networks"]) for row in diff(run, 2, 3)] == [(CASES[1], [1]), (CASES[2], [2])]
    row = list_generations(run)[-1]
    assert row == {
        "generation": 3,
        "epoch": 0,
        "change": "rolled back to 0",
        "cases": 2,
        "voxels": None,
        "dice_before": None,
    }
    assert rollback(run, 2) == 4
    assert diff(run, 2, 4) == []


def test_a_resumed_run_trains_on_the_labels_that_were_rolled_back_to(
    volumes: list[dict[str, Any]], tmp_path: Path
) -> None:
    settings = TrainingSettings(epochs=3, steps_per_epoch=1, batch_size=4, features=(4, 4, 4, 8, 8, 4))
    options = AIDEOptions.from_profile("paper", warmup_epochs=4, views=2, update_ratio=0.5, correction_foreground=0.0)
    train = partial(train_aide, volumes, settings, options=options, num_classes=2, axis=2, run_dir=tmp_path / "run")
    steps = ["first", "second"]
    with pytest.raises(IndexError):  # in the third epoch
        train(on_step=steps.pop)
    assert rollback(tmp_path / "run", 0) == 3
    store = train(resume=True)[1]
    assert store.epochs == [0, 1, 2, 0, 3]
    changed = {(change.network, change.case) for change in store.records if change.epoch == 3}
    for network in (1, 2):
        for case in store.cases:
            if (network, case) not in changed:
                assert torch.equal(store.label(network, case), store.initial(case))
    assert [row["change"] for row in list_generations(tmp_path / "run")][3] == "rolled back to 0"


def test_labels_are_found_in_every_kind_of_run_folder(run: Path, tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    demo.mkdir()
    (demo / "AIDE").symlink_to(run)
    for folder in (run, run / "labels", demo):
        assert open_history(folder).generation == 2
    (demo / "another").symlink_to(run)
    with pytest.raises(InputError, match=r"demo: found the labels of several runs; expected one of .*AIDE, .*another$"):
        open_history(demo)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match=r"empty: no labels of a run; expected a run folder with labels/journal\.jsonl"
    ):
        open_history(tmp_path / "empty")
    with pytest.raises(InputError, match=r"absent: no such folder; expected the folder of a run"):
        open_history(tmp_path / "absent")


@pytest.mark.parametrize("generation", [-1, 3])
def test_unknown_generations_are_refused(run: Path, tmp_path: Path, generation: int) -> None:
    message = rf"labels: there is no generation {generation}; expected 0\.\.2"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message):
        rollback(run, generation)
    with pytest.raises(InputError, match=message):
        export(run, generation, folder=tmp_path / "out")
    for pair in ((generation, 0), (0, generation)):
        with pytest.raises(InputError, match=message):
            diff(run, *pair)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_rollback_to_what_is_in_force_is_refused(run: Path) -> None:
    with pytest.raises(InputError, match="generation 2 is in force already; expected an earlier one"):
        rollback(run, 2)
    assert len(list_generations(run)) == 3


def test_a_rollback_waits_for_the_end_of_the_training(run: Path) -> None:
    before = (run / "labels" / "journal.jsonl").read_bytes()
    with held_by_another(run), pytest.raises(InputError, match="another run is at work in this folder"):
        rollback(run, 0)
    assert (run / "labels" / "journal.jsonl").read_bytes() == before
    rollback(run, 0)


def test_a_second_rollback_to_the_same_labels_is_refused(run: Path) -> None:
    rollback(run, 0)
    generations = len(list_generations(run))
    with pytest.raises(InputError, match="generation 0 is in force already"):
        rollback(run, 0)
    assert len(list_generations(run)) == generations


def test_an_export_takes_nothing_from_one_that_was_killed(run: Path, tmp_path: Path) -> None:
    stale = tmp_path / ".labels.tmp" / "network_1" / "stale.nii.gz"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of another run")
    export(run, 0, folder=tmp_path / "labels")
    assert not (tmp_path / "labels" / "network_1" / stale.name).exists()


def test_an_export_needs_a_folder_of_its_own(run: Path, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("mine")
    for folder in (tmp_path / "used", tmp_path / "used" / "thesis.txt"):
        with pytest.raises(InputError, match="is not an empty folder; choose a new one for the labels"):
            export(run, 0, folder=folder)
    assert (tmp_path / "used" / "thesis.txt").read_text() == "mine"
    export(run, 0, folder=tmp_path / "empty")
    assert len(list((tmp_path / "empty").rglob("*.nii.gz"))) == 8


def test_an_export_that_fails_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(tmp_path.rglob("*"))
    calls: list[Any] = []
    replace = os.replace

    def fill_up(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(*arguments)

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", fill_up)
        with pytest.raises(InputError, match=r"phantom_002\.nii\.gz: cannot be written \(No space left on device\)"):
            export(run, 0, folder=tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
    path = run / "labels" / LabelHistory.load(run / "labels").file(2, 2, CASES[3])
    path.unlink()
    with pytest.raises(InputError, match=r"00003_network_1\.npz: cannot read this stored label"):
        export(run, 2, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_that_came_from_no_file_cannot_be_exported(tmp_path: Path) -> None:
    labels = {case: torch.zeros(4, 4, 2, dtype=torch.uint8) for case in CASES}
    LabelStore(labels, folder=tmp_path / "labels")
    message = r"labels: does not know the original grid of case 'phantom_000' and 3 more; expected a run whose labels"
    with pytest.raises(InputError, match=message):
        export(tmp_path, 0, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../outside", ".hidden", "a/b", ".."])
def test_no_case_leaves_the_folder(run: Path, tmp_path: Path, name: str) -> None:
    path = run / "labels" / "journal.jsonl"
    path.write_text(path.read_text().replace(CASES[3], name))
    assert name in json.loads(path.read_text().splitlines()[0])["cases"]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        InputError, match=r"labels: case .* cannot be the name of a file; expected names without slashes"
    ):
        export(run, 0, folder=tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
